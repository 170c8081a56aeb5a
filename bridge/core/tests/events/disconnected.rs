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

/// Node 3 was lost when corosync went. It may have been fenced by others meanwhile, and be back: before everybody has
/// spoken nobody is sent to reset it.
#[test]
fn who_was_lost_may_be_back() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let mut actions = vec![];
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        actions.extend(rig.run(event));
    }
    let fence = |actions: &[Action]| {
        actions
            .iter()
            .find_map(|it| if let Action::Fence { op, .. } = it { Some(*op) } else { None })
    };
    let agent = fence(&actions).expect("it is our turn");
    rig.handle(Event::Disconnected);
    let failed = rig.handle(failed(agent, 5));
    rig.fire_armed(&failed, &Timer::Fence(node(3)));
    assert_eq!(rig.node(3).1, "needed");

    rig.handle(connected(&[1, 2, 3]));
    let seq = rig.next_ring(&[1, 2, 3]);
    rig.handle(quorum(true, seq, &[1, 2, 3]));
    let back = joined(Channel::Control, &[1, 2, 3], &[1], Reason::Join);
    let steps = [back, hello_of(1, hello_using(1, seq)), hello_of(2, hello_using(2, seq))];
    for event in steps {
        let actions = rig.handle(event);
        assert_eq!(fence(&actions), None, "{actions:?}");
    }
    let mut unchanged = rig.clone();
    let reset = rig.handle(hello_of(3, Hello { boot: boot(9), ..hello(3, seq) }));
    assert_eq!(fence(&reset), None, "{reset:?}");
    assert_eq!(rig.node(3).1, "none");
    // But if it is not here, it is still to be fenced.
    let mut actions = vec![];
    for event in unchanged.loss(&[1, 2], &[3], Reason::NodeDown) {
        actions.extend(unchanged.handle(event));
    }
    assert_eq!(fence(&actions), None);
    let seq = unchanged.seq;
    unchanged.handle(hello_of(1, hello_using(1, seq)));
    assert!(fence(&unchanged.handle(hello_of(2, hello_using(2, seq)))).is_some());
}

/// A grace that ran before corosync went says nothing about the time after.
#[test]
fn whoever_was_never_seen_has_a_whole_grace_anew() {
    let everybody = [1, 2, 3];
    let armed = |actions: &[Action]| {
        let grace = Timer::Grace(node(3));
        actions.iter().any(|it| matches!(it, Action::Arm { timer, .. } if *timer == grace))
    };
    let mut rig = Rig::new(AGENT, Saved::default());
    for _ in 0..2 {
        rig.handle(connected(&everybody));
        rig.handle(quorum(true, 1, &[1, 2]));
        let actions = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
        assert!(armed(&actions), "{actions:?}");
        rig.handle(Event::Disconnected);
    }
}
