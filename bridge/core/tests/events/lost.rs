//! What daemons say of nodes that are lost: who fences, what is a proof, and in which boot.

use crate::common::*;

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

/// Nor does an agent that was at work when we were out of quorum: what it ended may have been an earlier boot than
/// the one that the others hold for lost. It is run once more, and that counts.
#[test]
fn an_agent_from_before_we_were_away() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let mut actions = Vec::new();
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        actions.extend(rig.run(event));
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    rig.run(quorum(false, 2, &[1, 2]));
    rig.run(quorum(true, 2, &[1, 2]));
    let later = Testimony { boot: boot(33), ..condemned(3) };
    rig.run(hello_of(2, Hello { testimony: vec![later], ..hello_using(2, 2) }));
    // It ends between the two words about the next ring.
    let seq = rig.next_ring(&[1, 2]);
    rig.run(quorum(true, seq, &[1, 2]));
    for (proves, event) in
        [(false, totem(Channel::Control, seq, &[1, 2])), (true, hello_of(2, hello_using(2, seq)))]
    {
        let fence = actions.iter().find(|it| matches!(it, Action::Fence { .. })).and_then(op_of);
        actions = rig.run(done(fence.expect("it is our turn")));
        actions.extend(rig.run(event));
        assert_eq!(rig.node(3).1, if proves { "fenced" } else { "running" });
        let proof = Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(1, seq) };
        assert_eq!(actions.contains(&say_hello(proof)), proves, "{actions:?}");
    }
}

/// A proof said in an earlier ring may be about a boot that is over; its daemon says it again in this one.
#[test]
fn an_old_word_is_no_proof() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.run(hello_with(2, vec![testimony(4, Fate::Condemned { turn: 1 })]));
    let seq = rig.next_ring(&[1, 2]);
    for event in [quorum(true, seq, &[1, 2]), totem(Channel::Control, seq, &[1, 2])] {
        rig.run(event);
    }
    for (said_in, expected) in [(1, "needed"), (seq, "fenced")] {
        let testimony = vec![testimony(4, Fate::Fenced)];
        rig.run(hello_of(2, Hello { testimony, ..hello_using(2, said_in) }));
        assert_eq!(rig.node(4).1, expected, "said in ring {said_in}");
    }
    // Nor is anybody buried by it, to be fenced once more.
    let testimony = vec![testimony(3, Fate::Fenced)];
    let actions = rig.run(hello_of(2, Hello { testimony, ..hello_using(2, 1) }));
    assert!(!actions.iter().any(|it| matches!(it, Action::Fence { .. })), "{actions:?}");
    assert!(!rig.core.snapshot().nodes.iter().any(|it| it.node == node(3)));
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
        let by = |witness, seq, testimony| {
            hello_of(2, Hello { witness, testimony: vec![testimony], ..hello(2, seq) })
        };
        rig.run(Event::Nodelist(nodes(&[1, 2, 3, 4])));
        rig.run(by(true, 1, testimony(4, Fate::Condemned { turn: 1 })));
        rig.run(by(true, 1, testimony(4, Fate::Fenced)));
        assert_eq!(rig.node(4).1, "fenced");
        rig.run(quorum(false, 1, &[1, 2, 3]));
        rig.run(quorum(true, 1, &[1, 2, 3]));
        if fate == Fate::Missing {
            let seq = rig.next_ring(&[1, 2, 3, 4]);
            rig.run(quorum(true, seq, &[1, 2, 3, 4]));
            rig.run(totem(Channel::Control, seq, &[1, 2, 3, 4]));
        }
        rig.run(by(witness, rig.seq, lost_again(fate)));
        let expected = match (witness, fate) {
            (false, _) => "fenced",
            (true, Fate::Missing) => "none",
            (true, _) => "needed",
        };
        assert_eq!(rig.node(4).1, expected, "a witness {witness}, {fate:?}");
    }
}

/// What we have fenced since we are back covers every boot that it was in before.
#[test]
fn a_fencing_of_now_covers_what_a_witness_names() {
    let mut rig = Rig::up(AGENT, &[1, 2, 3]);
    rig.run(Event::Nodelist(nodes(&[1, 2, 3, 4, 5])));
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(quorum(true, 1, &[1, 2, 3]));
    let by_two = |witness, it| hello_of(2, Hello { witness, testimony: vec![it], ..hello(2, 1) });
    let begun = rig.run(by_two(false, condemned(4)));
    let fence = begun.iter().find(|it| matches!(it, Action::Fence { .. })).and_then(op_of);
    rig.run(done(fence.expect("it is our turn")));
    let other = Testimony { boot: boot(44), ..condemned(4) };
    let actions = rig.run(by_two(true, other));
    assert!(!actions.iter().any(|it| matches!(it, Action::Fence { .. })), "{actions:?}");
    assert_eq!(rig.node(4).1, "fenced");
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

/// Two boots of node 4 are lost, and neither is fenced: what it used in either may be written to.
#[test]
fn what_a_node_used_in_another_boot_is_waited_for() {
    let in_boot = |n, uses: &[(GroupId, Incarnation)]| Testimony {
        boot: boot(n),
        uses: uses.iter().copied().collect(),
        ..condemned(4)
    };
    let (here, other) = ([(G, inc(4))], [(GroupId(2), inc(4))]);
    for (first, second, is_used) in [(&other, &here, true), (&other, &other, false)] {
        let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
        rig.run(Event::Nodelist(nodes(&[1, 2, 3, 4])));
        let by_two = |it| hello_of(2, Hello { testimony: vec![it], ..hello(2, 1) });
        rig.run(by_two(in_boot(4, first)));
        rig.run(quorum(false, 1, &[1, 2, 3]));
        rig.run(quorum(true, 1, &[1, 2, 3]));
        rig.run(by_two(in_boot(44, second)));
        let mut actions = rig.run(Event::Begin(begin(1, &mnt())));
        actions.extend(rig.run(hello_of(1, hello_using(1, 1))));
        assert_eq!(rig.waiting() == Waiting::Fencing(node(4)), is_used, "{:?}", rig.waiting());
        let ack = Event::FenceAck { request: RequestId(9), client: ClientId(1), node: node(4) };
        rig.run(ack);
        assert_ne!(rig.waiting(), Waiting::Fencing(node(4)));
    }
}

/// A witness by another's word has heard of a node that is here without its daemon from somebody who does not know all
/// that it uses: it must not say that as a witness.
#[test]
fn half_of_what_a_node_uses_is_not_said_as_a_witness() {
    let missing = Testimony { uses: [(GroupId(2), inc(3))].into(), ..testimony(3, Fate::Missing) };
    let mut rig = Rig::up(AGENT, &[1, 2]);
    let seq = rig.next_ring(&[1, 2, 3]);
    rig.run(quorum(false, seq, &[1, 2, 3]));
    rig.run(quorum(true, seq, &[1, 2, 3]));
    rig.run(totem(Channel::Control, seq, &[1, 2, 3]));
    let word = |witness, words: &[Testimony]| {
        hello_of(2, Hello { witness, testimony: words.to_vec(), ..hello(2, seq) })
    };
    rig.run(word(false, std::slice::from_ref(&missing)));
    let ours = |testimony| say_hello(Hello { testimony, ..hello(1, seq) });
    let actions = rig.run(word(true, &[]));
    assert!(actions.contains(&ours(vec![])), "{actions:?}");
    // Once a witness has said all, so do we.
    let all = Testimony { uses: [(GroupId(2), inc(3)), (G, inc(3))].into(), ..missing };
    rig.run(word(true, std::slice::from_ref(&all)));
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    let actions = rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    assert!(actions.contains(&ours(vec![all])), "{actions:?}");
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

/// What a lost node used counts as used by others: its gate is closed.
#[test]
fn what_the_lost_used_is_used_elsewhere() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    let other = GroupId(77);
    let hello = Hello { uses: [(G, inc(3)), (other, inc(4))].into(), ..hello_using(3, rig.seq) };
    rig.run(hello_of(3, hello));
    assert_eq!(rig.core.used_elsewhere(), [G, other].into());
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    assert_eq!((rig.node(3).1, rig.core.used_elsewhere()), ("waiting for ack", [G, other].into()));
}
