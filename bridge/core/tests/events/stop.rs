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

/// `/mnt` was left while corosync was away: nobody has heard that nothing is in use any more.
fn unheard() -> Rig {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(Event::Disconnected);
    rig.run(leave(3, &mnt()));
    assert_eq!(rig.state(), "none");
    rig
}

/// Corosync is back, in the ring that there was.
fn reconnect(rig: &mut Rig) -> Vec<Action> {
    rig.handle(connected(&[1, 2]));
    rig.handle(quorum(true, 1, &[1, 2]));
    rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join))
}

/// The others would miss us, and have this node fenced: it is said as soon as corosync is back.
#[test]
fn the_last_word_waits_for_corosync() {
    let mut rig = unheard();
    expect(rig.handle(Event::Stop), vec![note(Note::StopWaits)]);
    expect(rig.handle(Event::Begin(begin(4, &mnt()))), vec![refused(4, Refusal::Stopping)]);
    rig.handle(connected(&[1, 2]));
    let seq = rig.next_ring(&[1, 2]);
    rig.handle(quorum(true, seq, &[1, 2]));
    let (op, grace) = (rig.op(1), rig.arm(Timer::Grace(node(2)), GRACE_MS));
    expect(
        rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join)),
        vec![
            say_hello(Hello { witness: false, ..hello(1, seq) }),
            Action::Depart { op, channel: Channel::Control },
            grace,
        ],
    );
    expect(rig.handle(done(op)), vec![Action::Exit]);
}

/// Corosync may be gone for good.
#[test]
fn who_asks_twice_does_not_wait() {
    let mut rig = unheard();
    expect(rig.handle(Event::Stop), vec![note(Note::StopWaits)]);
    expect(rig.handle(Event::Stop), vec![Action::Exit]);
}

/// Corosync takes neither the last word nor the leave, or goes with both.
#[test]
fn a_last_word_that_is_lost() {
    for is_gone in [false, true] {
        let mut rig = unheard();
        reconnect(&mut rig);
        let departs = rig.op(1);
        rig.handle(Event::Stop);
        let op = rig.op(2);
        let actions = if is_gone {
            expect(rig.handle(Event::Disconnected), vec![note(Note::StopWaits)]);
            reconnect(&mut rig)
        } else {
            let pause = rig.arm(Timer::Channel(Channel::Control), RETRY_MS);
            let given_up = Event::Done { op: departs, result: Err(OpError::TimedOut) };
            expect(rig.handle(given_up), vec![pause, note(Note::StopWaits)]);
            assert!(!rig.core.snapshot().settled, "we are not among the others");
            let op = rig.op(1);
            expect(
                rig.fire_last(Timer::Channel(Channel::Control)),
                vec![Action::Join { op, channel: Channel::Control }],
            );
            rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join))
        };
        let word = say_hello(Hello { witness: false, ..hello(1, 1) });
        assert_eq!(actions[..2], [word, Action::Depart { op, channel: Channel::Control }]);
        // Now it has come back to us; whether the leave does as well does not matter.
        expect_nothing(rig.handle(hello_of(1, hello(1, 1))));
        expect(rig.handle(failed(op, 6)), vec![Action::Exit]);
    }
}

/// A predecessor's last use counts as one of ours; a word of ours from before a use does not end it.
#[test]
fn whose_last_word_it_is() {
    let groups = [(G, image(&[1], true, false))].into();
    let mut rig = Rig::new(Fencing::None, Saved { memory_from: Some(inc(1)), groups });
    rig.run(leave(3, &mnt()));
    expect(rig.handle(Event::Stop), vec![note(Note::StopWaits)]);

    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    rig.handle(hello_of(1, hello(1, 1)));
    rig.handle(Event::Disconnected);
    rig.handle(Event::ClientGone { client: begin(1, &mnt()).client });
    assert_eq!(rig.state(), "none");
    expect(rig.handle(Event::Stop), vec![note(Note::StopWaits)]);
}

/// Asked once more while corosync hangs with our leave: whatever becomes of that, it ends.
#[test]
fn asked_once_more_while_it_leaves() {
    for result in [Err(OpError::TimedOut), Ok(())] {
        let mut rig = unheard();
        reconnect(&mut rig);
        let op = rig.op(1);
        rig.handle(Event::Stop);
        expect_nothing(rig.handle(Event::Stop));
        expect(rig.handle(Event::Done { op, result }), vec![Action::Exit]);
    }
}

/// An older word of ours does not end the use that was said after it.
#[test]
fn a_word_from_before_the_use() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    rig.handle(Event::ClientGone { client: begin(1, &mnt()).client });
    assert_eq!(rig.state(), "none");
    rig.handle(hello_of(1, hello(1, 1)));
    rig.handle(Event::Disconnected);
    expect(rig.handle(Event::Stop), vec![note(Note::StopWaits)]);
}
