//! A service ends its use of a group.

use crate::common::*;

/// The last service: saved as gone, the shim let go, the group left, then forgotten, then answered.
#[test]
fn the_last_service() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let (marked, detach, depart, forget) = (rig.op(1), rig.op(2), rig.op(3), rig.op(4));
    let timer = rig.arm(Timer::Leave(G, mnt()), LEAVE_MS);
    let without = SavedGroup { services: vec![], ..image(&[1, 2], true, false) };
    rig.steps(vec![
        (leave(3, &mnt()), vec![timer, save(marked, without)]),
        (done(marked), vec![verb(detach, Verb::Detach)]),
        (
            done(detach),
            vec![
                Action::Depart { op: depart, channel: group_channel() },
                Action::Save { op: forget, group: G, image: None },
            ],
        ),
    ]);
    assert_eq!((rig.state(), rig.service(&mnt())), ("leaving", "leaving"));
    let gone = vec![reply(3, Reply::Done), note(Note::GroupGone(G)), say_hello(hello(1, 1))];
    // In either order.
    let mut other = rig.clone();
    rig.steps(vec![(done(depart), vec![]), (done(forget), gone.clone())]);
    other.steps(vec![(done(forget), vec![]), (done(depart), gone)]);
    assert_eq!((rig.state(), other.state()), ("none", "none"));
    expect_nothing(rig.fire_last(Timer::Leave(G, mnt())));
}

/// One of two services: no verb, and answered when a successor would not look for it.
#[test]
fn one_of_two_services() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let fsck = name("fsck");
    rig.run(Event::Begin(begin(3, &fsck)));
    rig.run(complete(4, &fsck, 0));
    let op = rig.op(1);
    let timer = rig.arm(Timer::Leave(G, mnt()), LEAVE_MS);
    let services = vec![SavedService { name: fsck.clone(), live: true }];
    let rest = SavedGroup { services, ..image(&[1], true, false) };
    rig.steps(vec![
        (leave(5, &mnt()), vec![timer, save(op, rest)]),
        (done(op), vec![note(Note::GroupReady(G)), reply(5, Reply::Done)]),
    ]);
    assert_eq!((rig.state(), rig.service(&mnt()), rig.service(&fsck)), ("ready", "none", "live"));
}

/// The kernel does not let go, because of a mount in the last moment: that mount may be begun, and
/// the group goes on.
#[test]
fn what_cannot_be_left_can_be_begun_again() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let other = name("/srv");
    let (marked, detach) = (rig.op(1), rig.op(2));
    rig.handle(leave(3, &mnt()));
    rig.handle(done(marked));
    let late = Event::Begin(begin(4, &other));
    expect(rig.handle(late), vec![refused(4, Refusal::Busy)]);
    let paused = rig.handle(failed(detach, 16));
    let timer = rig.arm(Timer::Begin(G, other.clone()), BEGIN_MS);
    expect(rig.handle(Event::Begin(begin(5, &other))), vec![timer]);
    let save = rig.fire_armed(&paused, &Timer::Lane(G));
    let all = rig.pump(save);
    assert!(all.contains(&reply(3, Reply::Done)), "{all:?}");
    assert!(all.contains(&reply(5, Reply::Done)), "{all:?}");
    // Half of the detach may have been done.
    let is_resume = |it: &Action| matches!(it, Action::Verb { verb: Verb::Resume(_), .. });
    let resumed = all.iter().position(is_resume);
    let granted = all.iter().position(|action| *action == reply(5, Reply::Done));
    assert!(resumed.is_some() && resumed < granted, "{all:?}");
    rig.run(complete(6, &other, 0));
    assert_eq!((rig.state(), rig.service(&mnt()), rig.service(&other)), ("ready", "none", "live"));
}

/// The end of a use needs neither corosync nor quorum.
#[test]
fn without_corosync() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.handle(Event::Disconnected);
    let op = |n| rig.op(n);
    let timer = rig.arm(Timer::Leave(G, mnt()), LEAVE_MS);
    let without = SavedGroup { services: vec![], ..image(&[1, 2], true, false) };
    let expected = vec![
        timer,
        save(op(1), without),
        verb(op(2), Verb::Detach),
        Action::Save { op: op(3), group: G, image: None },
        reply(3, Reply::Done),
        note(Note::GroupGone(G)),
    ];
    expect(rig.run(leave(3, &mnt())), expected);
}

/// A begin that is not tied to its connection is undone by a leave; one that is, by its connection.
#[test]
fn instead_of_a_complete() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    expect(rig.handle(leave(3, &mnt())), vec![refused(3, Refusal::Busy)]);
    let mut rig = Rig::up(Fencing::None, &[1]);
    rig.run(Event::Begin(Begin { held: false, ..begin(1, &mnt()) }));
    let all = rig.run(leave(3, &mnt()));
    assert!(all.contains(&reply(3, Reply::Done)), "{all:?}");
    assert_eq!(rig.state(), "none");
}

#[test]
fn nothing_to_leave() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    expect(rig.handle(leave(1, &mnt())), vec![refused(1, Refusal::NoGroup)]);
    let mut rig = Rig::ready(Fencing::None, &[1]);
    expect(rig.handle(leave(1, &name("/x"))), vec![refused(1, Refusal::NoService)]);
    rig.handle(leave(2, &mnt()));
    expect(rig.handle(leave(3, &mnt())), vec![refused(3, Refusal::Busy)]);
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    expect(rig.handle(leave(4, &mnt())), vec![refused(4, Refusal::Busy)]);
}

/// A death that is not told yet ends with the use: there is nobody left to tell.
#[test]
fn while_a_death_waits() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    assert_eq!(rig.state(), "suspended");
    let all = rig.run(leave(5, &mnt()));
    assert!(all.contains(&reply(5, Reply::Done)), "{all:?}");
    assert!(
        !all.iter().any(|action| matches!(action, Action::Verb { verb: Verb::NodeDown(..), .. }))
    );
    assert_eq!(rig.state(), "none");
    assert_eq!(rig.node(3), ("absent", "waiting for ack", false), "its fencing is still needed");
}

/// Somebody mounted in the last moment, so the kernel keeps the group; the same service may begin
/// again, and whoever waited for its leave is told why there is none.
#[test]
fn the_kernel_keeps_the_group_and_the_service_comes_back() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let (marked, detach) = (rig.op(1), rig.op(2));
    rig.handle(leave(3, &mnt()));
    rig.handle(done(marked));
    let failed_at = rig.handle(failed(detach, 16));
    let actions = rig.handle(Event::Begin(begin(4, &mnt())));
    let kept = Refusal::TimedOut(Waiting::Shim("detach"));
    assert_eq!(actions[0], refused(3, kept));
    assert_eq!(rig.service(&mnt()), "beginning");
    let retried = rig.fire_armed(&failed_at, &Timer::Lane(G));
    let all = rig.pump(retried);
    assert!(all.contains(&reply(4, Reply::Done)), "{all:?}");
    assert_eq!(rig.state(), "ready");
}
