//! A daemon from the future on node 3: it speaks protocol 9 and nothing else.

use std::process::Command;
use std::time::Duration;

use o2bridge_core::NodeId;
use o2bridge_core::proto::{self, Body};
use o2bridge_e2e::{Lab, LabError, Stranger, Told};
use o2bridge_harness::wait_until;

const CONTROL: &str = "o2bridge:control";
const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const OTHER: &str = "2A00000000000000000000000000002A";
const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(15);
const SETTINGS: &str = "[timing]\ngrace_ms = 2000\n";
const WHY: &str = "node 3 speaks protocol 9 to 9, this node 1 to 1: upgrade the older one";

const HELLO: u8 = 1;
const STATE: u8 = 2;
const REFUSE: u8 = 3;

type Result<T = ()> = std::result::Result<T, LabError>;

/// The frozen envelope, with a body that nobody of today can read.
fn future(kind: u8, in_use: bool, body: &[u8]) -> Vec<u8> {
    let mut message = b"O2BR".to_vec();
    message.push(kind);
    message.extend([9, 0, 9, 0, u8::from(in_use), 9, 0]);
    message.extend(body);
    message
}

/// Node 3 has a daemon from the future in the place of ours.
fn upgraded(lab: &mut Lab) -> Result<Stranger> {
    lab.kill_daemon(3);
    wait_until("the end of node 3's daemon was to be seen", LIMIT, || {
        [1, 2].iter().all(|node| is_daemon(lab, *node, "absent"))
    })?;
    lab.stranger(3, CONTROL)
}

/// What a node thinks of node 3's daemon.
fn is_daemon(lab: &Lab, node: u32, wanted: &str) -> bool {
    let nodes = lab.status(node).map(|status| status.nodes).unwrap_or_default();
    nodes.iter().any(|node| node.node == 3 && node.daemon == wanted)
}

fn wait_incompatible(lab: &Lab) -> Result {
    Ok(wait_until("nodes 1 and 2 were to see an incompatible daemon on node 3", LIMIT, || {
        [1, 2].iter().all(|node| is_daemon(lab, *node, "incompatible"))
    })?)
}

/// Waits until nodes 1 and 2 have refused node 3 so many times.
fn wait_refused(peer: &Stranger, times: usize) -> Result {
    let is_refusal =
        |bytes: &[u8]| proto::decode(bytes).is_ok_and(|(_, body)| body == Body::Refuse(NodeId(3)));
    Ok(wait_until("nodes 1 and 2 were to refuse node 3", LIMIT, || {
        let heard = peer.heard();
        let refusals_by =
            |node| heard.iter().filter(|(from, bytes)| *from == node && is_refusal(bytes)).count();
        refusals_by(1) == times && refusals_by(2) == times
    })?)
}

#[test]
fn whoever_comes_later_is_refused_and_our_groups_go_on() -> Result {
    let mut lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
    let (mut told, mut other) = (Told::new(), Told::new());
    lab.mount(1, GROUP, MOUNT)?;
    lab.mount(2, GROUP, MOUNT)?;
    told.add(&[1], "attach 1a | suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    let mut peer = upgraded(&mut lab)?;
    peer.send(&future(HELLO, false, b"a new world"))?;
    wait_refused(&peer, 1)?;
    wait_incompatible(&lab)?;

    // It comes into the group all the same, and speaks there too.
    let mut intruder = lab.stranger(3, &format!("o2bridge:{GROUP}"))?;
    intruder.send(&future(STATE, true, b""))?;
    wait_until("nodes 1 and 2 were to count the message", LIMIT, || {
        [1, 2].iter().all(|node| lab.status(*node).is_ok_and(|s| s.garbage_messages == 1))
    })?;
    lab.expect_all(&[GROUP], &told)?;

    // Ours come and go, and die.
    lab.unmount(2, GROUP, MOUNT)?;
    told.add(&[2], "detach").add(&[1], "suspend | resume 1a");
    lab.expect(GROUP, &told)?;
    lab.mount(2, GROUP, MOUNT)?;
    told.add(&[2], "attach 1a 2b").add(&[1], "suspend | resume 1a 2b");
    lab.expect(GROUP, &told)?;
    lab.mount(1, OTHER, MOUNT)?;
    other.add(&[1], "attach 1a");
    lab.expect(OTHER, &other)?;
    assert!(is_daemon(&lab, 1, "incompatible") && is_daemon(&lab, 2, "incompatible"));

    // It ignores the refusal: what we use goes on, nothing new is begun.
    peer.send(&future(HELLO, true, b""))?;
    wait_refused(&peer, 2)?;
    assert_eq!(lab.refused(2, OTHER, MOUNT)?, ("Incompatible".to_owned(), WHY.to_owned()));
    lab.mount(1, GROUP, "/mnt/second")?;
    lab.cluster().node(2).crash();
    told.add(&[1], "suspend | node_down 2b | resume 1a");
    lab.expect(GROUP, &told)?;
    lab.expect(OTHER, &other)
}

#[test]
fn where_the_stranger_was_first_our_begin_is_refused() -> Result {
    let mut lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
    let mut peer = upgraded(&mut lab)?;
    peer.send(&future(HELLO, true, b"a new world"))?;
    wait_incompatible(&lab)?;
    for node in [1, 2] {
        let begin = lab.try_o2bridge(node, &["begin", GROUP, MOUNT])?;
        let (code, stdout, stderr) = (begin.code, begin.stdout.as_str(), begin.stderr.as_str());
        assert_eq!((code, stdout, stderr), (1, "", format!("o2bridge: {WHY}\n").as_str()));
    }
    let mut tool = Command::new(env!("CARGO_BIN_EXE_tool"));
    let mut tool = lab.cluster().node(1).spawn("tool", tool.args(["old", GROUP, MOUNT]))?;
    tool.write_line("begin").unwrap();
    assert_eq!(tool.wait_line("answer", LIMIT)?, format!("answer STATUS 71 {WHY}"));
    assert_eq!(lab.status(1)?.groups, []);
    lab.expect_all(&[], &Told::new())?;
    let refused = peer.heard().iter().any(|(_, bytes)| bytes.get(4) == Some(&REFUSE));
    assert!(!refused, "nobody refuses whoever was first");

    // It goes, and ours comes back.
    drop(peer);
    lab.start_daemon(3)?;
    lab.wait_settled(3)?;
    lab.mount(1, GROUP, MOUNT)?;
    lab.mount(3, GROUP, MOUNT)?;
    let mut told = Told::new();
    told.add(&[1], "attach 1a | suspend | resume 1a 3a").add(&[3], "attach 1a 3a");
    lab.expect_all(&[GROUP], &told)
}

#[test]
fn a_refusal_of_the_stranger_is_taken_for_what_it_is() -> Result {
    let mut lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
    let mut peer = upgraded(&mut lab)?;
    peer.send(&future(REFUSE, true, &1_u32.to_le_bytes()))?;
    peer.wait(r#""event":"message""#)?;
    wait_until("node 1 was to refuse a begin", LIMIT, || {
        lab.refused(1, GROUP, MOUNT)
            .is_ok_and(|(code, why)| (code.as_str(), why.as_str()) == ("Incompatible", WHY))
    })?;
    // It meant node 1 only.
    lab.mount(2, GROUP, MOUNT)?;
    let mut told = Told::new();
    told.add(&[2], "attach 2a");
    lab.expect_all(&[GROUP], &told)?;
    drop(peer);
    lab.start_daemon(3)?;
    lab.wait_settled(3)?;
    lab.mount(1, GROUP, MOUNT)?;
    told.add(&[1], "attach 1a 2a").add(&[2], "suspend | resume 1a 2a");
    lab.expect_all(&[GROUP], &told)
}
