//! The configuration was read again.

use crate::common::*;

fn to(fencing: Fencing) -> Event {
    Event::Reconfigure(tunables(fencing))
}

/// Node 3 is lost and agreed to be, and its fencing has not ended.
fn waiting(fencing: Fencing) -> Rig {
    let mut rig = Rig::ready(fencing, &[1, 2, 3]);
    for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
        rig.run(event);
    }
    rig.run(hello_of(2, hello_using(2, 2)));
    assert_eq!(rig.waiting(), Waiting::Fencing(node(3)));
    rig
}

/// The policy none releases whoever waits.
#[test]
fn to_none() {
    for fencing in [Fencing::Ack, AGENT] {
        let mut rig = waiting(fencing);
        let op = rig.op(1);
        expect(
            rig.handle(to(Fencing::None)),
            vec![
                note(Note::Fenced(node(3), boot(3), fence::Proof::NotRequired)),
                verb(op, Verb::NodeDown(node(3), inc(3))),
            ],
        );
        assert_eq!(rig.core.snapshot().fencing, "none");
    }
}

/// The policy agent starts at once what nobody has done.
#[test]
fn to_agent() {
    let mut rig = waiting(Fencing::Ack);
    let op = rig.op(1);
    expect(rig.handle(to(AGENT)), vec![Action::Fence { op, node: node(3), level: 0 }]);
    assert_eq!((rig.core.snapshot().fencing, rig.node(3).1), ("agent", "running"));
}

/// An agent that runs already may still prove something; no other one is started.
#[test]
fn to_ack() {
    let mut rig = waiting(AGENT);
    assert_eq!(rig.node(3).1, "running");
    expect_nothing(rig.handle(to(Fencing::Ack)));
    assert_eq!((rig.core.snapshot().fencing, rig.node(3).1), ("ack", "waiting for ack"));
}

#[test]
fn nothing_to_change() {
    for fencing in [Fencing::None, Fencing::Ack, AGENT] {
        let mut rig = Rig::ready(AGENT, &[1, 2]);
        expect_nothing(rig.handle(to(fencing)));
        assert_eq!(rig.state(), "ready");
    }
}

/// New times count for timers that are set from now on.
#[test]
fn new_times() {
    let mut rig = Rig::up(Fencing::None, &[1]);
    let times = Tunables { begin_timeout_ms: 7, ..tunables(Fencing::None) };
    expect_nothing(rig.handle(Event::Reconfigure(times)));
    let timer = rig.arm(Timer::Begin(G, mnt()), 7);
    let actions = rig.handle(Event::Begin(begin(1, &mnt())));
    expect(actions, vec![timer, say_hello(hello_using(1, 1))]);
}

/// Whom nobody had to fence is fenced once somebody has to; what its kernel heard is not said again.
#[test]
fn from_none() {
    for fencing in [Fencing::Ack, AGENT] {
        let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
        let mut all = vec![];
        for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
            all.extend(rig.run(event));
        }
        all.extend(rig.run(hello_of(2, hello_using(2, rig.seq))));
        let down = |it: &&Action| matches!(it, Action::Verb { verb: Verb::NodeDown(..), .. });
        assert_eq!((rig.node(3).1, all.iter().filter(down).count()), ("fenced", 1), "{all:?}");
        let op = rig.op(1);
        let mut expected = vec![note(Note::FenceNeeded(node(3), boot(3)))];
        if fencing == AGENT {
            expected.push(Action::Fence { op, node: node(3), level: 0 });
        }
        expect(rig.handle(to(fencing)), expected);
        if fencing == AGENT {
            rig.run(done(op));
        } else {
            rig.run(Event::FenceAck { request: RequestId(7), client: ClientId(9), node: node(3) });
        }
        assert_eq!((rig.node(3).1, rig.state()), ("fenced", "ready"));
    }
}

/// Nodes are reloaded one after the other: what the first one has proven counts on those that come after it.
#[test]
fn from_none_after_another_node() {
    for fencing in [Fencing::Ack, AGENT] {
        let mut rig = Rig::ready(Fencing::None, &[1, 2, 3]);
        for event in rig.loss(&[1, 2], &[3], Reason::NodeDown) {
            rig.run(event);
        }
        let proof = vec![testimony(3, Fate::Fenced)];
        let proven = Hello { testimony: proof.clone(), ..hello_using(2, rig.seq) };
        let heard = rig.run(hello_of(2, proven.clone()));
        assert!(heard.contains(&note(Note::Fenced(node(3), boot(3), fence::Proof::Testimony))));
        let passed_on = say_hello(Hello { testimony: proof, ..hello_using(1, rig.seq) });
        assert!(heard.contains(&passed_on), "{heard:?}");
        expect_nothing(rig.handle(hello_of(2, proven)));
        expect_nothing(rig.handle(to(fencing)));
        assert_eq!((rig.node(3).1, rig.state()), ("fenced", "ready"));
    }
}
