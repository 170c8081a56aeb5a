//! Corosync answers: the way into the control group, and what a predecessor left behind.

use crate::common::*;

fn saved(image: SavedGroup) -> Saved {
    Saved { memory_from: Some(inc(1)), groups: [(G, image)].into() }
}

#[test]
fn down_joins_the_control_group() {
    let mut rig = Rig::new(Fencing::None, Saved::default());
    let joins = vec![Action::Join { op: OpId(1), channel: Channel::Control }];
    expect(rig.handle(connected(&[1, 2])), joins);
    let snapshot = rig.core.snapshot();
    assert_eq!((snapshot.node, snapshot.cluster.as_str()), (Some(node(1)), "east"));
    assert!(snapshot.connected && !snapshot.quorate && !snapshot.settled);
}

/// From the first answer of corosync to the first agreement, step by step.
#[test]
fn alone_in_the_cluster() {
    let mut rig = Rig::new(Fencing::Ack, Saved::default());
    let mute = Hello { witness: false, ..hello(1, 1) };
    rig.steps(vec![
        (connected(&[1]), vec![Action::Join { op: OpId(1), channel: Channel::Control }]),
        (quorum(true, 1, &[1]), vec![]),
        (done(OpId(1)), vec![]),
        (joined(Channel::Control, &[1], &[1], Reason::Join), vec![say_hello(mute.clone())]),
    ]);
    assert!(!rig.core.snapshot().settled, "we have not heard ourselves");
    // All configured nodes are here, so we know all users there are.
    expect(rig.handle(hello_of(1, mute)), vec![say_hello(hello(1, 1))]);
    assert!(rig.core.snapshot().settled);
    expect_nothing(rig.handle(hello_of(1, hello(1, 1))));
}

/// The quorum service may be slower than the control group.
#[test]
fn quorum_is_told_after_our_own_join() {
    let mut rig = Rig::new(Fencing::None, Saved::default());
    rig.handle(connected(&[1]));
    rig.handle(done(OpId(1)));
    expect_nothing(rig.handle(joined(Channel::Control, &[1], &[1], Reason::Join)));
    let mute = Hello { witness: false, ..hello(1, 1) };
    expect(rig.handle(quorum(true, 1, &[1])), vec![say_hello(mute)]);
}

/// A kernel that refused to let go may still be told of deaths: the group joins again, although it closes.
#[test]
fn again_with_a_group_that_its_kernel_keeps() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let (marked, detach) = (rig.op(1), rig.op(2));
    rig.handle(leave(3, &mnt()));
    rig.handle(done(marked));
    rig.handle(failed(detach, 16));
    rig.handle(Event::Disconnected);
    let mut all = Vec::new();
    for event in [
        connected(&[1, 2]),
        quorum(true, 2, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[1], Reason::Join),
        hello_of(2, hello_using(2, 2)),
    ] {
        all.extend(rig.run(event));
    }
    let is_join =
        |it: &&Action| matches!(it, Action::Join { channel, .. } if *channel == group_channel());
    assert_eq!(all.iter().filter(is_join).count(), 1, "{all:?}");
}

/// A predecessor died while it left the group: how far the kernel got is not known. Kept by it, the group says so
/// to the others; begun again, it is told everything anew.
#[test]
fn a_saved_group_that_was_being_left() {
    let being_left = SavedGroup { services: vec![], ..image(&[1, 2], true, false) };
    let mut rig = Rig::new(Fencing::None, saved(being_left));
    expect(rig.handle(Event::Disconnected), vec![verb(OpId(1), Verb::Detach)]);
    let paused = rig.handle(failed(OpId(1), 5));
    rig.ring = vec![1, 2];
    for event in [
        connected(&[1, 2]),
        quorum(true, 1, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[1], Reason::Join),
        hello_of(2, hello_using(2, 1)),
    ] {
        rig.run(event);
    }
    let said = rig.run(joined(group_channel(), &[1, 2], &[1], Reason::Join));
    assert!(said.contains(&say_state(&[])), "{said:?}");
    rig.run(state_of(2, &[1, 2]));
    rig.run(Event::Begin(begin(1, &mnt())));
    let retried = rig.fire_armed(&paused, &Timer::Lane(G));
    let all = rig.pump(retried);
    let verb_of = |action: &Action| match action {
        Action::Verb { verb, .. } => Some(verb.clone()),
        _ => None,
    };
    let told: Vec<Verb> = all.iter().filter_map(verb_of).collect();
    assert_eq!(told, [Verb::Suspend, Verb::Resume(peers(&[1, 2]))], "{all:?}");
    assert!(all.contains(&reply(1, Reply::Done)), "{all:?}");
}

/// What was used before corosync went is still used: the group joins again, and the shim hears
/// nothing, because nothing changed.
#[test]
fn again_with_a_group_in_use() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(Event::Disconnected);
    let (op, next) = (rig.op(1), rig.op(2));
    expect(rig.handle(connected(&[1, 2])), vec![Action::Join { op, channel: Channel::Control }]);
    let mute = Hello { witness: false, ..hello_using(1, 2) };
    rig.steps(vec![
        (quorum(true, 2, &[1, 2]), vec![]),
        (
            joined(Channel::Control, &[1, 2], &[1], Reason::Join),
            vec![say_hello(mute.clone()), rig.arm(Timer::Grace(node(2)), GRACE_MS)],
        ),
        (hello_of(1, mute), vec![Action::Join { op: next, channel: group_channel() }]),
        (
            hello_of(2, hello_using(2, 2)),
            vec![say_hello(hello_using(1, 2)), note(Note::DebtPaid(node(2)))],
        ),
        (done(next), vec![]),
        (
            joined(group_channel(), &[1, 2], &[1], Reason::Join),
            vec![note(Note::GroupReady(G)), say_state(&[1, 2])],
        ),
    ]);
    assert_eq!((rig.state(), rig.service(&mnt())), ("ready", "live"));
}

/// A daemon that was killed and is back: no verb, no save, no reply, and the peers know it again.
#[test]
fn a_saved_group_resumes_without_a_verb() {
    let mut rig = Rig::new(Fencing::None, saved(image(&[1, 2], true, false)));
    let mute = Hello { witness: false, ..hello_using(1, 1) };
    let grace = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    rig.steps(vec![
        (connected(&[1, 2]), vec![Action::Join { op: OpId(1), channel: Channel::Control }]),
        (quorum(true, 1, &[1, 2]), vec![]),
        (done(OpId(1)), vec![]),
        (
            joined(Channel::Control, &[1, 2], &[1], Reason::Join),
            vec![say_hello(mute.clone()), grace],
        ),
        (hello_of(1, mute), vec![Action::Join { op: OpId(2), channel: group_channel() }]),
        (
            hello_of(2, hello_using(2, 1)),
            vec![say_hello(hello_using(1, 1)), note(Note::DebtPaid(node(2)))],
        ),
        (done(OpId(2)), vec![]),
        (joined(group_channel(), &[1, 2], &[1], Reason::Join), vec![say_state(&[1, 2])]),
        (state_of(1, &[1, 2]), vec![]),
    ]);
    assert_eq!((rig.state(), rig.waiting()), ("settling", Waiting::Peer(node(2))));
    expect(rig.handle(state_of(2, &[1, 2])), vec![note(Note::GroupReady(G))]);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
    assert_eq!((rig.state(), rig.service(&mnt())), ("ready", "live"));
}

/// A predecessor died in the middle of a change: the shim hears all of it again.
#[test]
fn an_unfinished_saved_group_suspends_and_resumes() {
    let mut rig = Rig::joining(Fencing::None, saved(image(&[1], true, true)), &[1]);
    let own = rig.handle(joined(Channel::Control, &[1], &[1], Reason::Join));
    let all = rig.pump(own);
    let mute = Hello { witness: false, ..hello_using(1, 1) };
    expect(
        all,
        vec![
            say_hello(mute),
            Action::Join { op: OpId(2), channel: group_channel() },
            say_hello(hello_using(1, 1)),
            verb(OpId(3), Verb::Suspend),
            say_state(&[]),
            verb(OpId(4), Verb::Resume(peers(&[1]))),
            save(OpId(5), image(&[1], true, false)),
            say_state(&[1]),
            note(Note::GroupReady(G)),
        ],
    );
}

/// A node that the shim may know and that is in another boot died while nobody looked.
#[test]
fn a_told_member_rebooted_while_we_were_away() {
    let mut rig = Rig::joining(Fencing::Ack, saved(image(&[1, 2], true, false)), &[1, 2]);
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.pump(own);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "absent")]);
    let reborn = Hello { boot: boot(22), memory_from: inc(22), ..hello(2, 1) };
    let all = rig.run(hello_of(2, reborn));
    expect(
        all,
        vec![
            note(Note::Condemned(G, node(2), inc(2), ring(1))),
            save(OpId(3), image(&[1, 2], true, true)),
            say_hello(hello_using(1, 1)),
            note(Note::DebtPaid(node(2))),
            verb(OpId(4), Verb::Suspend),
            verb(OpId(5), Verb::NodeDown(node(2), inc(2))),
            note(Note::Buried(G, node(2), inc(2))),
            verb(OpId(6), Verb::Resume(peers(&[1]))),
            save(OpId(7), image(&[1], true, false)),
            say_state(&[1]),
            note(Note::GroupReady(G)),
        ],
    );
}

/// A node that the shim may know and that is not in the ring may come yet. If it does not, it died
/// while nobody looked.
#[test]
fn a_told_member_is_gone_from_the_ring() {
    let mut rig = Rig::joining(Fencing::Ack, saved(image(&[1, 2], true, false)), &[1]);
    let needed = note(Note::FenceNeeded(node(2), boot(2)));
    let all = rig.run(joined(Channel::Control, &[1], &[1], Reason::Join));
    assert!(!all.contains(&needed), "{all:?}");
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    let fired = rig.fire_last(Timer::Grace(node(2)));
    assert!(fired.contains(&needed), "{fired:?}");
    let all = rig.pump(fired);
    assert!(
        !all.iter().any(|action| matches!(action, Action::Verb { verb: Verb::NodeDown(..), .. }))
    );
    assert_eq!(rig.node(2), ("absent", "waiting for ack", false));
    assert_eq!((rig.state(), rig.waiting()), ("suspended", Waiting::Fencing(node(2))));
}

/// The predecessor died between two groups: in one of them a node still has the use of an earlier boot, whose
/// death was not told. Heard in its present boot, that node owes nothing, and the death is told.
#[test]
fn a_node_is_remembered_in_two_boots() {
    for (old, new) in [(G, H), (H, G)] {
        let again = User { incarnation: inc(22), boot: boot(22) };
        let mut present = image(&[1], true, false);
        present.told.insert(node(2), again);
        let groups = [(old, image(&[1, 2], true, true)), (new, present)].into();
        let saved = Saved { memory_from: Some(inc(1)), groups };
        let mut rig = Rig::joining(Fencing::None, saved, &[1, 2]);
        rig.run(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
        let hello = Hello {
            boot: boot(22),
            memory_from: inc(22),
            uses: [(new, inc(22))].into(),
            ..hello(2, 1)
        };
        let actions = rig.run(hello_of(2, hello));
        let nodes = rig.core.snapshot().nodes;
        let two = nodes.iter().find(|status| status.node == node(2)).unwrap();
        assert!(!two.in_debt && two.groups == 1, "{two:?}");
        let is_told = |action: &Action| {
            matches!(action, Action::Verb { verb: Verb::NodeDown(dead, inc), .. }
                if (*dead, inc.0) == (node(2), 2_000))
        };
        assert_eq!(actions.iter().any(is_told), old == G, "only G's CPG answers: {actions:?}");
    }
}

/// Node n is known in G from its first boot, and in H from another one.
fn known_in_two_boots(n: u32) -> Saved {
    let mut present = image(&[1], true, false);
    present.told.insert(node(n), User { incarnation: inc(11 * n), boot: boot(11 * n) });
    let groups = [(G, image(&[1, n], true, true)), (H, present)].into();
    Saved { memory_from: Some(inc(1)), groups }
}

/// The same, and the node is not heard any more: fenced in one boot, it is over in the other one, too.
#[test]
fn a_node_that_is_remembered_in_two_boots_is_lost() {
    let mut rig = Rig::joining(AGENT, known_in_two_boots(2), &[1, 3]);
    rig.run(joined(Channel::Control, &[1, 3], &[1], Reason::Join));
    let all = rig.run(hello_of(3, hello(3, 1)));
    let fence = all.iter().find(|action| matches!(action, Action::Fence { .. })).and_then(op_of);
    assert_eq!(rig.group_members(), [(1, "member"), (2, "lost")]);
    let all = rig.run(done(fence.expect("the turn is ours")));
    assert!(all.contains(&note(Note::Buried(G, node(2), inc(2)))), "{all:?}");
    assert_eq!(rig.group_members(), [(1, "member")]);
}

/// The same, and its death in one boot was decided before its loss in the other: fenced in that one, it is settled.
#[test]
fn a_node_that_is_lost_in_two_boots_is_fenced_in_one() {
    let mut rig = Rig::joining(AGENT, known_in_two_boots(3), &[1, 2]);
    let mut all = rig.run(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    let words = vec![condemned(3)];
    all.extend(rig.run(hello_of(2, Hello { witness: false, testimony: words, ..hello(2, 1) })));
    assert_eq!(rig.group_members(), [(1, "member"), (3, "dead")]);
    let all = rig.fire_armed(&all, &Timer::Grace(node(3)));
    let all = rig.pump(all);
    let fences: Vec<_> =
        all.iter().filter(|it| matches!(it, Action::Fence { .. })).filter_map(op_of).collect();
    let [fence] = fences.as_slice() else { panic!("{all:?}") };
    let all = rig.run(done(*fence));
    assert!(all.contains(&note(Note::Buried(G, node(3), inc(3)))), "{all:?}");
}

/// Somebody speaks of an earlier boot of a node that we await, and without fencing that one is over at once. The
/// node itself is not.
#[test]
fn an_earlier_boot_of_a_node_that_is_awaited() {
    let saved = saved(image(&[1, 3], true, false));
    let mut rig = Rig::joining(Fencing::None, saved, &[1, 2]);
    rig.run(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    let earlier = Testimony { boot: boot(33), ..condemned(3) };
    rig.run(hello_of(2, Hello { witness: false, testimony: vec![earlier], ..hello(2, 1) }));
    assert_eq!(rig.node(3), ("absent", "fenced", true));
    assert_eq!(rig.group_members(), [(1, "member"), (3, "lost")]);
}

/// The tool of a service that was not live may still complete, for as long as any tool may; then the
/// mount table decides about a mount, and nobody but its user about a tool.
#[test]
fn a_saved_service_that_was_not_live() {
    for (finding, service) in
        [(Finding::Mounted, "live"), (Finding::Unknown, "live"), (Finding::NotMounted, "leaving")]
    {
        let mut rig = Rig::new(Fencing::None, saved(image(&[1], false, false)));
        let actions = rig.handle(connected(&[1]));
        let timer = Timer::Complete(G, mnt());
        assert_eq!(rig.service(&mnt()), "granted");
        let fired = rig.fire_armed(&actions, &timer);
        let look = Action::Look { op: OpId(2), group: G, service: mnt(), device: None };
        expect(fired, vec![look]);
        rig.handle(Event::Looked { op: OpId(2), finding });
        assert_eq!(rig.service(&mnt()), service);
    }
    let fsck = SavedService { name: name("fsck.ocfs2"), live: false };
    let services = vec![fsck];
    let mut rig =
        Rig::new(Fencing::None, saved(SavedGroup { services, ..image(&[1], false, false) }));
    let actions = rig.handle(connected(&[1]));
    rig.fire_armed(&actions, &Timer::Complete(G, name("fsck.ocfs2")));
    assert_eq!(rig.service(&name("fsck.ocfs2")), "live");
}

/// Node ids were given anew while we were away: our shim knows node 1 as somebody else. It could never
/// be told of that one's death.
#[test]
fn our_number_was_anothers() {
    let strangers = [User { boot: boot(7), ..user(1) }, User { incarnation: inc(7), ..user(1) }];
    for stranger in strangers {
        let told = Users::from([(node(1), stranger), (node(2), user(1))]);
        let saved = saved(SavedGroup { told, ..image(&[], true, false) });
        let mut rig = Rig::new(Fencing::None, saved);
        let expelled = vec![
            note(Note::Expelled(G)),
            Action::FenceSelf { group: G, incarnation: inc(1) },
            Action::Join { op: OpId(1), channel: Channel::Control },
        ];
        expect(rig.handle(connected(&[1, 2])), expelled);
        assert_eq!(rig.state(), "expelled");
    }
}

/// The same while the daemon runs, with a node whose death was not told yet.
#[test]
fn our_number_was_a_dead_nodes() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2]);
    for event in rig.loss(&[1], &[2], Reason::NodeDown) {
        rig.run(event);
    }
    assert_eq!(rig.node(2), ("absent", "waiting for ack", false));
    rig.run(Event::Disconnected);
    let op = rig.op(1);
    let expelled = vec![
        note(Note::Expelled(G)),
        Action::FenceSelf { group: G, incarnation: inc(1) },
        Action::Join { op, channel: Channel::Control },
    ];
    let renumbered =
        Event::Connected { node: node(2), cluster: "east".into(), nodelist: nodes(&[1, 2]) };
    expect(rig.handle(renumbered), expelled);
}
