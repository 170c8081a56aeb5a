//! One core under exact tests: events go in, and the whole list of actions is compared.
#![allow(dead_code, reason = "each test file uses its own part of the rig")]

use crate::common::*;

/// One core, and the ids that it has given out.
#[derive(Clone)]
pub struct Rig {
    pub core: Core,
    pub now: Now,
    ops: u64,
    generations: u64,
    /// The ring's number and nodes.
    pub seq: u64,
    pub ring: Vec<u32>,
}

impl Rig {
    /// A core that has just started.
    pub fn new(fencing: Fencing, saved: Saved) -> Self {
        let core = Core::new(config(fencing), saved);
        Self { core, now: Now(1_000), ops: 0, generations: 0, seq: 1, ring: vec![] }
    }

    /// Hands an event to the core; its invariants must hold afterwards.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = vec![];
        let text = format!("{event:?}");
        self.core.handle(self.now, event, &mut out);
        assert_eq!(self.core.check(), Ok(()), "after {text}");
        for action in &out {
            if let Action::Arm { generation, .. } = action {
                self.generations = self.generations.max(*generation);
            }
            if let Some(op) = op_of(action) {
                self.ops = self.ops.max(op.0);
            }
        }
        out
    }

    /// The id that the next effect will carry; `op(2)` the one after it.
    pub fn op(&self, ahead: u64) -> OpId {
        OpId(self.ops + ahead)
    }

    /// The generation that the next timer will carry.
    pub fn generation(&self, ahead: u64) -> u64 {
        self.generations + ahead
    }

    /// The next setting of this timer.
    pub fn arm(&self, timer: Timer, in_ms: u64) -> Action {
        Action::Arm { timer, generation: self.generation(1), at: self.now.after(in_ms) }
    }

    /// The same, when it is the `ahead`th of an event.
    pub fn arm_nth(&self, ahead: u64, timer: Timer, in_ms: u64) -> Action {
        Action::Arm { timer, generation: self.generation(ahead), at: self.now.after(in_ms) }
    }

    /// Fires a timer that these actions set.
    pub fn fire_armed(&mut self, actions: &[Action], wanted: &Timer) -> Vec<Action> {
        let armed = actions.iter().rev().find_map(|action| match action {
            Action::Arm { timer, generation, .. } if timer == wanted => Some(*generation),
            _ => None,
        });
        let generation = armed.unwrap_or_else(|| panic!("{wanted:?} is not set: {actions:?}"));
        self.handle(Event::Timer { timer: wanted.clone(), generation })
    }

    /// Fires the latest setting among all timers, which must be this one.
    pub fn fire_last(&mut self, timer: Timer) -> Vec<Action> {
        let generation = self.generations;
        self.handle(Event::Timer { timer, generation })
    }

    /// A node's grace ends, the latest setting among all timers, and so does what it takes for a word of ours
    /// to come back. Nothing is decided before.
    pub fn overdue(&mut self, n: u32) -> Vec<Action> {
        let soon = self.arm(Timer::Grace(node(n)), GRACE_MS / 8);
        let asked = self.fire_last(Timer::Grace(node(n)));
        assert!(asked.contains(&soon), "{asked:?}");
        assert!(asked.iter().all(|it| matches!(it, Action::Mcast { .. } | Action::Arm { .. })));
        self.echo(&asked);
        self.fire_last(Timer::Grace(node(n)))
    }

    /// Hands our own messages among these actions back, as corosync does.
    pub fn echo(&mut self, actions: &[Action]) -> Vec<Action> {
        let mut out = vec![];
        for action in actions {
            if let Action::Mcast { channel, bytes } = action {
                out.extend(self.handle(said(*channel, 1, bytes.clone())));
            }
        }
        out
    }

    /// Everything that these actions ask for succeeds at once, as does whatever follows. All of it.
    pub fn pump(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let mut queue = std::collections::VecDeque::from(actions);
        let mut all = vec![];
        while let Some(action) = queue.pop_front() {
            all.push(action.clone());
            let event = match &action {
                Action::Mcast { channel, bytes } => said(*channel, 1, bytes.clone()),
                Action::Join { op, channel: Channel::Group(_) } => {
                    queue.extend(self.handle(done(*op)));
                    let everyone = self.ring.clone();
                    joined(group_channel(), &everyone, &[1], Reason::Join)
                }
                Action::Join { op, .. }
                | Action::Depart { op, .. }
                | Action::Verb { op, .. }
                | Action::Save { op, .. } => done(*op),
                Action::KillNode { .. }
                | Action::Fence { .. }
                | Action::Look { .. }
                | Action::Reply { .. }
                | Action::Arm { .. }
                | Action::FenceSelf { .. }
                | Action::Exit
                | Action::RunLocking(_)
                | Action::Note(_) => continue,
            };
            queue.extend(self.handle(event));
        }
        all
    }

    /// Hands over an event, and lets everything succeed that follows from it.
    pub fn run(&mut self, event: Event) -> Vec<Action> {
        let actions = self.handle(event);
        self.pump(actions)
    }

    /// Connected, and alone in asking for the control group.
    pub fn joining(fencing: Fencing, saved: Saved, list: &[u32]) -> Self {
        let mut rig = Self::new(fencing, saved);
        rig.ring = list.to_vec();
        rig.handle(connected(list));
        rig.handle(quorum(true, 1, list));
        rig
    }

    /// In the control group with these nodes, whose daemons all said Hello; `in_use`: and use [`G`].
    pub fn up_with(fencing: Fencing, saved: Saved, list: &[u32], in_use: bool) -> Self {
        let mut rig = Self::joining(fencing, saved, list);
        rig.handle(done(OpId(1)));
        let own = rig.handle(joined(Channel::Control, list, &[1], Reason::Join));
        rig.pump(own);
        for n in list.iter().copied().filter(|n| *n != 1) {
            let hello = if in_use { hello_using(n, 1) } else { hello(n, 1) };
            rig.run(hello_of(n, hello));
        }
        assert!(rig.core.snapshot().settled, "{:?}", rig.core.snapshot());
        rig
    }

    /// The same with nothing saved and nothing in use.
    pub fn up(fencing: Fencing, list: &[u32]) -> Self {
        Self::up_with(fencing, Saved::default(), list, false)
    }

    /// `/mnt` has begun here and all of `list` use [`G`], but our State has not been answered.
    pub fn begun(fencing: Fencing, list: &[u32]) -> Self {
        let mut rig = Self::up_with(fencing, Saved::default(), list, true);
        rig.run(Event::Begin(begin(1, &mnt())));
        rig
    }

    /// All of `list` use [`G`]; here `/mnt` was told to go ahead.
    pub fn granted(fencing: Fencing, list: &[u32]) -> Self {
        let mut rig = Self::begun(fencing, list);
        for n in list.iter().copied().filter(|n| *n != 1) {
            rig.run(state_of(n, list));
        }
        assert_eq!(rig.service(&mnt()), "granted", "{:?}", rig.core.snapshot());
        rig
    }

    /// All of `list` use [`G`]; here `/mnt` is mounted.
    pub fn ready(fencing: Fencing, list: &[u32]) -> Self {
        let mut rig = Self::granted(fencing, list);
        rig.run(complete(2, &mnt(), 0));
        assert_eq!((rig.state(), rig.service(&mnt())), ("ready", "live"));
        rig
    }

    /// The group's state word.
    pub fn state(&self) -> &'static str {
        self.core.snapshot().groups.first().map_or("none", |group| group.state)
    }

    /// What the group waits for.
    pub fn waiting(&self) -> Waiting {
        self.core.snapshot().groups.first().unwrap().waiting.clone()
    }

    /// A service's state word.
    pub fn service(&self, name: &ServiceName) -> &'static str {
        let snapshot = self.core.snapshot();
        let group = snapshot.groups.first();
        let service =
            group.and_then(|group| group.services.iter().find(|svc| svc.service == *name));
        service.map_or("none", |service| service.state)
    }

    /// The users of the group, with their state words.
    pub fn group_members(&self) -> Vec<(u32, &'static str)> {
        let snapshot = self.core.snapshot();
        let group = snapshot.groups.first().unwrap();
        group.members.iter().map(|member| (member.node.0, member.state)).collect()
    }

    /// A node's daemon, fencing and debt.
    pub fn node(&self, n: u32) -> (&'static str, &'static str, bool) {
        let snapshot = self.core.snapshot();
        let node = snapshot.nodes.iter().find(|status| status.node == node(n)).unwrap();
        (node.daemon, node.fencing, node.in_debt)
    }

    /// What corosync says when these nodes are gone from the ring, in the adapter's order: quorum,
    /// the control group, the mountgroup.
    pub fn loss(&mut self, rest: &[u32], gone: &[u32], reason: Reason) -> [Event; 5] {
        let seq = self.next_ring(rest);
        [
            quorum(true, seq, rest),
            left(Channel::Control, rest, gone, reason),
            totem(Channel::Control, seq, rest),
            left(group_channel(), rest, gone, reason),
            totem(group_channel(), seq, rest),
        ]
    }

    /// What corosync says when these nodes have come into the ring, in the adapter's order.
    pub fn gain(&mut self, all: &[u32], came: &[u32]) -> [Event; 4] {
        let seq = self.next_ring(all);
        [
            quorum(true, seq, all),
            joined(Channel::Control, all, came, Reason::NodeUp),
            totem(Channel::Control, seq, all),
            totem(group_channel(), seq, all),
        ]
    }

    /// Hands over several events, each with the actions that must follow.
    #[track_caller]
    pub fn steps(&mut self, steps: Vec<(Event, Vec<Action>)>) {
        for (event, expected) in steps {
            expect(self.handle(event), expected);
        }
    }

    /// The ring changes; its number.
    pub fn next_ring(&mut self, list: &[u32]) -> u64 {
        self.seq += 1;
        self.ring = list.to_vec();
        self.seq
    }
}

/// The id of an effect that comes back.
pub fn op_of(action: &Action) -> Option<OpId> {
    match action {
        Action::Join { op, .. }
        | Action::Depart { op, .. }
        | Action::Verb { op, .. }
        | Action::Save { op, .. }
        | Action::KillNode { op, .. }
        | Action::Fence { op, .. }
        | Action::Look { op, .. } => Some(*op),
        Action::Mcast { .. }
        | Action::Reply { .. }
        | Action::Arm { .. }
        | Action::FenceSelf { .. }
        | Action::Exit
        | Action::RunLocking(_)
        | Action::Note(_) => None,
    }
}

/// The whole list must be this; a difference is shown action by action, with messages decoded.
#[track_caller]
pub fn expect(actual: Vec<Action>, expected: Vec<Action>) {
    let show = |actions: &[Action]| {
        let line = |action: &Action| {
            if let Action::Mcast { channel, bytes } = action {
                format!("\n  mcast {channel}: {:?}", proto::decode(bytes))
            } else {
                format!("\n  {action:?}")
            }
        };
        actions.iter().map(line).collect::<String>()
    };
    assert!(actual == expected, "actions:{}\nexpected:{}", show(&actual), show(&expected));
}

/// Nothing must be done.
#[track_caller]
pub fn expect_nothing(actual: Vec<Action>) {
    expect(actual, vec![]);
}
