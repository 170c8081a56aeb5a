//! Every cell of the table that is not a dash.

use super::*;
use crate::settings::tests::example;

const START: Millis = Millis(1_000_000);

fn at(ms: u64) -> Millis {
    START.plus(ms)
}

fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap()
}

fn beat(slot: u8, number: u64) -> Beat {
    Beat { area: Area(3), slot: Slot(slot), generation: generation(number), seq: 7 }
}

fn idle() -> State {
    State::new(&example(), START)
}

/// Beats one slot since `START`, with a daemon.
fn beating() -> State {
    let mut state = idle();
    let new = beat(1, 5);
    assert_eq!(state.admit(new.area, new.slot, new.generation), Ok(true));
    state.insert(new, START);
    state
}

fn resetting() -> State {
    let mut state = beating();
    state.reset(START);
    assert_eq!(state.due(START, START), Due::Reset(Reason::Asked));
    state
}

/// Completes all rounds up to `end`, with a daemon that lives until `seen`.
fn run(state: &mut State, seen: u64, end: u64) -> Due {
    for ms in (0..=end).step_by(100) {
        if ms <= seen {
            state.seen(at(ms));
        }
        match state.due(at(ms), at(ms)) {
            Due::Nothing => {}
            Due::Round => assert!(state.round_completed(at(ms))),
            due => return due,
        }
    }
    Due::Nothing
}

#[test]
fn beats_are_admitted_once() {
    let mut state = beating();
    assert_eq!(state.admit(Area(3), Slot(1), generation(5)), Ok(false));
    assert_eq!(state.admit(Area(3), Slot(1), generation(6)), Err(Status::OtherGeneration));
    assert_eq!(state.admit(Area(3), Slot(0), generation(6)), Ok(true));
    state.insert(beat(0, 6), START);
    assert_eq!(state.beats(), [beat(0, 6), beat(1, 5)]);
}

#[test]
fn the_table_has_an_end_and_never_moves() {
    let mut state = idle();
    let memory = state.beats().as_ptr();
    for number in 0..BEATS_MAX {
        let area = Area(u16::try_from(number / 255).unwrap());
        let slot = Slot(u8::try_from(number % 255).unwrap());
        assert_eq!(state.admit(area, slot, generation(1)), Ok(true));
        state.insert(Beat { area, slot, generation: generation(1), seq: 0 }, START);
    }
    assert_eq!(state.admit(Area(255), Slot(254), generation(1)), Err(Status::Full));
    state.insert(Beat { area: Area(255), ..beat(254, 1) }, START);
    assert_eq!(state.beats().len(), BEATS_MAX);
    assert_eq!(state.beats().as_ptr(), memory);
}

#[test]
fn what_is_down_is_forgotten_and_the_last_one_ends_the_beating() {
    let mut state = beating();
    state.insert(beat(2, 6), START);
    assert_eq!(state.forget(Area(3), Slot(9)), None);
    assert_eq!(state.forget(Area(3), Slot(1)), Some(7));
    assert_eq!(state.stop(), Err(Status::Beating));
    assert_eq!(state.forget(Area(3), Slot(2)), Some(7));
    assert_eq!(state.stop(), Ok(()));
    assert_eq!(state.due(at(5000), at(5000)), Due::Nothing);
}

#[test]
fn a_cleared_area_is_forgotten_and_no_other() {
    let mut state = beating();
    let other = Beat { area: Area(4), ..beat(1, 5) };
    state.insert(other, START);
    state.forget_area(Area(3));
    assert_eq!(state.beats(), [other]);
    state.forget_area(Area(4));
    assert_eq!(state.stop(), Ok(()));
}

#[test]
fn rounds_come_once_a_beat() {
    let mut state = beating();
    assert_eq!(state.idle_ms(at(0)), 1000);
    assert_eq!(state.due(at(999), at(999)), Due::Nothing);
    assert_eq!(state.due(at(1000), at(1000)), Due::Round);
    assert!(state.round_completed(at(1003)));
    assert_eq!(state.due(at(1003), at(1003)), Due::Nothing);
    assert_eq!(state.idle_ms(at(1003)), 997);
    assert_eq!(state.due(at(2000), at(2000)), Due::Round);
}

#[test]
fn a_beat_after_a_rest_starts_a_new_silence() {
    let mut state = beating();
    state.forget(Area(3), Slot(1));
    state.seen(at(100_000));
    state.insert(beat(1, 5), at(100_000));
    assert_eq!(state.due(at(100_999), at(100_999)), Due::Nothing);
    assert_eq!(state.due(at(101_000), at(101_000)), Due::Round);
}

#[test]
fn an_absent_daemon_resets_the_node_on_time() {
    let mut state = beating();
    assert_eq!(run(&mut state, 5000, 24_900), Due::Nothing);
    assert_eq!(state.idle_ms(at(24_900)), 100);
    assert_eq!(state.due(at(25_000), at(25_000)), Due::Reset(Reason::DaemonAbsent));
    assert!(state.is_resetting());
}

#[test]
fn a_daemon_that_is_back_in_time_is_enough() {
    let mut state = beating();
    assert_eq!(run(&mut state, 0, 19_900), Due::Nothing);
    state.seen(at(19_999));
    assert_eq!(state.due(at(20_000), at(20_000)), Due::Round);
    state.round_completed(at(20_000));
    assert_eq!(state.idle_ms(at(20_000)), 1000);
}

#[test]
fn a_lost_connection_counts_from_now_or_from_a_ping_after_the_last() {
    let mut state = beating();
    run(&mut state, 5000, 5400);
    state.lost(at(5400));
    assert_eq!(run(&mut state, 0, 0), Due::Nothing);
    state.lost(at(5400));
    assert_eq!(state.seen, at(1000), "the last sign of life was at 0");
    state.seen(at(5000));
    state.lost(at(5400));
    assert_eq!(state.seen, at(5400));
}

#[test]
fn a_hung_daemon_gains_one_ping_by_being_killed() {
    let mut state = beating();
    assert_eq!(run(&mut state, 0, 15_000), Due::Nothing);
    state.lost(at(15_000));
    assert_eq!(state.due(at(20_999), at(20_999)), Due::Round);
    assert!(state.round_completed(at(20_999)));
    assert_eq!(state.due(at(21_000), at(21_000)), Due::Reset(Reason::DaemonAbsent));
}

#[test]
fn nobody_there_and_nothing_to_beat_is_the_end() {
    let mut state = idle();
    assert_eq!(state.idle_ms(START), 20_000);
    assert_eq!(state.due(at(19_999), at(19_999)), Due::Nothing);
    assert_eq!(state.due(at(20_000), at(20_000)), Due::End);
}

#[test]
fn silence_of_its_own_resets_the_node_before_anything_is_beaten() {
    let mut state = beating();
    state.seen(at(52_000));
    assert_eq!(state.due(at(52_000), at(52_000)), Due::Round, "just in time");
    let mut state = beating();
    state.seen(at(52_001));
    assert_eq!(state.due(at(52_001), at(52_001)), Due::Reset(Reason::Silent));
    assert_eq!(state.due(at(52_001), at(52_001)), Due::Nothing);
}

#[test]
fn failed_rounds_are_silence() {
    let mut state = beating();
    for second in 1..=52 {
        state.seen(at(second * 1000));
        assert_eq!(state.due(at(second * 1000), at(second * 1000)), Due::Round);
    }
    state.seen(at(53_000));
    assert_eq!(state.due(at(53_000), at(53_000)), Due::Reset(Reason::Silent));
}

#[test]
fn a_round_that_hung_is_no_beat() {
    let mut state = beating();
    assert_eq!(state.due(at(1000), at(1000)), Due::Round);
    assert!(state.may_beat(at(52_000)));
    assert!(!state.may_beat(at(52_001)));
    assert!(!state.round_completed(at(60_000)));
    state.seen(at(60_000));
    assert_eq!(state.due(at(60_000), at(60_000)), Due::Reset(Reason::Silent));
}

#[test]
fn silence_is_measured_from_the_beginning_of_the_last_completed_round() {
    let mut state = beating();
    assert_eq!(state.due(at(1000), at(1000)), Due::Round);
    assert!(state.round_completed(at(30_000)));
    state.seen(at(53_000));
    assert!(state.may_beat(at(53_000)));
    assert!(!state.may_beat(at(53_001)));
}

#[test]
fn a_reset_that_fails_is_tried_every_second_and_the_beats_go_on() {
    let mut state = resetting();
    let (mut resets, mut rounds) = (0, 0);
    for ms in (0..200_000).step_by(100) {
        match state.due(at(ms), at(ms)) {
            Due::Nothing => {}
            Due::Round => {
                rounds += 1;
                assert!(state.round_completed(at(ms)));
            }
            Due::Reset(reason) => {
                resets += 1;
                assert_eq!(reason, Reason::Asked);
            }
            Due::End => panic!("a keeper that wanted a reset ended"),
        }
        assert!(state.idle_ms(at(ms)) <= 1000);
    }
    assert_eq!((resets, rounds), (199, 199));
}

#[test]
fn after_a_silence_before_the_burial_the_beats_go_on() {
    let mut state = beating();
    state.seen(at(55_000));
    assert_eq!(state.due(at(55_000), at(55_000)), Due::Reset(Reason::Silent));
    assert_eq!(state.due(at(55_999), at(55_999)), Due::Nothing);
    assert_eq!(state.due(at(56_000), at(56_000)), Due::Reset(Reason::Silent));
    assert_eq!(state.due(at(56_000), at(56_000)), Due::Round);
    assert!(state.round_completed(at(56_000)));
    assert_eq!(state.due(at(57_000), at(57_000)), Due::Reset(Reason::Silent));
    assert_eq!(state.due(at(57_000), at(57_000)), Due::Round);
}

#[test]
fn after_the_burial_nothing_is_beaten_any_more() {
    let mut state = beating();
    state.seen(at(58_000));
    assert_eq!(state.due(at(58_000), at(58_000)), Due::Reset(Reason::Silent));
    for second in 59..300 {
        state.seen(at(second * 1000));
        assert_eq!(state.due(at(second * 1000), at(second * 1000)), Due::Reset(Reason::Silent));
        assert_eq!(state.due(at(second * 1000), at(second * 1000)), Due::Nothing);
        assert_eq!(state.idle_ms(at(second * 1000)), 1000);
    }
}

#[test]
fn a_returning_daemon_does_not_call_a_reset_off() {
    let mut state = beating();
    assert_eq!(run(&mut state, 0, 20_000), Due::Reset(Reason::DaemonAbsent));
    state.seen(at(20_100));
    assert_eq!(state.due(at(21_000), at(21_000)), Due::Reset(Reason::DaemonAbsent));
}

#[test]
fn a_node_that_is_being_reset_accepts_nothing() {
    let state = resetting();
    assert_eq!(state.accepting(), Err(Status::Resetting));
    assert_eq!(state.admit(Area(3), Slot(1), generation(5)), Err(Status::Resetting));
    assert_eq!(state.admit(Area(9), Slot(9), generation(9)), Err(Status::Resetting));
    assert_eq!(state.stop(), Err(Status::Resetting));
}

#[test]
fn a_reset_can_be_asked_of_a_keeper_that_beats_nothing_and_again() {
    let mut state = idle();
    state.reset(at(10));
    assert_eq!(state.due(at(10), at(10)), Due::Reset(Reason::Asked));
    assert_eq!(state.due(at(20), at(20)), Due::Nothing);
    state.reset(at(30));
    assert_eq!(state.due(at(30), at(30)), Due::Reset(Reason::Asked));
    assert_eq!(state.due(at(30), at(30)), Due::Nothing);
    assert_eq!(state.due(at(1030), at(1030)), Due::Reset(Reason::Asked));
    assert_eq!(state.due(at(1030), at(1030)), Due::Nothing, "no slot, no round");
}

#[test]
fn who_was_stopped_listens_before_it_takes_the_daemon_for_absent() {
    let mut state = beating();
    assert_eq!(state.due(at(24_000), at(500)), Due::Round, "nobody has listened since");
    assert!(state.round_completed(at(24_000)));
    assert_eq!(state.due(at(24_010), at(500)), Due::Nothing);
    state.seen(at(24_020));
    assert_eq!(state.due(at(24_020), at(24_020)), Due::Nothing);

    let mut state = beating();
    assert_eq!(state.due(at(24_000), at(24_000)), Due::Reset(Reason::DaemonAbsent));
    let mut state = beating();
    assert_eq!(
        state.due(at(60_000), at(500)),
        Due::Reset(Reason::Silent),
        "its own silence counts"
    );
}

const LINE: Line = Line { node: 2, major: 1, minor: 0 };

/// Holds a line since `START`, and beats nothing.
fn holding() -> State {
    let mut state = idle();
    assert_eq!(state.admit_line(LINE), Ok(true));
    state.keep(LINE, START);
    state
}

#[test]
fn a_line_is_held_once_and_no_other_beside_it() {
    let mut state = holding();
    assert_eq!(state.line(), Some(LINE));
    assert_eq!(state.admit_line(LINE), Ok(false));
    assert_eq!(state.admit_line(Line { node: 3, ..LINE }), Err(Status::OtherLine));
    assert_eq!(state.stop(), Err(Status::Beating));
    state.let_go();
    assert_eq!((state.line(), state.stop()), (None, Ok(())));
    state.let_go();
    assert_eq!(resetting().admit_line(LINE), Err(Status::Resetting));
}

#[test]
fn who_holds_a_line_resets_the_node_for_an_absent_daemon() {
    let mut state = holding();
    assert_eq!(run(&mut state, 5000, 24_900), Due::Nothing);
    assert_eq!(state.due(at(25_000), at(25_000)), Due::Reset(Reason::DaemonAbsent));
    assert_eq!(state.due(at(26_000), at(26_000)), Due::Reset(Reason::DaemonAbsent));
    assert_eq!(state.due(at(26_000), at(26_000)), Due::Nothing, "the watchdog is not fed");
}

#[test]
fn its_own_silence_harms_nobody_while_it_beats_nothing() {
    let mut state = holding();
    state.seen(at(300_000));
    assert_eq!(state.due(at(300_000), at(300_000)), Due::Round);
    assert!(state.round_completed(at(300_000)));
    let mut state = holding();
    state.seen(at(300_000));
    state.insert(beat(1, 5), at(300_000));
    assert_eq!(state.due(at(300_500), at(300_500)), Due::Nothing, "a new silence begins");
    assert_eq!(state.forget(Area(3), Slot(1)), Some(7));
    assert_eq!(state.stop(), Err(Status::Beating), "the line is still held");
}
