//! The quorum service: nothing is decided against it or before it.

use crate::common::*;

/// The effects on shim and state file among these actions.
fn verbs(actions: &[Action]) -> Vec<Action> {
    let is_effect = |action: &&Action| matches!(action, Action::Verb { .. } | Action::Save { .. });
    actions.iter().filter(is_effect).cloned().collect()
}

/// All ways to merge these sequences, each in its own order.
fn interleavings(sources: &[Vec<Event>]) -> Vec<Vec<Event>> {
    if sources.iter().all(Vec::is_empty) {
        return vec![vec![]];
    }
    let mut all = vec![];
    for (index, source) in sources.iter().enumerate() {
        let Some((first, rest)) = source.split_first() else { continue };
        let mut remaining = sources.to_vec();
        *remaining.get_mut(index).unwrap() = rest.to_vec();
        for mut tail in interleavings(&remaining) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

/// A death reaches the shim once, exactly when the last of its sources has spoken, and in the same
/// words whatever the order in which they speak.
#[test]
fn a_death_in_every_order_of_its_sources() {
    for reason in [Reason::NodeDown, Reason::ProcDown] {
        let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
        let [quorum, control, ring, group, group_ring] = rig.loss(&[1, 2], &[3], reason);
        let word = hello_of(2, hello_using(2, 2));
        let orders =
            interleavings(&[vec![quorum], vec![control, ring, word], vec![group, group_ring]]);
        assert_eq!(orders.len(), 60);
        for order in orders {
            let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
            let op = |n| rig.op(n);
            let expected = vec![
                save(op(1), image(&[1, 2, 3], true, true)),
                verb(op(2), Verb::Suspend),
                verb(op(3), Verb::NodeDown(node(3), inc(3))),
                verb(op(4), Verb::Resume(peers(&[1, 2]))),
                save(op(5), image(&[1, 2], true, false)),
            ];
            let (last, first) = order.split_last().unwrap();
            for event in first {
                assert_eq!(verbs(&rig.run(event.clone())), vec![], "{order:#?}");
            }
            assert_eq!(verbs(&rig.run(last.clone())), expected, "{order:#?}");
            assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
        }
    }
}

/// A node that is cut off hears NODEDOWN of everyone, then that it is inquorate. The kernel hears
/// nothing, nobody is fenced, no grace runs.
#[test]
fn inquorate_nothing_is_told() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let seq = rig.next_ring(&[1]);
    let mute = Hello { witness: false, ..hello_using(1, seq) };
    rig.steps(vec![
        (quorum(false, seq, &[1]), vec![]),
        (left(Channel::Control, &[1], &[2, 3], Reason::NodeDown), vec![]),
        (totem(Channel::Control, seq, &[1]), vec![say_hello(mute.clone())]),
        (left(group_channel(), &[1], &[2, 3], Reason::NodeDown), vec![]),
        (
            totem(group_channel(), seq, &[1]),
            vec![
                note(Note::UserLost(G, node(2), inc(2))),
                note(Note::UserLost(G, node(3), inc(3))),
            ],
        ),
        (hello_of(1, mute), vec![]),
    ]);
    assert_eq!((rig.state(), rig.waiting()), ("settling", Waiting::Quorum));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "lost"), (3, "lost")]);
    assert!(!rig.core.snapshot().quorate);
}

/// The cable is back before anybody decided: nothing was told, and nothing has to be.
#[test]
fn inquorate_and_back() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let seq = rig.next_ring(&[1]);
    let loss = [
        quorum(false, seq, &[1]),
        left(Channel::Control, &[1], &[2], Reason::NodeDown),
        totem(Channel::Control, seq, &[1]),
        left(group_channel(), &[1], &[2], Reason::NodeDown),
        totem(group_channel(), seq, &[1]),
    ];
    for event in loss {
        assert_eq!(verbs(&rig.run(event)), vec![]);
    }
    let seq = rig.next_ring(&[1, 2]);
    let back = [
        quorum(true, seq, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[2], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2]),
        joined(group_channel(), &[1, 2], &[2], Reason::NodeUp),
        totem(group_channel(), seq, &[1, 2]),
        hello_of(2, hello_using(2, seq)),
        state_of(2, &[1, 2]),
    ];
    for event in back {
        assert_eq!(verbs(&rig.run(event)), vec![]);
    }
    assert_eq!((rig.state(), rig.waiting()), ("ready", Waiting::Nothing));
}

/// A quorate word about another ring than the control group's says nothing about this one.
#[test]
fn quorum_of_another_ring_tells_nothing() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    let [_, control, ring_two, group, group_ring] = rig.loss(&[1, 2], &[3], Reason::NodeDown);
    let (grace, until) = (rig.arm(Timer::Grace(node(3)), GRACE_MS), rig.now.after(GRACE_MS));
    let missing = Hello { testimony: vec![testimony(3, Fate::Missing)], ..hello_using(1, 1) };
    rig.steps(vec![
        // In the ring before, this would be a daemon without its node.
        (control, vec![say_hello(missing), grace, note(Note::Debt(node(3), until))]),
        (ring_two, vec![]),
        (group, vec![]),
        (group_ring, vec![note(Note::UserLost(G, node(3), inc(3)))]),
        (quorum(true, 3, &[1, 2]), vec![]),
        (quorum(true, 1, &[1, 2]), vec![]),
    ]);
    assert_eq!(rig.node(3), ("absent", "none", false));
    assert_eq!((rig.state(), rig.waiting()), ("settling", Waiting::Quorum));
    // The same number of another representative names another ring.
    let ring = RingId { seq: 2, node: node(2) };
    let other = Event::Quorum { quorate: true, ring, nodes: nodes(&[1, 2]), left: Vec::new() };
    expect_nothing(rig.handle(other));
    assert!(!rig.core.snapshot().quorate);
}

/// Quorate, but a daemon of the ring has not said that it has seen the ring: it may know more.
#[test]
fn a_missing_hello_holds_everything_back() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        assert_eq!(verbs(&rig.run(event)), vec![]);
    }
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    // What it said in the ring before does not count.
    assert_eq!(verbs(&rig.run(hello_of(2, hello_using(2, 1)))), vec![]);
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    let op = rig.op(1);
    let actions = rig.handle(hello_of(2, hello_using(2, 2)));
    expect(actions, vec![save(op, image(&[1, 2, 3], true, true)), note(Note::DebtPaid(node(2)))]);
}

/// Quorum is lost between two verbs: the rest waits.
#[test]
fn quorum_is_lost_in_the_middle() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let save_op = rig.op(1);
    rig.handle(hello_of(2, hello_using(2, 2)));
    let suspend = rig.op(1);
    expect(rig.handle(done(save_op)), vec![verb(suspend, Verb::Suspend)]);
    let mute = Hello {
        witness: false,
        testimony: vec![testimony(3, Fate::Condemned { turn: 0 })],
        ..hello_using(1, 2)
    };
    expect(rig.handle(quorum(false, 2, &[1, 2])), vec![say_hello(mute)]);
    expect_nothing(rig.handle(done(suspend)));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Quorum));
    let op = rig.op(1);
    let actions = rig.handle(quorum(true, 2, &[1, 2]));
    assert_eq!(verbs(&actions), vec![verb(op, Verb::NodeDown(node(3), inc(3)))]);
}

/// Before we are in the control group, the quorum service alone changes nothing.
#[test]
fn while_joining() {
    for quorate in [true, false] {
        let mut rig = Rig::new(Fencing::None, Saved::default());
        rig.handle(connected(&[1, 2]));
        expect_nothing(rig.handle(quorum(quorate, 1, &[1, 2])));
        assert!(!rig.core.snapshot().quorate);
    }
}

/// All cables out, then back in pieces: the first majority waits for the rest, which may live.
#[test]
fn who_was_out_of_the_ring_when_quorum_came_has_a_grace() {
    let heal = |nodes: &[u32], rig: &mut Rig, seq: u64| {
        let others: Vec<u32> = nodes.iter().copied().filter(|n| *n != 1).collect();
        let mut all = rig.run(quorum(true, seq, nodes));
        for channel in [Channel::Control, group_channel()] {
            all.extend(rig.run(joined(channel, nodes, &others, Reason::NodeUp)));
            all.extend(rig.run(totem(channel, seq, nodes)));
        }
        for n in others {
            let word = Hello { witness: false, ..hello_using(n, seq) };
            all.extend(rig.run(hello_of(n, word)));
        }
        all
    };
    let alone = || {
        let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
        for event in rig.loss(&[1], &[2, 3], Reason::NodeDown) {
            let event = match event {
                Event::Quorum { ring, nodes, left, .. } => {
                    Event::Quorum { quorate: false, ring, nodes, left }
                }
                other => other,
            };
            assert_eq!(verbs(&rig.run(event)), vec![]);
        }
        rig
    };
    let mut rig = alone();
    assert_eq!(verbs(&heal(&[1, 2], &mut rig, 8)), vec![]);
    assert_eq!(rig.waiting(), Waiting::Peer(node(3)));
    assert_eq!(verbs(&heal(&[1, 2, 3], &mut rig, 9)), vec![], "it lives");
    assert_eq!(rig.state(), "ready");

    let mut rig = alone();
    let healed = heal(&[1, 2], &mut rig, 8);
    let fired = rig.fire_armed(&healed, &Timer::Grace(node(3)));
    let fired = rig.pump(fired);
    let down = Verb::NodeDown(node(3), inc(3));
    let told =
        fired.iter().filter(|action| matches!(action, Action::Verb { verb, .. } if *verb == down));
    assert_eq!(told.count(), 1, "{fired:?}");
}

/// Corosync was slow to find us a ring: the others had one meanwhile, and are a majority. Of what was let
/// in there we have not heard, and whoever comes to us now may not know it either.
#[test]
fn a_quorate_ring_of_the_others_may_have_been_missed() {
    let change = |parted: &[u32], back: &[u32], nodes: &[u32]| {
        let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
        let seq = rig.next_ring(nodes);
        let rest: Vec<u32> = [1, 2, 3].into_iter().filter(|n| !parted.contains(n)).collect();
        rig.run(quorum(true, seq, nodes));
        rig.run(left(Channel::Control, &rest, parted, Reason::NodeDown));
        if !back.is_empty() {
            rig.run(joined(Channel::Control, nodes, back, Reason::NodeUp));
        }
        rig.run(totem(Channel::Control, seq, nodes));
        for n in nodes.iter().copied().filter(|n| *n != 1) {
            rig.run(hello_of(n, Hello { witness: false, ..hello(n, seq) }));
        }
        rig
    };
    let mut rig = change(&[2, 3], &[3], &[1, 3]);
    assert!(rig.core.snapshot().settled && !rig.core.snapshot().witness);
    assert_eq!(verbs(&rig.run(Event::Begin(begin(1, &mnt())))), vec![]);
    assert_eq!(rig.waiting(), Waiting::Fencing(node(2)));
    rig.run(hello_of(3, hello(3, rig.seq)));
    assert!(rig.core.snapshot().witness, "one who was there tells");

    // A ring of our own in between, of which the quorum service had no time to speak, changes nothing.
    let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1], &[2, 3], Reason::NodeDown));
    rig.run(totem(Channel::Control, 7, &[1]));
    rig.run(totem(Channel::Control, 8, &[1, 3]));
    rig.run(quorum(true, 8, &[1, 3]));
    assert!(!rig.core.snapshot().witness);

    // Where a daemon is away, only the quorum service can tell that its node went and came back.
    let daemonless = |gone: &[u32]| {
        let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
        rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
        let seq = rig.next_ring(&[1, 3]);
        rig.run(left(Channel::Control, &[1], &[2], Reason::NodeDown));
        rig.run(totem(Channel::Control, seq, &[1, 3]));
        let (nodes_here, left) = (nodes(&[1, 3]), nodes(gone));
        rig.run(Event::Quorum { quorate: true, ring: ring(seq), nodes: nodes_here, left });
        rig.core.snapshot().witness
    };
    assert!(daemonless(&[2]) && !daemonless(&[2, 3]));

    assert!(change(&[2, 3], &[2, 3], &[1, 2, 3]).core.snapshot().witness, "all are here");
    assert!(change(&[3], &[], &[1, 2]).core.snapshot().witness, "we are the majority");
    assert!(!change(&[2, 3], &[], &[1]).core.snapshot().witness, "so may be the others' votes");
}

/// With `two_node: 1` both halves of a cut are quorate. The other one may begin to use whatever it likes: it is
/// fenced before anything is attached here, after a grace in which it may come back, and nobody is fenced who has
/// no daemon to begin with.
#[test]
fn both_halves_of_a_cut_may_be_quorate() {
    let alone = |how: Reason| {
        let mut rig = Rig::up(AGENT, &[1, 2]);
        if how != Reason::NodeDown {
            rig.run(left(Channel::Control, &[1], &[2], how));
        }
        let seq = rig.next_ring(&[1]);
        rig.run(quorum(true, seq, &[1]));
        if how == Reason::NodeDown {
            rig.run(left(Channel::Control, &[1], &[2], how));
        }
        let mut actions = rig.run(totem(Channel::Control, seq, &[1]));
        actions.extend(rig.run(Event::Begin(begin(1, &mnt()))));
        (rig, actions)
    };
    for clean in [Reason::Leave, Reason::ProcDown] {
        let (rig, begun) = alone(clean);
        let is_attach = |it: &Action| matches!(it, Action::Verb { verb: Verb::Attach(_), .. });
        assert!(begun.iter().any(is_attach), "{begun:?}");
        assert_eq!(rig.service(&mnt()), "granted");
    }
    let (mut rig, begun) = alone(Reason::NodeDown);
    assert_eq!((verbs(&begun), rig.waiting()), (vec![], Waiting::Fencing(node(2))));
    let op = rig.op(1);
    let missed = rig.fire_armed(&begun, &Timer::Grace(node(2)));
    assert!(missed.contains(&Action::Fence { op, node: node(2), level: 0 }), "{missed:?}");
    rig.run(done(op));
    assert_eq!(rig.service(&mnt()), "granted");

    // What is in use here goes on, and is mounted once more meanwhile.
    let mut rig = Rig::up(AGENT, &[1, 2]);
    rig.ring = vec![1];
    rig.run(Event::Begin(begin(1, &mnt())));
    rig.run(complete(2, &mnt(), 0));
    assert_eq!(rig.service(&mnt()), "live");
    for event in rig.loss(&[1], &[2], Reason::NodeDown) {
        rig.run(event);
    }
    let more = name("/more");
    rig.run(Event::Begin(begin(3, &more)));
    assert_eq!((rig.service(&more), rig.core.snapshot().witness), ("granted", false));

    // A use that is known is lost at once.
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let op = rig.op(1);
    let mut actions = vec![];
    for event in rig.loss(&[1], &[2], Reason::NodeDown) {
        actions.extend(rig.run(event));
    }
    assert!(actions.contains(&Action::Fence { op, node: node(2), level: 0 }), "{actions:?}");
    rig.run(done(op));
    assert_eq!((rig.state(), rig.waiting()), ("ready", Waiting::Nothing));
    assert!(rig.core.snapshot().witness);

    // So is that of a node that came when we knew all users already.
    let mut rig = Rig::ready(AGENT, &[1]);
    rig.run(Event::Nodelist(nodes(&[1, 2])));
    for event in rig.gain(&[1, 2], &[2]) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    let op = rig.op(1);
    let mut actions = vec![];
    for event in rig.loss(&[1], &[2], Reason::NodeDown) {
        actions.extend(rig.run(event));
    }
    assert!(actions.contains(&Action::Fence { op, node: node(2), level: 0 }), "{actions:?}");
}

/// Quorum comes to us in a ring in which the witness has spoken already, and to it earlier: our Hello asks for
/// its word, and is answered.
#[test]
fn a_quorum_that_comes_after_the_ring() {
    let asks = || Hello { witness: false, ..hello(2, 1) };
    let mut rig = Rig::up(AGENT, &[1, 2]);
    for _ in 0..2 {
        expect(rig.handle(hello_of(2, asks())), vec![say_hello(hello(1, 1))]);
    }
    expect_nothing(rig.handle(hello_of(2, hello(2, 1))));

    let mut rig = Rig::new(AGENT, Saved::default());
    rig.handle(connected(&[1, 2, 3]));
    rig.handle(quorum(false, 1, &[1, 2]));
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.pump(own);
    rig.run(hello_of(2, hello(2, 1)));
    let actions = rig.handle(quorum(true, 1, &[1, 2]));
    assert!(actions.contains(&say_hello(Hello { witness: false, ..hello(1, 1) })), "{actions:?}");
    let actions = rig.handle(hello_of(2, hello(2, 1)));
    assert!(actions.contains(&say_hello(hello(1, 1))), "{actions:?}");
}
