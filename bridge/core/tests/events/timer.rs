//! Every timeout, and timers that nobody waits for any more.

use crate::common::*;

fn begin_timer() -> Timer {
    Timer::Begin(G, mnt())
}

/// A begin that waits too long is refused with the reason, and undone.
#[test]
fn a_begin_is_overdue() {
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    let op = rig.op(1);
    expect(
        rig.fire_last(begin_timer()),
        vec![
            refused(1, Refusal::TimedOut(Waiting::Peer(node(2)))),
            Action::Depart { op, channel: group_channel() },
        ],
    );
    expect(rig.handle(done(op)), vec![note(Note::GroupGone(G)), say_hello(hello(1, 1))]);
    assert_eq!(rig.state(), "none");
}

/// The reason is what has to be settled first.
#[test]
fn a_begin_is_overdue_without_cluster_or_quorum() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    rig.handle(quorum(false, 1, &[1, 2]));
    expect(
        rig.fire_last(begin_timer()),
        vec![
            refused(1, Refusal::TimedOut(Waiting::Quorum)),
            note(Note::GroupGone(G)),
            say_hello(Hello { witness: false, ..hello(1, 1) }),
        ],
    );
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    rig.handle(Event::Disconnected);
    expect(
        rig.fire_last(begin_timer()),
        vec![refused(1, Refusal::TimedOut(Waiting::Cluster)), note(Note::GroupGone(G))],
    );
}

/// A tool that is not tied to its connection and never completes: the mount table knows.
#[test]
fn a_complete_is_overdue() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let loose = Begin { held: false, ..begin(1, &mnt()) };
    let all = rig.run(Event::Begin(loose));
    let arm = rig.arm_nth(0, Timer::Complete(G, mnt()), COMPLETE_MS);
    assert_eq!(all.iter().rev().take(2).collect::<Vec<_>>(), [&reply(1, Reply::Done), &arm]);
    let op = rig.op(1);
    let look = Action::Look { op, group: G, service: mnt(), device: None };
    expect(rig.fire_last(Timer::Complete(G, mnt())), vec![look]);
    assert_eq!(rig.service(&mnt()), "looking");
}

/// A leave that takes too long is answered, and goes on.
#[test]
fn a_leave_is_overdue() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let save_op = rig.op(1);
    rig.handle(leave(5, &mnt()));
    expect(
        rig.fire_last(Timer::Leave(G, mnt())),
        vec![refused(5, Refusal::TimedOut(Waiting::Shim("save")))],
    );
    assert_eq!(rig.state(), "leaving");
    let all = rig.run(done(save_op));
    let is_reply = |action: &Action| matches!(action, Action::Reply { .. });
    assert!(!all.iter().any(is_reply), "answered already: {all:?}");
    assert_eq!(rig.state(), "none");
}

/// A failed verb is said again, in the same words, after the pause.
#[test]
fn a_verb_is_due_again() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let mark = rig.op(1);
    rig.handle(hello_of(2, hello(2, 1)));
    let suspend = rig.op(1);
    expect(rig.handle(done(mark)), vec![verb(suspend, Verb::Suspend)]);
    for _ in 0..3 {
        let op = rig.op(0);
        let pause = rig.arm(Timer::Lane(G), RETRY_MS);
        expect(
            rig.handle(failed(op, 5)),
            vec![note(Note::OpFailed(G, "suspend", OpError::Errno(5))), pause],
        );
        assert_eq!(rig.waiting(), Waiting::Shim("retry"));
        let again = rig.op(1);
        expect(rig.fire_last(Timer::Lane(G)), vec![verb(again, Verb::Suspend)]);
    }
}

/// A failed join is tried again.
#[test]
fn a_join_is_due_again() {
    let mut rig = Rig::new(Fencing::None, Saved::default());
    rig.handle(connected(&[1]));
    let pause = rig.arm(Timer::Channel(Channel::Control), RETRY_MS);
    expect(rig.handle(failed(OpId(1), 6)), vec![pause]);
    let join = Action::Join { op: OpId(2), channel: Channel::Control };
    expect(rig.fire_last(Timer::Channel(Channel::Control)), vec![join]);

    let mut rig = Rig::up(Fencing::None, &[1]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    let join = rig.op(1);
    rig.handle(hello_of(1, hello_using(1, 1)));
    let pause = rig.arm(Timer::Channel(group_channel()), RETRY_MS);
    expect(rig.handle(failed(join, 6)), vec![pause]);
    let again = Action::Join { op: rig.op(1), channel: group_channel() };
    expect(rig.fire_last(Timer::Channel(group_channel())), vec![again]);
}

/// A silent daemon whose node uses nothing is ignored after the grace; one that uses something costs
/// its node the ring.
#[test]
fn a_grace_is_over() {
    for (in_use, expected) in [(false, "ignored"), (true, "silent")] {
        let mut rig = Rig::up_with(Fencing::None, Saved::default(), &[1, 2], in_use);
        let seq = rig.next_ring(&[1, 2]);
        rig.run(quorum(true, seq, &[1, 2]));
        let arm = rig.arm(Timer::Grace(node(2)), GRACE_MS);
        let other = Event::Confchg {
            channel: Channel::Control,
            members: vec![member(1), Member { node: node(2), pid: Pid(201) }],
            left: changes(&[2], Reason::ProcDown),
            joined: vec![(Member { node: node(2), pid: Pid(201) }, Reason::Join)],
        };
        rig.handle(other);
        let actions = rig.handle(totem(Channel::Control, seq, &[1, 2]));
        assert_eq!(actions.last(), Some(&arm));
        rig.echo(&actions);
        assert!(!rig.core.snapshot().settled);
        // Silence counts only in a ring that turns: our own word comes back first.
        let actions = rig.fire_last(Timer::Grace(node(2)));
        let soon = rig.fire_last(Timer::Grace(node(2)));
        assert!(!soon.iter().any(|it| matches!(it, Action::Mcast { .. })), "said once");
        assert_eq!(rig.node(2).0, "silent");
        rig.echo(&actions);
        let (op, again) = (rig.op(1), rig.arm(Timer::Grace(node(2)), GRACE_MS));
        let actions = rig.fire_last(Timer::Grace(node(2)));
        if in_use {
            let kill = Action::KillNode { op, node: node(2) };
            expect(actions, vec![note(Note::DebtOverdue(node(2))), kill, again]);
        } else {
            expect_nothing(actions);
            assert!(rig.core.snapshot().settled, "nobody waits for it any more");
        }
        assert_eq!(rig.node(2), (expected, "none", in_use));
    }
}

/// Agents level by level, attempt by attempt, then the next daemon's turn.
#[test]
fn a_fence_attempt_is_due() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let [quorum, _, ring_two, ..] = rig.loss(&[1, 2], &[3], Reason::NodeDown);
    rig.handle(quorum);
    let first = rig.op(1);
    let actions = rig.handle(ring_two);
    assert!(actions.contains(&Action::Fence { op: first, node: node(3), level: 0 }), "{actions:?}");
    let mut running = first;
    for level in [0, 1, 1] {
        let pause = rig.arm(Timer::Fence(node(3)), PAUSE_MS);
        let error = OpError::Agent(1);
        expect(
            rig.handle(Event::Done { op: running, result: Err(error) }),
            vec![note(Note::FenceFailed(node(3), error)), pause],
        );
        assert_eq!(rig.node(3).1, "retrying");
        running = rig.op(1);
        let fence = Action::Fence { op: running, node: node(3), level };
        expect(rig.fire_last(Timer::Fence(node(3))), vec![fence]);
    }
    let turn = Testimony { fate: Fate::Condemned { turn: 1 }, ..testimony(3, Fate::Missing) };
    let pause = rig.arm(Timer::Fence(node(3)), PAUSE_MS);
    expect(
        rig.handle(Event::Done { op: running, result: Err(OpError::TimedOut) }),
        vec![
            note(Note::FenceFailed(node(3), OpError::TimedOut)),
            pause,
            say_hello(Hello { testimony: vec![turn.clone()], ..hello_using(1, 2) }),
        ],
    );
    // It is the turn of node 2 now: we do nothing, until it passes the turn on, or does not even speak of it.
    let patience = rig.arm(Timer::Turn(node(3)), GRACE_MS);
    expect(rig.fire_last(Timer::Fence(node(3))), vec![patience]);
    assert_eq!(rig.node(3).1, "needed");
    let back = Testimony { fate: Fate::Condemned { turn: 2 }, ..turn };
    let op = rig.op(1);
    let actions = rig.handle(hello_of(2, Hello { testimony: vec![back], ..hello_using(2, 2) }));
    assert!(actions.contains(&Action::Fence { op, node: node(3), level: 0 }), "{actions:?}");
    // And the agent's success is proof.
    let actions = rig.handle(done(op));
    let proof = note(Note::Fenced(node(3), boot(3), fence::Proof::Agent));
    assert_eq!(actions.first(), Some(&proof));
}

/// Whoever is to fence a node and has not even said that it knows hangs: the turn passes.
#[test]
fn a_turn_is_over() {
    let turn = Timer::Turn(node(4));
    let by = |n, turn| {
        let testimony = vec![testimony(4, Fate::Condemned { turn })];
        hello_of(n, Hello { testimony, ..hello_using(n, 1) })
    };
    let ours = |turn| {
        let testimony = vec![testimony(4, Fate::Condemned { turn })];
        say_hello(Hello { testimony, ..hello_using(1, 1) })
    };
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let patience = rig.arm(turn.clone(), GRACE_MS);
    expect(rig.handle(by(3, 1)), vec![patience, ours(1)]);
    let mut spoken = rig.clone();
    // It was the turn of node 2, and node 3 has to say that it knows of its own.
    let patience = rig.arm(turn.clone(), GRACE_MS);
    expect(rig.fire_last(turn.clone()), vec![patience, ours(2)]);
    expect_nothing(rig.handle(by(3, 1)));
    let op = rig.op(1);
    let fence = Action::Fence { op, node: node(4), level: 0 };
    expect(rig.fire_last(turn.clone()), vec![fence, ours(3)]);

    // Who speaks of it has longer for its agents, until another daemon speaks for its node.
    let patience = spoken.arm(turn.clone(), 20 * GRACE_MS);
    expect(spoken.handle(by(2, 1)), vec![patience]);
    let mut again = spoken.clone();
    let patience = again.arm(turn.clone(), 20 * GRACE_MS);
    expect(again.handle(Event::Stalled), vec![patience]);
    let patience = spoken.arm(turn.clone(), GRACE_MS);
    expect(spoken.fire_last(turn.clone()), vec![patience, ours(2)]);
    // A turn that another daemon passed is known to us, too: it may be ours.
    expect(spoken.handle(by(2, 3)).split_off(1), vec![ours(3)]);
    again.handle(left(Channel::Control, &[1, 3], &[2], Reason::ProcDown));
    again.handle(joined(Channel::Control, &[1, 2, 3], &[2], Reason::Join));
    let patience = again.arm(turn, GRACE_MS);
    assert!(again.handle(hello_of(2, hello_using(2, 1))).contains(&patience));
}

/// That a daemon knows of its turn it says in each ring anew; whether that is quorate does not matter.
#[test]
fn a_turn_is_known_for_one_ring() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let words = |n, seq, testimony| hello_of(n, Hello { testimony, ..hello_using(n, seq) });
    let lost = || vec![testimony(4, Fate::Condemned { turn: 1 })];
    let armed = |actions: &[Action]| {
        let at = |it: &Action| match it {
            Action::Arm { timer: Timer::Turn(_), at, .. } => Some(at.0),
            _ => None,
        };
        actions.iter().find_map(at)
    };
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(words(3, 1, lost()));
    rig.run(words(2, 1, lost()));
    let now_ms = rig.now.0;
    let quorate = rig.run(quorum(true, 1, &[1, 2, 3]));
    assert_eq!(armed(&quorate), Some(now_ms + 20 * GRACE_MS), "{quorate:?}");
    let seq = rig.next_ring(&[1, 2, 3]);
    let mut anew = rig.run(quorum(true, seq, &[1, 2, 3]));
    anew.extend(rig.run(totem(Channel::Control, seq, &[1, 2, 3])));
    assert_eq!(armed(&anew), Some(now_ms + GRACE_MS), "{anew:?}");
}

/// The turns of another boot of the node are not those of ours: who speaks of that one does not speak of ours.
#[test]
fn a_turn_of_another_boot() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let by = |n, boot| {
        let lost = Testimony { boot, ..testimony(4, Fate::Condemned { turn: 1 }) };
        hello_of(n, Hello { testimony: vec![lost], ..hello_using(n, 1) })
    };
    rig.handle(by(3, boot(4)));
    expect_nothing(rig.handle(by(2, boot(44))));
    let passed = testimony(4, Fate::Condemned { turn: 2 });
    let passed = say_hello(Hello { testimony: vec![passed], ..hello_using(1, 1) });
    let actions = rig.fire_last(Timer::Turn(node(4)));
    assert!(actions.contains(&passed), "{actions:?}");
}

/// Each timer, with a generation that is not alive, in a state in which it would matter.
#[test]
fn old_generations_fire_into_nothing() {
    let timers = [
        begin_timer(),
        Timer::Complete(G, mnt()),
        Timer::Leave(G, mnt()),
        Timer::Lane(G),
        Timer::Channel(Channel::Control),
        Timer::Channel(group_channel()),
        Timer::Grace(node(2)),
        Timer::Fence(node(2)),
    ];
    for mut rig in [
        Rig::new(Fencing::None, Saved::default()),
        Rig::begun(AGENT, &[1, 2]),
        Rig::granted(AGENT, &[1, 2]),
        Rig::ready(AGENT, &[1, 2, 3]),
    ] {
        let before = rig.core.snapshot();
        for timer in &timers {
            for generation in [0, u64::MAX, rig.generation(1)] {
                expect_nothing(rig.handle(Event::Timer { timer: timer.clone(), generation }));
            }
        }
        assert_eq!(rig.core.snapshot(), before);
    }
}

/// A begin that was granted in time: its timer is void, although it still fires.
#[test]
fn a_timer_that_is_no_longer_wanted() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let arm = rig.arm(begin_timer(), BEGIN_MS);
    let actions = rig.handle(Event::Begin(begin(1, &mnt())));
    assert_eq!(actions.first(), Some(&arm));
    let generation = rig.generation(0);
    rig.pump(actions);
    assert_eq!(rig.service(&mnt()), "granted");
    expect_nothing(rig.handle(Event::Timer { timer: begin_timer(), generation }));
}

const OUTVOTED_MS: u64 = 7_000;

fn watched(fencing: Fencing) -> Event {
    Event::Reconfigure(Tunables { inquorate_reset_ms: OUTVOTED_MS, ..tunables(fencing) })
}

/// A node that uses a volume outside a quorate ring resets itself, and again if that failed.
#[test]
fn outvoted_for_too_long() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    expect_nothing(rig.handle(watched(AGENT)));
    let armed = rig.arm(Timer::Outvoted, OUTVOTED_MS);
    let lost = rig.handle(quorum(false, 9, &[1]));
    assert!(lost.contains(&armed), "{lost:#?}");
    for _ in 0..2 {
        let again = rig.arm(Timer::Outvoted, OUTVOTED_MS);
        expect(
            rig.fire_last(Timer::Outvoted),
            vec![
                note(Note::Outvoted(OUTVOTED_MS)),
                Action::FenceSelf { group: G, incarnation: inc(1) },
                again,
            ],
        );
    }
}

/// The loss of corosync is the loss of quorum; its return in time stops the clock.
#[test]
fn outvoted_without_corosync_and_back() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.handle(watched(AGENT));
    let armed = rig.arm(Timer::Outvoted, OUTVOTED_MS);
    expect(rig.handle(Event::Disconnected), vec![armed]);
    expect_nothing(rig.handle(Event::Disconnected));
    rig.run(connected(&[1, 2]));
    rig.run(quorum(true, 9, &[1, 2]));
    rig.run(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    expect_nothing(rig.fire_last(Timer::Outvoted));
}

/// Nothing attached, nothing to lose.
#[test]
fn outvoted_with_nothing_in_use() {
    let mut rig = Rig::up(AGENT, &[1, 2]);
    rig.handle(watched(AGENT));
    let actions = rig.handle(Event::Disconnected);
    assert!(!actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:#?}");
}

/// Who explores what a core may do next asks whether a firing would be taken at all.
#[test]
fn a_core_says_which_setting_it_awaits() {
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    let latest = rig.generation(0);
    assert!(rig.core.awaits(&begin_timer(), latest));
    assert!(!rig.core.awaits(&begin_timer(), latest + 1));
    assert!(!rig.core.awaits(&Timer::Lane(G), latest));
    rig.fire_last(begin_timer());
    assert!(!rig.core.awaits(&begin_timer(), latest));
}

/// Who remembers cores by their hashes tells those apart that differ in anything but the time.
#[test]
fn the_hash_of_a_core_is_about_everything_but_the_time() {
    let hash = |rig: &Rig| {
        let mut state = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&rig.core, &mut state);
        std::hash::Hasher::finish(&state)
    };
    let early = Rig::begun(Fencing::None, &[1, 2]);
    let mut late = Rig::up(Fencing::None, &[1, 2]);
    assert_ne!(hash(&early), hash(&late));
    late.now = late.now.after(5_000);
    late.run(Event::Begin(begin(1, &mnt())));
    let mut early = Rig::up(Fencing::None, &[1, 2]);
    early.run(Event::Begin(begin(1, &mnt())));
    assert_eq!(hash(&early), hash(&late));
    early.handle(quorum(false, 1, &[1, 2]));
    assert_ne!(hash(&early), hash(&late));
}
