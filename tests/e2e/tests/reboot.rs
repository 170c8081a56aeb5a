//! A node is reset and comes back: it is let in after its death was told, and its use is a new one.

use std::time::Duration;

use o2bridge_e2e::{GROUPS, Lab, LabError, Told, Verb};

const GROUP: &str = GROUPS[0];
const MOUNT: &str = "/srv/shared";

fn mounted(settings: &str) -> (Lab, Told) {
    let lab = Lab::builder().nodes(3).settings(settings).start().unwrap();
    for node in 1..=3 {
        lab.mount(node, GROUP, MOUNT).unwrap();
    }
    let mut told = Told::new();
    told.add(&[1], "attach 1a").add(&[2], "attach 1a 2a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1], "suspend | resume 1a 2a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(&[GROUP], &told).unwrap();
    (lab, told)
}

fn reboot(lab: &mut Lab) -> Result<(), LabError> {
    lab.cluster().node(3).reboot()?;
    start(lab)
}

fn start(lab: &mut Lab) -> Result<(), LabError> {
    lab.cluster().node(3).start_corosync()?;
    lab.start_daemon(3)?;
    lab.wait_settled(3)
}

/// The survivors' shims have heard of the death before the node's own shim hears anything.
fn let_in_after_the_death(lab: &Lab) {
    let at = |node: u32, is: fn(&Verb) -> bool| {
        let records = lab.records(node).unwrap();
        records.into_iter().rev().find(|record| is(&record.verb)).unwrap().at_us
    };
    let attached = at(3, |verb| matches!(verb, Verb::Attach(_)));
    for node in [1, 2] {
        let died = at(node, |verb| matches!(verb, Verb::NodeDown(_)));
        assert!(
            died < attached,
            "node 3 attached before the shim of node {node} knew of its death"
        );
    }
}

#[test]
fn back_after_its_death_was_told() {
    let (mut lab, mut told) = mounted("");
    lab.cluster().node(3).crash();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
    reboot(&mut lab).unwrap();
    lab.expect_still(&[GROUP], &told, Duration::from_millis(500)).unwrap();
    lab.mount(3, GROUP, MOUNT).unwrap();
    told.add(&[1, 2], "suspend | resume 1a 2a 3b").add(&[3], "attach 1a 2a 3b");
    lab.expect_all(&[GROUP], &told).unwrap();
    let_in_after_the_death(&lab);
    // The second life ends like the first.
    lab.cluster().node(3).crash();
    told.add(&[1, 2], "suspend | node_down 3b | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
}

/// So fast that corosync never missed it: the other boot is what gives it away.
#[test]
fn back_before_its_token_was_missed() {
    let (mut lab, mut told) = mounted("");
    reboot(&mut lab).unwrap();
    lab.mount(3, GROUP, MOUNT).unwrap();
    told.add(&[3], "attach 1a 2a 3b").add(&[1, 2], "suspend | node_down 3a");
    // Whether the newcomer comes with the resume after the death or with one of its own depends on
    // how fast it is; it is never there before the death.
    let seen = lab.told(GROUP).unwrap();
    for node in [1, 2] {
        let apart = seen.of(node).len() > told.of(node).len() + 1;
        let rest =
            if apart { "resume 1a 2a | suspend | resume 1a 2a 3b" } else { "resume 1a 2a 3b" };
        told.add(&[node], rest);
    }
    lab.expect_all(&[GROUP], &told).unwrap();
    let_in_after_the_death(&lab);
}

/// Another boot is proof enough for any policy, and nothing is told before it.
#[test]
fn a_reboot_is_a_proof() {
    let (mut lab, mut told) = mounted("[timing]\ngrace_ms = 3000\n[fencing]\npolicy = \"ack\"\n");
    lab.cluster().node(3).crash();
    told.add(&[1, 2], "suspend");
    lab.expect_all(&[GROUP], &told).unwrap();
    lab.expect_still(&[GROUP], &told, Duration::from_millis(1500)).unwrap();
    reboot(&mut lab).unwrap();
    told.add(&[1, 2], "node_down 3a | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
    lab.mount(3, GROUP, MOUNT).unwrap();
    told.add(&[1, 2], "suspend | resume 1a 2a 3b").add(&[3], "attach 1a 2a 3b");
    lab.expect_all(&[GROUP], &told).unwrap();
    let_in_after_the_death(&lab);
}
