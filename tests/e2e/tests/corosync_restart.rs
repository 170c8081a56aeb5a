//! Corosync is stopped and started again under a daemon with a group in use: the others went on, so
//! this node is out until it has ended what it was buried in.

use std::time::{Duration, Instant};

use o2bridge_e2e::{GROUPS, Lab, Told};
use o2bridge_harness::wait_until;

const GROUP: &str = GROUPS[0];
const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(20);
const SETTINGS: &str = "[timing]\ngrace_ms = 3000\n[fencing]\nself_fence_command = \
                        [\"/bin/sh\", \"-c\", \"echo reset >>{dir}/self-fence\"]\n";

fn mounted() -> (Lab, Told) {
    let lab = Lab::builder().nodes(3).settings(SETTINGS).start().unwrap();
    for node in 1..=3 {
        lab.mount(node, GROUP, MOUNT).unwrap();
    }
    let mut told = Told::new();
    told.add(&[1], "attach 1a").add(&[2], "attach 1a 2a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1], "suspend | resume 1a 2a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(&[GROUP], &told).unwrap();
    (lab, told)
}

fn self_fenced(lab: &Lab, node: u32) -> usize {
    let path = lab.cluster().node(node).dir().join("self-fence");
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// Node 3 has learnt that it was buried, and what that means for its tools.
fn is_out(lab: &Lab, told: &Told) {
    wait_until("the command that resets node 3", LIMIT, || self_fenced(lab, 3) > 0).unwrap();
    lab.expect_still(&[GROUP], told, Duration::from_millis(1000)).unwrap();
    let (code, message) = lab.refused(3, GROUP, "/srv/other").unwrap();
    assert_eq!(code, "Expelled");
    assert!(message.contains("buried this node") && message.contains("reset"), "{message}");
    assert_eq!([1, 2, 3].map(|node| self_fenced(lab, node)), [0, 0, 1]);
    lab.expect_all(&[GROUP], told).unwrap();
}

/// After the end of its uses node 3 may begin anew.
fn returns(lab: &Lab, told: &mut Told) {
    lab.unmount(3, GROUP, MOUNT).unwrap();
    told.add(&[3], "detach");
    lab.expect_all(&[GROUP], told).unwrap();
    lab.mount(3, GROUP, MOUNT).unwrap();
    told.add(&[3], "attach 1a 2a 3b").add(&[1, 2], "suspend | resume 1a 2a 3b");
    lab.expect_all(&[GROUP], told).unwrap();
    // And it is a user like any other.
    lab.unmount(1, GROUP, MOUNT).unwrap();
    told.add(&[1], "detach").add(&[2, 3], "suspend | resume 2a 3b");
    lab.expect_all(&[GROUP], told).unwrap();
    lab.cluster().node(3).crash();
    told.add(&[2], "suspend | node_down 3b | resume 2a");
    lab.expect_all(&[GROUP], told).unwrap();
}

#[test]
fn stopped_and_started_later() {
    let (lab, mut told) = mounted();
    lab.cluster().node(3).stop_corosync().unwrap();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
    assert!(!lab.status(3).unwrap().connected);
    let (code, message) = lab.refused(3, GROUPS[1], MOUNT).unwrap();
    assert_eq!(code, "NoCluster", "{message}");
    lab.cluster().node(3).start_corosync().unwrap();
    is_out(&lab, &told);
    returns(&lab, &mut told);
}

#[test]
fn stopped_and_started_at_once() {
    let (lab, mut told) = mounted();
    lab.cluster().node(3).stop_corosync().unwrap();
    lab.cluster().node(3).start_corosync().unwrap();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
    is_out(&lab, &told);
    returns(&lab, &mut told);
}

/// So fast that no ring was formed without it: nobody went on alone, so nobody died.
#[test]
fn killed_and_back_before_its_token_was_missed() {
    let (lab, mut told) = mounted();
    let killed = Instant::now();
    lab.cluster().node(3).kill_corosync();
    lab.cluster().node(3).start_corosync().unwrap();
    if killed.elapsed() > Duration::from_millis(900) {
        let reason = format!("corosync took {:?} to be back; its token is 1 s", killed.elapsed());
        o2bridge_harness::skipped("killed_and_back_before_its_token_was_missed", &reason);
        return;
    }
    lab.wait_settled(3).unwrap();
    lab.expect_still(&[GROUP], &told, Duration::from_millis(4000)).unwrap();
    lab.mount(3, GROUP, "/srv/other").unwrap();
    lab.unmount(3, GROUP, MOUNT).unwrap();
    lab.expect_all(&[GROUP], &told).unwrap();
    lab.cluster().node(3).crash();
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect_all(&[GROUP], &told).unwrap();
}
