//! o2bridged alone is killed: its node lives, and so does what it mounted. Its daemon has a grace.

use std::time::{Duration, Instant};

use o2bridge_e2e::{GROUPS, Lab, Told};
use o2bridge_harness::{Signal, wait_until};

const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(20);

fn mounted(grace_ms: u32) -> (Lab, Told) {
    let settings = format!("[timing]\ngrace_ms = {grace_ms}\n");
    let lab = Lab::builder().nodes(3).settings(&settings).start().unwrap();
    for group in &GROUPS[..2] {
        for node in 1..=3 {
            lab.mount(node, group, MOUNT).unwrap();
        }
    }
    let mut told = Told::new();
    told.add(&[1], "attach 1a").add(&[2], "attach 1a 2a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1], "suspend | resume 1a 2a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(&GROUPS[..2], &told).unwrap();
    (lab, told)
}

#[test]
fn back_in_time_is_nothing_at_all() {
    let (mut lab, mut told) = mounted(3000);
    for node in [3, 1] {
        lab.kill_daemon(node);
        lab.wait_logged(2, "the daemon of the node is silent").unwrap();
        lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(1500)).unwrap();
        lab.start_daemon(node).unwrap();
        lab.wait_settled(node).unwrap();
        // Longer than the grace.
        lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(3500)).unwrap();
    }
    // The daemon that is back goes on where its predecessor stopped.
    lab.unmount(3, GROUPS[0], MOUNT).unwrap();
    let mut again = told.clone();
    again.add(&[3], "detach").add(&[1, 2], "suspend | resume 1a 2a");
    // A node that is slow would be told of both changes at once.
    lab.expect(GROUPS[0], &again).unwrap();
    lab.mount(3, GROUPS[0], MOUNT).unwrap();
    again.add(&[3], "attach 1a 2a 3b").add(&[1, 2], "suspend | resume 1a 2a 3b");
    lab.expect(GROUPS[0], &again).unwrap();
    lab.cluster().node(3).crash();
    again.add(&[1, 2], "suspend | node_down 3b | resume 1a 2a");
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect(GROUPS[0], &again).unwrap();
    lab.expect(GROUPS[1], &told).unwrap();
}

/// Its timers say that the other was away for too long, and it was back in time.
#[test]
fn a_daemon_that_stood_still_judges_nobody() {
    let (mut lab, told) = mounted(3000);
    lab.kill_daemon(3);
    lab.wait_logged(1, "the daemon of the node is silent").unwrap();
    lab.daemon(1).unwrap().signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(2000));
    lab.start_daemon(3).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    lab.daemon(1).unwrap().signal(Signal::SIGCONT);
    lab.wait_logged(1, "this daemon stood still for").unwrap();
    lab.wait_settled(3).unwrap();
    lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(3500)).unwrap();
    assert!(lab.cluster().node(3).has_corosync(), "it was ended for the silence of somebody else");
}

#[test]
fn not_back_is_killed_and_dead_once() {
    let (mut lab, mut told) = mounted(3000);
    let killed = Instant::now();
    lab.kill_daemon(3);
    lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(1500)).unwrap();
    assert!(lab.cluster().node(3).has_corosync(), "the node was ended within the grace");
    wait_until("the end of corosync of node 3", LIMIT, || !lab.cluster().node(3).has_corosync())
        .unwrap();
    assert!(killed.elapsed() > Duration::from_millis(3000), "before the grace was over");
    lab.wait_logged(1, "corosync is asked to end the node").unwrap();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&GROUPS[..2], &told).unwrap();
    lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(1000)).unwrap();
}

/// Without a use there is nothing to fence for.
#[test]
fn a_daemon_without_uses_may_stay_away() {
    let (mut lab, mut told) = mounted(1000);
    for group in &GROUPS[..2] {
        lab.unmount(3, group, MOUNT).unwrap();
    }
    told.add(&[3], "detach").add(&[1, 2], "suspend | resume 1a 2a");
    lab.expect_all(&GROUPS[..2], &told).unwrap();
    lab.kill_daemon(3);
    lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(2500)).unwrap();
    assert!(lab.cluster().node(3).has_corosync());
    lab.unmount(2, GROUPS[1], MOUNT).unwrap();
    let mut left = told.clone();
    left.add(&[2], "detach").add(&[1], "suspend | resume 1a");
    lab.expect(GROUPS[1], &left).unwrap();
    lab.expect(GROUPS[0], &told).unwrap();
}

#[test]
fn a_death_while_a_daemon_is_away_reaches_it() {
    let (mut lab, mut told) = mounted(10_000);
    lab.kill_daemon(2);
    lab.wait_logged(1, "the daemon of the node is silent").unwrap();
    lab.cluster().node(3).crash();
    let mut first = told.clone();
    first.add(&[1], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&GROUPS[..2], &first).unwrap();
    lab.start_daemon(2).unwrap();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&GROUPS[..2], &told).unwrap();
    lab.wait_settled(2).unwrap();
    lab.expect_still(&GROUPS[..2], &told, Duration::from_millis(1000)).unwrap();
}
