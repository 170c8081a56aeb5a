//! Of each timer only the latest setting fires, and only once.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

const LANE: Timer = Timer::Lane(GroupId(1));
const GRACE: Timer = Timer::Grace(NodeId(1));

#[test]
fn a_timer_fires_once() {
    let (mut timers, mut out) = (Timers::default(), Vec::new());
    assert!(!timers.is_armed(&LANE));
    timers.arm(LANE, Now(5), &mut out);
    assert_eq!(out, vec![Action::Arm { timer: LANE, generation: 1, at: Now(5) }]);
    assert!(timers.is_armed(&LANE));
    assert!(timers.fire(&LANE, 1));
    assert!(!timers.is_armed(&LANE));
    assert!(!timers.fire(&LANE, 1));
}

#[test]
fn an_earlier_setting_is_void() {
    let (mut timers, mut out) = (Timers::default(), Vec::new());
    timers.arm(LANE, Now(5), &mut out);
    timers.arm(LANE, Now(9), &mut out);
    assert_eq!(
        out,
        vec![
            Action::Arm { timer: LANE, generation: 1, at: Now(5) },
            Action::Arm { timer: LANE, generation: 2, at: Now(9) },
        ]
    );
    assert!(!timers.fire(&LANE, 1));
    assert!(timers.is_armed(&LANE));
    assert!(timers.fire(&LANE, 2));
}

#[test]
fn a_cancelled_timer_is_void_and_can_be_set_again() {
    let (mut timers, mut out) = (Timers::default(), Vec::new());
    timers.arm(LANE, Now(5), &mut out);
    timers.cancel(&LANE);
    assert!(!timers.is_armed(&LANE));
    assert!(!timers.fire(&LANE, 1));
    timers.arm(LANE, Now(7), &mut out);
    assert!(!timers.fire(&LANE, 1));
    assert!(timers.fire(&LANE, 2));
    timers.cancel(&LANE);
}

/// Generations are counted over all timers: one number never means two settings.
#[test]
fn timers_do_not_touch_each_other() {
    let (mut timers, mut out) = (Timers::default(), Vec::new());
    timers.arm(LANE, Now(5), &mut out);
    timers.arm(GRACE, Now(5), &mut out);
    assert!(!timers.fire(&LANE, 2));
    assert!(!timers.fire(&GRACE, 1));
    assert!(timers.fire(&GRACE, 2));
    assert!(timers.is_armed(&LANE));
}
