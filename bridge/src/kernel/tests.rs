use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use o2bridge_core::{Incarnation, Peers, SavedGroup, Users};
use o2bridge_shim::user_heartbeat::View;

use super::*;

/// Does nothing; says what it was told to.
#[derive(Default)]
pub(super) struct Fake {
    /// What is amiss.
    pub(super) complaint: Mutex<Option<String>>,
    groups: BTreeSet<GroupId>,
    /// How long each takes that is to go.
    each: Duration,
    detached: Mutex<Vec<GroupId>>,
}

impl Shim for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn attach(&self, _: GroupId, _: &Peers) -> Result<(), ShimError> {
        Ok(())
    }

    fn suspend(&self, _: GroupId) -> Result<(), ShimError> {
        Ok(())
    }

    fn node_down(&self, _: GroupId, _: NodeId, _: Incarnation) -> Result<(), ShimError> {
        Ok(())
    }

    fn resume(&self, _: GroupId, _: &Peers) -> Result<(), ShimError> {
        Ok(())
    }

    fn detach(&self, group: GroupId) -> Result<(), ShimError> {
        std::thread::sleep(self.each);
        self.detached.lock().unwrap().push(group);
        Ok(())
    }

    fn view(&self) -> Option<View> {
        Some(View {
            carrier: "fake",
            device: None,
            regions: Vec::new(),
            groups: self.groups.clone(),
            disk_heartbeats: BTreeMap::new(),
            is_partial: false,
        })
    }

    fn tend(&self) -> Option<String> {
        self.complaint.lock().unwrap().clone()
    }
}

#[test]
fn what_is_forgotten_goes_and_does_not_keep_the_loop_waiting() {
    let log = Logger::root(slog::Discard, slog::o!());
    let kept = SavedGroup {
        incarnation: Incarnation(1),
        services: Vec::new(),
        device: None,
        told: Users::new(),
        unfinished: false,
    };
    let saved = Saved { groups: [(GroupId(2), kept)].into(), ..Saved::default() };
    for (each_ms, daemon_back_ms, expected) in [
        (0, 20_000, [1, 3, 4].as_slice()),
        (2 * LEFT_OVER_MS, 20_000, &[1]),
        (LEFT_OVER_MS * 3 / 5, 2 * LEFT_OVER_MS, &[1]),
    ] {
        let groups = (1..=4).map(GroupId).collect();
        let each = Duration::from_millis(each_ms);
        let shim = Fake { groups, each, ..Fake::default() };
        detach_forgotten(&shim, &saved, daemon_back_ms, &log);
        let expected: Vec<_> = expected.iter().copied().map(GroupId).collect();
        assert_eq!(*shim.detached.lock().unwrap(), expected);
    }
}

#[test]
fn the_threshold_in_force_is_that_of_a_cluster_with_regions() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(threshold_in_force(dir.path()), None);
    let heartbeat = dir.path().join("cluster/lab/heartbeat");
    std::fs::create_dir_all(&heartbeat).unwrap();
    std::fs::write(heartbeat.join("dead_threshold"), "21\n").unwrap();
    assert_eq!(threshold_in_force(dir.path()), None, "without a region it can still be set");
    std::fs::create_dir(heartbeat.join("0A")).unwrap();
    assert_eq!(threshold_in_force(dir.path()), Some(21));
}
