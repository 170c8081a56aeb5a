//! The numbers of the old door, which tools know by heart.

use crate::common::*;

#[test]
fn every_refusal_has_its_errno() {
    let failed = |error| Refusal::Failed { what: "attach", error };
    let other = || "other".into();
    let (theirs, ours) = ((9, 9), (1, 1));
    for (refusal, errno) in [
        (Refusal::WrongCluster { volume: other(), ours: other() }, 22),
        (Refusal::DeviceMismatch, 22),
        (Refusal::NotBegun, 22),
        (Refusal::Busy, 16),
        (Refusal::InUse, 16),
        (Refusal::NoGroup, 2),
        (Refusal::NoService, 2),
        (Refusal::NothingToAck(node(1)), 2),
        (Refusal::NoCluster, 107),
        (Refusal::TimedOut(Waiting::Quorum), 110),
        (Refusal::Expelled, 116),
        (Refusal::Incompatible { node: node(2), theirs, ours }, 71),
        (failed(OpError::Errno(28)), 28),
        (failed(OpError::TimedOut), 110),
        (failed(OpError::Corosync(2)), 5),
        (failed(OpError::Agent(1)), 5),
        (failed(OpError::Unconfigured), 5),
        (Refusal::TooMany { what: "mountgroups", max: 256 }, 23),
        (Refusal::Stopping, 108),
    ] {
        assert_eq!(refusal.errno(), errno, "{refusal:?}");
        assert!(!refusal.to_string().is_empty() && !refusal.code().is_empty());
    }
}
