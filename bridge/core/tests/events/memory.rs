//! What daemons remember of their own uses: whether a use that is no longer named has ended, or is forgotten.

use crate::common::*;

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
    let (op, again) = (rig.op(1), rig.arm_nth(3, Timer::Grace(node(2)), GRACE_MS));
    expect(
        rig.overdue(2),
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
    let killed = rig.overdue(3);
    assert!(killed.contains(&note(Note::DebtOverdue(node(3)))), "{killed:?}");
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.handle(event);
    }
    assert_eq!(rig.group_members(), [(1, "member"), (3, "dead")]);
}

/// Our shim has yet to hear of a death of node 3, which uses the group again, and stops: the death does not
/// hide that.
#[test]
fn a_later_use_than_the_dead_ended() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.handle(event);
    }
    let seq = rig.next_ring(&[1, 2, 3]);
    let later = Incarnation(3_007);
    let again = Hello { uses: [(G, later)].into(), ..hello(3, seq) };
    for event in [
        quorum(true, seq, &[1, 2, 3]),
        joined(Channel::Control, &[1, 2, 3], &[3], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2, 3]),
        joined(group_channel(), &[1, 2, 3], &[3], Reason::NodeUp),
        totem(group_channel(), seq, &[1, 2, 3]),
        hello_of(2, hello_using(2, seq)),
        hello_of(3, again),
    ] {
        rig.handle(event);
    }
    let state = State { incarnation: later, boot: boot(3), told: users(&[1, 2]) };
    let bytes = proto::encode(1, true, &Body::State(state));
    expect(
        rig.handle(said(group_channel(), 3, bytes)),
        vec![note(Note::UserJoined(G, node(3), later))],
    );
    let actions = rig.handle(hello_of(3, hello(3, seq)));
    assert!(actions.contains(&note(Note::UserLeft(G, node(3), later))), "{actions:?}");
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (3, "dead")]);
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

/// A clock that was set back across a reboot: our shims know the node in two boots, in the earlier one by a later
/// use. What it says of the boot that it is in counts all the same.
#[test]
fn a_use_of_an_earlier_clock_ended() {
    let other = GroupId(G.0 + 1);
    let mut before = image(&[1], true, false);
    let user = User { incarnation: Incarnation(3_900), boot: boot(9) };
    before.told.insert(node(3), user);
    let groups = [(other, before), (G, image(&[1, 3], true, false))].into();
    let saved = Saved { memory_from: Some(inc(1)), groups };
    let mut rig = Rig::joining(AGENT, saved, &[1, 3]);
    let own = rig.handle(joined(Channel::Control, &[1, 3], &[1, 3], Reason::Join));
    rig.pump(own);
    let actions = rig.run(hello_of(3, hello(3, 1)));
    let left = note(Note::UserLeft(G, node(3), inc(3)));
    assert!(actions.contains(&left), "{actions:?}");
}
