//! Corosync is gone. Nothing that it said counts any more; what is in use stays in use.

use crate::common::*;

#[test]
fn in_every_state_nothing_is_done() {
    for (mut rig, state) in [
        (Rig::new(Fencing::None, Saved::default()), "none"),
        (Rig::joining(AGENT, Saved::default(), &[1]), "none"),
        (Rig::up(AGENT, &[1, 2]), "none"),
        (Rig::begun(AGENT, &[1, 2]), "joining"),
        (Rig::ready(AGENT, &[1, 2]), "apart"),
    ] {
        expect_nothing(rig.handle(Event::Disconnected));
        expect_nothing(rig.handle(Event::Disconnected));
        let snapshot = rig.core.snapshot();
        assert!(!snapshot.connected && !snapshot.quorate && !snapshot.settled);
        assert_eq!((snapshot.ring, rig.state()), (None, state));
    }
}

/// Verbs that are under way end, and the rest of the change waits.
#[test]
fn in_the_middle_of_a_death() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    let marked = rig.op(1);
    rig.handle(hello_of(2, hello_using(2, 2)));
    let suspend = rig.op(1);
    rig.handle(done(marked));
    expect_nothing(rig.handle(Event::Disconnected));
    expect_nothing(rig.handle(done(suspend)));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Cluster));
    assert_eq!(rig.group_members(), [(1, "lost"), (2, "lost"), (3, "dead")]);
}

/// No grace runs without a ring, and a pause of the fencing finds nobody whose turn it is.
#[test]
fn timers_find_nothing_to_do() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.handle(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.handle(Event::Disconnected);
    expect_nothing(rig.fire_last(Timer::Grace(node(2))));
    assert!(rig.core.snapshot().nodes.iter().all(|status| !status.in_debt));
}
