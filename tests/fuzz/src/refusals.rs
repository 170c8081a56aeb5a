//! What the core refuses, one of each.

use o2bridge_core::{LockingProtocol, NodeId, OpError, Refusal, Waiting};

/// All refusals, the longest of their kind; `words` are those of a tool that it hears again.
#[must_use]
pub fn refusals(words: &str) -> Vec<Refusal> {
    let node = NodeId(u32::MAX);
    let protocol = LockingProtocol { major: u8::MAX, minor: u8::MAX };
    let versions = (u16::MAX, u16::MAX);
    let too_late = [Waiting::Cluster, Waiting::Quorum, Waiting::Fencing(node), Waiting::Peer(node)];
    let mut all = vec![
        Refusal::WrongCluster { volume: words.into(), ours: words.into() },
        Refusal::DeviceMismatch,
        Refusal::Busy,
        Refusal::InUse,
        Refusal::NoGroup,
        Refusal::NoService,
        Refusal::NotBegun,
        Refusal::NoCluster,
        Refusal::TimedOut(Waiting::Shim("node_down")),
        Refusal::TimedOut(Waiting::Nothing),
        Refusal::Expelled,
        Refusal::Incompatible { node, theirs: versions, ours: versions },
        Refusal::LockingMismatch { node, theirs: protocol, ours: protocol },
        Refusal::Failed { what: "attach", error: OpError::Errno(28) },
        Refusal::Failed { what: "save", error: OpError::TimedOut },
        Refusal::TooMany { what: "services of one group", max: usize::MAX },
        Refusal::NothingToAck(node),
        Refusal::Stopping,
    ];
    all.extend(too_late.map(Refusal::TimedOut));
    all
}
