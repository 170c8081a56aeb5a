//! Every cell of the table that opens the module, under every policy.
#![allow(clippy::panic, reason = "a test may panic")]

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::config::Tunables;
use crate::timer::Timers;
use crate::types::{GroupId, Incarnation, Now};

const NODE: NodeId = NodeId(3);
const BOOT: BootId = BootId(33);
const OP: OpId = OpId(70);
const AGENT: Fencing = Fencing::Agent { levels: 2, attempts: 2, pause_ms: 500 };
const POLICIES: [Fencing; 3] = [Fencing::None, Fencing::Ack, AGENT];

const FIRST: Attempt = Attempt { level: 0, number: 1 };
const SECOND: Attempt = Attempt { level: 0, number: 2 };
const LAST: Attempt = Attempt { level: 1, number: 2 };
const PROOFS: [Proof; 5] =
    [Proof::NotRequired, Proof::Agent, Proof::Ack, Proof::Reboot, Proof::Testimony];

const RUNNING: Stage = Stage::Running { op: OP, attempt: FIRST, is_old: false };
const PAUSING: Stage = Stage::Pausing { attempt: SECOND };
const FENCED: Stage = Stage::Fenced(Proof::Ack);
const ALL: [Stage; 4] = [Stage::Needed, RUNNING, PAUSING, FENCED];

/// What one call did: what it said, the stage after it, the turn after it, the actions.
type Outcome<T> = (T, Stage, u32, Vec<Action>);

/// Calls one function of a lost node in this stage.
fn call<T>(
    stage: Stage,
    fencing: Fencing,
    act: impl FnOnce(&mut Lost, &mut Effects<'_>) -> T,
) -> Outcome<T> {
    let tunables = Tunables {
        grace_ms: 1,
        begin_timeout_ms: 2,
        complete_timeout_ms: 3,
        leave_timeout_ms: 4,
        retry_ms: 5,
        inquorate_reset_ms: 0,
        fencing,
    };
    let (mut timers, mut next_op, mut out) = (Timers::default(), 70, Vec::new());
    let mut lost = Lost { stage, ..Lost::new(BOOT, uses()) };
    let mut fx = Effects {
        now: Now(1_000),
        tunables: &tunables,
        timers: &mut timers,
        next_op: &mut next_op,
        out: &mut out,
    };
    let said = act(&mut lost, &mut fx);
    assert_eq!((lost.boot, &lost.uses), (BOOT, &uses()), "what is lost never changes");
    (said, lost.stage, lost.turn, out)
}

fn uses() -> Uses {
    Uses::from([(GroupId(1), Incarnation(9))])
}

fn fence(level: u8) -> Action {
    Action::Fence { op: OpId(71), node: NODE, level }
}

fn fenced(proof: Proof) -> Action {
    Action::Note(Note::Fenced(NODE, BOOT, proof))
}

#[test]
fn a_lost_node_needs_fencing() {
    let lost = Lost::new(BOOT, uses());
    assert_eq!((lost.boot, lost.uses, lost.turn, lost.stage), (BOOT, uses(), 0, Stage::Needed));
}

#[test]
fn policy_none_needs_no_proof() {
    for ours in [true, false] {
        for stage in [Stage::Needed, RUNNING, PAUSING] {
            let outcome = call(stage, Fencing::None, |lost, fx| lost.advance(NODE, ours, fx));
            let after = Stage::Fenced(Proof::NotRequired);
            assert_eq!(outcome, ((), after, 0, vec![fenced(Proof::NotRequired)]), "{stage:?}");
        }
        let outcome = call(FENCED, Fencing::None, |lost, fx| lost.advance(NODE, ours, fx));
        assert_eq!(outcome, ((), FENCED, 0, vec![]));
    }
}

#[test]
fn policy_ack_waits() {
    for ours in [true, false] {
        for stage in ALL {
            let outcome = call(stage, Fencing::Ack, |lost, fx| lost.advance(NODE, ours, fx));
            assert_eq!(outcome, ((), stage, 0, vec![]));
        }
    }
}

#[test]
fn what_needed_no_proof_needs_one_under_another_policy() {
    let stage = Stage::Fenced(Proof::NotRequired);
    let needed = Action::Note(Note::FenceNeeded(NODE, BOOT));
    for (fencing, ours) in [(Fencing::Ack, true), (AGENT, false)] {
        let outcome = call(stage, fencing, |lost, fx| lost.advance(NODE, ours, fx));
        assert_eq!(outcome, ((), Stage::Needed, 0, vec![needed.clone()]));
    }
    let outcome = call(stage, AGENT, |lost, fx| lost.advance(NODE, true, fx));
    let after = Stage::Running { op: OpId(71), attempt: FIRST, is_old: false };
    assert_eq!(outcome, ((), after, 0, vec![needed, fence(0)]));
    let outcome = call(stage, Fencing::None, |lost, fx| lost.advance(NODE, true, fx));
    assert_eq!(outcome, ((), stage, 0, vec![]));
}

#[test]
fn policy_agent_runs_the_first_level_in_our_turn() {
    let outcome = call(Stage::Needed, AGENT, |lost, fx| lost.advance(NODE, true, fx));
    let after = Stage::Running { op: OpId(71), attempt: FIRST, is_old: false };
    assert_eq!(outcome, ((), after, 0, vec![fence(0)]));
    for stage in [RUNNING, PAUSING, FENCED] {
        let outcome = call(stage, AGENT, |lost, fx| lost.advance(NODE, true, fx));
        assert_eq!(outcome, ((), stage, 0, vec![]));
    }
}

#[test]
fn policy_agent_waits_for_its_turn() {
    for stage in ALL {
        let outcome = call(stage, AGENT, |lost, fx| lost.advance(NODE, false, fx));
        assert_eq!(outcome, ((), stage, 0, vec![]));
    }
}

#[test]
fn the_first_proof_stands() {
    for policy in POLICIES {
        for proof in PROOFS {
            for stage in [Stage::Needed, RUNNING, PAUSING] {
                let outcome = call(stage, policy, |lost, fx| lost.prove(NODE, (proof, true), fx));
                let after = Stage::Fenced(proof);
                assert_eq!(outcome, (true, after, 0, vec![fenced(proof)]), "{stage:?}");
            }
            let outcome = call(FENCED, policy, |lost, fx| lost.prove(NODE, (proof, true), fx));
            assert_eq!(outcome, (false, FENCED, 0, vec![]));
        }
    }
}

#[test]
fn anothers_proof_stands_instead_of_the_policy_none() {
    let stage = Stage::Fenced(Proof::NotRequired);
    for policy in POLICIES {
        for proof in PROOFS {
            let outcome = call(stage, policy, |lost, fx| lost.prove(NODE, (proof, true), fx));
            let expected = match proof {
                Proof::Testimony => (true, Stage::Fenced(proof), 0, vec![fenced(proof)]),
                Proof::NotRequired | Proof::Agent | Proof::Ack | Proof::Reboot => {
                    (false, stage, 0, vec![])
                }
            };
            assert_eq!(outcome, expected);
        }
    }
}

/// Out of a ring in force a proof is one of that boot, and does not make what we know of the node complete;
/// another daemon's does, if it is said in the ring that is.
#[test]
fn what_a_proof_says_of_the_node() {
    for stage in ALL {
        for in_force in [true, false] {
            let by = |proof| {
                move |lost: &mut Lost, fx: &mut Effects<'_>| {
                    lost.prove(NODE, (proof, in_force), fx);
                    (lost.is_fenced(), lost.complete)
                }
            };
            let (known, ..) = call(stage, AGENT, by(Proof::Ack));
            assert_eq!(known, (true, in_force && stage != FENCED), "{stage:?}");
            let ended = |lost: &mut Lost, fx: &mut Effects<'_>| {
                lost.handle_done(NODE, OP, (Ok(()), in_force), fx);
                lost.complete
            };
            let (complete, ..) = call(stage, AGENT, ended);
            assert_eq!(complete, in_force && stage == RUNNING, "{stage:?}");
            let heard = |lost: &mut Lost, fx: &mut Effects<'_>| {
                let is_news = lost.believe(NODE, in_force, fx);
                (is_news, lost.believe(NODE, in_force, fx), lost.is_fenced(), lost.complete)
            };
            let (heard, ..) = call(stage, AGENT, heard);
            assert_eq!(heard, (in_force || stage != FENCED, false, true, in_force), "{stage:?}");
        }
    }
}

#[test]
fn the_agent_succeeds() {
    for policy in POLICIES {
        let outcome =
            call(RUNNING, policy, |lost, fx| lost.handle_done(NODE, OP, (Ok(()), true), fx));
        assert_eq!(outcome, (true, Stage::Fenced(Proof::Agent), 0, vec![fenced(Proof::Agent)]));
    }
}

/// The end of an agent that nobody waits for any more changes nothing.
#[test]
fn another_op_ends() {
    for policy in POLICIES {
        for (stage, op) in [(Stage::Needed, OP), (RUNNING, OpId(69)), (PAUSING, OP), (FENCED, OP)] {
            for result in [Ok(()), Err(OpError::TimedOut)] {
                let outcome =
                    call(stage, policy, |lost, fx| lost.handle_done(NODE, op, (result, true), fx));
                assert_eq!(outcome, (false, stage, 0, vec![]));
            }
        }
    }
}

#[test]
fn an_agent_from_before_we_were_away_proves_nothing() {
    let old = Stage::Running { op: OP, attempt: FIRST, is_old: true };
    for (stage, after) in [(RUNNING, old), (old, old), (PAUSING, PAUSING), (FENCED, FENCED)] {
        let mut lost = Lost { stage, ..Lost::new(BOOT, uses()) };
        lost.handle_absence();
        assert_eq!(lost.stage, after);
    }
    // Out of a ring in force it is one for us, until others say what they know; not once they have.
    for (complete, in_force) in [(false, false), (false, true), (true, false), (true, true)] {
        let (said, stage, _, actions) = call(old, AGENT, |lost, fx| {
            lost.complete = complete;
            let said = lost.handle_done(NODE, OP, (Ok(()), in_force), fx);
            assert_eq!((lost.complete, lost.is_proven()), (complete, false));
            said
        });
        let expected = if complete || in_force {
            (false, Stage::Needed, vec![Action::Note(Note::FenceNeeded(NODE, BOOT))])
        } else {
            (true, Stage::Fenced(Proof::Agent), vec![fenced(Proof::Agent)])
        };
        assert_eq!((said, stage, actions), expected, "{complete} {in_force}");
    }
}

#[test]
fn a_failed_attempt_pauses_then_goes_up_the_levels() {
    let attempts = [
        (Attempt { level: 0, number: 1 }, Attempt { level: 0, number: 2 }, false),
        (Attempt { level: 0, number: 2 }, Attempt { level: 1, number: 1 }, false),
        (Attempt { level: 1, number: 1 }, Attempt { level: 1, number: 2 }, false),
        // All used up: the turn passes on, and comes back to the first level.
        (Attempt { level: 1, number: 2 }, Attempt { level: 0, number: 1 }, true),
    ];
    for (attempt, next, turn_over) in attempts {
        let stage = Stage::Running { op: OP, attempt, is_old: false };
        let result = Err(OpError::Agent(1));
        let outcome = call(stage, AGENT, |lost, fx| lost.handle_done(NODE, OP, (result, true), fx));
        let actions = vec![
            Action::Note(Note::FenceFailed(NODE, OpError::Agent(1))),
            Action::Arm { timer: Timer::Fence(NODE), generation: 1, at: Now(1_500) },
        ];
        let after = Stage::Pausing { attempt: next };
        assert_eq!(outcome, (turn_over, after, u32::from(turn_over), actions), "{attempt:?}");
    }
}

/// The policy changed while an agent ran: its failure says nothing to the new policy.
#[test]
fn a_failed_attempt_under_a_new_policy() {
    for policy in [Fencing::None, Fencing::Ack] {
        let result = Err(OpError::TimedOut);
        let outcome =
            call(RUNNING, policy, |lost, fx| lost.handle_done(NODE, OP, (result, true), fx));
        let actions = vec![Action::Note(Note::FenceFailed(NODE, OpError::TimedOut))];
        assert_eq!(outcome, (false, Stage::Needed, 0, actions));
    }
}

/// Fewer levels than the attempt under way, or none at all, end the turn.
#[test]
fn a_failed_attempt_with_fewer_levels() {
    for (levels, attempts) in [(1, 2), (0, 0), (1, 0)] {
        let policy = Fencing::Agent { levels, attempts, pause_ms: 500 };
        let stage = Stage::Running { op: OP, attempt: LAST, is_old: false };
        let result = Err(OpError::Unconfigured);
        let outcome =
            call(stage, policy, |lost, fx| lost.handle_done(NODE, OP, (result, true), fx));
        assert_eq!((outcome.0, outcome.1, outcome.2), (true, Stage::Pausing { attempt: FIRST }, 1));
    }
}

#[test]
fn the_highest_numbers_do_not_overflow() {
    let policy = Fencing::Agent { levels: u8::MAX, attempts: u8::MAX, pause_ms: u64::MAX };
    let last = Attempt { level: u8::MAX - 1, number: u8::MAX };
    let stage = Stage::Running { op: OP, attempt: last, is_old: false };
    let result = Err(OpError::TimedOut);
    let outcome = call(stage, policy, |lost, fx| lost.handle_done(NODE, OP, (result, true), fx));
    let actions = vec![
        Action::Note(Note::FenceFailed(NODE, OpError::TimedOut)),
        Action::Arm { timer: Timer::Fence(NODE), generation: 1, at: Now(u64::MAX) },
    ];
    assert_eq!(outcome, (true, Stage::Pausing { attempt: FIRST }, 1, actions));
}

#[test]
fn the_pause_is_over() {
    let outcome = call(PAUSING, AGENT, |lost, fx| lost.handle_timer(NODE, (true, true), fx));
    let after = Stage::Running { op: OpId(71), attempt: SECOND, is_old: false };
    assert_eq!(outcome, ((), after, 0, vec![fence(0)]));
    let outcome = call(PAUSING, AGENT, |lost, fx| lost.handle_timer(NODE, (false, true), fx));
    assert_eq!(outcome, ((), Stage::Needed, 0, vec![]));
    for ours in [true, false] {
        for stage in [Stage::Needed, RUNNING, FENCED] {
            let outcome = call(stage, AGENT, |lost, fx| lost.handle_timer(NODE, (ours, true), fx));
            assert_eq!(outcome, ((), stage, 0, vec![]));
        }
    }
}

/// What is out of date waits until all have spoken, and goes on where it stopped.
#[test]
fn the_pause_is_over_before_all_have_spoken() {
    let outcome = call(PAUSING, AGENT, |lost, fx| lost.handle_timer(NODE, (true, false), fx));
    let again = Action::Arm { timer: Timer::Fence(NODE), generation: 1, at: Now(1_500) };
    assert_eq!((outcome.1, &outcome.3), (PAUSING, &vec![again]));
}

/// The policy was changed during the pause: no agent runs that nobody configured any more.
#[test]
fn the_pause_is_over_under_a_new_policy() {
    for policy in [Fencing::None, Fencing::Ack] {
        for ours in [true, false] {
            let outcome =
                call(PAUSING, policy, |lost, fx| lost.handle_timer(NODE, (ours, true), fx));
            assert_eq!(outcome, ((), Stage::Needed, 0, vec![]), "{policy:?}");
        }
    }
}

#[test]
fn a_proof_voids_the_pause() {
    let (armed, ..) = call(RUNNING, AGENT, |lost, fx| {
        lost.handle_done(NODE, OP, (Err(OpError::TimedOut), true), fx);
        assert!(fx.timers.is_armed(&Timer::Fence(NODE)));
        lost.prove(NODE, (Proof::Ack, true), fx);
        fx.timers.is_armed(&Timer::Fence(NODE))
    });
    assert!(!armed);
}

#[test]
fn what_a_stage_is_worth() {
    let stages = [
        (Stage::Needed, "needed", false, false),
        (RUNNING, "running", false, false),
        (PAUSING, "retrying", false, false),
        // A policy of ours is no proof for others.
        (Stage::Fenced(Proof::NotRequired), "fenced", true, false),
        (Stage::Fenced(Proof::Agent), "fenced", true, true),
        (Stage::Fenced(Proof::Ack), "fenced", true, true),
        (Stage::Fenced(Proof::Reboot), "fenced", true, true),
        (Stage::Fenced(Proof::Testimony), "fenced", true, true),
    ];
    for (stage, name, is_fenced, is_proven) in stages {
        let lost = Lost { stage, complete: true, ..Lost::new(BOOT, uses()) };
        assert_eq!((lost.name(), lost.is_fenced(), lost.is_proven()), (name, is_fenced, is_proven));
        assert!(!Lost { complete: false, ..lost.clone() }.is_proven(), "out of date");
        assert_eq!(lost.owns(OP), stage == RUNNING);
        assert!(!lost.owns(OpId(69)));
    }
}

/// Two boots of one node are lost: until this one is fenced, the other may be the later one.
#[test]
fn what_was_used_in_another_boot_counts_until_this_one_is_fenced() {
    let (one, two, third) = (GroupId(1), GroupId(2), GroupId(3));
    let mut lost = Lost::new(BOOT, uses());
    lost.add_elsewhere(&Uses::from([(two, Incarnation(1))]));
    assert_eq!([one, two, third].map(|it| lost.may_use(&it)), [true, true, false]);
    let later = lost.in_boot(BootId(34));
    assert_eq!((later.boot, later.uses.len(), later.is_fenced()), (BootId(34), 0, false));
    assert_eq!([one, two, third].map(|it| later.may_use(&it)), [true, true, false]);
    lost.stage = FENCED;
    assert_eq!([one, two, third].map(|it| lost.may_use(&it)), [false; 3]);
    assert_eq!([one, two, third].map(|it| lost.in_boot(BootId(34)).may_use(&it)), [false; 3]);
    // More than can be kept: then it may be using anything.
    let many = (0..1_000).map(|n| (GroupId(100 + n), Incarnation(1))).collect();
    let mut lost = Lost::new(BOOT, uses());
    lost.add_elsewhere(&many);
    assert!(lost.elsewhere.len() <= USES_MAX && lost.may_use(&third));
}

/// Daemons that knew different uses of one group must end up with the same, or each would correct
/// the other for ever, and fence the node for ever.
#[test]
fn of_two_uses_of_a_group_the_latest_counts() {
    let use_of = |n| Uses::from([(GroupId(1), Incarnation(n))]);
    for (more, news, after) in [(8, false, 9), (9, false, 9), (10, true, 10)] {
        let mut lost = Lost { stage: FENCED, ..Lost::new(BOOT, uses()) };
        assert_eq!(lost.add(&use_of(more)), news);
        assert_eq!(lost.uses, use_of(after));
        assert_eq!(lost.stage, if news { Stage::Needed } else { FENCED });
    }
}

#[test]
fn a_use_that_was_not_known_needs_fencing_anew() {
    for stage in ALL {
        let mut lost = Lost { stage, ..Lost::new(BOOT, uses()) };
        let other = Uses::from([(GroupId(2), Incarnation(1))]);
        assert!(!lost.add(&Uses::new()));
        assert_eq!(lost.stage, stage);
        assert!(lost.add(&other));
        assert_eq!((lost.uses.len(), lost.stage), (2, Stage::Needed));
        assert!(!lost.add(&other), "once");
    }
}

#[test]
fn doubt_needs_another_proof() {
    for stage in [Stage::Needed, RUNNING, PAUSING] {
        assert_eq!(call(stage, AGENT, |lost, fx| lost.doubt(NODE, fx)), ((), stage, 0, vec![]));
    }
    let needed = Action::Note(Note::FenceNeeded(NODE, BOOT));
    let outcome = call(FENCED, AGENT, |lost, fx| lost.doubt(NODE, fx));
    assert_eq!(outcome, ((), Stage::Needed, 0, vec![needed]));
}
