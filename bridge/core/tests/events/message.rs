//! What other daemons say, and what is made of words that nobody should say.

use crate::common::*;

/// The cluster went on without us: reset the node, leave the group, tell the tools.
#[test]
fn our_own_condemnation() {
    for fate in [Fate::Condemned { turn: 3 }, Fate::Fenced] {
        let mut rig = Rig::ready(Fencing::None, &[1, 2]);
        let op = rig.op(1);
        expect(
            rig.handle(hello_with(2, vec![testimony(1, fate)])),
            vec![
                note(Note::Expelled(G)),
                Action::FenceSelf { group: G, incarnation: inc(1) },
                Action::Depart { op, channel: group_channel() },
            ],
        );
        assert_eq!((rig.state(), rig.waiting()), ("expelled", Waiting::Fencing(node(1))));
        expect_nothing(rig.handle(hello_with(2, vec![testimony(1, fate)])));
        expect_nothing(rig.handle(done(op)));
        let again = Event::Begin(begin(9, &name("/other")));
        expect(rig.handle(again), vec![refused(9, Refusal::Expelled)]);
    }
}

/// Whoever waits to begin is refused, and the group goes.
#[test]
fn our_own_condemnation_while_a_tool_waits() {
    let mut rig = Rig::begun(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    expect(
        rig.handle(hello_with(2, vec![condemned(1)])),
        vec![
            note(Note::Expelled(G)),
            Action::FenceSelf { group: G, incarnation: inc(1) },
            refused(1, Refusal::Expelled),
            Action::Depart { op, channel: group_channel() },
        ],
    );
    expect(rig.handle(done(op)), vec![note(Note::GroupGone(G)), say_hello(hello(1, 1))]);
}

/// An expelled group that all tools have left is detached, forgotten, and said to be so.
#[test]
fn the_end_of_an_expelled_group() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.run(hello_with(2, vec![condemned(1)]));
    let (first, second, third) = (rig.op(1), rig.op(2), rig.op(3));
    let leave_timer = rig.arm(Timer::Leave(G, mnt()), LEAVE_MS);
    let without = SavedGroup { services: vec![], ..image(&[1, 2], true, false) };
    rig.steps(vec![
        (leave(5, &mnt()), vec![leave_timer, save(first, without)]),
        (done(first), vec![verb(second, Verb::Detach)]),
        (done(second), vec![Action::Save { op: third, group: G, image: None }]),
        (
            done(third),
            vec![reply(5, Reply::Done), note(Note::GroupGone(G)), say_hello(hello(1, 1))],
        ),
    ]);
    // Buried still: a new use waits until the others let go.
    rig.run(Event::Begin(begin(6, &mnt())));
    assert_eq!(rig.waiting(), Waiting::Fencing(node(1)));
}

/// Words about us that are not about this use.
#[test]
fn condemnations_of_something_else() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let other_boot = Testimony { boot: boot(11), ..condemned(1) };
    expect_nothing(rig.handle(hello_with(2, vec![other_boot])));
    expect_nothing(rig.handle(hello_with(2, vec![testimony(1, Fate::Missing)])));
    let other_use = Testimony { uses: [(G, inc(9))].into(), ..condemned(1) };
    expect_nothing(rig.handle(hello_with(2, vec![other_use])));
    assert_eq!(rig.state(), "settling", "this boot was buried, so nothing goes on here");
    assert_eq!(rig.waiting(), Waiting::Fencing(node(1)));
    expect(rig.handle(hello_with(2, vec![])), vec![note(Note::GroupReady(G))]);
    assert_eq!(rig.state(), "ready");
}

/// A buried node that returns in the same boot is told so by us; the kernel hears of its death only
/// after its process left the group.
#[test]
fn a_buried_node_returns() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let seq = rig.next_ring(&[1, 2, 3]);
    for event in
        [quorum(true, seq, &[1, 2, 3]), joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp)]
    {
        expect_nothing(rig.handle(event));
    }
    let buried = Hello { testimony: vec![condemned(3)], ..hello_using(1, seq) };
    let actions = rig.handle(totem(Channel::Control, seq, &[1, 2, 3]));
    expect(actions.iter().take(1).cloned().collect(), vec![say_hello(buried)]);
    rig.pump(actions);
    rig.run(joined(group_channel(), &[1, 2, 3], &[3], Reason::NodeUp));
    rig.run(totem(group_channel(), seq, &[1, 2, 3]));
    rig.run(hello_of(2, hello_using(2, seq)));
    let all = rig.run(hello_of(3, hello_using(3, seq)));
    assert!(
        !all.iter().any(|action| matches!(action, Action::Verb { verb: Verb::NodeDown(..), .. }))
    );
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Fencing(node(3))));
    expect_nothing(rig.run(state_of(3, &[1, 2, 3])));
    let op = |n| rig.op(n);
    let expected = vec![
        verb(op(1), Verb::NodeDown(node(3), inc(3))),
        note(Note::Buried(G, node(3), inc(3))),
        verb(op(2), Verb::Resume(peers(&[1, 2]))),
        save(op(3), image(&[1, 2], true, false)),
        say_state(&[1, 2]),
        note(Note::GroupReady(G)),
    ];
    expect(rig.run(left(group_channel(), &[1, 2], &[3], Reason::Leave)), expected);
}

/// It has ended what it was buried in: it may start anew in the same boot.
#[test]
fn a_buried_node_is_released() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    assert_eq!(rig.node(3), ("absent", "fenced", false));
    let seq = rig.next_ring(&[1, 2, 3]);
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        totem(group_channel(), seq, &[1, 2, 3]),
        hello_of(2, hello_using(2, seq)),
        hello_of(3, hello_using(3, seq)),
    ] {
        rig.run(event);
    }
    assert_eq!(rig.node(3), ("speaking", "fenced", false));
    let actions = rig.handle(hello_of(3, hello(3, seq)));
    expect(actions, vec![say_hello(hello_using(1, seq))]);
    assert_eq!(rig.node(3), ("speaking", "none", false));
}

/// Node 3 was condemned, our agent is after it, and it is back in the same boot, still using the group.
fn back_before_it_is_fenced() -> (Rig, OpId, u64) {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let all: Vec<Action> =
        rig.loss(&[1, 2], &[3], Reason::NodeDown).into_iter().flat_map(|it| rig.run(it)).collect();
    let fence = all.iter().find(|action| matches!(action, Action::Fence { .. })).and_then(op_of);
    rig.run(hello_of(2, hello_using(2, 2)));
    let seq = rig.next_ring(&[1, 2, 3]);
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        totem(group_channel(), seq, &[1, 2, 3]),
        hello_of(2, hello_using(2, seq)),
        hello_of(3, hello_using(3, seq)),
    ] {
        rig.run(event);
    }
    assert_eq!(rig.node(3), ("speaking", "running", false));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Fencing(node(3))));
    (rig, fence.expect("the turn is ours"), seq)
}

/// It has ended what it was buried in before anybody fenced it: it left, and there is no death to tell.
/// Those who were there have seen it leave, and would never fence it.
#[test]
fn a_buried_node_left() {
    let (mut rig, fence, seq) = back_before_it_is_fenced();
    let op = rig.op(1);
    expect(
        rig.handle(hello_of(3, hello(3, seq))),
        vec![
            note(Note::UserLeft(G, node(3), inc(3))),
            verb(op, Verb::Resume(peers(&[1, 2]))),
            say_hello(hello_using(1, seq)),
        ],
    );
    assert_eq!(rig.node(3), ("speaking", "none", false));
    // The agent comes too late: it proves nothing.
    expect_nothing(rig.handle(done(fence)));
    rig.run(done(op));
    assert_eq!((rig.state(), rig.group_members()), ("ready", vec![(1, "member"), (2, "member")]));
}

/// Out of quorum we hear that node 2 was buried; it hears that too, and leaves the process group with its
/// kernel still attached. That is no end of its use, and its death is told once we are quorate.
#[test]
fn the_leave_of_an_expelled_node() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(hello_of(3, Hello { testimony: vec![condemned(2)], ..hello_using(3, 1) }));
    expect_nothing(rig.run(left(group_channel(), &[1, 3], &[2], Reason::Leave)));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "absent"), (3, "member")]);
    let mut all: Vec<Action> =
        rig.loss(&[1, 3], &[2], Reason::NodeDown).into_iter().flat_map(|it| rig.run(it)).collect();
    all.extend(rig.run(hello_of(3, hello_using(3, 2))));
    let told = |it: &Action| {
        matches!(it, Action::Verb { verb: Verb::NodeDown(dead, use_), .. }
            if (*dead, *use_) == (node(2), inc(2)))
    };
    assert!(all.iter().any(told), "{all:?}");
}

/// A daemon that lost its memory cannot say so: its node stays condemned, and has to be reset.
#[test]
fn a_buried_node_without_memory_did_not_leave() {
    let (mut rig, _, seq) = back_before_it_is_fenced();
    let grace = rig.arm(Timer::Grace(node(3)), GRACE_MS);
    let amnesiac = Hello { memory_from: inc(4), ..hello(3, seq) };
    expect(rig.handle(hello_of(3, amnesiac)), vec![grace]);
    assert_eq!(rig.node(3), ("speaking", "running", true));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (3, "dead")]);
}

/// A daemon that lost its memory cannot say that what it was buried in has ended.
#[test]
fn a_buried_node_without_memory_is_not_released() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let seq = rig.next_ring(&[1, 2, 3]);
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        hello_of(3, Hello { memory_from: inc(4), ..hello(3, seq) }),
    ] {
        rig.run(event);
    }
    assert_eq!(rig.node(3), ("speaking", "fenced", true));
}

/// Of a use of the same boot that neither ended nor died, no later one can be made.
#[test]
fn a_state_that_cannot_be() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let state = State { incarnation: Incarnation(2_001), boot: boot(2), told: users(&[1, 2]) };
    let bytes = proto::encode(1, true, &Body::State(state));
    expect_nothing(rig.handle(said(group_channel(), 2, bytes)));
    let snapshot = rig.core.snapshot();
    let seen = snapshot.groups.first().unwrap().members.last().unwrap().incarnation;
    assert_eq!(seen, inc(2));
}

/// A State that is read after its node has said that the use is over brings it back for nobody: nothing would
/// end it any more.
#[test]
fn a_state_of_a_use_that_is_over() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(joined(Channel::Control, &[1, 2, 3], &[3], Reason::Join));
    rig.handle(hello_of(3, hello(3, 1)));
    rig.handle(joined(group_channel(), &[1, 2, 3], &[3], Reason::Join));
    expect_nothing(rig.handle(state_of(3, &[])));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// States of those who are not in the group, or whose node speaks of another boot, are not heard.
#[test]
fn states_that_do_not_count() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(state_of(3, &[1, 2, 3])));
    rig.handle(joined(group_channel(), &[1, 2, 3], &[3], Reason::Join));
    expect_nothing(rig.handle(state_of(3, &[1, 2, 3])));
    let late = State { incarnation: Incarnation(1), boot: boot(21), told: users(&[1]) };
    let bytes = proto::encode(1, true, &Body::State(late));
    expect_nothing(rig.handle(said(group_channel(), 2, bytes.clone())));
    expect_nothing(rig.handle(said(Channel::Group(H), 2, bytes)));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// What is not of our protocol is dropped and counted, and said at powers of two only.
#[test]
fn garbage_is_dropped_and_counted() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let state = State { incarnation: inc(2), boot: boot(2), told: Users::new() };
    let junk = [
        (Channel::Control, vec![]),
        (Channel::Control, b"O2BR".to_vec()),
        (group_channel(), vec![0; 1_000]),
        (Channel::Control, proto::encode(1, true, &Body::State(state))),
        (group_channel(), proto::encode(1, true, &Body::Hello(hello(2, 1)))),
        (group_channel(), proto::encode(1, true, &Body::Refuse(node(1)))),
        (group_channel(), foreign_bytes(1)),
        (Channel::Group(H), vec![1]),
    ];
    for (count, (channel, bytes)) in (1..).zip(junk) {
        let noted = note(Note::Garbage(channel, member(2), count));
        let expected = if count.is_power_of_two() { vec![noted] } else { vec![] };
        expect(rig.handle(said(channel, 2, bytes)), expected);
        assert_eq!(rig.core.snapshot().garbage_messages, count);
    }
    assert_eq!(rig.state(), "ready");
}

/// One process speaks for a node; another one there is not heard.
#[test]
fn two_processes_of_one_node() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let other = Member { node: node(2), pid: Pid(999) };
    let mut members = members(&[1, 2]);
    members.push(other);
    let joined = vec![(other, Reason::Join)];
    let came = Event::Confchg { channel: Channel::Control, members, left: vec![], joined };
    expect(rig.handle(came), vec![say_hello(hello_using(1, 1))]);
    let bytes = proto::encode(1, false, &Body::Hello(hello(2, 1)));
    let event = Event::Message { channel: Channel::Control, from: other, bytes };
    expect(rig.handle(event), vec![note(Note::Garbage(Channel::Control, other, 1))]);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// A State said again by a process that is no daemon, and that then leaves, ends nobody's use.
#[test]
fn a_state_of_no_daemon() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let other = Member { node: node(2), pid: Pid(999) };
    let mut members = members(&[1, 2]);
    let staying = members.clone();
    members.push(other);
    let change = vec![(other, Reason::Join)];
    rig.handle(Event::Confchg { channel: group_channel(), members, left: vec![], joined: change });
    let state = State { incarnation: inc(2), boot: boot(2), told: users(&[1, 2]) };
    let bytes = proto::encode(1, true, &Body::State(state));
    expect_nothing(rig.handle(Event::Message { channel: group_channel(), from: other, bytes }));
    let left = vec![(other, Reason::Leave)];
    let gone = Event::Confchg { channel: group_channel(), members: staying, left, joined: vec![] };
    expect_nothing(rig.handle(gone));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// Whoever is not in the control group is not heard there.
#[test]
fn words_of_a_stranger() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(hello_of(3, hello_using(3, 1))));
    expect_nothing(rig.handle(said(Channel::Control, 3, foreign_bytes(1))));
    assert_eq!(rig.core.snapshot().nodes.len(), 2);
}

/// Each of two Hellos fits into a message; what we say of all their dead must, too.
#[test]
fn many_words_make_no_message_that_corosync_refuses() {
    let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
    let groups = 0..proto::GROUPS_MAX as u128;
    let uses: proto::Uses = groups.map(|group| (GroupId(group), inc(9))).collect();
    let dead = |n: u32| Testimony { uses: uses.clone(), ..condemned(n) };
    let mut said = vec![];
    for (from, dead_nodes) in [(2, 10..137), (3, 137..264)] {
        let words = dead_nodes.map(dead).collect();
        said.extend(rig.handle(hello_of(from, Hello { testimony: words, ..hello(from, 1) })));
        let seq = rig.next_ring(&[1, 2, 3]);
        said.extend(rig.handle(quorum(true, seq, &[1, 2, 3])));
        said.extend(rig.handle(totem(Channel::Control, seq, &[1, 2, 3])));
    }
    let sizes: Vec<usize> = said
        .iter()
        .filter_map(|action| match action {
            Action::Mcast { bytes, .. } => Some(bytes.len()),
            _ => None,
        })
        .collect();
    let largest = sizes.iter().max().unwrap();
    assert!((700_000..=1_047_552).contains(largest), "{sizes:?}");
}

/// Whatever one daemon says of whatever nodes and groups, there is an end to what is kept.
#[test]
fn words_without_end_are_not_kept() {
    let mut rig = Rig::up(Fencing::Ack, &[1, 2]);
    for round in 0..8 {
        let groups = (0..proto::GROUPS_MAX as u128).map(|n| n + 1_000 * round);
        let uses: proto::Uses = groups.map(|group| (GroupId(group), inc(9))).collect();
        let fate = if round % 2 == 0 { Fate::Condemned { turn: 0 } } else { Fate::Missing };
        let first = 10 + 100 * round as u32;
        let of = |n| Testimony { uses: uses.clone(), ..testimony(n, fate) };
        let words = [10].into_iter().chain(first..first + 100).map(of).collect();
        let forgetful =
            Hello { memory_from: Incarnation(u64::MAX), testimony: words, ..hello(2, 1) };
        rig.run(hello_of(2, Hello { uses: uses.clone(), ..forgetful }));
    }
    let nodes = rig.core.snapshot().nodes;
    assert!((200..=256).contains(&nodes.len()), "{} nodes", nodes.len());
    let most = nodes.iter().map(|node| node.groups).max();
    assert_eq!(most, Some(2 * proto::GROUPS_MAX));
}

/// Corosync keeps no order between two groups: a State may come before the Hello that names the use. It is said once.
#[test]
fn a_state_before_its_hello() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.run(Event::Begin(begin(1, &mnt())));
    rig.handle(joined(group_channel(), &[1, 2], &[2], Reason::Join));
    expect_nothing(rig.handle(state_of(2, &[1, 2])));
    let mut gone = rig.clone();
    rig.run(hello_of(2, hello_using(2, 1)));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    // Whoever has left meanwhile is not held to it.
    gone.handle(left(group_channel(), &[1], &[2], Reason::Leave));
    gone.handle(joined(group_channel(), &[1, 2], &[2], Reason::Join));
    let actions = gone.handle(hello_of(2, hello_using(2, 1)));
    let is_user = |it: &Action| matches!(it, Action::Note(Note::UserJoined(..)));
    assert!(!actions.iter().any(is_user), "{actions:?}");
}

/// A daemon that we have not heard at all is no speaker yet; what it said in the group counts once it is.
#[test]
fn a_state_before_the_first_hello() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.run(Event::Begin(begin(1, &mnt())));
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    rig.run(joined(group_channel(), &[1, 2], &[2], Reason::Join));
    expect_nothing(rig.handle(state_of(2, &[1, 2])));
    assert_eq!(rig.node(2).0, "silent");
    rig.run(hello_of(2, hello_using(2, 1)));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}
