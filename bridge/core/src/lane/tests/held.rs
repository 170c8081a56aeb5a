//! A group that could not be left, and what does not wait for a verb that fails.

use super::*;

/// The kernel uses a group on that was to be left: its dead are told, and the detach is tried again.
#[test]
fn a_group_that_cannot_be_left_hears_of_its_dead() {
    let saved = |unfinished| SavedGroup { services: vec![], ..image(&[1, 2, 3], unfinished) };
    let lane = |grip, unfinished| Lane { saved: Some(saved(unfinished)), ..lane(grip, &[1, 2, 3]) };
    let rest = users(&[1, 2]);
    let closing = |dead| Want { closing: true, image: saved(false), ..want(&rest, dead) };
    let (gone, unsettled, none) = (dead(&[(3, true)]), dead(&[(3, false)]), dead(&[]));
    let mut held = Lane { work: Work::Busy(OpId(1), Step::Detach), ..lane(Grip::Granting, false) };
    let (ended, _) = with(|fx| held.handle_done(Err(ERROR), fx));
    assert_eq!(ended, Some(Ended::Failed(Step::Detach, ERROR)));
    held.handle_timer();
    // Whoever comes, or leaves, is told as well; without any change the detach is tried again.
    check(held.clone(), &closing(&none), save(Some(saved(true))));
    let everybody = users(&[1, 2, 3]);
    let unchanged = Want { users: &everybody, ..closing(&none) };
    check(held.clone(), &unchanged, verb(Verb::Detach));
    check(Lane { known: Users::new(), ..held.clone() }, &unchanged, save(Some(saved(true))));
    check(held.clone(), &closing(&unsettled), verb(Verb::Detach));
    check(held.clone(), &Want { gate: false, ..closing(&gone) }, verb(Verb::Detach));
    check(held.clone(), &Want { expelled: true, ..closing(&gone) }, verb(Verb::Detach));
    check(held.clone(), &closing(&gone), save(Some(saved(true))));
    let marked = Lane { saved: Some(saved(true)), ..held.clone() };
    check(marked, &closing(&gone), verb(Verb::Suspend));
    let suspended = Lane { grip: Grip::Suspended, saved: Some(saved(true)), ..held.clone() };
    let down = verb(Verb::NodeDown(NodeId(3), user(3).incarnation));
    check(suspended.clone(), &closing(&gone), down);
    check(suspended.clone(), &closing(&none), verb(Verb::Resume(peers_of(&[1, 2]))));
    let mut left = Lane { work: Work::Busy(OpId(1), Step::Detach), ..suspended };
    with(|fx| left.handle_done(Ok(()), fx));
    assert!(!left.is_held && !left.may_be_suspended);
    // Of a detach that failed nobody knows how far it came: what stood still then may stand still yet, and who was
    // not surely told is told.
    let halved = || Lane { saved: Some(saved(true)), grip: Grip::Unfinished, ..held.clone() };
    let settled = |lane: Lane| Lane { told: users(&[1, 2]), known: users(&[1, 2]), ..lane };
    check(settled(halved()), &closing(&none), verb(Verb::Detach));
    let stands = Lane { may_be_suspended: true, ..settled(halved()) };
    check(stands, &closing(&none), verb(Verb::Suspend));
    let unaware = Lane { known: users(&[1]), ..settled(halved()) };
    check(unaware, &closing(&none), verb(Verb::Suspend));
    check(lane(Grip::Granting, false), &closing(&gone), verb(Verb::Detach));
}

/// What a kernel cannot be told must not keep a group that it may have let go by now.
#[test]
fn a_group_that_cannot_be_left_is_asked_again_after_a_failed_step() {
    let rest = users(&[1, 2]);
    let (gone, saved) =
        (dead(&[(3, true)]), SavedGroup { services: vec![], ..image(&[1, 2, 3], true) });
    let closing = Want { closing: true, image: saved.clone(), ..want(&rest, &gone) };
    let held = |grip| Lane { saved: Some(saved.clone()), is_held: true, ..lane(grip, &[1, 2, 3]) };
    let down = Step::NodeDown(NodeId(3), user(3).incarnation);
    let mark = Step::Save(Some(saved.clone()));
    let steps =
        [(Grip::Granting, mark), (Grip::Unfinished, Step::Suspend), (Grip::Suspended, down)];
    for (grip, step) in steps {
        let mut lane = Lane { work: Work::Busy(OpId(1), step), ..held(grip) };
        with(|fx| lane.handle_done(Err(ERROR), fx));
        lane.handle_timer();
        assert_eq!(advance(&mut lane, &closing), verb(Verb::Detach), "{grip:?}");
        // In vain: the death is told before the next attempt.
        with(|fx| lane.handle_done(Err(ERROR), fx));
        lane.handle_timer();
        check(lane, &closing, verb(Verb::Suspend));
    }
}

/// Whoever waits until a successor would find its service does not wait for a verb that fails.
#[test]
fn a_changed_service_is_saved_between_two_attempts() {
    let (all, none) = (users(&[1, 2, 3]), dead(&[]));
    let services = vec![SavedService { name: service("/mnt"), live: false }];
    let fresh = || SavedGroup { services: services.clone(), ..image(&[1, 2, 3], true) };
    let suspended = Lane { saved: Some(image(&[1, 2, 3], true)), ..lane(Grip::Suspended, &[1, 2]) };
    let want = Want { image: SavedGroup { told: users(&[]), ..fresh() }, ..want(&all, &none) };
    let resume = verb(Verb::Resume(peers(&all)));
    let mut lane = suspended;
    assert_eq!(advance(&mut lane, &want), resume);
    with(|fx| lane.handle_done(Err(ERROR), fx));
    lane.handle_timer();
    assert_eq!(advance(&mut lane, &want), save(Some(fresh())));
    // In vain: the verb comes again all the same.
    let mut failed = lane.clone();
    for (lane, result) in [(&mut lane, Ok(())), (&mut failed, Err(ERROR))] {
        with(|fx| lane.handle_done(result, fx));
        lane.handle_timer();
        check(lane.clone(), &want, resume.clone());
    }
}

/// Begun again while the last attempt to leave was under way, which went well.
#[test]
fn a_group_that_was_left_at_last_is_attached_anew() {
    let (all, none) = (users(&[1]), dead(&[]));
    let left = SavedGroup { services: vec![], ..image(&[1], true) };
    let mut lane = Lane { saved: Some(left), ..lane(Grip::Granting, &[1]) };
    for result in [Err(ERROR), Ok(())] {
        lane.work = Work::Busy(OpId(1), Step::Detach);
        with(|fx| lane.handle_done(result, fx));
        lane.handle_timer();
    }
    check(lane, &want(&all, &none), verb(Verb::Attach(peers(&all))));
}
