//! Corosync of one node stands still for five seconds. When it goes on it tells its clients first
//! that everyone else is gone: none of that may reach the shim.

use std::time::Duration;

use o2bridge_e2e::{GROUPS, Lab, Told};

const MOUNT: &str = "/srv/shared";
const FROZEN: Duration = Duration::from_secs(5);

#[test]
fn five_seconds_of_nothing() {
    let lab = Lab::builder().nodes(3).settings("[timing]\ngrace_ms = 3000\n").start().unwrap();
    let groups = &GROUPS[..2];
    for group in groups {
        for node in 1..=3 {
            lab.mount(node, group, MOUNT).unwrap();
        }
    }
    let mut told = Told::new();
    told.add(&[1], "attach 1a").add(&[2], "attach 1a 2a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1], "suspend | resume 1a 2a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(groups, &told).unwrap();

    lab.cluster().node(3).freeze_corosync();
    let frozen = std::time::Instant::now();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(groups, &told).unwrap();
    lab.expect_still(groups, &told, FROZEN.saturating_sub(frozen.elapsed())).unwrap();
    let before = lab.log(3).len();
    lab.cluster().node(3).thaw_corosync();
    lab.expect_still(groups, &told, Duration::from_secs(3)).unwrap();
    let log = lab.log(3).split_off(before);
    let heard = |line: &str| line.contains("event Confchg") && line.contains("NodeDown");
    assert!(log.lines().any(heard), "corosync of node 3 told of no death that could be believed");
    lab.wait_logged(3, "the cluster buried this node while it used the group").unwrap();
    let status = lab.status(3).unwrap();
    assert!(status.quorate, "node 3 is back in the ring");
    assert_eq!(lab.refused(3, GROUPS[0], "/srv/other").unwrap().0, "Expelled");
    lab.expect_all(groups, &told).unwrap();

    // Out of what it was buried in, it may come back.
    for group in groups {
        lab.unmount(3, group, MOUNT).unwrap();
    }
    told.add(&[3], "detach");
    lab.expect_all(groups, &told).unwrap();
    for group in groups {
        lab.mount(3, group, MOUNT).unwrap();
    }
    told.add(&[3], "attach 1a 2a 3b").add(&[1, 2], "suspend | resume 1a 2a 3b");
    lab.expect_all(groups, &told).unwrap();
}
