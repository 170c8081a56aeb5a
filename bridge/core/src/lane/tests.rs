//! Every row of the table that opens the module, and how each step ends.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::config::{Fencing, Tunables};
use crate::saved::User;
use crate::timer::Timers;
use crate::types::{BootId, Now, ServiceName};

const G: GroupId = GroupId(1);
const ERROR: OpError = OpError::Errno(5);
const GRIPS: [Grip; 5] =
    [Grip::Detached, Grip::Granting, Grip::Suspended, Grip::Unresumed, Grip::Unfinished];

type Dead = BTreeMap<NodeId, (Incarnation, bool)>;

/// Who is alive, who is dead, who is marked.
type Change = (&'static [u32], &'static [(u32, bool)], &'static [u32]);

fn user(n: u32) -> User {
    User { incarnation: Incarnation(u64::from(n)), boot: BootId(u128::from(n)) }
}

fn users(list: &[u32]) -> Users {
    list.iter().map(|n| (NodeId(*n), user(*n))).collect()
}

/// The dead; true for those that may be told.
fn dead(list: &[(u32, bool)]) -> Dead {
    let death = |(n, settled): &(u32, bool)| (NodeId(*n), (user(*n).incarnation, *settled));
    list.iter().map(death).collect()
}

fn image(told: &[u32], unfinished: bool) -> SavedGroup {
    let services = vec![SavedService { name: service("/mnt"), live: true }];
    let incarnation = user(1).incarnation;
    SavedGroup { incarnation, services, device: None, told: users(told), unfinished }
}

fn service(name: &str) -> ServiceName {
    match ServiceName::new(name) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
}

/// What a group may want: gate and attach open, nothing closing.
fn want<'a>(users: &'a Users, dead: &'a Dead) -> Want<'a> {
    let image = image(&[], false);
    Want {
        closing: false,
        expelled: false,
        gate: true,
        locking: true,
        attach: true,
        users,
        dead,
        image,
    }
}

/// A lane whose shim was told of these users, and whose image says the same.
fn lane(grip: Grip, told: &[u32]) -> Lane {
    let saved = match grip {
        Grip::Detached => None,
        Grip::Granting | Grip::Suspended => Some(image(told, false)),
        Grip::Unresumed | Grip::Unfinished => Some(image(told, true)),
    };
    Lane { grip, told: users(told), known: users(told), saved, ..Lane::new(G) }
}

/// Runs one function with fresh effects: op 1 is the next, generation 1 is the next.
fn with<T>(act: impl FnOnce(&mut Effects<'_>) -> T) -> (T, Vec<Action>) {
    let tunables = Tunables {
        grace_ms: 1,
        begin_timeout_ms: 2,
        complete_timeout_ms: 3,
        leave_timeout_ms: 4,
        retry_ms: 5,
        inquorate_reset_ms: 0,
        fencing: Fencing::None,
    };
    let (mut timers, mut next_op, mut out) = (Timers::default(), 0, Vec::new());
    let result = act(&mut Effects {
        now: Now(1_000),
        tunables: &tunables,
        timers: &mut timers,
        next_op: &mut next_op,
        out: &mut out,
    });
    (result, out)
}

fn advance(lane: &mut Lane, want: &Want<'_>) -> Vec<Action> {
    with(|fx| lane.advance(want, fx)).1
}

fn verb(verb: Verb) -> Vec<Action> {
    vec![Action::Verb { op: OpId(1), group: G, verb }]
}

fn save(image: Option<SavedGroup>) -> Vec<Action> {
    vec![Action::Save { op: OpId(1), group: G, image }]
}

fn peers_of(list: &[u32]) -> Peers {
    list.iter().map(|n| (NodeId(*n), user(*n).incarnation)).collect()
}

/// What a lane does, and that it then waits for just that.
#[track_caller]
fn check(mut lane: Lane, want: &Want<'_>, expected: Vec<Action>) {
    let before = lane.clone();
    assert_eq!(advance(&mut lane, want), expected);
    assert_eq!(lane.owns(OpId(1)), !expected.is_empty());
    assert!(!lane.owns(OpId(2)));
    let unchanged = (&lane.known, &lane.saved, lane.grip);
    assert_eq!(unchanged, (&before.known, &before.saved, before.grip));
    // Of whom it has begun to tell, the shim may know.
    let mut told = before.told;
    if let Work::Busy(_, Step::Attach(users) | Step::Resume(users)) = &lane.work {
        told.extend(users);
    }
    assert_eq!(lane.told, told);
    assert_eq!(advance(&mut lane, want), vec![], "one effect at a time");
}

#[test]
fn nothing_while_busy_or_pausing() {
    let (all, none) = (users(&[1, 2]), dead(&[]));
    let closing = Want { closing: true, ..want(&all, &none) };
    for grip in GRIPS {
        for work in [Work::Busy(OpId(9), Step::Suspend), Work::Pausing] {
            let mut lane = Lane { work, ..lane(grip, &[1]) };
            assert_eq!(advance(&mut lane, &want(&all, &none)), vec![]);
            assert_eq!(advance(&mut lane, &closing), vec![]);
        }
    }
}

/// Whatever else is wanted, the end of the group comes first, and needs no agreement. The successor
/// must not keep it for services that are gone.
#[test]
fn a_closing_group_saves_that_detaches_then_forgets() {
    let (all, gone) = (users(&[1, 2]), dead(&[(3, true)]));
    let without_services =
        |told, unfinished| SavedGroup { services: vec![], ..image(told, unfinished) };
    for (gate, expelled) in [(true, false), (false, false), (true, true), (false, true)] {
        let image = without_services(&[], false);
        let want = Want { closing: true, gate, attach: gate, expelled, image, ..want(&all, &gone) };
        for (grip, unfinished) in
            [(Grip::Granting, false), (Grip::Suspended, false), (Grip::Unfinished, true)]
        {
            let saved = without_services(&[1, 3], unfinished);
            check(lane(grip, &[1, 3]), &want, save(Some(saved.clone())));
            check(Lane { saved: Some(saved), ..lane(grip, &[1, 3]) }, &want, verb(Verb::Detach));
            check(Lane { saved: None, ..lane(grip, &[1, 3]) }, &want, verb(Verb::Detach));
        }
        let saved = Some(without_services(&[1], true));
        check(Lane { saved, ..lane(Grip::Detached, &[]) }, &want, save(None));
        check(lane(Grip::Detached, &[]), &want, vec![]);
    }
}

#[test]
fn an_expelled_group_only_saves() {
    let (all, gone) = (users(&[1, 2]), dead(&[(3, true)]));
    let want = Want { expelled: true, ..want(&all, &gone) };
    for grip in GRIPS {
        check(lane(grip, &[1, 3]), &want, vec![]);
    }
    let saved = Some(SavedGroup { services: vec![], ..image(&[1, 3], false) });
    for grip in [Grip::Granting, Grip::Suspended] {
        let lane = Lane { saved: saved.clone(), ..lane(grip, &[1, 3]) };
        check(lane, &want, save(Some(image(&[1, 3], false))));
    }
}

#[test]
fn without_agreement_no_verb() {
    let (all, gone) = (users(&[1, 2]), dead(&[(3, true)]));
    let want = Want { gate: false, attach: false, ..want(&all, &gone) };
    for grip in GRIPS {
        check(lane(grip, &[1, 3]), &want, vec![]);
    }
}

#[test]
fn a_detached_group_saves_then_attaches() {
    let (all, none) = (users(&[1, 2]), dead(&[]));
    let want = want(&all, &none);
    check(lane(Grip::Detached, &[]), &want, save(Some(image(&[1, 2], true))));
    // Who was saved ahead and is gone again does no harm.
    for saved in [image(&[1, 2], true), image(&[1, 2, 3], true)] {
        let lane = Lane { saved: Some(saved), ..lane(Grip::Detached, &[]) };
        check(lane, &want, verb(Verb::Attach(peers_of(&[1, 2]))));
    }
    // A user in another incarnation than the saved one is another user.
    let mut saved = image(&[1, 2], true);
    saved.told.insert(NodeId(2), User { incarnation: Incarnation(9), boot: BootId(2) });
    let lane = Lane { saved: Some(saved), ..lane(Grip::Detached, &[]) };
    check(lane, &want, save(Some(image(&[1, 2], true))));
}

#[test]
fn a_detached_group_waits_for_all_users_to_be_known() {
    let (all, none) = (users(&[1, 2]), dead(&[]));
    let waits = Want { attach: false, ..want(&all, &none) };
    check(lane(Grip::Detached, &[]), &waits, vec![]);
    let waits = Want { locking: false, ..want(&all, &none) };
    check(lane(Grip::Detached, &[]), &waits, vec![]);
    // Suspended, and once granted: it runs what it runs. Taken over unfinished it may not be attached.
    let granted = Lane { saved: Some(image(&[1, 2], true)), ..lane(Grip::Suspended, &[1, 2]) };
    check(granted.clone(), &waits, verb(Verb::Resume(peers_of(&[1, 2]))));
    check(Lane { known: Users::new(), ..granted }, &waits, vec![]);
}

#[test]
fn a_granting_group_that_knows_all_does_nothing() {
    let (all, none) = (users(&[1, 2]), dead(&[]));
    check(lane(Grip::Granting, &[1, 2]), &want(&all, &none), vec![]);
}

/// The change is marked in the state file, with the users to come, before the shim hears of it.
#[test]
fn a_change_is_marked_before_the_group_is_suspended() {
    // Alive now; dead; what is marked. Who died stays: the death comes first.
    let cases: [Change; 6] = [
        (&[1, 2, 3, 4], &[], &[1, 2, 3, 4]),
        (&[1, 2], &[], &[1, 2, 3]),
        (&[1, 2], &[(3, false)], &[1, 2, 3]),
        (&[1, 2], &[(3, true)], &[1, 2, 3]),
        (&[1, 2, 4], &[(3, false)], &[1, 2, 3, 4]),
        (&[1, 2, 3], &[(3, true)], &[1, 2, 3]),
    ];
    for (alive, gone, marked) in cases {
        let (alive, gone) = (users(alive), dead(gone));
        let want = want(&alive, &gone);
        check(lane(Grip::Granting, &[1, 2, 3]), &want, save(Some(image(marked, true))));
        let saved = Some(image(marked, true));
        check(Lane { saved, ..lane(Grip::Granting, &[1, 2, 3]) }, &want, verb(Verb::Suspend));
    }
}

/// Of a node that died and is back in another use, the dead one is marked.
#[test]
fn a_node_that_is_back_is_marked_as_dead() {
    let mut back = users(&[1, 2, 3]);
    back.insert(NodeId(3), User { incarnation: Incarnation(9), boot: BootId(9) });
    let (gone, none) = (dead(&[(3, true)]), dead(&[]));
    let marked = image(&[1, 2, 3], true);
    check(lane(Grip::Granting, &[1, 2, 3]), &want(&back, &gone), save(Some(marked.clone())));
    // When it is told, the new use is marked before it is resumed.
    let lane = Lane { saved: Some(marked.clone()), ..lane(Grip::Suspended, &[1, 2]) };
    let marked = SavedGroup { told: back.clone(), ..marked };
    check(lane, &want(&back, &none), save(Some(marked)));
}

#[test]
fn what_a_predecessor_left_unfinished_starts_with_suspend() {
    let rest = users(&[1, 2]);
    for gone in [dead(&[]), dead(&[(3, true)])] {
        check(lane(Grip::Unfinished, &[1, 2]), &want(&rest, &gone), verb(Verb::Suspend));
    }
}

#[test]
fn the_settled_dead_are_told_in_order() {
    let rest = users(&[1]);
    let cases = [
        (dead(&[(2, false)]), None),
        (dead(&[(2, true)]), Some(2)),
        (dead(&[(2, false), (3, true)]), Some(3)),
        (dead(&[(2, true), (3, true)]), Some(2)),
    ];
    for (gone, next) in cases {
        let node_down = |n| verb(Verb::NodeDown(NodeId(n), user(n).incarnation));
        let told = lane(Grip::Suspended, &[1, 2, 3, 4]);
        check(told, &want(&rest, &gone), next.map_or(vec![], node_down));
    }
}

#[test]
fn a_suspended_group_without_deaths_resumes() {
    let (none, rest, all) = (dead(&[]), users(&[1, 2]), users(&[1, 2, 3]));
    let marked =
        |told, saved| Lane { saved: Some(image(saved, true)), ..lane(Grip::Suspended, told) };
    let resume = |list| verb(Verb::Resume(peers_of(list)));
    check(marked(&[1, 2], &[1, 2]), &want(&rest, &none), resume(&[1, 2]));
    check(marked(&[1, 2, 3], &[1, 2, 3]), &want(&rest, &none), resume(&[1, 2]));
    check(marked(&[1, 2], &[1, 2, 3]), &want(&all, &none), resume(&[1, 2, 3]));
    // Whoever came since is marked first.
    check(marked(&[1, 2], &[1, 2]), &want(&all, &none), save(Some(image(&[1, 2, 3], true))));
}

/// A changed image is saved in every grip but detached; one that was saved ahead stays ahead.
#[test]
fn the_image_changed() {
    let (all, none) = (users(&[1, 2]), dead(&[]));
    let old = |unfinished| SavedGroup { services: vec![], ..image(&[1, 2, 3], unfinished) };
    let shut = || Want { gate: false, ..want(&all, &none) };
    check(Lane { saved: Some(old(true)), ..lane(Grip::Detached, &[]) }, &shut(), vec![]);
    let cases = [
        // What the shim knows is finished again: the image says so.
        (Grip::Granting, old(true), image(&[1, 2], false)),
        (Grip::Granting, old(false), image(&[1, 2], false)),
        (Grip::Suspended, old(false), image(&[1, 2], false)),
        (Grip::Suspended, old(true), image(&[1, 2, 3], true)),
        (Grip::Unfinished, old(true), image(&[1, 2, 3], true)),
        (Grip::Unfinished, old(false), image(&[1, 2], true)),
    ];
    for (grip, saved, expected) in cases {
        let lane = Lane { saved: Some(saved), ..lane(grip, &[1, 2]) };
        check(lane, &shut(), save(Some(expected)));
    }
}

/// How one step ends: the shim's grip, whom it may know, whom it knows.
#[track_caller]
fn check_done(mut lane: Lane, step: Step, actions: &[Action], after: (Grip, &[u32], &[u32])) {
    lane.work = Work::Busy(OpId(1), step.clone());
    let (ended, out) = with(|fx| lane.handle_done(Ok(()), fx));
    assert_eq!((ended, out.as_slice()), (Some(Ended::Ok(step)), actions));
    assert_eq!((lane.grip, &lane.told, &lane.known), (after.0, &users(after.1), &users(after.2)));
    assert_eq!(lane.work, Work::Idle);
}

#[test]
fn steps_that_succeed() {
    let detached = || lane(Grip::Detached, &[]);
    let granting = || lane(Grip::Granting, &[1, 2]);
    let suspended = || lane(Grip::Suspended, &[1, 2]);
    check_done(detached(), Step::Attach(users(&[1])), &[], (Grip::Granting, &[1], &[1]));
    check_done(granting(), Step::Suspend, &[], (Grip::Suspended, &[1, 2], &[1, 2]));
    let unfinished = Lane { known: users(&[]), ..lane(Grip::Unfinished, &[1, 2]) };
    check_done(unfinished, Step::Suspend, &[], (Grip::Suspended, &[1, 2], &[]));
    let all = Step::Resume(users(&[1, 2, 3]));
    check_done(suspended(), all, &[], (Grip::Granting, &[1, 2, 3], &[1, 2, 3]));
    for lane in [granting(), suspended()] {
        check_done(lane, Step::Detach, &[], (Grip::Detached, &[], &[]));
    }
    for saved in [None, Some(image(&[1], true))] {
        let mut lane = granting();
        lane.work = Work::Busy(OpId(1), Step::Save(saved.clone()));
        let (ended, out) = with(|fx| lane.handle_done(Ok(()), fx));
        assert_eq!((ended, out), (Some(Ended::Ok(Step::Save(saved.clone()))), vec![]));
        assert_eq!(lane.saved, saved);
        assert_eq!(lane.saved_services().is_some(), saved.is_some());
    }
}

/// The dead leave `told`, so that nobody tells them twice, and stay in `known` until the shim grants
/// again: to the others we know whom we last granted with.
#[test]
fn a_told_death_is_buried() {
    let buried = Action::Note(Note::Buried(G, NodeId(2), Incarnation(2)));
    let step = Step::NodeDown(NodeId(2), Incarnation(2));
    check_done(lane(Grip::Suspended, &[1, 2]), step, &[buried], (Grip::Suspended, &[1], &[1, 2]));
}

/// A resume that failed may have been done: nothing else is told to a shim that may grant.
#[test]
fn after_a_failed_resume() {
    let (gone, none) = (dead(&[(2, true)]), dead(&[]));
    let (own, both, all) = (users(&[1]), users(&[1, 2]), users(&[1, 2, 3]));
    let unresumed = || lane(Grip::Unresumed, &[1, 2]);
    let finished = Lane { saved: Some(image(&[1, 2], false)), ..unresumed() };
    check(unresumed(), &want(&both, &none), verb(Verb::Resume(peers(&both))));
    check(unresumed(), &want(&own, &gone), verb(Verb::Suspend));
    // Nor does it resume what it may never have attached before the locking protocol is chosen.
    let unsure = Lane { known: users(&[]), ..unresumed() };
    check(unsure, &Want { locking: false, ..want(&both, &none) }, verb(Verb::Suspend));
    check(unresumed(), &want(&all, &none), verb(Verb::Suspend));
    check(finished, &want(&own, &gone), save(Some(image(&[1, 2], true))));
}

/// A failed step pauses, and is then the next step again.
#[test]
fn steps_that_fail() {
    let (gone, none) = (dead(&[(3, true)]), dead(&[]));
    let (rest, all) = (users(&[1, 2]), users(&[1, 2, 4]));
    let image_of_none = SavedGroup { services: vec![], ..image(&[], false) };
    let closing = Want { closing: true, image: image_of_none, ..want(&rest, &none) };
    let marked = |grip, told, saved| Lane { saved: Some(image(saved, true)), ..lane(grip, told) };
    let unsaved = Lane { saved: None, ..lane(Grip::Granting, &[1, 2]) };
    let cases = [
        (lane(Grip::Detached, &[]), want(&rest, &none), "save"),
        (marked(Grip::Detached, &[], &[1, 2]), want(&rest, &none), "attach"),
        (lane(Grip::Granting, &[1, 2, 3]), want(&rest, &gone), "save"),
        (marked(Grip::Granting, &[1, 2, 3], &[1, 2, 3]), want(&rest, &gone), "suspend"),
        (marked(Grip::Suspended, &[1, 2, 3], &[1, 2, 3]), want(&rest, &gone), "node_down"),
        (marked(Grip::Suspended, &[1, 2], &[1, 2]), want(&rest, &none), "resume"),
        (marked(Grip::Suspended, &[1, 2], &[1, 2]), want(&all, &none), "save"),
        (unsaved, closing, "detach"),
    ];
    for (mut lane, want, name) in cases {
        let before = lane.clone();
        let first = advance(&mut lane, &want);
        assert_eq!(lane.busy_with(), Some(name));
        let Work::Busy(_, step) = lane.work.clone() else { unreachable!() };
        let (ended, out) = with(|fx| lane.handle_done(Err(ERROR), fx));
        assert_eq!(ended, Some(Ended::Failed(step, ERROR)));
        let noted = Action::Note(Note::OpFailed(G, name, ERROR));
        let timer = Timer::Lane(G);
        assert_eq!(out, vec![noted, Action::Arm { timer, generation: 1, at: Now(1_005) }]);
        assert_eq!((lane.busy_with(), lane.work.clone()), (Some("retry"), Work::Pausing));
        let unchanged = (&lane.known, &lane.saved);
        assert_eq!(unchanged, (&before.known, &before.saved));
        // Half an attach must be undone, and half of the others told anew.
        let grip = match name {
            "attach" | "suspend" | "detach" => Grip::Unfinished,
            "resume" => Grip::Unresumed,
            _ => before.grip,
        };
        assert_eq!(lane.grip, grip);
        if name == "attach" {
            continue;
        }
        assert_eq!(advance(&mut lane, &want), vec![]);
        lane.handle_timer();
        assert_eq!(advance(&mut lane, &want), first, "the same again after the pause");
    }
}

/// The group asks `owns` first, so the lane hears of no end but its own.
#[test]
fn an_end_that_nobody_waits_for() {
    for result in [Ok(()), Err(ERROR)] {
        let mut lane = lane(Grip::Granting, &[1]);
        assert!(!lane.owns(OpId(1)));
        assert_eq!(with(|fx| lane.handle_done(result, fx)), (None, vec![]));
        assert_eq!(lane.work, Work::Idle);
    }
}

#[test]
fn the_timer_only_ends_a_pause() {
    for work in [Work::Idle, Work::Busy(OpId(1), Step::Suspend)] {
        let mut lane = Lane { work: work.clone(), ..lane(Grip::Granting, &[1]) };
        lane.handle_timer();
        assert_eq!(lane.work, work);
    }
}

#[test]
fn a_successor_goes_on_where_it_stopped() {
    let finished = Lane::restore(G, image(&[1, 2], false));
    assert_eq!((finished.grip, &finished.told), (Grip::Granting, &users(&[1, 2])));
    assert_eq!(finished.known, users(&[1, 2]));
    let (all, none) = (users(&[1, 2]), dead(&[]));
    check(finished, &want(&all, &none), vec![]);

    let unfinished = Lane::restore(G, image(&[1, 2], true));
    assert_eq!((unfinished.grip, &unfinished.told), (Grip::Unfinished, &users(&[1, 2])));
    assert_eq!(unfinished.known, users(&[]), "nobody is surely known");
    check(unfinished, &want(&all, &none), verb(Verb::Suspend));
}

#[test]
fn settled_means_all_told_and_saved() {
    let (all, none, gone) = (users(&[1, 2]), dead(&[]), dead(&[(3, false)]));
    assert!(lane(Grip::Granting, &[1, 2]).is_settled(&want(&all, &none)));
    assert!(!lane(Grip::Granting, &[1]).is_settled(&want(&all, &none)));
    assert!(!lane(Grip::Granting, &[1, 2]).is_settled(&want(&all, &gone)));
    for grip in [Grip::Detached, Grip::Suspended, Grip::Unfinished] {
        assert!(!lane(grip, &[1, 2]).is_settled(&want(&all, &none)));
    }
    let busy = Lane { work: Work::Pausing, ..lane(Grip::Granting, &[1, 2]) };
    assert!(!busy.is_settled(&want(&all, &none)));
    let unsaved = Lane { saved: Some(image(&[1, 2], true)), ..lane(Grip::Granting, &[1, 2]) };
    assert!(!unsaved.is_settled(&want(&all, &none)));
}

#[test]
fn clear_means_detached_forgotten_and_idle() {
    assert!(Lane::new(G).is_clear());
    assert!(!Lane::new(G).is_attached());
    for grip in [Grip::Granting, Grip::Suspended, Grip::Unfinished] {
        assert!(!lane(grip, &[]).is_clear());
        assert!(lane(grip, &[]).is_attached());
    }
    assert!(!Lane { saved: Some(image(&[], true)), ..Lane::new(G) }.is_clear());
    assert!(!Lane { work: Work::Pausing, ..Lane::new(G) }.is_clear());
}

mod held;
