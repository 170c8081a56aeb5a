//! A tool is about to use a group.

use crate::common::*;

fn begin_of(request: u64, service: &str) -> Event {
    Event::Begin(begin(request, &name(service)))
}

fn with_services(services: &[(&str, bool)], told: &[u32], unfinished: bool) -> SavedGroup {
    let services = services.iter().map(|(service, live)| {
        let (name, live) = (name(service), *live);
        SavedService { name, live }
    });
    SavedGroup { services: services.collect(), ..image(told, true, unfinished) }
}

/// From the first word to "go ahead", each step waiting for the one before.
#[test]
fn the_first_user_of_all() {
    let mut rig = Rig::up(Fencing::Ack, &[1]);
    let (join, save_op, attach, saved) = (rig.op(1), rig.op(2), rig.op(3), rig.op(4));
    let timer = rig.arm(Timer::Begin(G, mnt()), BEGIN_MS);
    rig.steps(vec![
        (begin_of(1, "/mnt"), vec![timer, say_hello(hello_using(1, 1))]),
        // All daemons have heard it before we join.
        (hello_of(1, hello_using(1, 1)), vec![Action::Join { op: join, channel: group_channel() }]),
        (done(join), vec![]),
        (joined(group_channel(), &[1], &[1], Reason::Join), vec![say_state(&[])]),
        (
            state_of(1, &[]),
            vec![
                note(Note::UserJoined(G, node(1), inc(1))),
                save(save_op, image(&[1], false, true)),
            ],
        ),
        (done(save_op), vec![verb(attach, Verb::Attach(peers(&[1])))]),
        (done(attach), vec![save(saved, image(&[1], false, false)), say_state(&[1])]),
        (state_of(1, &[1]), vec![]),
        (done(saved), vec![note(Note::GroupReady(G)), reply(1, Reply::Done)]),
    ]);
    assert_eq!((rig.state(), rig.service(&mnt())), ("ready", "granted"));
}

/// Others use the group already: attached together with all of them, ready when they know us.
#[test]
fn a_later_user() {
    let mut rig = Rig::up_with(Fencing::Ack, Saved::default(), &[1, 2, 3], true);
    let (join, save_op) = (rig.op(1), rig.op(2));
    let timer = rig.arm(Timer::Begin(G, mnt()), BEGIN_MS);
    rig.steps(vec![
        (begin_of(1, "/mnt"), vec![timer, say_hello(hello_using(1, 1))]),
        (hello_of(1, hello_using(1, 1)), vec![Action::Join { op: join, channel: group_channel() }]),
        (done(join), vec![]),
        (joined(group_channel(), &[1, 2, 3], &[1], Reason::Join), vec![say_state(&[])]),
        (state_of(1, &[]), vec![note(Note::UserJoined(G, node(1), inc(1)))]),
        (state_of(2, &[2, 3]), vec![note(Note::UserJoined(G, node(2), inc(2)))]),
    ]);
    assert_eq!((rig.state(), rig.waiting()), ("attaching", Waiting::Peer(node(3))));
    rig.steps(vec![(
        state_of(3, &[2, 3]),
        vec![
            note(Note::UserJoined(G, node(3), inc(3))),
            save(save_op, image(&[1, 2, 3], false, true)),
        ],
    )]);
    let (attach, saved) = (rig.op(1), rig.op(2));
    expect(
        rig.run(done(save_op)),
        vec![
            verb(attach, Verb::Attach(peers(&[1, 2, 3]))),
            save(saved, image(&[1, 2, 3], false, false)),
            say_state(&[1, 2, 3]),
        ],
    );
    assert_eq!((rig.state(), rig.waiting()), ("settling", Waiting::Peer(node(2))));
    rig.steps(vec![
        (state_of(2, &[1, 2, 3]), vec![]),
        (state_of(3, &[1, 2, 3]), vec![note(Note::GroupReady(G)), reply(1, Reply::Done)]),
    ]);
}

/// A lost user that nobody has fenced yet may still write: nobody attaches before that.
#[test]
fn a_lost_user_is_not_fenced_yet() {
    let mut rig = Rig::up_with(Fencing::Ack, Saved::default(), &[1, 2, 3], true);
    let seq = rig.next_ring(&[1, 2]);
    for event in [
        quorum(true, seq, &[1, 2]),
        totem(Channel::Control, seq, &[1, 2]),
        hello_of(2, hello(2, seq)),
    ] {
        rig.run(event);
    }
    rig.ring = vec![1];
    rig.run(begin_of(1, "/mnt"));
    assert_eq!((rig.state(), rig.waiting()), ("attaching", Waiting::Fencing(node(3))));
    let ack = Event::FenceAck { request: RequestId(2), client: ClientId(1), node: node(3) };
    let all = rig.run(ack);
    assert_eq!(all.last(), Some(&reply(1, Reply::Done)), "{all:?}");
}

/// A configured node that was never seen may have the volume mounted: it must show up or be fenced.
#[test]
fn a_configured_node_was_never_seen() {
    let mut rig = Rig::new(Fencing::Ack, Saved::default());
    rig.ring = vec![1, 2];
    rig.handle(connected(&[1, 2, 3]));
    rig.handle(quorum(true, 1, &[1, 2]));
    let mute = |n| Hello { witness: false, ..hello(n, 1) };
    let armed = rig.run(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    expect(rig.handle(hello_of(2, mute(2))), vec![note(Note::DebtPaid(node(2)))]);
    rig.ring = vec![1];
    rig.run(begin_of(1, "/mnt"));
    assert_eq!((rig.state(), rig.waiting()), ("attaching", Waiting::Fencing(node(3))));
    let actions = rig.fire_armed(&armed, &Timer::Grace(node(3)));
    assert_eq!(actions.first(), Some(&note(Note::FenceNeeded(node(3), BootId::UNSEEN))));
    rig.pump(actions);
    assert_eq!(rig.node(3), ("absent", "waiting for ack", false));
    let ack = Event::FenceAck { request: RequestId(2), client: ClientId(1), node: node(3) };
    let all = rig.run(ack);
    assert_eq!(all.last(), Some(&reply(1, Reply::Done)), "{all:?}");
}

/// One more service of a group that is ready needs no verb, but is saved before it is told.
#[test]
fn a_second_service() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    let timer = rig.arm(Timer::Begin(G, name("fsck")), BEGIN_MS);
    let both = with_services(&[("/mnt", true), ("fsck", false)], &[1, 2], false);
    expect(rig.handle(begin_of(3, "fsck")), vec![timer, save(op, both)]);
    expect(rig.handle(done(op)), vec![note(Note::GroupReady(G)), reply(3, Reply::Done)]);
}

/// The kernel counts its own mounts: one more of them is told to go ahead at once.
#[test]
fn ocfs2_is_begun_again() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let ocfs2 = name(ServiceName::OCFS2);
    rig.run(begin_of(1, "ocfs2"));
    rig.run(complete(2, &ocfs2, 0));
    assert_eq!(rig.service(&ocfs2), "live");
    expect(rig.handle(begin_of(3, "ocfs2")), vec![reply(3, Reply::Already)]);
    assert_eq!(rig.service(&ocfs2), "additional");
    expect(rig.handle(begin_of(4, "ocfs2")), vec![refused(4, Refusal::Busy)]);
    expect(rig.handle(complete(5, &ocfs2, 32)), vec![reply(5, Reply::Done)]);
    assert_eq!(rig.service(&ocfs2), "live", "whatever came of it, the first mount stays");
    // One that is not tied to its connection has its time to complete.
    let timer = rig.arm(Timer::Complete(G, ocfs2.clone()), COMPLETE_MS);
    let loose = Begin { held: false, ..begin(6, &ocfs2) };
    expect(rig.handle(Event::Begin(loose)), vec![timer, reply(6, Reply::Already)]);
    expect_nothing(rig.fire_last(Timer::Complete(G, ocfs2.clone())));
    assert_eq!(rig.service(&ocfs2), "live");
}

/// A mountpoint can be used once only, in whatever state it is.
#[test]
fn a_mountpoint_is_begun_again() {
    let cases = [
        (Rig::begun(Fencing::None, &[1, 2]), "beginning", Refusal::Busy),
        (Rig::granted(Fencing::None, &[1, 2]), "granted", Refusal::Busy),
        (Rig::ready(Fencing::None, &[1, 2]), "live", Refusal::InUse),
    ];
    for (mut rig, state, refusal) in cases {
        assert_eq!(rig.service(&mnt()), state);
        expect(rig.handle(begin_of(9, "/mnt")), vec![refused(9, refusal)]);
        assert_eq!(rig.service(&mnt()), state);
    }
}

/// The group is on its way out: whoever comes has to come again.
#[test]
fn a_closing_group() {
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(leave(3, &mnt()));
    for service in ["/mnt", "/other"] {
        expect(rig.handle(begin_of(9, service)), vec![refused(9, Refusal::Busy)]);
    }
}

#[test]
fn without_corosync() {
    let mut rig = Rig::new(Fencing::None, Saved::default());
    expect(rig.handle(begin_of(1, "/mnt")), vec![refused(1, Refusal::NoCluster)]);
    let mut rig = Rig::ready(Fencing::None, &[1, 2]);
    rig.handle(Event::Disconnected);
    expect(rig.handle(begin_of(9, "/other")), vec![refused(9, Refusal::NoCluster)]);
}

/// A tool may come before the control group was joined, or while that is being retried.
#[test]
fn before_the_control_group_is_joined() {
    for failing in [false, true] {
        let mut rig = Rig::joining(Fencing::None, Saved::default(), &[1]);
        if failing {
            rig.handle(failed(OpId(1), 6));
        }
        let timer = rig.arm(Timer::Begin(G, mnt()), BEGIN_MS);
        expect(rig.handle(begin_of(1, "/mnt")), vec![timer]);
        assert_eq!((rig.state(), rig.waiting()), ("joining", Waiting::Quorum));
    }
}

#[test]
fn volumes_of_other_clusters() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let of = |cluster: &str| Begin { cluster: Some(cluster.into()), ..begin(1, &mnt()) };
    let wrong = Refusal::WrongCluster { volume: "west".into(), ours: "east".into() };
    expect(rig.handle(Event::Begin(of("west"))), vec![refused(1, wrong)]);
    assert_eq!(rig.run(Event::Begin(of("east"))).last(), Some(&reply(1, Reply::Done)));
    // A corosync.conf without a cluster name has no opinion.
    let mut rig = Rig::joining(Fencing::None, Saved::default(), &[1]);
    let (node, cluster, nodelist) = (node(1), String::new(), vec![]);
    rig.handle(Event::Connected { node, cluster, nodelist });
    let timer = rig.arm(Timer::Begin(G, mnt()), BEGIN_MS);
    expect(rig.handle(Event::Begin(of("west"))), vec![timer]);
}

/// Two devices with one UUID are two volumes: a clone must not be mounted beside its original.
#[test]
fn devices() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let of = |request, service: &str, device: Option<u64>| {
        let device = device.map(DeviceId);
        Event::Begin(Begin { device, ..begin(request, &name(service)) })
    };
    rig.run(of(1, "a", None));
    rig.run(of(2, "b", Some(7)));
    assert_eq!(rig.core.snapshot().groups.first().unwrap().device, Some(DeviceId(7)));
    expect(rig.handle(of(3, "c", Some(8))), vec![refused(3, Refusal::DeviceMismatch)]);
    for device in [None, Some(7)] {
        let all = rig.run(of(4, &format!("{device:?}"), device));
        assert_eq!(all.last(), Some(&reply(4, Reply::Done)));
    }
}

#[test]
fn too_many_groups() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    for group in 0..proto::GROUPS_MAX as u128 {
        let group = GroupId(group);
        rig.handle(Event::Begin(Begin { group, ..begin(1, &mnt()) }));
    }
    let more = Begin { group: GroupId(999), ..begin(2, &mnt()) };
    let refusal = Refusal::TooMany { what: "mountgroups", max: proto::GROUPS_MAX };
    expect(rig.handle(Event::Begin(more)), vec![refused(2, refusal)]);
    assert_eq!(rig.core.snapshot().groups.len(), proto::GROUPS_MAX);
    // In a group that is there already, more may come.
    let timer = rig.arm(Timer::Begin(GroupId(1), name("more")), BEGIN_MS);
    let more = Begin { group: GroupId(1), ..begin(3, &name("more")) };
    expect(rig.handle(Event::Begin(more)), vec![timer]);
}

#[test]
fn too_many_services() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    for service in 0..1_024 {
        rig.handle(begin_of(1, &format!("service {service}")));
    }
    let refusal = Refusal::TooMany { what: "services of one group", max: 1_024 };
    expect(rig.handle(begin_of(2, "one more")), vec![refused(2, refusal)]);
}
