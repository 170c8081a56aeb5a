//! A connection to a door ended.

use crate::common::*;

const GONE: Event = Event::ClientGone { client: ClientId(1) };

/// The tool never heard "go ahead", so it did nothing: the begin is undone.
#[test]
fn while_it_waits() {
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    expect(rig.handle(GONE), vec![Action::Depart { op, channel: group_channel() }]);
    expect(rig.handle(done(op)), vec![note(Note::GroupGone(G)), say_hello(hello(1, 1))]);
}

/// The tool may have mounted: only the mount table knows.
#[test]
fn while_it_mounts() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    let look = Action::Look { op, group: G, service: mnt(), device: None };
    expect(rig.handle(GONE), vec![look]);
    assert_eq!(rig.service(&mnt()), "looking");
    expect_nothing(rig.handle(GONE));
}

/// It has said that it is mounted, which stays true.
#[test]
fn after_it_mounted() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(GONE));
    assert_eq!((rig.state(), rig.service(&mnt())), ("ready", "live"));
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    rig.handle(complete(2, &mnt(), 0));
    expect_nothing(rig.handle(GONE));
    // Its answer goes to nobody, but the service lives.
    expect(rig.handle(done(op)), vec![note(Note::GroupReady(G)), reply(2, Reply::Done)]);
}

#[test]
fn while_it_leaves() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(leave(3, &mnt()));
    // Nor does any client's end give the leave another while to be answered.
    expect_nothing(rig.handle(GONE));
    expect_nothing(rig.handle(Event::ClientGone { client: ClientId(2) }));
    assert_eq!(rig.service(&mnt()), "leaving");
}

/// A begin that is not tied to its connection outlives it.
#[test]
fn a_loose_begin() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    rig.run(Event::Begin(Begin { held: false, ..begin(1, &mnt()) }));
    expect_nothing(rig.handle(GONE));
    assert_eq!(rig.service(&mnt()), "granted");
}

/// An additional mount of the kernel's own service: the first one stays.
#[test]
fn an_additional_mount() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let ocfs2 = name(ServiceName::OCFS2);
    rig.run(Event::Begin(begin(1, &ocfs2)));
    rig.run(complete(2, &ocfs2, 0));
    rig.run(Event::Begin(begin(3, &ocfs2)));
    assert_eq!(rig.service(&ocfs2), "additional");
    expect_nothing(rig.handle(GONE));
    assert_eq!(rig.service(&ocfs2), "live");
}

#[test]
fn another_client() {
    for mut rig in [Rig::begun(Fencing::None, &[1, 2]), Rig::granted(Fencing::None, &[1, 2])] {
        let before = rig.core.snapshot();
        expect_nothing(rig.handle(Event::ClientGone { client: ClientId(2) }));
        assert_eq!(rig.core.snapshot(), before);
    }
}

/// All services of one client, in all groups.
#[test]
fn several_services() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    rig.run(Event::Begin(begin(1, &name("a"))));
    rig.run(Event::Begin(begin(2, &name("b"))));
    let (first, second) = (rig.op(1), rig.op(2));
    let look = |op, service| Action::Look { op, group: G, service: name(service), device: None };
    expect(rig.handle(GONE), vec![look(first, "a"), look(second, "b")]);
}

/// The shim is being told of the group when the tool dies: the others must not hear that we left
/// before the shim has let go of it again.
#[test]
fn while_the_shim_attaches() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    let announced = rig.handle(Event::Begin(begin(1, &mnt())));
    let join = rig.echo(&announced);
    rig.handle(done(op_of(&join[0]).unwrap()));
    let entered = rig.handle(joined(group_channel(), &[1], &[1], Reason::Join));
    let ahead = rig.echo(&entered);
    let save_op = ahead.iter().find_map(op_of).unwrap();
    let attach = rig.handle(done(save_op));
    let attach_op = op_of(&attach[0]).unwrap();
    assert_eq!(attach[0], verb(attach_op, Verb::Attach(peers(&[1]))));
    expect_nothing(rig.handle(GONE));
    let after = rig.handle(done(attach_op));
    let all = rig.pump(after);
    let at = |wanted: fn(&Action) -> bool| all.iter().position(wanted).unwrap();
    let detached = at(|it| matches!(it, Action::Verb { verb: Verb::Detach, .. }));
    let departed = at(|it| matches!(it, Action::Depart { .. }));
    assert!(detached < departed, "{all:?}");
    assert_eq!(rig.state(), "none");
}
