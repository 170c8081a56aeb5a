//! Who is in the control group and in the mountgroups, and how they went.

use crate::common::*;

/// A daemon is gone while its node is in the ring: a debt, a grace, a kill, and only then a death.
#[test]
fn a_daemon_that_does_not_come_back() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    let grace = rig.arm(Timer::Grace(node(3)), GRACE_MS);
    let until = rig.now.after(GRACE_MS);
    let missing = Hello { testimony: vec![testimony(3, Fate::Missing)], ..hello_using(1, 1) };
    rig.steps(vec![
        (
            left(Channel::Control, &[1, 2], &[3], Reason::ProcDown),
            // From now on others must speak for it.
            vec![say_hello(missing), grace, note(Note::Debt(node(3), until))],
        ),
        (left(group_channel(), &[1, 2], &[3], Reason::ProcDown), vec![]),
    ]);
    assert_eq!(rig.node(3), ("absent", "none", true));
    assert_eq!(rig.state(), "ready", "the others go on");
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (3, "absent")]);

    rig.now = until;
    let (op, again) = (rig.op(1), rig.arm_nth(3, Timer::Grace(node(3)), GRACE_MS));
    expect(
        rig.overdue(3),
        vec![note(Note::DebtOverdue(node(3))), Action::KillNode { op, node: node(3) }, again],
    );
    expect_nothing(rig.handle(done(op)));
    assert_eq!(rig.state(), "ready", "a kill is no death");

    let died =
        Hello { testimony: vec![testimony(3, Fate::Condemned { turn: 0 })], ..hello_using(1, 2) };
    let [quorum, _, ring_two, _, group_ring] = rig.loss(&[1, 2], &[3], Reason::NodeDown);
    let debt = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    rig.steps(vec![
        (quorum, vec![]),
        (
            ring_two,
            vec![
                note(Note::FenceNeeded(node(3), boot(3))),
                note(Note::Fenced(node(3), boot(3), fence::Proof::NotRequired)),
                note(Note::Condemned(G, node(3), inc(3), ring(1))),
                say_hello(died),
                debt,
            ],
        ),
        (group_ring, vec![]),
    ]);
}

/// It comes back in time, in the same use: its kernel went on, and nobody's shim hears anything.
#[test]
fn a_daemon_that_comes_back_in_time() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    rig.handle(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    rig.handle(left(group_channel(), &[1, 2], &[3], Reason::ProcDown));
    let back = Member { node: node(3), pid: Pid(301) };
    let everyone = || vec![member(1), member(2), back];
    let came = |channel| Event::Confchg {
        channel,
        members: everyone(),
        left: vec![],
        joined: vec![(back, Reason::Join)],
    };
    let word = |channel, body| Event::Message {
        channel,
        from: back,
        bytes: proto::encode(1, true, &body),
    };
    let state = State { incarnation: inc(3), boot: boot(3), told: users(&[1, 2, 3]) };
    rig.steps(vec![
        // It is there again, so nobody speaks for it any more.
        (came(Channel::Control), vec![say_hello(hello_using(1, 1))]),
        (
            word(Channel::Control, Body::Hello(hello_using(3, 1))),
            vec![
                // While it was silent it might have known more than we.
                note(Note::GroupReady(G)),
                note(Note::DebtPaid(node(3))),
            ],
        ),
        (came(group_channel()), vec![say_state(&[1, 2, 3])]),
        (word(group_channel(), Body::State(state)), vec![]),
    ]);
    assert_eq!(rig.node(3), ("speaking", "none", false));
    assert_eq!(rig.state(), "ready");
    expect_nothing(rig.fire_last(Timer::Grace(node(3))));
}

/// Whoever comes while a daemon is away hears of it from those who knew it.
#[test]
fn a_newcomer_hears_who_is_missing() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    rig.handle(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    rig.handle(left(group_channel(), &[1, 2], &[3], Reason::ProcDown));
    let missing = Hello { testimony: vec![testimony(3, Fate::Missing)], ..hello_using(1, 1) };
    let seq = rig.next_ring(&[1, 2, 3, 4]);
    rig.handle(quorum(true, seq, &[1, 2, 3, 4]));
    rig.handle(joined(Channel::Control, &[1, 2, 4], &[4], Reason::NodeUp));
    let actions = rig.handle(totem(Channel::Control, seq, &[1, 2, 3, 4]));
    let missing = Hello { ring: Some(ring(seq)), ..missing };
    expect(actions.into_iter().take(1).collect(), vec![say_hello(missing)]);
}

/// A clean leave is no death: out of the next resume, without a node_down, once its node says that it is over.
#[test]
fn a_leave_is_no_death() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let op = |n| rig.op(n);
    let expected = vec![
        note(Note::UserLeft(G, node(3), inc(3))),
        save(op(1), image(&[1, 2, 3], true, true)),
        verb(op(2), Verb::Suspend),
        verb(op(3), Verb::Resume(peers(&[1, 2]))),
        save(op(4), image(&[1, 2], true, false)),
        say_state(&[1, 2]),
        note(Note::GroupReady(G)),
    ];
    expect_nothing(rig.run(left(group_channel(), &[1, 2], &[3], Reason::Leave)));
    expect(rig.run(hello_of(3, hello(3, 1))), expected);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    // Its node may go now: nobody fences it, nobody is told.
    for event in rig.loss(&[1, 2], &[3], Reason::ProcDown) {
        for action in rig.run(event) {
            let is_word = matches!(action, Action::Mcast { .. } | Action::Arm { .. });
            assert!(is_word, "{action:?}");
        }
    }
    assert_eq!(rig.node(2), ("speaking", "none", true));
}

/// Whatever the reason, the process group decides nothing: whoever was buried leaves it with its kernel attached.
#[test]
fn no_reason_decides_anything() {
    for reason in
        [Reason::Leave, Reason::ProcDown, Reason::NodeDown, Reason::Undefined, Reason::NodeUp]
    {
        let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
        expect_nothing(rig.handle(left(group_channel(), &[1, 2], &[3], reason)));
        assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (3, "absent")]);
    }
}

/// A newcomer: we say who we are, it says who it is, the shim hears of it.
#[test]
fn a_newcomer_is_admitted() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let seq = rig.next_ring(&[1, 2]);
    for event in [
        quorum(true, seq, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[2], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2]),
        totem(group_channel(), seq, &[1, 2]),
        hello_of(2, hello_using(2, seq)),
    ] {
        rig.run(event);
    }
    rig.steps(vec![(joined(group_channel(), &[1, 2], &[2], Reason::Join), vec![say_state(&[1])])]);
    let op = |n| rig.op(n);
    let expected = vec![
        note(Note::UserJoined(G, node(2), inc(2))),
        save(op(1), image(&[1, 2], true, true)),
        verb(op(2), Verb::Suspend),
        verb(op(3), Verb::Resume(peers(&[1, 2]))),
        save(op(4), image(&[1, 2], true, false)),
        say_state(&[1, 2]),
    ];
    expect(rig.run(state_of(2, &[])), expected);
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)), "its shim does not know us yet");
    expect(rig.run(state_of(2, &[1, 2])), vec![note(Note::GroupReady(G))]);
}

/// A channel that we know nothing of.
#[test]
fn an_unknown_group() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let unknown = Channel::Group(H);
    expect_nothing(rig.handle(joined(unknown, &[1, 2], &[2], Reason::Join)));
    expect_nothing(rig.handle(left(unknown, &[1], &[2], Reason::Leave)));
    expect_nothing(rig.handle(totem(unknown, 9, &[1])));
}

/// The process of a killed daemon may leave the list after its successor joined. What the successor
/// said before that was not heard, so it must say it again.
#[test]
fn our_predecessor_leaves_late() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let old = Member { node: node(1), pid: Pid(99) };
    let event = Event::Confchg {
        channel: Channel::Control,
        members: members(&[1, 2]),
        left: vec![(old, Reason::ProcDown)],
        joined: vec![],
    };
    expect(rig.handle(event), vec![say_hello(hello_using(1, 1))]);
}
