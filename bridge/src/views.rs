//! Who uses a volume, in three views side by side: what the daemons say, what fs/dlm has in this node's
//! kernel, and who is in corosync's ring. They are made by different programs from the same corosync, so
//! they differ for moments; when they go on differing, something is wrong.

use std::collections::BTreeSet;

use o2bridge_core::snapshot::GroupStatus;
use o2bridge_core::{GroupId, NodeId, Snapshot};
use o2bridge_shim::volume::Lockspaces;
use serde::{Deserialize, Serialize};

/// The views of one volume of a user stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// The volume's UUID, 32 upper-case hex digits.
    pub group: String,
    /// The nodes whose daemons say that they use it.
    pub daemons: Vec<u32>,
    /// The nodes that fs/dlm has in its lockspace; `None` if there is no lockspace here.
    pub lockspace: Option<Vec<u32>>,
    /// The nodes in corosync's ring.
    pub ring: Vec<u32>,
    /// Where they differ, in words.
    pub disagreement: Option<String>,
}

/// The views of each volume that has a group or a lockspace here. `ahead`: whether a group may be used
/// without a lockspace.
#[must_use]
pub fn views(snapshot: &Snapshot, lockspaces: &Lockspaces, ahead: bool) -> Vec<Views> {
    let in_ring = snapshot.nodes.iter().filter(|node| node.in_ring);
    let ring: BTreeSet<NodeId> = in_ring.map(|node| node.node).collect();
    let groups = snapshot.groups.iter().map(|group| group.group);
    let all: BTreeSet<GroupId> = groups.chain(lockspaces.keys().copied()).collect();
    let one = |id: GroupId| {
        let group = snapshot.groups.iter().find(|group| group.group == id);
        let daemons = group.map(users).unwrap_or_default();
        let lockspace = lockspaces.get(&id);
        let disagreement = if snapshot.quorate {
            differ(&daemons, lockspace, &ring, ahead)
        } else {
            Some("this node is outside quorum: fs/dlm stands still".into())
        };
        Views {
            group: id.to_string(),
            daemons: numbers(&daemons),
            lockspace: lockspace.map(numbers),
            ring: numbers(&ring),
            disagreement,
        }
    };
    all.into_iter().map(one).collect()
}

/// Those who are on their way in or out are not in both views yet, or any more.
fn users(group: &GroupStatus) -> BTreeSet<NodeId> {
    let users = group.members.iter().filter(|member| member.state == "member");
    users.map(|member| member.node).collect()
}

fn numbers(nodes: &BTreeSet<NodeId>) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn differ(
    daemons: &BTreeSet<NodeId>,
    lockspace: Option<&BTreeSet<NodeId>>,
    ring: &BTreeSet<NodeId>,
    ahead: bool,
) -> Option<String> {
    let none = BTreeSet::new();
    let locked = lockspace.unwrap_or(&none);
    let mut found = Vec::new();
    let mut say = |nodes: BTreeSet<NodeId>, what: &str| {
        if !nodes.is_empty() {
            let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            found.push(format!("node {} {what}", nodes.join(", ")));
        }
    };
    say(locked - daemons, "is in the lockspace, and no o2bridged there says so");
    if !ahead {
        say(daemons - locked, "uses the volume, and is not in the lockspace");
    }
    say(&(locked | daemons) - ring, "is not in corosync's ring");
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u32]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn said(daemons: &[u32], lockspace: Option<&[u32]>, ring: &[u32], ahead: bool) -> String {
        let lockspace = lockspace.map(nodes);
        differ(&nodes(daemons), lockspace.as_ref(), &nodes(ring), ahead).unwrap_or_default()
    }

    #[test]
    fn equal_views_agree() {
        assert_eq!(said(&[1, 2], Some(&[1, 2]), &[1, 2, 3], false), "");
        assert_eq!(said(&[], None, &[1], false), "");
        assert_eq!(said(&[1, 2], None, &[1, 2], true), "", "ready, and not mounted");
        assert_eq!(said(&[1, 2], Some(&[1]), &[1, 2], true), "");
    }

    #[test]
    fn each_difference_has_its_words() {
        let silent = "node 2, 3 is in the lockspace, and no o2bridged there says so";
        assert_eq!(said(&[1], Some(&[1, 2, 3]), &[1, 2, 3], false), silent);
        assert_eq!(said(&[1], Some(&[1, 2, 3]), &[1, 2, 3], true), silent);
        let unknown = "node 2 uses the volume, and is not in the lockspace";
        assert_eq!(said(&[1, 2], Some(&[1]), &[1, 2], false), unknown);
        let gone = "node 2 is not in corosync's ring";
        assert_eq!(said(&[1, 2], Some(&[1, 2]), &[1], false), gone);
        assert_eq!(said(&[2], None, &[1], true), gone);
        let both = said(&[1], Some(&[1, 2]), &[1], false);
        assert!(both.contains("no o2bridged") && both.contains("; node 2 is not in"), "{both}");
    }
}
