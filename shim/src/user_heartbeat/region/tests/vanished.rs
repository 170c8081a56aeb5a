//! Regions that go behind our back, and what the keeper beats for them: as long as it beats anything it resets the node
//! when no daemon is there.

use o2bridge_core::{NodeId, Peers};

use super::*;
use crate::Shim;
use crate::user_heartbeat::{Slots, UserHeartbeat};

/// The whole shim; node 101 is we, and 102 a peer.
fn shim(node: &Node) -> UserHeartbeat {
    let slots = Slots::default();
    slots.set([(NodeId(101), 1), (NodeId(102), 2)].into(), NodeId(101));
    let carrier = node.carrier(Box::new(Directory)).unwrap();
    UserHeartbeat::with(Box::new(carrier), &node.paths.run_dir, slots).unwrap()
}

fn both() -> Peers {
    [(NodeId(101), Incarnation(0xa)), (NodeId(102), Incarnation(0xb))].into()
}

/// Node 102 is up in the region of this group, whose place is returned.
fn attached(node: &Node, shim: &UserHeartbeat, group: GroupId) -> PathBuf {
    let region = shim.carrier.region(group).unwrap();
    node.live(&region, "1 2");
    shim.attach(group, &both()).unwrap();
    node.keeper.take_said();
    node.cluster.join("heartbeat").join(region.name())
}

/// In global mode `o2cb offline` takes the cluster away under idle regions.
#[test]
fn a_group_that_is_left_without_a_cluster_leaves_no_beats() {
    let node = Node::new();
    node.global();
    let shim = shim(&node);
    attached(&node, &shim, group(70));
    fs::remove_dir_all(&node.cluster).unwrap();
    shim.detach(group(70)).unwrap();
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
    assert!(shim.claims.groups().is_empty());
}

/// A region that is gone is noticed between verbs, too; one that stands keeps what is up in it.
#[test]
fn what_is_beaten_for_nobody_goes_between_verbs() {
    let node = Node::new();
    node.global();
    let shim = shim(&node);
    let dir = attached(&node, &shim, group(76));
    assert_eq!(shim.tend(), None);
    assert_eq!(node.keeper.take_said(), [""; 0]);
    fs::remove_dir_all(dir).unwrap();
    node.keeper.is_dead.store(true, Ordering::Relaxed);
    assert!(shim.tend().unwrap().contains("the keeper could not clear"));
    node.keeper.is_dead.store(false, Ordering::Relaxed);
    assert_eq!(shim.tend(), None);
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
}

/// Without configfs no region is seen, and they stand all the same.
#[test]
fn where_regions_cannot_be_seen_nothing_is_cleared() {
    let node = Node::new();
    node.global();
    let shim = shim(&node);
    attached(&node, &shim, group(71));
    put(&node.paths.sys_o2cb.join("interface_revision"), "5\n");
    let hidden = node.dir.path().join("hidden");
    fs::rename(&node.paths.configfs, &hidden).unwrap();
    let why = shim.detach(group(71)).unwrap_err().to_string();
    assert!(why.contains("mount configfs on"), "{why}");
    assert_eq!(node.keeper.take_said(), [""; 0]);
    assert_eq!(shim.claims.groups().len(), 1, "it is left once that is known");
    fs::rename(&hidden, &node.paths.configfs).unwrap();
    shim.detach(group(71)).unwrap();
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
}

/// The driver went with its regions, and the place where they were seen.
#[test]
fn without_the_driver_there_is_no_region() {
    let node = Node::new();
    node.global();
    let shim = shim(&node);
    attached(&node, &shim, group(72));
    fs::remove_dir_all(&node.paths.configfs).unwrap();
    shim.detach(group(72)).unwrap();
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
}

/// Somebody took the region away and mounted with a heartbeat on the disk. That one is left alone, and of a death
/// nobody may believe that it was told.
#[test]
fn a_disk_heartbeat_in_the_place_of_our_region() {
    if !semaphores_work("a_disk_heartbeat_in_the_place_of_our_region") {
        return;
    }
    let node = Node::new();
    let shim = shim(&node);
    let dir = attached(&node, &shim, group(73));
    fs::write(dir.join("dev"), "sdb\n").unwrap();
    let death = shim.node_down(group(73), NodeId(102), Incarnation(0xb)).unwrap_err();
    assert!(
        matches!(&death, ShimError::DiskHeartbeat { device, .. } if device == "sdb"),
        "{death}"
    );
    assert_eq!(shim.claims.of(group(73)).len(), 1, "it is told again");
    shim.node_down(group(73), NodeId(102), Incarnation(0xc)).expect("another life: nobody of ours");
    assert_eq!(node.keeper.take_said(), [""; 0]);

    shim.detach(group(73)).unwrap();
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
    assert_eq!(fs::read_to_string(dir.join("dev")).unwrap(), "sdb\n");
    reference::lock(dir.file_name().unwrap().to_str().unwrap()).unwrap().remove().unwrap();
}

/// The same with one heartbeat for all: what one group needs no more cannot be lowered there, and need not be.
#[test]
fn a_disk_heartbeat_in_the_place_of_the_shared_region() {
    let node = Node::new();
    node.global();
    let shim = shim(&node);
    let dir = attached(&node, &shim, group(74));
    shim.attach(group(75), &[(NodeId(101), Incarnation(0xc))].into()).unwrap();
    fs::write(dir.join("dev"), "sdb\n").unwrap();
    for left in [74, 75] {
        shim.detach(group(left)).unwrap();
    }
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
    assert_eq!(fs::read_to_string(dir.join("dev")).unwrap(), "sdb\n");
}
