//! Two nodes begin and leave the same group, as fast as they can, for a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use o2bridge::client::{Begin, ClientError, GroupId};
use o2bridge_e2e::{Lab, Told};

const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const MOUNT: &str = "/srv/shared";
const MINUTE: Duration = Duration::from_secs(60);

/// What became of the calls of one node.
#[derive(Debug, Default)]
struct Count {
    rounds: u32,
    /// Failed mounts: taken back by their complete.
    failed: u32,
}

/// Begins and leaves until the end; every third mount fails.
fn turn(lab: &Lab, node: u32, end: Instant) -> Result<Count, ClientError> {
    let group: GroupId = GROUP.parse().unwrap();
    let mut client = lab.client(node).unwrap();
    let mut count = Count::default();
    while Instant::now() < end {
        client.begin(&Begin::new(group, MOUNT))?;
        count.rounds += 1;
        if count.rounds % 3 == 0 {
            client.complete(group, MOUNT, 32)?;
            count.failed += 1;
        } else {
            client.complete(group, MOUNT, 0)?;
            client.leave(group, MOUNT)?;
        }
    }
    Ok(count)
}

/// A line as its verb and the uses that it names, as numbers in the order of the cluster.
fn parse(line: &str) -> (&str, BTreeMap<u32, usize>) {
    let mut words = line.split(' ');
    let verb = words.next().unwrap();
    let use_ = |word: &str| {
        let at = word.find(|c: char| c.is_ascii_lowercase()).unwrap();
        let rank =
            word[at..].bytes().fold(0, |rank, letter| 26 * rank + usize::from(letter - b'a'));
        (word[..at].parse().unwrap(), rank)
    };
    (verb, words.map(use_).collect())
}

/// Checks the file of one node; gives the uses of the group by the node itself and by the other.
fn check(lines: &[String], me: u32, other: u32) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    let mut state = "detach";
    let mut now = 0;
    for (number, line) in lines.iter().enumerate() {
        let (verb, uses) = parse(line);
        let at = format!("node {me}, line {}: {line}, after {state}", number + 1);
        let follows = match verb {
            "attach" => state == "detach",
            "suspend" => state == "attach" || state == "resume",
            "resume" => state == "suspend",
            "detach" => state != "detach",
            _ => false,
        };
        assert!(follows, "{at}");
        if verb == "attach" {
            now = uses[&me];
            assert!(own.last().is_none_or(|last| *last < now), "a use anew: {at}");
            own.insert(now);
        }
        if verb == "attach" || verb == "resume" {
            assert_eq!(uses.get(&me), Some(&now), "{at}");
            if let Some(use_) = uses.get(&other) {
                assert!(others.last().is_none_or(|last| last <= use_), "a use of the past: {at}");
                others.insert(*use_);
            }
        }
        state = verb;
    }
    assert_eq!(state, "detach", "node {me} ends detached");
    (own, others)
}

#[test]
fn two_nodes_in_a_tight_loop() {
    let lab = Lab::builder().nodes(3).start().unwrap();
    let end = Instant::now() + MINUTE;
    let counts: Vec<_> = std::thread::scope(|scope| {
        let turns = [1, 2].map(|node| {
            let lab = &lab;
            scope.spawn(move || turn(lab, node, end))
        });
        turns.map(|turn| turn.join().unwrap()).into()
    });
    // Each leave is answered when it is over, so nothing is ever refused, not even as Busy.
    let counts: Vec<Count> = counts.into_iter().map(|count| count.unwrap()).collect();
    let told = lab.told(GROUP).unwrap();
    let (own_1, heard_of_2) = check(told.of(1), 1, 2);
    let (own_2, heard_of_1) = check(told.of(2), 2, 1);
    for (node, own, count, lines) in
        [(1, &own_1, &counts[0], told.of(1)), (2, &own_2, &counts[1], told.of(2))]
    {
        println!("node {node}: {count:?}, {} lines", lines.len());
        assert_eq!(own.len(), count.rounds as usize, "node {node}: one attach for each begin");
        assert!(count.rounds > 100, "node {node} was too slow to prove anything: {count:?}");
    }
    println!("node 1 saw {} uses by node 2, {} the other way", heard_of_2.len(), heard_of_1.len());
    assert!(heard_of_1.is_subset(&own_1) && heard_of_2.is_subset(&own_2), "uses that never were");
    assert!(!heard_of_1.is_empty() && !heard_of_2.is_empty(), "they never met");
    assert_eq!(told.of(3), Told::new().of(3));
    for node in 1..=3 {
        let status = lab.status(node).unwrap();
        assert_eq!(status.groups, []);
        assert_eq!(status.garbage_messages, 0);
        assert!(status.nodes.iter().all(|node| node.groups == 0), "{status:?}");
    }
}
