//! The last word of a node: what it ends, and when it is not believed.

use crate::common::*;

/// The last word of a lost node was heard; what others said before they had heard it does not bury the node anew.
#[test]
fn a_word_that_crosses_the_last_one() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    let seq = rig.seq;
    rig.run(hello_of(3, hello(3, seq)));
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::Leave));
    let crossing = Hello { testimony: vec![condemned(3)], ..hello_using(2, seq) };
    rig.run(hello_of(2, crossing));
    assert_eq!(rig.node(3), ("absent", "none", false));
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}

/// A node that ended all that it was buried in waits for no word of a daemon that is gone.
#[test]
fn buried_by_a_daemon_that_is_gone() {
    let mut rig = Rig::up(Fencing::None, &[1, 2, 3]);
    let ours = testimony(1, Fate::Condemned { turn: 0 });
    rig.run(hello_of(3, Hello { testimony: vec![ours], ..hello(3, 1) }));
    rig.run(Event::Begin(begin(1, &mnt())));
    assert_eq!(rig.waiting(), Waiting::Fencing(node(1)));
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    // Whom the group lists is waited for, as by anybody who begins.
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
}

/// But who may have missed what came after the last word believes the others: it was out of quorum, or does not
/// know yet whether it is, or knows that word from others only.
#[test]
fn a_last_word_that_may_not_be_the_last() {
    let lost = |rig: &mut Rig| {
        rig.run(hello_with(2, vec![condemned(3)]));
        rig.node(3).1
    };
    let gone = || {
        let mut rig = Rig::up(Fencing::Ack, &[1, 2, 3]);
        rig.run(left(Channel::Control, &[1, 2], &[3], Reason::Leave));
        rig
    };
    assert_eq!(lost(&mut gone()), "none");
    let mut rig = gone();
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(quorum(true, 1, &[1, 2, 3]));
    assert_eq!(lost(&mut rig), "waiting for ack");
    let mut rig = gone();
    let seq = rig.next_ring(&[1, 2, 3]);
    rig.run(totem(Channel::Control, seq, &[1, 2, 3]));
    assert_eq!(lost(&mut rig), "waiting for ack");

    let mut rig = Rig::joining(Fencing::Ack, Saved::default(), &[1, 2, 3]);
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.pump(own);
    let uses = [(GroupId(G.0 + 1), Incarnation(3_007))].into();
    let missing = Testimony { uses, ..testimony(3, Fate::Missing) };
    rig.run(hello_of(2, Hello { testimony: vec![missing], ..hello(2, 1) }));
    assert_eq!(lost(&mut rig), "waiting for ack");
}
