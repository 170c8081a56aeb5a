//! What other daemons say, and what is made of words that nobody should say.

use crate::common::*;

/// What node n says of others.
fn hello_with(n: u32, words: Vec<Testimony>) -> Event {
    hello_of(n, Hello { testimony: words, ..hello_using(n, 1) })
}

fn condemned(n: u32) -> Testimony {
    testimony(n, Fate::Condemned { turn: 0 })
}

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

/// Two daemons hold node 4 for lost in different boots, which nobody can order. Who has fenced the one
/// will not fence the other: it says so when it hears of it, and the turn passes.
#[test]
fn a_node_lost_in_two_boots() {
    let other = |fate| Testimony { boot: boot(44), ..testimony(4, fate) };
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.run(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 1 })]));
    assert_eq!(rig.node(4), ("absent", "needed", false), "it is the turn of node 2");
    expect_nothing(rig.run(hello_with(2, vec![other(Fate::Condemned { turn: 0 })])));
    let op = rig.op(1);
    let passed = vec![testimony(4, Fate::Condemned { turn: 2 })];
    expect(
        rig.handle(hello_with(2, vec![other(Fate::Fenced)])),
        vec![
            Action::Fence { op, node: node(4), level: 0 },
            say_hello(Hello { testimony: passed, ..hello_using(1, 1) }),
        ],
    );
    expect_nothing(rig.handle(hello_with(2, vec![other(Fate::Fenced)])));

    rig.run(done(op));
    expect_nothing(rig.handle(hello_with(2, vec![other(Fate::Fenced)])));
    let ours = vec![testimony(4, Fate::Fenced)];
    expect(
        rig.handle(hello_with(2, vec![other(Fate::Condemned { turn: 0 })])),
        vec![say_hello(Hello { testimony: ours.clone(), ..hello_using(1, 1) })],
    );
    // They come to hold the boot for lost that we have fenced: our word of that was about another one then.
    expect(
        rig.handle(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 0 })])),
        vec![say_hello(Hello { testimony: ours, ..hello_using(1, 1) })],
    );
    // Once: who waits for one node while we wait for another would else answer each answer.
    expect_nothing(rig.handle(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 0 })])));
}

/// We know neither boot nor uses of a node that did not show up. Who does is believed, or nobody would
/// fence for us what that one has fenced.
#[test]
fn a_missed_node_is_named() {
    let mut rig = Rig::up(AGENT, &[1, 2]);
    rig.run(Event::Nodelist(nodes(&[1, 2, 3])));
    let nobody = Testimony { boot: BootId::UNSEEN, uses: [].into(), ..condemned(3) };
    let fresh = |words| hello_of(2, Hello { testimony: words, witness: false, ..hello(2, 1) });
    rig.handle(quorum(false, 1, &[1, 2]));
    rig.handle(quorum(true, 1, &[1, 2]));
    rig.run(fresh(vec![nobody]));
    assert_eq!(rig.node(3), ("absent", "running", false));
    let fenced = rig.run(fresh(vec![testimony(3, Fate::Fenced)]));
    let proven = note(Note::Fenced(node(3), boot(3), fence::Proof::Testimony));
    assert!(fenced.contains(&proven), "{fenced:?}");
}

/// A proof from before we were out of quorum is none for others: its node may have come back since, in a
/// boot that nobody here has seen.
#[test]
fn an_old_proof_is_not_passed_on() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    let fence = rig.core.snapshot().nodes.iter().any(|it| it.fencing == "running");
    assert!(fence, "the turn is ours");
    let said = |actions: &[Action], fate: Fate| {
        let words = Hello { testimony: vec![testimony(3, fate)], ..hello_using(1, 2) };
        let fresh = Hello { witness: false, ..words.clone() };
        actions.contains(&say_hello(words)) || actions.contains(&say_hello(fresh))
    };
    rig.run(hello_of(
        2,
        Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(2, 2) },
    ));
    assert_eq!(rig.node(3).1, "fenced");
    rig.run(Event::Nodelist(nodes(&[1, 2, 3])));
    let out = rig.run(quorum(false, 2, &[1, 2]));
    assert!(said(&out, Fate::Condemned { turn: 0 }), "{out:?}");
    assert!(!said(&out, Fate::Fenced), "{out:?}");
    // Only what is said in the ring that is, and while that is quorate, makes it one again.
    for (quorate, seq, is_news) in [(false, 2, false), (true, 1, false), (true, 2, true)] {
        rig.run(quorum(quorate, 2, &[1, 2]));
        let word = Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(2, seq) };
        let out = rig.run(hello_of(2, word));
        assert_eq!(said(&out, Fate::Fenced), is_news, "said in ring {seq}: {out:?}");
    }
}

const ACK: Fencing = Fencing::Ack;

/// A fencing that ends when we are out of quorum proves that this boot is over, and not that the others have not
/// let the node in again.
#[test]
fn a_fencing_that_ends_out_of_quorum() {
    for (policy, quorate) in [(AGENT, true), (AGENT, false), (ACK, true), (ACK, false)] {
        let mut rig = Rig::ready(policy, &[1, 2, 3]);
        let mut begun = Vec::new();
        for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
            begun.extend(rig.run(event));
        }
        let fence = begun.iter().find_map(|it| match it {
            Action::Fence { op, .. } => Some(*op),
            _ => None,
        });
        assert_eq!(fence.is_some(), policy == AGENT, "it is our turn");
        rig.run(hello_of(2, hello_using(2, 2)));
        rig.run(quorum(quorate, 2, &[1, 2]));
        let ack = Event::FenceAck { request: RequestId(9), client: ClientId(1), node: node(3) };
        let out = rig.run(fence.map_or(ack, done));
        assert_eq!(rig.node(3).1, "fenced");
        let fate = if quorate { Fate::Fenced } else { Fate::Condemned { turn: 0 } };
        let said = Hello { testimony: vec![testimony(3, fate)], ..hello_using(1, 2) };
        assert!(out.contains(&say_hello(Hello { witness: quorate, ..said })), "{out:?}");
    }
}

/// Who knows all users knows what a node is doing, whoever held it for lost first.
#[test]
fn a_witness_that_was_told_of_a_loss() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let op = rig.op(1);
    let begun = rig.run(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 0 })]));
    assert!(begun.contains(&Action::Fence { op, node: node(4), level: 0 }), "{begun:?}");
    // The agent ends between two rings.
    let seq = rig.next_ring(&[1, 2]);
    rig.handle(quorum(true, seq, &[1, 2]));
    rig.handle(done(op));
    let ours = Hello { testimony: vec![testimony(4, Fate::Fenced)], ..hello_using(1, seq) };
    let actions = rig.handle(totem(Channel::Control, seq, &[1, 2]));
    assert!(actions.contains(&say_hello(ours)), "{actions:?}");
}

/// While we were out of quorum the others let a node in again that we hold for lost, and lost it: it writes on in
/// a boot of which we have not heard. Who knows all users says so, and nobody else is believed.
#[test]
fn a_node_was_let_in_again_without_us() {
    let lost_again = |fate| Testimony { boot: boot(44), ..testimony(4, fate) };
    for (witness, fate) in [
        (false, Fate::Condemned { turn: 1 }),
        (true, Fate::Condemned { turn: 1 }),
        (true, Fate::Missing),
    ] {
        let mut rig = Rig::up(AGENT, &[1, 2, 3]);
        let by = |n, seq, testimony| {
            let hello = Hello { witness, testimony: vec![testimony], ..hello(n, seq) };
            hello_of(n, hello)
        };
        rig.run(Event::Nodelist(nodes(&[1, 2, 3, 4])));
        rig.run(by(2, 1, testimony(4, Fate::Condemned { turn: 1 })));
        rig.run(by(2, 1, testimony(4, Fate::Fenced)));
        assert_eq!(rig.node(4).1, "fenced");
        rig.run(quorum(false, 1, &[1, 2, 3]));
        rig.run(quorum(true, 1, &[1, 2, 3]));
        if fate == Fate::Missing {
            let seq = rig.next_ring(&[1, 2, 3, 4]);
            rig.run(quorum(true, seq, &[1, 2, 3, 4]));
            rig.run(totem(Channel::Control, seq, &[1, 2, 3, 4]));
        }
        rig.run(by(2, rig.seq, lost_again(fate)));
        let expected = match (witness, fate) {
            (false, _) => "fenced",
            (true, Fate::Missing) => "none",
            (true, _) => "needed",
        };
        assert_eq!(rig.node(4).1, expected, "a witness {witness}, {fate:?}");
    }
}

/// Of a node that is not fenced it is not certain which boot is over: not even a witness's word is a proof.
#[test]
fn a_boot_that_is_not_fenced_is_not_over() {
    let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
    rig.run(Event::Nodelist(nodes(&[1, 2, 3, 4])));
    let by_two = |it| hello_of(2, Hello { testimony: vec![it], ..hello(2, 1) });
    rig.run(by_two(testimony(4, Fate::Condemned { turn: 0 })));
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(quorum(true, 1, &[1, 2, 3]));
    let other = Testimony { boot: boot(44), ..testimony(4, Fate::Condemned { turn: 0 }) };
    let actions = rig.run(by_two(other));
    let over = note(Note::Fenced(node(4), boot(4), fence::Proof::Reboot));
    assert!(!actions.contains(&over), "{actions:?}");
    assert_eq!(rig.node(4).1, "waiting for ack");
}

/// An old word about a node that is here in another boot, without its daemon, does not have it fenced.
#[test]
fn a_node_that_is_here_is_not_buried_in_an_old_boot() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    let old = Testimony { boot: boot(33), ..testimony(3, Fate::Condemned { turn: 0 }) };
    let actions = rig.run(hello_with(2, vec![old]));
    assert!(!actions.iter().any(|it| matches!(it, Action::Fence { .. })), "{actions:?}");
    assert_eq!(rig.node(3), ("absent", "none", true));
}

/// A word of an earlier ring asks for nothing: its daemon says the same again in this one.
#[test]
fn a_proof_is_not_said_to_an_old_word() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let op = rig.op(1);
    rig.run(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 0 })]));
    rig.run(done(op));
    let seq = rig.next_ring(&[1, 2]);
    for event in [quorum(true, seq, &[1, 2]), totem(Channel::Control, seq, &[1, 2])] {
        rig.run(event);
    }
    let proof = vec![testimony(4, Fate::Fenced)];
    let proof = say_hello(Hello { testimony: proof, ..hello_using(1, seq) });
    for (seq, is_answered) in [(1, false), (seq, true), (seq, false)] {
        let testimony = vec![testimony(4, Fate::Condemned { turn: 0 })];
        let actions = rig.run(hello_of(2, Hello { testimony, ..hello_using(2, seq) }));
        assert_eq!(actions.contains(&proof), is_answered, "said in ring {seq}: {actions:?}");
    }
    // In the next ring it asks anew, and so does the next daemon of its node.
    let seq = rig.next_ring(&[1, 2]);
    let proof = vec![testimony(4, Fate::Fenced)];
    let proof = say_hello(Hello { testimony: proof, ..hello_using(1, seq) });
    let testimony = vec![testimony(4, Fate::Condemned { turn: 0 })];
    let word = hello_of(2, Hello { testimony, ..hello_using(2, seq) });
    for events in [
        [quorum(true, seq, &[1, 2]), totem(Channel::Control, seq, &[1, 2])],
        [
            left(Channel::Control, &[1], &[2], Reason::ProcDown),
            joined(Channel::Control, &[1, 2], &[2], Reason::Join),
        ],
    ] {
        events.into_iter().for_each(|event| drop(rig.run(event)));
        let actions = rig.run(word.clone());
        assert!(actions.contains(&proof), "{actions:?}");
        assert!(!rig.run(word.clone()).contains(&proof), "once");
    }
}

/// A daemon that knew all users in an earlier ring may have slept since: of another boot of a node, only what
/// a witness says in the ring that is counts.
#[test]
fn an_old_word_of_a_witness_counts_for_nothing() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for quorate in [false, true] {
        let seq = rig.next_ring(&[1, 2]);
        rig.run(quorum(quorate, seq, &[1, 2]));
        rig.run(left(Channel::Control, &[1, 2], &[3], Reason::NodeDown));
        rig.run(totem(Channel::Control, seq, &[1, 2]));
        rig.run(totem(group_channel(), seq, &[1, 2]));
    }
    let word = Testimony { boot: boot(33), ..testimony(3, Fate::Missing) };
    for (seq, is_believed) in [(2, false), (3, true)] {
        let hello = Hello { testimony: vec![word.clone()], ..hello_using(2, seq) };
        let actions = rig.run(hello_of(2, hello));
        let dead = note(Note::Condemned(G, node(3), inc(3), ring(3)));
        assert_eq!(actions.contains(&dead), is_believed, "said in ring {seq}: {actions:?}");
    }
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

/// Another daemon's proof is proof here.
#[test]
fn a_proof_by_testimony() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, Hello { testimony: vec![condemned(3)], ..hello_using(2, 2) }));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Fencing(node(3))));
    let op = rig.op(1);
    let fenced = Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(2, 2) };
    let ours = Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(1, 2) };
    expect(
        rig.handle(hello_of(2, fenced.clone())),
        vec![
            note(Note::Fenced(node(3), boot(3), fence::Proof::Testimony)),
            verb(op, Verb::NodeDown(node(3), inc(3))),
            say_hello(ours),
        ],
    );
    expect_nothing(rig.handle(hello_of(2, fenced)));
}

/// Daemons that knew different uses of a lost node agree after one word each.
#[test]
fn testimonies_that_differ_do_not_bounce() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let word = |n: u32, use_| Testimony { uses: [(G, Incarnation(use_))].into(), ..condemned(n) };
    rig.run(hello_with(2, vec![word(3, 3_000)]));
    let later = rig.run(hello_with(2, vec![word(3, 3_007)]));
    let ours = Hello { testimony: vec![word(3, 3_007)], ..hello_using(1, 1) };
    assert!(later.contains(&say_hello(ours)), "{later:?}");
    for use_ in [3_000, 3_007, 3_000, 3_006] {
        expect_nothing(rig.run(hello_with(2, vec![word(3, use_)])));
    }
}

/// A use that a Hello no longer lists has ended cleanly, if its daemon would remember it.
#[test]
fn a_use_ended() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let op = rig.op(1);
    expect(
        rig.handle(hello_of(2, hello(2, 1))),
        vec![note(Note::UserLeft(G, node(2), inc(2))), save(op, image(&[1, 2], true, true))],
    );
}

/// A daemon that lost its memory cannot end what it does not remember: its node has to be reset.
#[test]
fn a_use_is_forgotten() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let amnesiac = Hello { memory_from: Incarnation(2_001), ..hello(2, 1) };
    let grace = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    expect(rig.handle(hello_of(2, amnesiac.clone())), vec![grace]);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    assert_eq!(rig.node(2), ("speaking", "none", true));
    let (op, again) = (rig.op(1), rig.arm(Timer::Grace(node(2)), GRACE_MS));
    expect(
        rig.fire_last(Timer::Grace(node(2))),
        vec![note(Note::DebtOverdue(node(2))), Action::KillNode { op, node: node(2) }, again],
    );
    expect_nothing(rig.handle(hello_of(2, amnesiac)));
}

/// Our shim knows node 3 by its first use; its daemon is away, and a witness knows a later use.
fn known_by_an_earlier_use() -> (Rig, proto::Uses) {
    let groups = [(G, image(&[1, 3], true, false))].into();
    let saved = Saved { memory_from: Some(inc(1)), groups };
    let mut rig = Rig::joining(AGENT, saved, &[1, 2, 3]);
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.pump(own);
    let later = proto::Uses::from([(G, Incarnation(3_007))]);
    let missing = Testimony { uses: later.clone(), ..testimony(3, Fate::Missing) };
    rig.run(hello_of(2, Hello { testimony: vec![missing], ..hello(2, 1) }));
    rig.handle(joined(Channel::Control, &[1, 2, 3], &[3], Reason::Join));
    assert_eq!(rig.group_members(), [(1, "member"), (3, "absent")]);
    (rig, later)
}

/// What others said of a node while it was away does not hide the use that our shim knows: the node's
/// own word ends that too.
#[test]
fn an_earlier_use_ended() {
    let left = note(Note::UserLeft(G, node(3), inc(3)));
    let (mut rig, _) = known_by_an_earlier_use();
    let actions = rig.run(hello_of(3, hello(3, 1)));
    assert!(actions.contains(&left), "{actions:?}");
    assert_eq!(rig.group_members(), [(1, "member")]);
    assert_eq!(rig.state(), "ready");

    let (mut rig, uses) = known_by_an_earlier_use();
    let actions = rig.run(hello_of(3, Hello { uses, ..hello(3, 1) }));
    assert!(actions.contains(&left), "{actions:?}");
    rig.handle(joined(group_channel(), &[1, 3], &[3], Reason::Join));
    let state = State { incarnation: Incarnation(3_007), boot: boot(3), told: users(&[1]) };
    let bytes = proto::encode(1, true, &Body::State(state));
    rig.run(said(group_channel(), 3, bytes));
    assert_eq!(rig.group_members(), [(1, "member"), (3, "member")]);
}

/// A daemon that remembers the later use, but not the one that our shim knows, cannot end that: its
/// node has to be reset, and the death is told.
#[test]
fn an_earlier_use_is_forgotten() {
    let (mut rig, _) = known_by_an_earlier_use();
    let amnesiac = Hello { memory_from: Incarnation(3_001), ..hello(3, 1) };
    let actions = rig.run(hello_of(3, amnesiac));
    let left = |action: &Action| matches!(action, Action::Note(Note::UserLeft(..)));
    assert!(!actions.iter().any(left), "{actions:?}");
    assert_eq!(rig.node(3), ("speaking", "none", true));
    let killed = rig.fire_last(Timer::Grace(node(3)));
    assert!(killed.contains(&note(Note::DebtOverdue(node(3)))), "{killed:?}");
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.handle(event);
    }
    assert_eq!(rig.group_members(), [(1, "member"), (3, "dead")]);
}

/// A restarted daemon speaks for a node that is missing, and remembers only an earlier use than we do:
/// the death of the later one is not lost.
#[test]
fn an_earlier_use_is_remembered_by_others() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    rig.handle(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    rig.handle(left(group_channel(), &[1, 2], &[3], Reason::ProcDown));
    rig.handle(quorum(false, 1, &[1, 2, 3]));
    rig.handle(quorum(true, 1, &[1, 2, 3]));
    let uses = [(G, Incarnation(2_999))].into();
    let missing = Testimony { uses, ..testimony(3, Fate::Missing) };
    let word = Hello { testimony: vec![missing], witness: false, ..hello_using(2, 1) };
    rig.handle(hello_of(2, word));
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.handle(event);
    }
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (3, "dead")]);
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

/// A message of a daemon that speaks versions 7 to 9 only, whose node uses OCFS2.
fn foreign_bytes(kind: u8) -> Vec<u8> {
    vec![b'O', b'2', b'B', b'R', kind, 7, 0, 9, 0, 1, 9, 0]
}

fn foreign_refusal(n: u8) -> Vec<u8> {
    [foreign_bytes(3), vec![n, 0, 0, 0]].concat()
}

fn incompatible() -> Refusal {
    Refusal::Incompatible { node: node(2), theirs: (7, 9), ours: proto::SPEAKS }
}

/// Whoever uses OCFS2 first keeps it: we do, so the daemon of another version is refused.
#[test]
fn a_foreign_daemon_comes_later() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let seq = rig.next_ring(&[1, 2]);
    for event in [
        quorum(true, seq, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[2], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2]),
        totem(group_channel(), seq, &[1, 2]),
    ] {
        rig.run(event);
    }
    let bytes = proto::encode(1, true, &Body::Refuse(node(2)));
    let refuse = Action::Mcast { channel: Channel::Control, bytes };
    let actions = rig.handle(said(Channel::Control, 2, foreign_bytes(1)));
    // What it uses is not known: nobody knows all users any more.
    let doubting = Hello { witness: false, ..hello_using(1, seq) };
    expect(
        actions,
        vec![
            note(Note::Incompatible(node(2), (7, 9))),
            refuse,
            note(Note::GroupReady(G)),
            say_hello(doubting),
        ],
    );
    assert_eq!((rig.state(), rig.node(2).0), ("ready", "incompatible"));
    // Said once more, it is no news: a flood must not be answered with a flood.
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_bytes(1))));
    // Its refusal of us changes nothing for what is in use.
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_refusal(1))));
    assert_eq!(rig.state(), "ready");
}

/// It uses OCFS2 already, so we may not begin.
#[test]
fn a_foreign_daemon_was_first() {
    for bytes in [foreign_bytes(1), foreign_refusal(1)] {
        let mut rig = Rig::up(Fencing::None, &[1, 2]);
        rig.handle(said(Channel::Control, 2, bytes));
        expect(rig.handle(Event::Begin(begin(1, &mnt()))), vec![refused(1, incompatible())]);
        assert_eq!(rig.state(), "none");
    }
}

/// It was first, but we hear of it only after our tool asked.
#[test]
fn a_foreign_daemon_is_heard_while_a_tool_waits() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    expect(
        rig.handle(said(Channel::Control, 2, foreign_refusal(1))),
        vec![refused(1, incompatible()), note(Note::GroupGone(G)), say_hello(hello(1, 1))],
    );
}

/// A daemon is restarted under a mount, and somebody whom it does not understand uses something too:
/// what is mounted stays, and whoever begins is told in the end whom the group waited for.
#[test]
fn a_foreign_daemon_beside_a_mount() {
    let groups = [(G, image(&[1], true, false))].into();
    let saved = Saved { memory_from: Some(inc(1)), groups };
    let mut rig = Rig::joining(Fencing::None, saved, &[1, 2]);
    rig.handle(done(OpId(1)));
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.ring = vec![1];
    rig.pump(own);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    let more = name("/more");
    let (save_op, again) = (rig.op(1), rig.op(2));
    let services = [(&mnt(), true), (&more, false)];
    let services = services.map(|(name, live)| SavedService { name: name.clone(), live });
    let both = SavedGroup { services: services.to_vec(), ..image(&[1], true, false) };
    let timer = rig.arm(Timer::Begin(G, more.clone()), BEGIN_MS);
    expect(rig.handle(Event::Begin(begin(1, &more))), vec![timer, save(save_op, both)]);
    expect(rig.handle(done(save_op)), vec![note(Note::GroupReady(G))]);
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    let overdue = vec![
        refused(1, Refusal::TimedOut(Waiting::Peer(node(2)))),
        save(again, image(&[1], true, false)),
    ];
    expect(rig.fire_last(Timer::Begin(G, more.clone())), overdue);
    assert_eq!(rig.service(&mnt()), "live");
}

/// A foreign refusal of a third node is no business of ours.
#[test]
fn a_foreign_refusal_of_another_node() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_refusal(3))));
    assert_eq!(rig.node(2).0, "speaking");
}

/// A daemon of our version is back on that node: all is well again.
#[test]
fn a_foreign_daemon_is_replaced() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    rig.run(hello_of(2, hello(2, 1)));
    assert_eq!(rig.node(2).0, "speaking");
    rig.ring = vec![1];
    assert_eq!(rig.run(Event::Begin(begin(1, &mnt()))).last(), Some(&reply(1, Reply::Done)));
}

/// A daemon that knows all users there are needs nobody's word about nodes that nobody has seen: it
/// would fence a node that is not missing anything.
#[test]
fn a_witness_does_not_hear_of_the_unseen() {
    for fate in [Fate::Condemned { turn: 0 }, Fate::Fenced] {
        let mut rig = Rig::ready(AGENT, &[1, 2]);
        let (node, uses) = (node(3), proto::Uses::new());
        let unseen = Testimony { node, boot: BootId::UNSEEN, uses, fate };
        expect_nothing(rig.handle(hello_with(2, vec![unseen])));
    }
}

/// A daemon that we cannot understand used something, and is gone: whatever that was, its node is
/// fenced before anybody begins to use anything.
#[test]
fn a_foreign_user_is_lost() {
    let mut rig = Rig::up(AGENT, &[1, 2, 3]);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    let [quorate, gone, ring, ..] = rig.loss(&[1, 3], &[2], Reason::NodeDown);
    let mut all = vec![];
    for event in [quorate, gone, ring] {
        all.extend(rig.run(event));
    }
    all.extend(rig.run(hello_of(3, Hello { witness: false, ..hello(3, rig.seq) })));
    let fence = all.iter().find(|it| matches!(it, Action::Fence { .. })).expect("it is fenced");
    let op = op_of(fence).unwrap();
    rig.run(Event::Begin(begin(1, &mnt())));
    assert_eq!((rig.state(), rig.waiting()), ("attaching", Waiting::Fencing(node(2))));
    rig.run(done(op));
    // The rig puts node 3 into every group; what it would say there is another matter.
    assert_eq!((rig.node(3).0, rig.waiting()), ("speaking", Waiting::Peer(node(3))));
}

/// Somebody who was cut off while the node was reset and came back still says that an earlier boot of
/// it was fenced. That is no proof of anything about the boot that we know.
#[test]
fn the_fencing_of_another_boot_proves_nothing() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let [quorate, gone, ring, left, last] = rig.loss(&[1, 3], &[2], Reason::NodeDown);
    let mut all = vec![];
    for event in [quorate, gone, ring, left, last] {
        all.extend(rig.run(event));
    }
    let earlier = Testimony { boot: boot(99), ..testimony(2, Fate::Fenced) };
    let stale = Hello { testimony: vec![earlier], ..hello_using(3, rig.seq) };
    all.extend(rig.run(hello_of(3, stale)));
    all.extend(rig.run(state_of(3, &[1, 3])));
    assert!(!all.iter().any(|it| matches!(it, Action::Verb { verb: Verb::NodeDown(..), .. })));
    let fence = all.iter().find(|it| matches!(it, Action::Fence { .. })).expect("it is fenced");
    let op = op_of(fence).unwrap();
    let after = rig.run(done(op));
    let down = Verb::NodeDown(node(2), inc(2));
    assert!(after.iter().any(|it| matches!(it, Action::Verb { verb, .. } if *verb == down)));
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
