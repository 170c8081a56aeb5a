//! The daemon stood still.

use crate::common::*;

/// Nobody's silence is measured: nothing to do.
#[test]
fn nobody_is_awaited() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(Event::Stalled));
    assert_eq!(rig.state(), "ready");
}

/// Whoever was awaited has a whole grace from now on; the old one fires into nothing.
#[test]
fn the_silent_have_a_grace_anew() {
    let mut rig = Rig::up_with(Fencing::None, Saved::default(), &[1, 2], true);
    let seq = rig.next_ring(&[1, 2]);
    rig.run(quorum(true, seq, &[1, 2]));
    let first = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    let actions = rig.handle(totem(Channel::Control, seq, &[1, 2]));
    assert_eq!(actions.last(), Some(&first));
    rig.echo(&actions);
    rig.now = rig.now.after(GRACE_MS - 1);
    let anew = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    expect(rig.handle(Event::Stalled), vec![anew]);
    expect_nothing(rig.fire_armed(&actions, &Timer::Grace(node(2))));
    let (op, again) = (rig.op(1), rig.arm_nth(3, Timer::Grace(node(2)), GRACE_MS));
    let kill = Action::KillNode { op, node: node(2) };
    expect(rig.overdue(2), vec![note(Note::DebtOverdue(node(2))), kill, again]);
}
