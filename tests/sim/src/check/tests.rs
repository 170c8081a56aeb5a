//! What no mutated core can show, because another checker would speak first.

use o2bridge_core::proto::{self, Body, Hello};
use o2bridge_core::{
    Action, BootId, Channel, Event, Incarnation, Locking, Member, NodeId, OpId, Peers, Pid, Reason,
    Reply, RequestId, SavedGroup, SavedService, ServiceName, User, Users, Verb,
};

use crate::check::Patience;
use crate::kernel::Region;
use crate::machine::{Daemon, Power};
use crate::options::{Options, Policy, ShimKind};
use crate::step::volume;
use crate::time::Micros;
use crate::volume::{Fate, Journal, Owner};
use crate::world::{JOBS_EACH_MAX, World};

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

/// A cluster of two in which nothing happens.
fn idle() -> World {
    let mut world = World::new(Options::quiet(2, 1, Policy::Agent, ShimKind::Record), &[], false);
    assert_eq!(world.run_until(Micros::of_ms(5_000)), Ok(()));
    world
}

#[test]
fn a_run_that_never_ends() {
    let mut world = idle();
    world.jobs = JOBS_EACH_MAX * 2;
    let violation = world.run_until(Micros::of_ms(60_000)).unwrap_err();
    assert_eq!(violation.checker, "growth");
    assert_eq!(violation.text, "the run does not come to an end");
}

#[test]
fn effects_that_pile_up() {
    let mut world = idle();
    let daemon = world.machines.get_mut(&NodeId(1)).unwrap().daemon.as_mut().unwrap();
    let fence = |op| (OpId(op), Action::Fence { op: OpId(op), node: NodeId(2), level: 0 });
    daemon.effects.extend((1_000..1_100).map(fence));
    let life = world.machines[&NodeId(1)].life;
    world.tell(NodeId(1), life, Event::Stalled);
    assert_eq!(world.violation.map(|it| it.text), Some("n1 has begun 100 effects".to_owned()));
}

#[test]
fn users_that_pile_up() {
    for (users, by) in [(2, None), (3, Some("growth"))] {
        let mut world = idle();
        let user = |n| (NodeId(n), User { incarnation: Incarnation(7), boot: BootId(n.into()) });
        let told: Users = (1..=users).map(user).collect();
        let image = SavedGroup {
            incarnation: Incarnation(7),
            services: vec![],
            device: None,
            told,
            unfinished: false,
        };
        assert_eq!(world.save(NodeId(1), volume(0), Some(image)), Ok(()));
        assert_eq!(world.violation.map(|it| it.checker), by);
    }
}

/// Node 2 has the volume mounted, and its kernel and node 1's know each other.
fn both_use_it() -> World {
    let mut world = idle();
    let group = volume(0);
    let known = Peers::from([1, 2].map(|n| (NodeId(n), Incarnation(7))));
    for machine in world.machines.values_mut() {
        let region = Region { known: known.clone(), suspended: false, asked: true };
        machine.kernel.regions.insert(group, region);
        let service = ServiceName::new(ServiceName::OCFS2).unwrap();
        machine.kernel.mounts.insert(group, [service].into());
        let owner = Owner { node: machine.id, boot: machine.boot, incarnation: Incarnation(7) };
        world.volumes.entry(group).or_default().fates.insert(owner, Fate::Active);
    }
    world
}

#[test]
fn who_can_still_write_is_recovered() {
    let mut world = both_use_it();
    world.recover(NodeId(1), volume(0), NodeId(2), Incarnation(7));
    assert_eq!(world.violation.map(|it| it.checker), Some("buried alive"));

    let mut world = both_use_it();
    world.machines.get_mut(&NodeId(2)).unwrap().lose_power(ShimKind::Record);
    world.recover(NodeId(1), volume(0), NodeId(2), Incarnation(7));
    assert_eq!(world.violation, None);
}

#[test]
fn a_use_that_comes_back() {
    let mut world = both_use_it();
    let group = volume(0);
    let all = world.machines[&NodeId(1)].kernel.regions[&group].known.clone();
    let alone = Peers::from([(NodeId(1), Incarnation(7))]);
    let fates = &mut world.volumes.get_mut(&group).unwrap().fates;
    fates.values_mut().for_each(|fate| *fate = Fate::Ended);
    for (peers, by) in [(alone, None), (all, Some("view"))] {
        let verb = Verb::Resume(peers);
        world.check_told(NodeId(1), group, &verb);
        let kernel = &mut world.machines.get_mut(&NodeId(1)).unwrap().kernel;
        assert_eq!(kernel.apply(group, &verb), Ok(()));
        assert_eq!(world.violation.as_ref().map(|it| it.checker), by);
    }
}

/// As [`both_use_it`], node 1's file says so, and node 2 is gone: then node 1 may be told of its death.
fn one_is_gone() -> World {
    let mut world = both_use_it();
    world.machines.get_mut(&NodeId(2)).unwrap().lose_power(ShimKind::Record);
    let user = |n| (NodeId(n), User { incarnation: Incarnation(7), boot: BootId(n.into()) });
    let image = SavedGroup {
        incarnation: Incarnation(7),
        services: vec![],
        device: None,
        told: [1, 2].map(user).into(),
        unfinished: true,
    };
    world.machines.get_mut(&NodeId(1)).unwrap().saved.groups.insert(volume(0), image);
    world
}

/// Each rule of what may be said to a kernel speaks when nothing but what it is for is wrong.
#[test]
fn what_must_not_be_said_to_a_kernel() {
    type Rule = (fn(&mut World), Verb, Option<(&'static str, &'static str)>);
    let down = |n| Verb::NodeDown(NodeId(n), Incarnation(7));
    let rules: [Rule; 8] = [
        (|_| {}, down(2), None),
        (
            |world| first(world).quorum.as_mut().unwrap().0 = false,
            Verb::Suspend,
            Some(("gate", "outside quorum")),
        ),
        (
            |world| first(world).totems.values_mut().for_each(|ring| ring.seq += 1),
            down(2),
            Some(("gate", "is not there")),
        ),
        (|_| {}, down(1), Some(("gate", "buries itself"))),
        (
            |world| world.machines.get_mut(&NodeId(2)).unwrap().power = Power::On,
            down(2),
            Some(("gate", "which runs")),
        ),
        (|world| region(world).asked = false, down(2), Some(("gate", "before suspend"))),
        (
            |world| {
                let machine = world.machines.get_mut(&NodeId(1)).unwrap();
                machine.told_down.insert((volume(0), NodeId(2), Incarnation(7)));
            },
            down(2),
            Some(("told twice", "n2")),
        ),
        (
            |world| world.machines.get_mut(&NodeId(1)).unwrap().saved.groups.clear(),
            down(2),
            Some(("memory", "has saved None")),
        ),
    ];
    for (make_wrong, verb, expected) in rules {
        let mut world = one_is_gone();
        make_wrong(&mut world);
        world.check_said(NodeId(1), volume(0), &verb);
        let said = world.violation.as_ref().map(|it| (it.checker, it.text.as_str()));
        match (said, expected) {
            (None, None) => {}
            (Some((checker, text)), Some((by, part))) => {
                assert!(checker == by && text.contains(part), "{checker}: {text}");
            }
            (said, expected) => panic!("{said:?}, not {expected:?}"),
        }
    }
}

/// Where nobody is fenced, who was cut off may be buried while it runs; who was always there may not.
#[test]
fn who_was_in_every_ring_is_buried_by_nobody() {
    for (parted, attached, by) in
        [(false, true, Some("gate")), (true, true, None), (false, false, None)]
    {
        let mut world = both_use_it();
        world.options.policy = Policy::None;
        world.machines.get_mut(&NodeId(1)).unwrap().saved =
            one_is_gone().machines[&NodeId(1)].saved.clone();
        let machine = world.machines.get_mut(&NodeId(2)).unwrap();
        machine.parted = parted;
        if !attached {
            machine.kernel.regions.clear();
        }
        world.check_said(NodeId(1), volume(0), &Verb::NodeDown(NodeId(2), Incarnation(7)));
        assert_eq!(world.violation.map(|it| it.checker), by, "{parted} {attached}");
    }
}

/// A grace is counted in one quorate ring, and from the last word of that ring.
#[test]
fn who_is_killed_before_the_grace_is_over() {
    let bytes = |ring| {
        let hello = Hello { ring: Some(ring), ..hello() };
        proto::encode(proto::SPEAKS.0, false, &Body::Hello(hello))
    };
    let grace_ms = idle().machines[&NodeId(1)].tunables.grace_ms;
    for (quorate, [said_at, left_at], killed_at, by) in [
        (true, [None, None], grace_ms, None),
        (true, [None, None], grace_ms - 1, Some("violence")),
        (true, [Some(700), None], grace_ms + 700, None),
        (true, [Some(700), None], grace_ms + 699, Some("violence")),
        (true, [Some(700), Some(900)], grace_ms + 900, None),
        (true, [Some(700), Some(900)], grace_ms + 899, Some("violence")),
        // It was missed before it went.
        (true, [None, Some(900)], grace_ms, None),
        (false, [None, None], grace_ms, Some("violence")),
    ] {
        let mut world = idle();
        world.machines.get_mut(&NodeId(2)).unwrap().daemon = None;
        let began = world.now;
        let (node, daemon) = (NodeId(1), first(&mut world));
        daemon.patience = Patience::of(grace_ms);
        let ring = daemon.quorum.as_ref().unwrap().1;
        daemon.quorum.as_mut().unwrap().0 = quorate;
        daemon.look(node, &Event::Stalled, began);
        let from = Member { node: NodeId(2), pid: Pid(1) };
        if let Some(said_at) = said_at {
            let said = Event::Message { channel: Channel::Control, from, bytes: bytes(ring) };
            daemon.look(node, &said, began.plus_ms(said_at));
        }
        if let Some(left_at) = left_at {
            let left = vec![(from, Reason::ProcDown)];
            let (members, joined) = (daemon.control.clone(), vec![]);
            let left = Event::Confchg { channel: Channel::Control, members, left, joined };
            daemon.look(node, &left, began.plus_ms(left_at));
        }
        world.now = began.plus_ms(killed_at);
        world.check_kill(node, NodeId(2));
        assert_eq!(world.violation.map(|it| it.checker), by, "{said_at:?} {killed_at}");
    }
}

#[test]
fn a_message_that_is_too_long() {
    for (length, by) in [(288, None), (289, Some("growth"))] {
        let mut world = idle();
        world.check_length(NodeId(1), length);
        assert_eq!(world.violation.map(|it| it.checker), by);
    }
}

/// Nor while a daemon that is here has not seen the ring.
#[test]
fn what_is_said_before_all_have_seen_the_ring() {
    for (lag, by) in [(0, None), (1, Some("gate"))] {
        let mut world = both_use_it();
        let saved = one_is_gone().machines[&NodeId(1)].saved.clone();
        world.machines.get_mut(&NodeId(1)).unwrap().saved = saved;
        let peer = world.machines.get_mut(&NodeId(2)).unwrap().daemon.as_mut().unwrap();
        peer.quorum.as_mut().unwrap().1.seq -= lag;
        world.check_said(NodeId(1), volume(0), &Verb::Suspend);
        assert_eq!(world.violation.map(|it| it.checker), by);
    }
}

#[test]
fn a_view_without_its_own_node() {
    let mut world = both_use_it();
    world.volumes.get_mut(&volume(0)).unwrap().fates.clear();
    let peers = Peers::from([(NodeId(2), Incarnation(7))]);
    world.check_told(NodeId(1), volume(0), &Verb::Resume(peers));
    let text = world.violation.map(|it| it.text).unwrap_or_default();
    assert!(text.contains("is no peer of its own"), "{text}");
}

#[test]
fn answers_that_are_none() {
    let request = RequestId(7);
    let service = ServiceName::new(ServiceName::OCFS2).unwrap();
    let mut world = idle();
    world.reply(NodeId(1), request, &Reply::Done);
    assert!(world.violation.is_some_and(|it| it.text.contains("twice")), "nobody asked");

    let mut world = idle();
    first(&mut world).requests.insert(request, 1);
    world.check_acked(NodeId(1), request);
    assert!(world.violation.is_some_and(|it| it.text.contains("does not answer an ack")));

    for (is_live, is_kept) in [(true, true), (true, false), (false, true)] {
        let mut world = one_is_gone();
        let group = world.machines.get_mut(&NodeId(1)).unwrap().saved.groups.get_mut(&volume(0));
        if is_kept {
            group.unwrap().services = vec![SavedService { name: service.clone(), live: is_live }];
        }
        world.check_reported(NodeId(1), volume(0), &service, 0);
        let is_said_for_nothing = world.violation.take().is_some();
        assert_eq!(is_said_for_nothing, !(is_live && is_kept), "{is_live} {is_kept}");
        world.check_left(NodeId(1), volume(0), &service);
        assert_eq!(world.violation.take().is_some(), is_kept);
        world.machines.get_mut(&NodeId(1)).unwrap().saved.groups.clear();
        world.check_left(NodeId(1), volume(0), &service);
        let text = world.violation.map(|it| it.text).unwrap_or_default();
        assert!(text.contains("is said to be left, and is not"), "{text}");
    }
}

/// What a daemon says that uses nothing.
fn hello() -> Hello {
    Hello {
        boot: BootId(2),
        memory_from: Incarnation(1),
        witness: true,
        ring: None,
        uses: [].into(),
        locking: Locking::default(),
        testimony: vec![],
    }
}

/// Node 1's daemon.
fn first(world: &mut World) -> &mut Daemon {
    world.machines.get_mut(&NodeId(1)).unwrap().daemon.as_mut().unwrap()
}

/// What node 1's kernel has of the volume.
fn region(world: &mut World) -> &mut Region {
    world.machines.get_mut(&NodeId(1)).unwrap().kernel.regions.get_mut(&volume(0)).unwrap()
}
