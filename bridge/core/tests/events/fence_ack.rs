//! The administrator states that a node is off.

use crate::common::*;

fn ack(request: u64, n: u32) -> Event {
    Event::FenceAck { request: RequestId(request), client: ClientId(9), node: node(n) }
}

/// Node 3 is lost, agreed to be, and waits for its fencing.
fn lost(fencing: Fencing) -> Rig {
    let mut rig = Rig::ready(fencing, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Fencing(node(3))));
    rig
}

/// Nothing goes on before the word, everything at once after it.
#[test]
fn the_word_that_was_waited_for() {
    for fencing in [Fencing::Ack, AGENT] {
        let mut rig = lost(fencing);
        let op = rig.op(1);
        let fenced = Hello { testimony: vec![testimony(3, Fate::Fenced)], ..hello_using(1, 2) };
        let actions = rig.handle(ack(7, 3));
        expect(
            actions.clone(),
            vec![
                note(Note::Fenced(node(3), boot(3), fence::Proof::Ack)),
                reply(7, Reply::Done),
                verb(op, Verb::NodeDown(node(3), inc(3))),
                say_hello(fenced),
            ],
        );
        rig.pump(actions);
        assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
        expect(rig.handle(ack(8, 3)), vec![refused(8, Refusal::NothingToAck(node(3)))]);
    }
}

#[test]
fn nobody_waits_for_it() {
    let mut rig = Rig::new(Fencing::Ack, Saved::default());
    expect(rig.handle(ack(1, 3)), vec![refused(1, Refusal::NothingToAck(node(3)))]);
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2]);
    for n in [1, 2, 9] {
        expect(rig.handle(ack(1, n)), vec![refused(1, Refusal::NothingToAck(node(n)))]);
    }
}

/// Inquorate, a node is missing but not condemned: there is nothing yet to state.
#[test]
fn before_the_death_is_decided() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2]);
    rig.handle(quorum(false, 2, &[1]));
    rig.handle(totem(Channel::Control, 2, &[1]));
    expect(rig.handle(ack(1, 2)), vec![refused(1, Refusal::NothingToAck(node(2)))]);
}

#[test]
fn what_the_policy_none_has_settled() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    expect(rig.handle(ack(1, 3)), vec![refused(1, Refusal::NothingToAck(node(3)))]);
}

/// A node that came back in the same boot is dead by nobody's word while it uses what it was buried
/// in. Once it has ended that, nobody waits for the word any more.
#[test]
fn a_node_that_is_here() {
    let mut rig = lost(Fencing::Ack);
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    let seq = rig.seq;
    rig.run(hello_of(2, hello_using(2, seq)));
    rig.run(hello_of(3, hello_using(3, seq)));
    expect(rig.handle(ack(7, 3)), vec![refused(7, Refusal::NothingToAck(node(3)))]);

    rig.run(hello_of(3, hello(3, seq)));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    assert_eq!(rig.node(3).1, "none", "it may start anew");
    expect(rig.handle(ack(8, 3)), vec![refused(8, Refusal::NothingToAck(node(3)))]);
}

/// A daemon that is about to end may not be able to tell the others.
#[test]
fn while_we_end() {
    let mut rig = Rig::up_with(Fencing::Ack, Saved::default(), &[1, 2, 3], true);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    assert_eq!(rig.node(3).1, "waiting for ack");
    rig.handle(Event::Stop);
    expect(rig.handle(ack(7, 3)), vec![refused(7, Refusal::Stopping)]);
    assert_eq!(rig.node(3).1, "waiting for ack");
}
