//! Ring changes: who is lost, who is back, and who is only listed.

use crate::common::*;

/// A member whose node is not in the ring is not counted, not waited for, and not buried.
#[test]
fn a_ghost_is_not_counted() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let all = &[1, 2, 5];
    rig.handle(joined(Channel::Control, all, &[5], Reason::NodeUp));
    rig.handle(joined(group_channel(), all, &[5], Reason::NodeUp));
    let seq = rig.next_ring(&[1, 2]);
    rig.handle(quorum(true, seq, &[1, 2]));
    let grace = rig.arm(Timer::Grace(node(2)), GRACE_MS);
    rig.steps(vec![
        (
            totem(Channel::Control, seq, &[1, 2]),
            vec![
                note(Note::Ghost(Channel::Control, member(5))),
                say_hello(hello_using(1, seq)),
                grace,
            ],
        ),
        (totem(group_channel(), seq, &[1, 2]), vec![note(Note::Ghost(group_channel(), member(5)))]),
        // Whatever a ghost is made to say is not heard.
        (hello_of(5, hello_using(5, seq)), vec![]),
        (state_of(5, &[1, 2, 5]), vec![]),
        (hello_of(1, hello_using(1, seq)), vec![]),
        (
            hello_of(2, hello_using(2, seq)),
            vec![note(Note::GroupReady(G)), note(Note::DebtPaid(node(2)))],
        ),
    ]);
    assert_eq!((rig.state(), rig.group_members().len()), ("ready", 2));
    assert!(rig.core.snapshot().nodes.iter().all(|status| status.node != node(5)));
    // It disappears at the next ring change, as PROCDOWN.
    expect_nothing(rig.handle(left(group_channel(), &[1, 2], &[5], Reason::ProcDown)));
    expect_nothing(rig.handle(left(Channel::Control, &[1, 2], &[5], Reason::ProcDown)));
}

/// A ghost whose node comes without a further word from corosync is a newcomer at that ring change.
#[test]
fn a_ghost_becomes_real() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.run(joined(Channel::Control, &[1, 2, 5], &[5], Reason::NodeUp));
    rig.run(joined(group_channel(), &[1, 2, 5], &[5], Reason::NodeUp));
    let seq = rig.next_ring(&[1, 2, 5]);
    for event in [
        quorum(true, seq, &[1, 2, 5]),
        totem(Channel::Control, seq, &[1, 2, 5]),
        totem(group_channel(), seq, &[1, 2, 5]),
        hello_of(2, hello_using(2, seq)),
        hello_of(5, hello_using(5, seq)),
        state_of(5, &[]),
        state_of(5, &[1, 2, 5]),
        state_of(2, &[1, 2, 5]),
    ] {
        rig.run(event);
    }
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member"), (5, "member")]);
    assert_eq!(rig.state(), "ready");
}

/// The mountgroup's own ring change may come last: nothing is told before it.
#[test]
fn the_group_has_not_seen_the_ring() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
    let [quorum, control, ring_two, group, group_ring] = rig.loss(&[1, 2], &[3], Reason::NodeDown);
    for event in [quorum, control, ring_two, group, hello_of(2, hello_using(2, 2))] {
        let all = rig.run(event);
        assert!(!all.iter().any(|action| matches!(action, Action::Verb { .. })), "{all:?}");
    }
    let op = rig.op(1);
    expect(rig.handle(group_ring), vec![save(op, image(&[1, 2, 3], true, true))]);
}

/// Lost and back before anybody decided: a note each, and nothing else.
#[test]
fn lost_and_back() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    rig.handle(quorum(false, 2, &[1]));
    expect(
        rig.handle(totem(group_channel(), 2, &[1])),
        vec![
            note(Note::UserLost(G, node(2), inc(2))),
            note(Note::Ghost(group_channel(), member(2))),
        ],
    );
    expect(
        rig.handle(totem(group_channel(), 3, &[1, 2])),
        vec![note(Note::UserBack(G, node(2), inc(2)))],
    );
    // What we use is said once we have said who we are: before that, nobody would take it.
    rig.handle(totem(Channel::Control, 3, &[1, 2]));
    let all = rig.handle(quorum(true, 3, &[1, 2]));
    let hello =
        all.iter().position(|it| matches!(it, Action::Mcast { channel: Channel::Control, .. }));
    let state = all.iter().position(|it| *it == say_state(&[1, 2]));
    assert!(hello.is_some() && hello < state, "{all:?}");
}

/// A node that reboots at once is gone and back between two words of ours. What it used died.
#[test]
fn a_node_in_another_boot_is_admitted_after_its_death() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    let seq = rig.next_ring(&[1, 2]);
    for event in [
        quorum(true, seq, &[1, 2]),
        left(Channel::Control, &[1], &[2], Reason::NodeDown),
        joined(Channel::Control, &[1, 2], &[2], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2]),
        left(group_channel(), &[1], &[2], Reason::NodeDown),
        totem(group_channel(), seq, &[1, 2]),
    ] {
        let all = rig.run(event);
        assert!(!all.iter().any(|action| matches!(action, Action::Verb { .. })), "{all:?}");
    }
    let again = User { incarnation: inc(22), boot: boot(22) };
    let reborn = Hello {
        boot: boot(22),
        memory_from: inc(22),
        uses: [(G, inc(22))].into(),
        ..hello(2, seq)
    };
    let (first, second) = (rig.op(1), rig.op(2));
    expect(
        rig.handle(hello_of(2, reborn)),
        vec![
            note(Note::Condemned(G, node(2), inc(2), ring(seq))),
            save(first, image(&[1, 2], true, true)),
            // It may have been quorate without us; now that it has spoken we know all users again.
            say_hello(hello_using(1, seq)),
            note(Note::DebtPaid(node(2))),
        ],
    );
    // It joins the group at once, but its State waits until the death was told.
    let told = [(node(1), user(1)), (node(2), again)];
    let state = State { incarnation: inc(22), boot: boot(22), told: Users::new() };
    let state = said(group_channel(), 2, proto::encode(1, true, &Body::State(state)));
    let mut both = image(&[1], true, true);
    both.told.insert(node(2), again);
    rig.steps(vec![
        (joined(group_channel(), &[1, 2], &[2], Reason::Join), vec![say_state(&[1, 2])]),
        (state, vec![note(Note::UserJoined(G, node(2), inc(22)))]),
        (done(first), vec![verb(second, Verb::Suspend)]),
    ]);
    let op = |n| rig.op(n);
    let resume = Verb::Resume(told.iter().map(|(node, user)| (*node, user.incarnation)).collect());
    let expected = vec![
        verb(op(1), Verb::NodeDown(node(2), inc(2))),
        note(Note::Buried(G, node(2), inc(2))),
        save(op(2), both.clone()),
        verb(op(3), resume),
        save(op(4), SavedGroup { unfinished: false, ..both.clone() }),
    ];
    let all = rig.run(done(second));
    expect(
        all.into_iter().filter(|action| !matches!(action, Action::Mcast { .. })).collect(),
        expected,
    );
    assert_eq!(rig.group_members(), [(1, "member"), (2, "member")]);
}
