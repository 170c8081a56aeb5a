//! What no mutated core can show, because another checker would speak first.

use o2bridge_core::{Incarnation, NodeId, Peers, ServiceName};

use crate::kernel::Region;
use crate::options::{Options, Policy, ShimKind};
use crate::step::volume;
use crate::time::Micros;
use crate::volume::{Fate, Journal, Owner};
use crate::world::World;

/// Node 1 has the volume mounted and wants the lock that node 2 died with; it knows nothing of that node.
fn at_a_dead_nodes_lock(journal: Journal) -> World {
    let options = Options::quiet(2, 1, Policy::Agent, ShimKind::FsDlm);
    let mut world = World::new(options, &[], false);
    assert_eq!(world.run_until(Micros::of_ms(3_000)), Ok(()));
    let group = volume(0);
    let owner = |n: u32, boot| Owner { node: NodeId(n), boot, incarnation: Incarnation(7) };
    let machine = world.machines.get_mut(&NodeId(1)).unwrap();
    let known = Peers::from([(NodeId(1), Incarnation(7))]);
    machine.kernel.regions.insert(group, Region { known, suspended: false, asked: false });
    let service = ServiceName::new(ServiceName::OCFS2).unwrap();
    machine.kernel.mounts.insert(group, [service].into());
    let (ours, dead) = (owner(1, machine.boot), owner(2, 0));
    let disk = world.volumes.entry(group).or_default();
    disk.fates.insert(dead, Fate::Died);
    disk.journals.insert(dead, journal);
    disk.lock = Some(dead);
    disk.waiting.push(ours);
    world
}

#[test]
fn a_lock_before_its_recovery() {
    for (journal, by) in [(Journal::Dirty, Some("lock")), (Journal::Replayed, None)] {
        let mut world = at_a_dead_nodes_lock(journal);
        world.grant_lock(volume(0));
        assert_eq!(world.violation.map(|it| it.checker), by);
        assert_eq!(world.counts.locks, 1);
    }
}

/// Whoever knows the dead node grants nothing that it holds.
#[test]
fn a_lock_is_not_granted_by_who_knows_its_holder() {
    let mut world = at_a_dead_nodes_lock(Journal::Dirty);
    let machine = world.machines.get_mut(&NodeId(1)).unwrap();
    let region = machine.kernel.regions.get_mut(&volume(0)).unwrap();
    region.known.insert(NodeId(2), Incarnation(7));
    world.grant_lock(volume(0));
    assert_eq!((world.violation, world.counts.locks), (None, 0));
}
