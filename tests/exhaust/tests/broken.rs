//! The search finds what is broken, and says how to get there.

use o2bridge_core::{Action, Event, NodeId, OpId, Verb};
use o2bridge_exhaust::search::{Search, replay};
use o2bridge_exhaust::start::Start;
use o2bridge_sim::check::Violation;
use o2bridge_sim::world::{Choice, World};

const START: &str = include_str!("../starts/fence-late.txt");

/// A driver that says of a suspend that it is done when it has only begun.
fn hasty(world: &mut World, choice: Choice) -> Result<(), Violation> {
    world.choose(choice)?;
    let begun: Vec<(NodeId, OpId)> = world
        .under_way()
        .filter(|(_, _, action)| matches!(action, Action::Verb { verb: Verb::Suspend, .. }))
        .map(|(node, op, _)| (node, op))
        .collect();
    for (node, op) in begun {
        world.intrude(node, Event::Done { op, result: Ok(()) })?;
    }
    Ok(())
}

fn start() -> Start {
    Start::parse(START).expect("a start")
}

#[test]
fn what_is_broken_is_found_and_replayed() {
    let start = start();
    let world = start.world(false).expect("a quiet beginning");
    let result = Search::new(&hasty, 0).run(world, &start, 6);
    let finding = result.expect_err("a death is told to a kernel that still grants");
    println!("{}\nagain: --replay \"{}\"", finding.violation, finding.way());
    assert_eq!(finding.violation.checker, "gate");
    let path: Vec<usize> = finding.way().split(' ').map(|it| it.parse().unwrap()).collect();
    let mut lines = Vec::new();
    let again = replay(&start, &hasty, &path, &mut |line| lines.push(line)).unwrap();
    assert_eq!(again, Some(finding.violation));
    assert!(lines.last().unwrap().contains("*** gate: n1 says NodeDown(NodeId(2)"), "{lines:#?}");
    let whole = replay(&start, &World::choose, &path, &mut |_| {}).unwrap();
    assert_eq!(whole, None, "the same way without what is broken");
}

/// Else any test would find it.
#[test]
fn the_order_of_time_alone_does_not_find_it() {
    let mut world = start().world(false).unwrap();
    let mut choices = 0;
    while let Some(first) = world.choices().first().copied() {
        hasty(&mut world, first).unwrap();
        choices += 1;
        if choices == 300 {
            break;
        }
    }
    assert!(world.counts.node_downs > 0, "{:?}", world.counts);
}

#[test]
fn a_way_that_leads_nowhere_is_said_to() {
    let start = start();
    let wrong = replay(&start, &World::choose, &[0, 99], &mut |_| {});
    assert_eq!(wrong, Err("step 1: there is no choice 99".to_owned()));
}

#[test]
fn a_bad_start_is_refused() {
    let bad = |text: &str| Start::parse(text).unwrap_err();
    assert_eq!(bad("nodes 3\n"), "it does not say 'explore_from MS'");
    assert_eq!(bad("depth x\n"), "'depth x': 'x' is no number");
    let line = bad("explore_from 5\ndepth 3\n5000 n1 dance\n");
    assert!(line.starts_with("line 3: 'n1 dance' is no step"), "{line}");
    let start = Start::parse("explore_from 3000\nexpect mounts 1\n").unwrap();
    assert_eq!(start.world(false).err(), Some("mounts is 0 at the first moment".to_owned()));
}
