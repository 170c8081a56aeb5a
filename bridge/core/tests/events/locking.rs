//! The locking protocol of OCFS2 is chosen before the kernel is told of any group.

use crate::common::*;

fn version(major: u8, minor: u8) -> LockingProtocol {
    LockingProtocol { major, minor }
}

fn knows(major: u8, minor: u8) -> Locking {
    Locking { highest: Some(version(major, minor)), ..NOTHING }
}

fn runs(major: u8, minor: u8) -> Locking {
    Locking { running: Some(version(major, minor)), ..knows(1, 9) }
}

const NOTHING: Locking = Locking { highest: None, running: None, choice: 0 };

/// The Hello of a node that uses another group, if its kernel runs anything.
fn of(n: u32, locking: Locking) -> Event {
    let uses = locking.running.iter().map(|_| (H, inc(n))).collect();
    hello_of(n, Hello { uses, locking, ..hello(n, 1) })
}

fn attaches(actions: &[Action]) -> bool {
    let is_attach = |action: &Action| matches!(action, Action::Verb { verb: Verb::Attach(_), .. });
    actions.iter().any(is_attach)
}

/// This daemon, with these others in the ring: node 2 and up.
fn rig_with(saved: Saved, ours: Locking, others: &[Locking]) -> Rig {
    let mut rig = Rig::new(Fencing::None, saved.clone());
    rig.core = Core::new(Config { locking: ours, ..config(Fencing::None) }, saved);
    let list: Vec<u32> = (1..).take(1 + others.len()).collect();
    rig.ring = list.clone();
    rig.handle(connected(&list));
    rig.handle(quorum(true, 1, &list));
    rig.handle(done(OpId(1)));
    let own = rig.handle(joined(Channel::Control, &list, &[1], Reason::Join));
    rig.pump(own);
    for (locking, n) in others.iter().zip(2..) {
        rig.run(of(n, *locking));
    }
    assert!(rig.core.snapshot().settled);
    rig
}

/// What is chosen at the first begin, or who is in the way.
fn chosen(ours: Locking, others: &[Locking]) -> Result<Option<LockingProtocol>, Refusal> {
    let mut rig = rig_with(Saved::default(), ours, others);
    let actions = rig.handle(Event::Begin(begin(1, &mnt())));
    let refusal = actions.iter().find_map(|action| match action {
        Action::Reply { reply: Reply::Refused(refusal), .. } => Some(refusal.clone()),
        _ => None,
    });
    let runs = actions.iter().find_map(|action| match action {
        Action::RunLocking(protocol) => Some(*protocol),
        _ => None,
    });
    refusal.map_or(Ok(runs), Err)
}

/// The kernel is told first, then the others.
#[test]
fn alone_it_is_our_newest() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[]);
    let overdue = rig.arm(Timer::Begin(G, mnt()), BEGIN_MS);
    let locking = Locking { running: Some(version(1, 2)), choice: 1, ..knows(1, 2) };
    let said = Hello { uses: [(G, inc(1))].into(), locking, ..hello(1, 1) };
    expect(
        rig.handle(Event::Begin(begin(1, &mnt()))),
        vec![overdue, Action::RunLocking(version(1, 2)), say_hello(said)],
    );
}

#[test]
fn it_is_the_oldest_that_all_know() {
    assert_eq!(chosen(NOTHING, &[knows(1, 0)]), Ok(None));
    assert_eq!(chosen(knows(1, 2), &[NOTHING, knows(1, 3)]), Ok(Some(version(1, 2))));
    assert_eq!(chosen(knows(1, 2), &[knows(1, 1), knows(1, 0)]), Ok(Some(version(1, 0))));
    assert_eq!(chosen(knows(1, 2), &[knows(2, 0)]), Ok(Some(version(1, 2))));
}

#[test]
fn it_is_what_the_others_run() {
    assert_eq!(chosen(knows(1, 2), &[knows(1, 0), runs(1, 1)]), Ok(Some(version(1, 1))));
    assert_eq!(chosen(knows(1, 1), &[runs(1, 1)]), Ok(Some(version(1, 1))));
}

#[test]
fn a_kernel_that_does_not_know_it_is_kept_out() {
    let ours = version(1, 0);
    for (others, theirs) in
        [(vec![NOTHING, runs(1, 1)], version(1, 1)), (vec![knows(1, 0), runs(2, 0)], version(2, 0))]
    {
        let refusal = Refusal::LockingMismatch { node: node(3), theirs, ours };
        assert_eq!(chosen(knows(1, 0), &others), Err(refusal));
    }
    let theirs = version(1, 4);
    let refusal = Refusal::LockingMismatch { node: node(2), theirs, ours: version(2, 0) };
    assert_eq!(chosen(knows(2, 0), &[knows(1, 4)]), Err(refusal));
}

/// A user whose daemon is away runs something, and nobody says what.
#[test]
fn what_nobody_can_say_is_awaited() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    let user = Hello { uses: [(H, inc(2))].into(), locking: knows(1, 2), ..hello(2, 1) };
    rig.run(hello_of(2, user));
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    let runs_any = |it: &Action| matches!(it, Action::RunLocking(_));
    assert!(!rig.run(Event::Begin(begin(1, &mnt()))).iter().any(runs_any));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    let chosen = rig.run(of(2, runs(1, 0)));
    assert!(chosen.contains(&Action::RunLocking(version(1, 0))), "{chosen:?}");
}

/// Taken over in the middle of an attach, with a node in the ring that nobody has heard of.
#[test]
fn nothing_is_chosen_before_all_users_are_known() {
    let saved = Saved { memory_from: Some(inc(1)), groups: [(G, image(&[1], true, true))].into() };
    let mut rig = Rig::new(Fencing::Ack, saved.clone());
    rig.core = Core::new(Config { locking: knows(1, 2), ..config(Fencing::Ack) }, saved);
    rig.ring = vec![1, 2];
    let tells = |it: &Action| {
        matches!(it, Action::RunLocking(_) | Action::Verb { verb: Verb::Resume(_), .. })
    };
    for event in [
        connected(&[1, 2]),
        quorum(true, 1, &[1, 2]),
        joined(Channel::Control, &[1], &[1], Reason::Join),
        joined(group_channel(), &[1], &[1], Reason::Join),
    ] {
        let actions = rig.run(event);
        assert!(!actions.iter().any(tells), "{actions:?}");
    }
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    let chosen = rig.run(of(2, knows(1, 1)));
    assert!(chosen.contains(&Action::RunLocking(version(1, 1))), "{chosen:?}");
}

/// Two chose at once. The order of their words decides, as everybody sees it alike.
#[test]
fn of_two_choices_the_first_word_stands() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    let begun = rig.handle(Event::Begin(begin(1, &mnt())));
    assert!(begun.contains(&Action::RunLocking(version(1, 2))), "{begun:?}");
    let actions = rig.handle(of(2, runs(1, 1)));
    assert!(actions.contains(&Action::RunLocking(version(1, 1))), "theirs was first: {actions:?}");

    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    rig.ring = vec![1];
    let begun = rig.handle(Event::Begin(begin(1, &mnt())));
    rig.echo(&begun);
    let actions = rig.handle(of(2, runs(1, 1)));
    assert!(!actions.iter().any(|it| matches!(it, Action::RunLocking(_))), "ours was: {actions:?}");
}

/// The kernel is told of nothing before our own word of the choice has come back.
#[test]
fn nothing_is_attached_before_our_word_has_come_back() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    rig.ring = vec![1];
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    rig.run(Event::Begin(begin(1, &mnt())));
    let begins = |actions: &[Action]| actions.iter().any(|it| matches!(it, Action::Save { .. }));
    let actions = rig.handle(of(2, knows(1, 2)));
    assert!(actions.contains(&Action::RunLocking(version(1, 2))), "{actions:?}");
    assert!(!begins(&actions), "{actions:?}");
    let later = rig.echo(&actions);
    assert!(begins(&later), "{later:?}");
}

/// Nothing is attached beside a kernel that runs another one.
#[test]
fn nothing_is_attached_before_all_run_the_same() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[runs(1, 1), runs(1, 2)]);
    rig.ring = vec![1];
    assert!(!attaches(&rig.run(Event::Begin(begin(1, &mnt())))));
    let actions = rig.run(of(3, runs(1, 1)));
    assert!(actions.contains(&Action::RunLocking(version(1, 1))), "{actions:?}");
    assert!(attaches(&actions), "{actions:?}");
}

/// Of two choices of one version, the word of the first says nothing about the second.
#[test]
fn an_old_word_of_our_own_is_not_the_new_one() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    let first = rig.handle(Event::Begin(begin(1, &mnt())));
    rig.handle(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.handle(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    let again = rig.handle(of(2, knows(1, 2)));
    let chosen = |actions: &[Action]| actions.contains(&Action::RunLocking(version(1, 2)));
    assert!(chosen(&first) && chosen(&again), "{first:?}, {again:?}");
    let later = rig.echo(&first);
    assert!(!later.iter().any(|it| matches!(it, Action::RunLocking(_))), "{later:?}");
    // Our first word has come back; theirs comes before our second.
    let actions = rig.handle(of(2, runs(1, 1)));
    assert!(actions.contains(&Action::RunLocking(version(1, 1))), "{actions:?}");
}

/// A lost node may come back with what its kernel runs, until it is fenced.
#[test]
fn the_lost_count_until_they_are_fenced() {
    for (fencing, expected) in [(Fencing::Ack, version(1, 1)), (Fencing::None, version(1, 2))] {
        let mut rig = rig_with(Saved::default(), knows(1, 2), &[runs(1, 1), knows(1, 2)]);
        rig.handle(Event::Reconfigure(tunables(fencing)));
        for event in rig.loss(&[1, 3], &[2], Reason::NodeDown) {
            rig.run(event);
        }
        rig.run(hello_of(3, Hello { locking: knows(1, 2), ..hello(3, 2) }));
        let begun = rig.run(Event::Begin(begin(1, &mnt())));
        assert!(begun.contains(&Action::RunLocking(expected)), "{fencing:?}: {begun:?}");
    }
}

/// What no kernel runs yet is chosen anew when others come or go.
#[test]
fn a_choice_ends_with_the_agreement() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    rig.run(Event::Begin(begin(1, &mnt())));
    let seq = rig.next_ring(&[1, 2]);
    rig.run(quorum(true, seq, &[1, 2]));
    rig.run(totem(Channel::Control, seq, &[1, 2]));
    let actions = rig.run(hello_of(2, Hello { locking: knows(1, 0), ..hello(2, seq) }));
    assert!(actions.contains(&Action::RunLocking(version(1, 0))), "{actions:?}");
}

/// While something is in use it stays, whatever comes; when nothing is, it is chosen anew.
#[test]
fn it_stays_while_anything_is_in_use() {
    let mut rig = rig_with(Saved::default(), knows(1, 2), &[knows(1, 2)]);
    let begun = rig.run(Event::Begin(begin(1, &mnt())));
    assert!(begun.contains(&Action::RunLocking(version(1, 2))), "{begun:?}");
    let older = Hello { locking: knows(1, 1), ..hello(2, 1) };
    let actions = rig.run(hello_of(2, older));
    assert!(!actions.iter().any(|it| matches!(it, Action::RunLocking(_))), "{actions:?}");
    let given_up = rig.fire_armed(&begun, &Timer::Begin(G, mnt()));
    let departs = given_up.iter().find_map(|action| match action {
        Action::Depart { op, .. } => Some(*op),
        _ => None,
    });
    rig.run(done(departs.unwrap()));
    assert!(rig.core.snapshot().groups.is_empty(), "{:?}", rig.core.snapshot());
    let begun = rig.run(Event::Begin(begin(3, &mnt())));
    assert!(begun.contains(&Action::RunLocking(version(1, 1))), "{begun:?}");
}

/// What a predecessor had the kernel run goes on, and is said.
#[test]
fn a_restarted_daemon_goes_on_with_it() {
    let saved = Saved { groups: [(G, image(&[1], true, false))].into(), ..Saved::default() };
    let ours = Locking { running: Some(version(1, 1)), ..knows(1, 2) };
    let mut rig = rig_with(saved, ours, &[knows(1, 2)]);
    let seq = rig.next_ring(&[1, 2]);
    rig.run(quorum(true, seq, &[1, 2]));
    let actions = rig.run(totem(Channel::Control, seq, &[1, 2]));
    let said = actions.iter().find_map(|action| match action {
        Action::Mcast { channel: Channel::Control, bytes } => proto::decode(bytes).ok(),
        _ => None,
    });
    let Some((_, Body::Hello(hello))) = said else { panic!("{actions:?}") };
    assert_eq!(hello.locking, ours);
    assert!(!actions.iter().any(|it| matches!(it, Action::RunLocking(_))), "{actions:?}");
}
