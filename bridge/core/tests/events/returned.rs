//! Lost nodes that are in the ring again, and whose daemon is not, or not yet.

use crate::common::*;

/// An old word about a node that is here in another boot, without its daemon, does not have it fenced.
#[test]
fn a_node_that_is_here_is_not_buried_in_an_old_boot() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    let old = Testimony { boot: boot(33), ..testimony(3, Fate::Condemned { turn: 0 }) };
    let actions = rig.run(hello_with(2, vec![old]));
    assert!(!actions.iter().any(|it| matches!(it, Action::Fence { .. })), "{actions:?}");
    assert_eq!(rig.node(3), ("absent", "none", true));

    // Nor if we do not know all users, and have heard this one.
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1, 3], &[2], Reason::ProcDown));
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(quorum(true, 1, &[1, 2, 3]));
    rig.run(hello_of(3, Hello { witness: false, ..hello_using(3, 1) }));
    rig.run(left(Channel::Control, &[1], &[3], Reason::ProcDown));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    assert!(!rig.core.snapshot().witness);
    let old = Testimony { boot: boot(33), ..testimony(3, Fate::Condemned { turn: 0 }) };
    rig.run(hello_of(2, Hello { witness: false, testimony: vec![old], ..hello_using(2, 1) }));
    assert_eq!(rig.node(3), ("absent", "none", true));
}

/// One that we did bury so, before we knew all users, is not waited for once somebody has a proof: the others would
/// reset a node that is here in a later boot.
#[test]
fn a_node_that_is_here_was_buried_in_an_old_boot() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
    rig.run(quorum(false, 1, &[1, 2, 3]));
    rig.run(quorum(true, 1, &[1, 2, 3]));
    let old = |turn| Testimony { boot: boot(33), ..testimony(3, Fate::Condemned { turn }) };
    let word = |witness, it| Hello { witness, testimony: vec![it], ..hello_using(2, 1) };
    rig.run(hello_of(2, word(false, old(1))));
    assert_eq!(rig.node(3).1, "needed");
    rig.run(hello_of(2, word(true, old(1))));
    rig.run(hello_of(2, word(true, Testimony { fate: Fate::Fenced, ..old(1) })));
    assert_eq!(rig.node(3).1, "fenced");
}

/// Node 3 is lost, our agent has failed once, and before it is run again we are out of quorum.
fn out_of_quorum_with_a_loss() -> Rig {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let fencing = rig.op(1);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let pause = rig.run(failed(fencing, 1));
    rig.run(quorum(false, rig.seq, &[1, 2]));
    rig.fire_armed(&pause, &Timer::Fence(node(3)));
    rig
}

/// Back from where the others were quorate without us, we hold a node for lost that they have let in again. It is
/// in the ring while its daemon is being restarted: no agent begins before that has spoken, or its grace is over.
#[test]
fn a_node_that_is_back_is_heard_before_it_is_fenced() {
    let returned = || {
        let mut rig = out_of_quorum_with_a_loss();
        let seq = rig.next_ring(&[1, 2, 3]);
        rig.run(quorum(true, seq, &[1, 2, 3]));
        let actions = rig.run(totem(Channel::Control, seq, &[1, 2, 3]));
        let missing = Testimony { boot: boot(33), ..testimony(3, Fate::Missing) };
        let mut word =
            rig.run(hello_of(2, Hello { testimony: vec![missing], ..hello_using(2, seq) }));
        assert!(rig.core.snapshot().witness && rig.node(3).1 != "running");
        word.extend(actions);
        (rig, word)
    };
    let is_fence = |it: &Action| matches!(it, Action::Fence { .. });
    let (mut rig, _) = returned();
    rig.run(joined(Channel::Control, &[1, 2, 3], &[3], Reason::Join));
    let back = Hello { boot: boot(33), ..hello(3, rig.seq) };
    let word = rig.run(hello_of(3, back));
    assert!(!word.iter().any(is_fence), "{word:?}");
    assert_eq!(rig.node(3), ("speaking", "none", false));

    // A daemon that stays away is judged as any other.
    let (mut rig, actions) = returned();
    let asked = rig.fire_armed(&actions, &Timer::Grace(node(3)));
    let echoed = rig.echo(&asked);
    let judged = rig.fire_armed(&echoed, &Timer::Grace(node(3)));
    assert!(judged.iter().any(is_fence), "{judged:?}");
}

/// The last word that everybody waits for is that of the lost node itself, and it has ended what it was buried in:
/// with that word the agent could begin, and must not.
#[test]
fn the_word_that_ends_a_loss_does_not_fence() {
    let mut rig = out_of_quorum_with_a_loss();
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    rig.run(hello_of(2, Hello { witness: false, ..hello_using(2, rig.seq) }));
    assert!(!rig.core.snapshot().settled && rig.node(3).1 != "none");
    let last = rig.run(hello_of(3, Hello { witness: false, ..hello(3, rig.seq) }));
    assert!(!last.iter().any(|it| matches!(it, Action::Fence { .. })), "{last:?}");
    assert_eq!(rig.node(3), ("speaking", "none", false));
}
