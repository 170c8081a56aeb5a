//! A tool says how its mount ended.

use crate::common::*;

/// Answered when a successor would know it, not before.
#[test]
fn it_is_mounted() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    expect(rig.handle(complete(2, &mnt(), 0)), vec![save(op, image(&[1, 2], true, false))]);
    assert_eq!(rig.service(&mnt()), "completing");
    expect(rig.handle(complete(3, &mnt(), 0)), vec![refused(3, Refusal::Busy)]);
    expect(rig.handle(done(op)), vec![note(Note::GroupReady(G)), reply(2, Reply::Done)]);
    assert_eq!(rig.service(&mnt()), "live");
    expect(rig.handle(complete(4, &mnt(), 0)), vec![refused(4, Refusal::NotBegun)]);
}

/// The mount failed: the begin is undone, then the tool is answered.
#[test]
fn it_is_not_mounted() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = |n| rig.op(n);
    let timer = rig.arm(Timer::Leave(G, mnt()), LEAVE_MS);
    let without = SavedGroup { services: vec![], ..image(&[1, 2], false, false) };
    let expected = vec![
        timer,
        save(op(1), without),
        verb(op(2), Verb::Detach),
        Action::Depart { op: op(3), channel: group_channel() },
        Action::Save { op: op(4), group: G, image: None },
        reply(2, Reply::Done),
        note(Note::GroupGone(G)),
        say_hello(hello(1, 1)),
    ];
    expect(rig.run(complete(2, &mnt(), 32)), expected);
    assert_eq!(rig.state(), "none");
}

/// The begin was tied to another connection.
#[test]
fn a_stranger_completes() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    for code in [0, 1] {
        let (request, client) = (RequestId(5), ClientId(77));
        let event = Event::Complete { request, client, group: G, service: mnt(), code };
        expect(rig.handle(event), vec![refused(5, Refusal::NotBegun)]);
    }
    assert_eq!(rig.service(&mnt()), "granted");
}

#[test]
fn nothing_to_complete() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    expect(rig.handle(complete(1, &mnt(), 0)), vec![refused(1, Refusal::NotBegun)]);
    let mut rig = Rig::ready(Fencing::None, &[1]);
    expect(rig.handle(complete(1, &name("/x"), 0)), vec![refused(1, Refusal::NotBegun)]);
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    expect(rig.handle(complete(2, &mnt(), 0)), vec![refused(2, Refusal::NotBegun)]);
    let mut rig = Rig::ready(Fencing::None, &[1]);
    rig.handle(leave(3, &mnt()));
    expect(rig.handle(complete(4, &mnt(), 0)), vec![refused(4, Refusal::NotBegun)]);
}

/// Not even the loss of corosync keeps a mounted volume from being saved as such.
#[test]
fn without_corosync() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    rig.handle(Event::Disconnected);
    let op = rig.op(1);
    expect(rig.handle(complete(2, &mnt(), 0)), vec![save(op, image(&[1, 2], true, false))]);
    expect(rig.handle(done(op)), vec![reply(2, Reply::Done)]);
    assert_eq!((rig.state(), rig.service(&mnt())), ("apart", "live"));
}

/// The tool of the first mount died: that it stands was seen, and is not saved yet. What the next tool
/// is told must outlive this daemon all the same.
#[test]
fn one_more_before_the_first_is_saved() {
    for code in [0, 32] {
        let mut rig = Rig::up(Fencing::None, &[1]);
        let ocfs2 = name(ServiceName::OCFS2);
        rig.run(Event::Begin(begin(1, &ocfs2)));
        let look_op = rig.op(1);
        rig.handle(Event::ClientGone { client: ClientId(1) });
        let save_op = rig.op(1);
        let services = vec![SavedService { name: ocfs2.clone(), live: true }];
        let live = SavedGroup { services, ..image(&[1], true, false) };
        let looked = Event::Looked { op: look_op, finding: Finding::Mounted };
        expect(rig.handle(looked), vec![save(save_op, live)]);
        let again = Event::Begin(begin(2, &ocfs2));
        expect(rig.handle(again), vec![reply(2, Reply::Already)]);
        expect_nothing(rig.handle(complete(3, &ocfs2, code)));
        assert_eq!(rig.service(&ocfs2), "completing");
        let saved = vec![note(Note::GroupReady(G)), reply(3, Reply::Done)];
        expect(rig.handle(done(save_op)), saved);
        assert_eq!(rig.service(&ocfs2), "live");
    }
}
