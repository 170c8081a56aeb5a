//! Daemons of a version that we do not understand.

use crate::common::*;

/// Where a message says whether its node uses OCFS2.
const IN_USE: usize = 9;

fn foreign_refusal(n: u8) -> Vec<u8> {
    [foreign_bytes(3), vec![n, 0, 0, 0]].concat()
}

fn incompatible() -> Refusal {
    Refusal::Incompatible { node: node(2), theirs: (7, 9), ours: proto::SPEAKS }
}

/// Whoever uses OCFS2 first keeps it: we do, so the daemon of another version is refused.
#[test]
fn a_foreign_daemon_comes_later() {
    let mut rig = Rig::ready(Fencing::None, &[1]);
    let seq = rig.next_ring(&[1, 2]);
    for event in [
        quorum(true, seq, &[1, 2]),
        joined(Channel::Control, &[1, 2], &[2], Reason::NodeUp),
        totem(Channel::Control, seq, &[1, 2]),
        totem(group_channel(), seq, &[1, 2]),
    ] {
        rig.run(event);
    }
    let bytes = proto::encode(1, true, &Body::Refuse(node(2)));
    let refuse = Action::Mcast { channel: Channel::Control, bytes };
    let actions = rig.handle(said(Channel::Control, 2, foreign_bytes(1)));
    // What it uses is not known: nobody knows all users any more.
    let doubting = Hello { witness: false, ..hello_using(1, seq) };
    expect(
        actions,
        vec![
            note(Note::Incompatible(node(2), (7, 9))),
            refuse,
            note(Note::GroupReady(G)),
            say_hello(doubting),
        ],
    );
    assert_eq!((rig.state(), rig.node(2).0), ("ready", "incompatible"));
    // Said once more, it is no news: a flood must not be answered with a flood.
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_bytes(1))));
    // Its refusal of us changes nothing for what is in use.
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_refusal(1))));
    assert_eq!(rig.state(), "ready");
}

/// It uses OCFS2 already, so we may not begin.
#[test]
fn a_foreign_daemon_was_first() {
    for bytes in [foreign_bytes(1), foreign_refusal(1)] {
        let mut rig = Rig::up(Fencing::None, &[1, 2]);
        rig.handle(said(Channel::Control, 2, bytes));
        expect(rig.handle(Event::Begin(begin(1, &mnt()))), vec![refused(1, incompatible())]);
        assert_eq!(rig.state(), "none");
    }
}

/// It was first, but we hear of it only after our tool asked.
#[test]
fn a_foreign_daemon_is_heard_while_a_tool_waits() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.handle(Event::Begin(begin(1, &mnt())));
    expect(
        rig.handle(said(Channel::Control, 2, foreign_refusal(1))),
        vec![refused(1, incompatible()), note(Note::GroupGone(G)), say_hello(hello(1, 1))],
    );
}

/// A daemon is restarted under a mount, and somebody whom it does not understand uses something too:
/// what is mounted stays, and whoever begins is told in the end whom the group waited for.
#[test]
fn a_foreign_daemon_beside_a_mount() {
    let groups = [(G, image(&[1], true, false))].into();
    let saved = Saved { memory_from: Some(inc(1)), groups };
    let mut rig = Rig::joining(Fencing::None, saved, &[1, 2]);
    rig.handle(done(OpId(1)));
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    rig.ring = vec![1];
    rig.pump(own);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    let more = name("/more");
    let (save_op, again) = (rig.op(1), rig.op(2));
    let services = [(&mnt(), true), (&more, false)];
    let services = services.map(|(name, live)| SavedService { name: name.clone(), live });
    let both = SavedGroup { services: services.to_vec(), ..image(&[1], true, false) };
    let timer = rig.arm(Timer::Begin(G, more.clone()), BEGIN_MS);
    expect(rig.handle(Event::Begin(begin(1, &more))), vec![timer, save(save_op, both)]);
    expect(rig.handle(done(save_op)), vec![note(Note::GroupReady(G))]);
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    // Nor for a node that nobody has seen: that one is not fenced meanwhile.
    rig.handle(Event::Nodelist(nodes(&[1, 2, 3])));
    assert_eq!(rig.waiting(), Waiting::Peer(node(2)));
    let overdue = vec![
        refused(1, Refusal::TimedOut(Waiting::Peer(node(2)))),
        save(again, image(&[1], true, false)),
    ];
    expect(rig.fire_last(Timer::Begin(G, more.clone())), overdue);
    assert_eq!(rig.service(&mnt()), "live");
}

/// A foreign refusal of a third node is no business of ours.
#[test]
fn a_foreign_refusal_of_another_node() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    expect_nothing(rig.handle(said(Channel::Control, 2, foreign_refusal(3))));
    assert_eq!(rig.node(2).0, "speaking");
}

/// A daemon of our version is back on that node: all is well again.
#[test]
fn a_foreign_daemon_is_replaced() {
    let mut rig = Rig::up(Fencing::None, &[1, 2]);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
    rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
    rig.run(hello_of(2, hello(2, 1)));
    assert_eq!(rig.node(2).0, "speaking");
    rig.ring = vec![1];
    assert_eq!(rig.run(Event::Begin(begin(1, &mnt()))).last(), Some(&reply(1, Reply::Done)));
}

/// A daemon that we cannot understand used something, and is gone: whatever that was, its node is
/// fenced before anybody begins to use anything.
#[test]
fn a_foreign_user_is_lost() {
    let mut rig = Rig::up(AGENT, &[1, 2, 3]);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    let [quorate, gone, ring, ..] = rig.loss(&[1, 3], &[2], Reason::NodeDown);
    let mut all = vec![];
    for event in [quorate, gone, ring] {
        all.extend(rig.run(event));
    }
    all.extend(rig.run(hello_of(3, Hello { witness: false, ..hello(3, rig.seq) })));
    let fence = all.iter().find(|it| matches!(it, Action::Fence { .. })).expect("it is fenced");
    let op = op_of(fence).unwrap();
    rig.run(Event::Begin(begin(1, &mnt())));
    assert_eq!((rig.state(), rig.waiting()), ("attaching", Waiting::Fencing(node(2))));
    rig.run(done(op));
    // The rig puts node 3 into every group; what it would say there is another matter.
    assert_eq!((rig.node(3).0, rig.waiting()), ("speaking", Waiting::Peer(node(3))));
}

/// It refused us while it used something. Once it does not, or is gone, that stands in nobody's way.
#[test]
fn a_foreign_refusal_is_over() {
    let unused = [&foreign_bytes(1)[..9], &[0], &foreign_bytes(1)[10..]].concat();
    for end in
        [said(Channel::Control, 2, unused), left(Channel::Control, &[1], &[2], Reason::Leave)]
    {
        let mut rig = Rig::up(Fencing::None, &[1, 2]);
        rig.run(said(Channel::Control, 2, foreign_refusal(1)));
        expect(rig.handle(Event::Begin(begin(1, &mnt()))), vec![refused(1, incompatible())]);
        rig.run(end);
        let actions = rig.handle(Event::Begin(begin(2, &mnt())));
        assert!(!actions.contains(&refused(2, incompatible())), "{actions:?}");
        assert_ne!(rig.state(), "none");
    }
}

/// While somebody whom we do not understand uses something nobody knows all users, whoever is fenced: a node that is
/// down, and was so before, is left alone.
#[test]
fn nobody_is_fenced_beside_a_foreign_user() {
    let mut rig = Rig::up(AGENT, &[1, 2, 3]);
    rig.run(left(Channel::Control, &[1, 2], &[3], Reason::Leave));
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown).into_iter().step_by(2).take(2) {
        rig.run(event);
    }
    assert!(rig.core.snapshot().witness);
    let awaits = |actions: &[Action]| {
        let timers = actions.iter().filter_map(|it| match it {
            Action::Arm { timer, .. } => Some(timer),
            _ => None,
        });
        timers.filter(|timer| **timer == Timer::Grace(node(3))).count()
    };
    let heard = rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    assert!(!rig.core.snapshot().witness);
    assert_eq!(awaits(&heard), 0, "{heard:?}");
    // Its use was not seen to end, so it is lost when it goes; then there is something to be known again.
    let seq = rig.next_ring(&[1]);
    rig.run(quorum(true, seq, &[1]));
    rig.run(left(Channel::Control, &[1], &[2], Reason::NodeDown));
    let gone = rig.run(totem(Channel::Control, seq, &[1]));
    assert_eq!(awaits(&gone), 1, "{gone:?}");
}

/// Nor is one whose grace had begun before that user was heard, as at every start.
#[test]
fn a_grace_ends_when_a_foreign_user_is_heard() {
    let mut rig = Rig::joining(AGENT, Saved::default(), &[1, 2]);
    rig.handle(Event::Nodelist(nodes(&[1, 2, 3])));
    rig.handle(done(OpId(1)));
    let own = rig.handle(joined(Channel::Control, &[1, 2], &[1], Reason::Join));
    let all = rig.pump(own);
    rig.run(said(Channel::Control, 2, foreign_bytes(1)));
    expect_nothing(rig.fire_armed(&all, &Timer::Grace(node(3))));
}

/// A network that heals comes back in pieces, and one that we do not understand is not shot for being in the last.
#[test]
fn a_foreign_user_that_comes_back_late_has_a_grace() {
    let mut rig = Rig::up(AGENT, &[1, 2, 3]);
    rig.run(said(Channel::Control, 3, foreign_bytes(1)));
    for event in rig.loss(&[1], &[2, 3], Reason::NodeDown).into_iter().take(3) {
        let inquorate = match event {
            Event::Quorum { ring, nodes, left, .. } => {
                Event::Quorum { quorate: false, ring, nodes, left }
            }
            other => other,
        };
        rig.run(inquorate);
    }
    let mut all = vec![];
    for event in rig.gain(&[1, 2], &[2]).into_iter().take(3) {
        all.extend(rig.run(event));
    }
    all.extend(rig.run(hello_of(2, Hello { witness: false, ..hello(2, rig.seq) })));
    let is_fence = |it: &Action| matches!(it, Action::Fence { .. });
    assert!(!all.iter().any(is_fence), "{all:?}");
    let missed = rig.fire_armed(&all, &Timer::Grace(node(3)));
    let fenced = missed.iter().filter(|it| is_fence(it)).count();
    assert_eq!(fenced, 1, "{missed:?}");
}

/// What was proven before a foreign user came stays proven: we have been quorate all the time, so whoever was
/// fenced has not been let in again.
#[test]
fn a_proof_outlives_the_doubt_about_a_foreign_user() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3, 4]);
    let op = rig.op(1);
    let mut all = vec![];
    for event in rig.loss(&[1, 2, 4], &[3], Reason::NodeDown) {
        all.extend(rig.run(event));
    }
    for n in [2, 4] {
        all.extend(rig.run(hello_of(n, hello_using(n, rig.seq))));
    }
    assert!(all.contains(&Action::Fence { op, node: node(3), level: 0 }), "{all:?}");
    rig.run(done(op));
    let heard = rig.run(said(Channel::Control, 4, foreign_bytes(1)));
    let testimony = vec![testimony(3, Fate::Fenced)];
    let doubting = Hello { testimony, witness: false, ..hello_using(1, rig.seq) };
    assert!(heard.contains(&say_hello(doubting)), "{heard:?}");
}

/// Fenced, back with a daemon that we do not understand, and lost once more: the old proof is of the boot before, and
/// what the node uses by now nobody knows. So it is fenced anew before anything else is attached.
#[test]
fn a_node_that_was_fenced_comes_back_foreign_and_is_lost_again() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    rig.run(Event::FenceAck { request: RequestId(7), client: ClientId(9), node: node(3) });
    assert_eq!((rig.node(3).1, rig.core.snapshot().witness), ("fenced", true));
    for event in rig.gain(&[1, 2, 3], &[3]).into_iter().take(3) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    rig.run(said(Channel::Control, 3, foreign_bytes(1)));
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown).into_iter().take(3) {
        rig.run(event);
    }
    rig.run(hello_of(2, Hello { witness: false, ..hello_using(2, rig.seq) }));
    assert_eq!((rig.node(3).1, rig.core.snapshot().witness), ("waiting for ack", false));
    rig.run(Event::FenceAck { request: RequestId(8), client: ClientId(9), node: node(3) });
    assert_eq!((rig.node(3).1, rig.core.snapshot().witness), ("fenced", true));
}

/// A Hello of a version that we do not speak, of a node that is in this boot.
fn foreign_hello(n: u32, now: BootId, in_use: bool) -> Event {
    let mut bytes = foreign_bytes(1);
    bytes[IN_USE] = u8::from(in_use);
    let hello = proto::encode(1, in_use, &Body::Hello(Hello { boot: now, ..hello(n, 1) }));
    bytes.extend_from_slice(&hello[bytes.len()..]);
    said(Channel::Control, n, bytes)
}

/// A user is reset so fast that no quorate ring goes on without it, and comes back with a daemon that we do not
/// understand: it died all the same.
#[test]
fn a_user_comes_back_foreign() {
    for (number, downs) in [(2, 0), (9, 1)] {
        let mut rig = Rig::ready(AGENT, &[1, 2]);
        rig.run(left(Channel::Control, &[1], &[2], Reason::ProcDown));
        rig.run(joined(Channel::Control, &[1, 2], &[2], Reason::Join));
        let actions = rig.run(foreign_hello(2, boot(number), true));
        let down = Verb::NodeDown(node(2), inc(2));
        let is_down = |it: &&Action| matches!(it, Action::Verb { verb, .. } if *verb == down);
        assert_eq!(actions.iter().filter(is_down).count(), downs, "{actions:?}");
        assert_eq!((rig.state(), rig.node(2).0), ("ready", "incompatible"));
    }
}

/// A foreign node that is here has said in which boot it is: a word of one that was away, about the boot before, buries
/// nobody, also in a ring in which it has yet to speak.
#[test]
fn an_old_word_about_a_foreign_node() {
    for now in [9, 3] {
        let mut rig = Rig::ready(AGENT, &[1, 2]);
        for event in rig.gain(&[1, 2, 3], &[3]) {
            rig.run(event);
        }
        rig.run(foreign_hello(3, boot(now), true));
        rig.run(hello_of(2, hello_using(2, rig.seq)));
        for event in rig.gain(&[1, 2, 3], &[]) {
            rig.run(event);
        }
        let words = vec![testimony(3, Fate::Condemned { turn: 0 })];
        let op = rig.op(1);
        let actions = rig.run(hello_of(2, Hello { testimony: words, ..hello_using(2, rig.seq) }));
        let is_shot = actions.contains(&Action::Fence { op, node: node(3), level: 0 });
        // It is in use, and buried: the administrator's word does not make it dead.
        let ack = Event::FenceAck { request: RequestId(7), client: ClientId(9), node: node(3) };
        let nothing = refused(7, Refusal::NothingToAck(node(3)));
        assert_eq!((is_shot, rig.handle(ack).contains(&nothing)), (now == 3, true), "{actions:?}");
    }
}

/// One that used nothing and is gone again is still in the boot that it named. What the administrator knows of a node
/// that is here and idle counts.
#[test]
fn an_old_word_about_an_idle_foreign_node() {
    let ack = Event::FenceAck { request: RequestId(7), client: ClientId(9), node: node(3) };
    for (gone, now) in [(true, 9), (false, 3), (true, 3)] {
        let mut rig = Rig::ready(Fencing::Ack, &[1, 2]);
        // We do not know all users: node 5 was not seen since quorum came.
        rig.run(Event::Nodelist(nodes(&[1, 2, 3, 5])));
        rig.run(quorum(false, 1, &[1, 2]));
        rig.run(quorum(true, 1, &[1, 2]));
        for event in rig.gain(&[1, 2, 3], &[3]) {
            rig.run(event);
        }
        rig.run(foreign_hello(3, boot(now), false));
        if gone {
            rig.run(left(Channel::Control, &[1, 2], &[3], Reason::ProcDown));
        }
        let words = vec![testimony(3, Fate::Condemned { turn: 0 })];
        let word = Hello { testimony: words, witness: false, ..hello_using(2, rig.seq) };
        rig.run(hello_of(2, word));
        let fencing = if now == 3 { "waiting for ack" } else { "none" };
        assert_eq!((rig.node(3).1, rig.core.snapshot().witness), (fencing, false), "{gone} {now}");
        let answer = rig.handle(ack.clone()).contains(&reply(7, Reply::Done));
        assert_eq!(answer, now == 3);
    }
}

/// Whoever waits for the fencing of a node waits no more once that is in another boot, whatever its daemon speaks.
#[test]
fn a_lost_node_comes_back_foreign() {
    let mut rig = Rig::ready(Fencing::Ack, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    assert_eq!((rig.node(3).1, rig.waiting()), ("waiting for ack", Waiting::Fencing(node(3))));
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    rig.run(foreign_hello(3, boot(9), false));
    rig.run(hello_of(2, hello_using(2, rig.seq)));
    assert_eq!((rig.node(3).1, rig.state()), ("none", "ready"));
}

/// What a process says after its Hello names no boot, and is no news.
#[test]
fn a_foreign_word_without_a_boot() {
    let mut rig = Rig::ready(AGENT, &[1, 2]);
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    rig.run(foreign_hello(3, boot(9), true));
    expect_nothing(rig.handle(said(Channel::Control, 3, foreign_bytes(1))));
    let words = vec![testimony(3, Fate::Condemned { turn: 0 })];
    rig.run(hello_of(2, Hello { testimony: words, ..hello_using(2, rig.seq) }));
    assert_eq!(rig.node(3), ("incompatible", "none", false));
}

/// Nor does the old word of one that knows all users end the loss of the boot that a foreign node is in.
#[test]
fn an_old_word_of_a_witness_about_a_foreign_node() {
    let mut rig = Rig::ready(AGENT, &[1, 2, 3]);
    let op = rig.op(1);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(done(op));
    rig.run(quorum(false, rig.seq, &[1, 2]));
    for event in rig.gain(&[1, 2, 3], &[3]) {
        rig.run(event);
    }
    rig.run(foreign_hello(3, boot(3), true));
    assert_eq!((rig.node(3).1, rig.core.snapshot().witness), ("fenced", false));
    let old = Testimony { boot: boot(33), ..testimony(3, Fate::Condemned { turn: 0 }) };
    rig.run(hello_of(2, Hello { testimony: vec![old], ..hello_using(2, rig.seq) }));
    assert_eq!(rig.node(3).1, "fenced");
}
