//! The nodelist of corosync.conf changed while corosync runs.

use crate::common::*;

/// A daemon that has just started knows all users there are once every configured node was seen: a
/// node that is taken off the list is awaited no more, and fenced no more.
#[test]
fn who_is_off_the_list_is_not_awaited() {
    let mut rig = Rig::joining(Fencing::Ack, Saved::default(), &[1]);
    rig.run(connected(&[1, 2]));
    rig.run(quorum(true, 1, &[1]));
    rig.run(joined(Channel::Control, &[1], &[1], Reason::Join));
    assert_eq!(rig.core.snapshot().nodes.len(), 1);
    let begun = rig.run(Event::Begin(begin(1, &mnt())));
    assert!(
        begun.contains(&say_hello(Hello { witness: false, ..hello_using(1, 1) })),
        "{begun:#?}"
    );
    rig.run(joined(group_channel(), &[1], &[1], Reason::Join));
    assert_eq!(rig.waiting(), Waiting::Fencing(node(2)));
    let actions = rig.run(Event::Nodelist(nodes(&[1])));
    let attached = actions.iter().any(|action| matches!(action, Action::Verb { .. }));
    assert!(attached, "{actions:#?}");
}

/// A witness goes on knowing all users when the list grows: a new node was not there before.
#[test]
fn a_longer_list_changes_nothing_for_a_witness() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    expect_nothing(rig.handle(Event::Nodelist(nodes(&[1, 2, 3]))));
    assert_eq!(rig.state(), "ready");
}
