//! The service manager asks the daemon to end.

use crate::common::*;

#[test]
fn refused_while_in_use() {
    for mut rig in [
        Rig::begun(Fencing::None, &[1, 2]),
        Rig::granted(Fencing::None, &[1, 2]),
        Rig::ready(Fencing::None, &[1, 2]),
    ] {
        let before = rig.core.snapshot();
        expect(rig.handle(Event::Stop), vec![note(Note::StopRefused(vec![(G, vec![mnt()])]))]);
        assert_eq!(rig.core.snapshot(), before);
    }
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(Event::Disconnected);
    expect(rig.handle(Event::Stop), vec![note(Note::StopRefused(vec![(G, vec![mnt()])]))]);
}

#[test]
fn nothing_joined_yet() {
    let mut rig = Rig::new(Fencing::None, Saved::default());
    expect(rig.handle(Event::Stop), vec![Action::Exit]);
    let mut rig = Rig::joining(Fencing::None, Saved::default(), &[1]);
    expect(rig.handle(Event::Stop), vec![Action::Exit]);
    let mut rig = Rig::joining(Fencing::None, Saved::default(), &[1]);
    rig.handle(failed(OpId(1), 6));
    expect(rig.handle(Event::Stop), vec![Action::Exit]);
}

/// The control group is left first, so that nobody takes us for dead.
#[test]
fn the_control_group_is_left_first() {
    for result in [Ok(()), Err(OpError::Corosync(2))] {
        let mut rig = Rig::up(Fencing::None, &[1, 2]);
        let op = rig.op(1);
        expect(rig.handle(Event::Stop), vec![Action::Depart { op, channel: Channel::Control }]);
        expect_nothing(rig.handle(Event::Stop));
        let late = Event::Begin(begin(1, &mnt()));
        expect(rig.handle(late), vec![refused(1, Refusal::Stopping)]);
        expect(rig.handle(Event::Done { op, result }), vec![Action::Exit]);
    }
}

/// What we used last has just ended, in a moment in which nothing could be said of it: it is said before we go, or
/// the others would wait for us, and fence us.
#[test]
fn the_last_word_before_the_leave() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    let seq = rig.next_ring(&[1, 2]);
    expect_nothing(rig.handle(totem(Channel::Control, seq, &[1, 2])));
    let op = rig.op(1);
    expect(
        rig.handle(Event::Stop),
        vec![
            say_hello(Hello { ring: None, ..hello(1, seq) }),
            Action::Depart { op, channel: Channel::Control },
        ],
    );
}

#[test]
fn corosync_goes_while_we_leave() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Stop);
    expect(rig.handle(Event::Disconnected), vec![Action::Exit]);
}
