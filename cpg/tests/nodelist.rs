//! Corosync's node list changes at run time.

#[allow(dead_code, reason = "the other tests use the rest")]
mod common;

use std::process::Command;
use std::time::Duration;

use common::{Host, LIMIT};
use o2bridge_harness::{Cluster, Node, wait_until};

const THIRD: &str = " node {\n  nodeid: 3\n  name: node3\n  ring0_addr: 10.78.0.3\n }\n";

/// Changes corosync.conf of a node.
fn edit(node: &Node, change: impl Fn(&str) -> String) {
    let path = node.dir().join("etc/corosync.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text);
    std::fs::write(&path, changed).unwrap();
}

fn add_third(text: &str) -> String {
    text.replace("nodelist {\n", &format!("nodelist {{\n{THIRD}"))
}

/// Every corosync reads its own file again.
fn reload(node: &Node) {
    let output = node.run(Command::new("corosync-cfgtool").arg("-R"), LIMIT).unwrap();
    assert_eq!(output.code, 0, "{} {}", output.stdout, output.stderr);
}

/// The ids in a line of a node list.
fn ids(line: &str) -> Vec<u32> {
    let parts = line.split("NodeId(").skip(1);
    parts.map(|part| part.split(')').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_reload_that_changes_the_list_is_told_once() {
    let cluster = Cluster::builder().nodes(2).start().unwrap();
    let mut hosts: Vec<Host> =
        cluster.nodes().iter().map(|node| Host::in_channels(node, &["control"])).collect();
    for node in cluster.nodes() {
        edit(node, add_third);
    }
    reload(cluster.node(1));
    for host in &mut hosts {
        let line = host.wait("nodelist ");
        let mut found = ids(&line);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3], "{line}");
        assert!(line.contains("name: \"node3\", addresses: [\"10.78.0.3\"]"), "{line}");
    }
    // Something else changes: nothing is told.
    for node in cluster.nodes() {
        edit(node, |text| text.replace("to_stderr: no", "to_stderr: yes"));
    }
    reload(cluster.node(1));
    std::thread::sleep(Duration::from_millis(800));
    for node in cluster.nodes() {
        edit(node, |text| text.replace(THIRD, ""));
    }
    reload(cluster.node(2));
    for host in &mut hosts {
        let told = || host.with("nodelist ").len() == 2;
        wait_until("the node is gone", LIMIT, told).unwrap();
        assert_eq!(ids(&host.with("nodelist ")[1]), [1, 2]);
    }
    std::thread::sleep(Duration::from_millis(500));
    for host in &mut hosts {
        assert_eq!(host.with("nodelist ").len(), 2);
        assert_eq!(host.with("lost").len(), 0);
    }
}

/// libcpg has room for 128.
#[test]
fn more_nodes_than_libcpg_has_room_for() {
    let cluster = Cluster::builder().nodes(1).start().unwrap();
    let node = cluster.node(1);
    let others = |upto: u32| -> String {
        let entry =
            |n| format!(" node {{\n  nodeid: {n}\n  name: n{n}\n  ring0_addr: 10.78.1.{n}\n }}\n");
        (2..=upto).map(entry).collect()
    };
    let path = node.dir().join("etc/corosync.conf");
    let alone = std::fs::read_to_string(&path).unwrap();
    let mut one = Host::new(node);
    for (count, told) in [(129, "refused TooManyNodes"), (128, "connected")] {
        let list = format!("nodelist {{\n{}", others(count));
        std::fs::write(&path, alone.replace("nodelist {\n", &list)).unwrap();
        reload(node);
        one.say("connect");
        one.wait(told);
    }
}

/// A name in Latin-1: rust-corosync ends its reading there, and the nodes behind it would not exist.
#[test]
fn a_list_that_cannot_be_read_whole_is_not_used() {
    let cluster = Cluster::builder().nodes(1).start().unwrap();
    let node = cluster.node(1);
    let path = node.dir().join("etc/corosync.conf");
    let good = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = good.split_once("name: node1").unwrap();
    let torn = [head.as_bytes(), b"name: n\xf6de1", tail.as_bytes()].concat();
    let mut one = Host::in_channels(node, &["control"]);
    std::fs::write(&path, &torn).unwrap();
    reload(node);
    one.wait("notice NodelistUnread");
    let mut two = Host::new(node);
    two.say("connect");
    let line = two.wait("refused TornMap");
    assert!(line.contains("mend corosync.conf"), "{line}");
    assert_eq!(one.with("nodelist ").len(), 0);
    std::fs::write(&path, add_third(&good)).unwrap();
    reload(node);
    assert!(ids(&two.wait("connected")).contains(&3));
    assert!(ids(&one.wait("nodelist ")).contains(&3));
}

#[test]
fn a_reading_that_hangs_hurts_nobody() {
    let cluster = Cluster::builder().nodes(1).token_ms(5000).start().unwrap();
    let node = cluster.node(1);
    let mut one = Host::with_call_limit(node, 300);
    one.say("connect");
    one.wait("quorum true");
    one.say("join 1 7");
    one.wait("confchg 7");
    edit(node, add_third);
    reload(node);
    // Within the quiet moment: the reading meets a corosync that is stopped.
    node.freeze_corosync();
    one.wait("notice SlowCall { what: \"nodelist\"");
    assert!(one.is_alive_within(Duration::from_millis(200)), "the loop runs");
    node.thaw_corosync();
    one.wait("notice LateCall { what: \"nodelist\" }");
    one.say("send 7 hello");
    one.until("our message", |line| line.ends_with(" hello"));
    assert_eq!(one.with("nodelist [").len(), 0, "what came too late is not used");
    let line = one.wait("nodelist [");
    assert!(ids(&line).contains(&3), "{line}");
}

#[test]
fn after_a_restart_of_corosync_the_list_is_watched_again() {
    let cluster = Cluster::builder().nodes(1).start().unwrap();
    let node = cluster.node(1);
    let mut one = Host::in_channels(node, &["control"]);
    node.kill_corosync();
    one.wait("lost Corosync(2)");
    one.say("connect");
    node.start_corosync().unwrap();
    wait_until("connected again", LIMIT, || one.with("connected").len() == 2).unwrap();
    edit(node, add_third);
    reload(node);
    let line = one.wait("nodelist [");
    assert!(ids(&line).contains(&3), "{line}");
}
