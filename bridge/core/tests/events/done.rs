//! The end of an effect.

use crate::common::*;

/// An op that nobody waits for.
#[test]
fn unknown_ops() {
    for mut rig in [
        Rig::new(Fencing::None, Saved::default()),
        Rig::joining(Fencing::None, Saved::default(), &[1]),
        Rig::begun(AGENT, &[1, 2]),
        Rig::ready(AGENT, &[1, 2]),
    ] {
        let before = rig.core.snapshot();
        for op in [OpId(0), OpId(9_999)] {
            expect_nothing(rig.handle(done(op)));
            expect_nothing(rig.handle(failed(op, 5)));
        }
        assert_eq!(rig.core.snapshot(), before);
    }
}

/// Effects of a connection that is gone end some day; they say nothing about the next one.
#[test]
fn ops_of_an_earlier_connection() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    let join = rig.op(1);
    rig.handle(hello_of(1, hello_using(1, 1)));
    rig.handle(Event::Disconnected);
    expect_nothing(rig.handle(failed(join, 2)));
    let control = rig.op(1);
    rig.handle(connected(&[1]));
    expect_nothing(rig.handle(done(join)));
    expect_nothing(rig.handle(failed(OpId(1), 2)));
    assert_ne!(control, OpId(1));
}

/// The tool hears why; what was half attached is detached, and all is as before.
#[test]
fn an_attach_fails() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let mut actions = rig.handle(Event::Begin(begin(1, &mnt())));
    let attach = loop {
        if let Some(Action::Verb { op, verb: Verb::Attach(_), .. }) = actions.first() {
            break *op;
        }
        let action = actions.remove(0);
        let next = if let Action::Join { op, .. } = action {
            rig.handle(done(op));
            rig.handle(joined(group_channel(), &[1], &[1], Reason::Join))
        } else if let Action::Save { op, .. } = action {
            rig.handle(done(op))
        } else {
            rig.echo(&[action])
        };
        actions.extend(next);
    };
    let pause = rig.arm(Timer::Lane(G), RETRY_MS);
    let error = OpError::Errno(19);
    expect(
        rig.handle(failed(attach, 19)),
        vec![
            note(Note::OpFailed(G, "attach", error)),
            pause,
            refused(1, Refusal::Failed { what: "attach", error }),
        ],
    );
    assert_eq!((rig.state(), rig.waiting()), ("leaving", Waiting::Shim("retry")));
    let op = |n| rig.op(n);
    let nobody = SavedGroup { services: vec![], ..image(&[1], false, true) };
    let expected = vec![
        save(op(1), nobody),
        verb(op(2), Verb::Detach),
        Action::Depart { op: op(3), channel: group_channel() },
        Action::Save { op: op(4), group: G, image: None },
        note(Note::GroupGone(G)),
        say_hello(hello(1, 1)),
    ];
    let actions = rig.fire_last(Timer::Lane(G));
    expect(rig.pump(actions), expected);
}

/// Without a state file nothing is attached: a crash would lose the group.
#[test]
fn the_first_save_fails() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let begun = rig.handle(Event::Begin(begin(1, &mnt())));
    let join = rig.echo(&begun);
    assert_eq!(join.len(), 1);
    let state = rig.handle(joined(group_channel(), &[1], &[1], Reason::Join));
    let op = rig.op(1);
    rig.echo(&state);
    let pause = rig.arm(Timer::Lane(G), RETRY_MS);
    let error = OpError::Errno(28);
    let depart = rig.op(1);
    expect(
        rig.handle(failed(op, 28)),
        vec![
            note(Note::OpFailed(G, "save", error)),
            pause,
            refused(1, Refusal::Failed { what: "save", error }),
            Action::Depart { op: depart, channel: group_channel() },
        ],
    );
    expect_nothing(rig.handle(done(depart)));
    expect(rig.fire_last(Timer::Lane(G)), vec![note(Note::GroupGone(G)), say_hello(hello(1, 1))]);
}

/// A complete waits for its save as long as it takes; the mount is there.
#[test]
fn the_save_of_a_complete_fails() {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    rig.handle(complete(2, &mnt(), 0));
    let pause = rig.arm(Timer::Lane(G), RETRY_MS);
    expect(
        rig.handle(failed(op, 28)),
        vec![note(Note::OpFailed(G, "save", OpError::Errno(28))), pause],
    );
    assert_eq!(rig.service(&mnt()), "completing");
    let again = rig.op(1);
    let saved = save(again, image(&[1, 2], true, false));
    expect(rig.fire_last(Timer::Lane(G)), vec![saved]);
    expect(rig.handle(done(again)), vec![note(Note::GroupReady(G)), reply(2, Reply::Done)]);
}

/// Node 3 is dead, agreed, and the shim is at this verb; the verb's op.
fn at_verb(wanted: &str) -> (Rig, OpId) {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let mut actions = rig.handle(hello_of(2, hello_using(2, 2)));
    loop {
        let step = actions.iter().find_map(|action| {
            let name = if let Action::Verb { verb, .. } = action { verb.name() } else { "save" };
            op_of(action).map(|op| (op, name))
        });
        let (op, name) = step.unwrap();
        if name == wanted {
            return (rig, op);
        }
        actions = rig.handle(done(op));
    }
}

/// Each verb of a death that fails is said again, in the same words, until it succeeds.
#[test]
fn a_verb_of_a_death_fails() {
    let node_down = Verb::NodeDown(node(3), inc(3));
    let verbs = [
        ("suspend", Verb::Suspend),
        ("node_down", node_down),
        ("resume", Verb::Resume(peers(&[1, 2]))),
    ];
    for (name, word) in verbs {
        let (mut rig, mut op) = at_verb(name);
        for error in [OpError::TimedOut, OpError::Errno(5), OpError::Unconfigured] {
            let pause = rig.arm(Timer::Lane(G), RETRY_MS);
            expect(
                rig.handle(Event::Done { op, result: Err(error) }),
                vec![note(Note::OpFailed(G, name, error)), pause],
            );
            op = rig.op(1);
            expect(rig.fire_last(Timer::Lane(G)), vec![verb(op, word.clone())]);
        }
        let all = rig.run(done(op));
        assert_eq!(all.last(), Some(&note(Note::GroupReady(G))));
        assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    }
}

/// A resume is under way that names node 3. Before it ends, node 3 dies, comes back in another boot,
/// and dies again: the shim hears of the death that it may know of.
#[test]
fn a_node_dies_twice_during_a_resume() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let seq = rig.next_ring(&[1, 2, 3]);
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        totem(group_channel(), seq, &[1, 2, 3]),
        hello_of(2, hello_using(2, seq)),
        hello_of(3, hello_using(3, seq)),
        joined(group_channel(), &[1, 2, 3], &[3], Reason::Join),
    ] {
        rig.run(event);
    }
    let marked = rig.op(1);
    rig.handle(state_of(3, &[]));
    let suspend = rig.op(1);
    rig.handle(done(marked));
    let resume = rig.op(1);
    expect(rig.handle(done(suspend)), vec![verb(resume, Verb::Resume(peers(&[1, 2, 3])))]);

    for (event, told) in rig.loss(&[1, 2], &[3], Reason::NodeDown).into_iter().zip(0..) {
        let actions = rig.handle(event);
        rig.echo(&actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Verb { .. })), "{told}");
    }
    rig.handle(hello_of(2, hello_using(2, rig.seq)));
    let seq = rig.next_ring(&[1, 2, 3]);
    let reborn = User { incarnation: inc(33), boot: boot(33) };
    let word = Hello {
        boot: boot(33),
        memory_from: inc(33),
        uses: [(G, inc(33))].into(),
        ..hello(3, seq)
    };
    let state = State { incarnation: inc(33), boot: boot(33), told: Users::new() };
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        totem(group_channel(), seq, &[1, 2, 3]),
        hello_of(2, hello_using(2, seq)),
        hello_of(3, word),
        joined(group_channel(), &[1, 2, 3], &[3], Reason::Join),
        said(group_channel(), 3, proto::encode(1, true, &Body::State(state))),
    ] {
        let actions = rig.handle(event);
        rig.echo(&actions);
    }
    let members = rig.core.snapshot().groups.first().unwrap().members.clone();
    assert!(members.iter().any(|member| member.incarnation == reborn.incarnation));
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        let actions = rig.handle(event);
        rig.echo(&actions);
    }
    rig.handle(hello_of(2, hello_using(2, rig.seq)));
    let all = rig.run(done(resume));
    let downs: Vec<_> = all
        .iter()
        .filter_map(|action| {
            let Action::Verb { verb: Verb::NodeDown(node, use_), .. } = action else { return None };
            Some((*node, *use_))
        })
        .collect();
    assert_eq!(downs, [(node(3), inc(3))], "{all:?}");
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// A resume that failed may have told the shim of its newcomer, so its death is told too; and the shim may
/// grant, so it is suspended anew before that.
#[test]
fn a_newcomer_of_a_failed_resume_dies() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    rig.run(left(group_channel(), &[1, 2], &[3], Reason::Leave));
    rig.run(hello_of(3, hello(3, 1)));
    rig.run(joined(group_channel(), &[1, 2, 3], &[3], Reason::Join));
    rig.run(hello_of(3, Hello { uses: [(G, Incarnation(3_001))].into(), ..hello(3, 1) }));
    let state = State { incarnation: Incarnation(3_001), boot: boot(3), told: Users::new() };
    let marked = rig.op(1);
    rig.handle(said(group_channel(), 3, proto::encode(1, true, &Body::State(state))));
    let suspend = rig.op(1);
    rig.handle(done(marked));
    let resume = rig.op(1);
    rig.handle(done(suspend));
    rig.handle(Event::Done { op: resume, result: Err(OpError::TimedOut) });
    let retry = rig.generation(0);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    let op = rig.op(1);
    expect(
        rig.handle(Event::Timer { timer: Timer::Lane(G), generation: retry }),
        vec![verb(op, Verb::Suspend)],
    );
    let op = rig.op(1);
    expect(
        rig.handle(done(rig.op(0))),
        vec![verb(op, Verb::NodeDown(node(3), Incarnation(3_001)))],
    );
}

/// A kill that failed or succeeded is asked again after another grace; it is no death by itself.
#[test]
fn a_kill_ends() {
    for result in [Ok(()), Err(OpError::Corosync(12))] {
        let mut rig = Rig::ready(Fencing::None, &[1, 2]);
        rig.handle(left(Channel::Control, &[1], &[2], Reason::ProcDown));
        let op = rig.op(1);
        rig.overdue(2);
        // As long as a corosync that hangs owes its answer, no second call hangs in it.
        let later = rig.arm_nth(3, Timer::Grace(node(2)), GRACE_MS);
        let overdue = note(Note::DebtOverdue(node(2)));
        expect(rig.overdue(2), vec![overdue, later]);
        expect_nothing(rig.handle(Event::Done { op, result }));
        assert_eq!((rig.state(), rig.node(2)), ("ready", ("absent", "none", true)));
        let (next, again) = (rig.op(1), rig.arm_nth(3, Timer::Grace(node(2)), GRACE_MS));
        expect(
            rig.overdue(2),
            vec![
                note(Note::DebtOverdue(node(2))),
                Action::KillNode { op: next, node: node(2) },
                again,
            ],
        );
    }
}

/// A depart that failed is done as well: the handle is gone.
#[test]
fn a_depart_fails() {
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    rig.handle(Event::ClientGone { client: ClientId(1) });
    expect(rig.handle(failed(op, 2)), vec![note(Note::GroupGone(G)), say_hello(hello(1, 1))]);
}

/// The join ends after the confchg that showed us in the group, however it ends.
#[test]
fn a_join_ends_late() {
    for result in [Ok(()), Err(OpError::Corosync(6))] {
        let mut rig = Rig::up(Fencing::None, &[1]);
        rig.handle(Event::Begin(begin(1, &mnt())));
        let op = rig.op(1);
        rig.handle(hello_of(1, hello_using(1, 1)));
        rig.handle(joined(group_channel(), &[1], &[1], Reason::Join));
        expect_nothing(rig.handle(Event::Done { op, result }));
        assert_eq!(rig.state(), "attaching");
    }
}
