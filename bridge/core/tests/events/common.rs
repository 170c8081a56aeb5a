//! A rig for exact tests: one core, and short words for what happens to it. Node 1 is the core's own
//! node; node N is in boot N, its daemon is process 100 N, its use of [`G`] is incarnation 1000 N.
#![allow(dead_code, reason = "each test file uses its own part of the rig")]

use std::collections::BTreeMap;

pub use o2bridge_core::proto::{self, Body, Fate, Hello, State, Testimony};
pub use o2bridge_core::timer::Timer;
pub use o2bridge_core::*;

/// The group of most tests, and another one.
pub const G: GroupId = GroupId(0xA);
pub const H: GroupId = GroupId(0xB);

/// The times of the rig's configuration.
pub const GRACE_MS: u64 = 10_000;
pub const BEGIN_MS: u64 = 60_000;
pub const COMPLETE_MS: u64 = 120_000;
pub const LEAVE_MS: u64 = 30_000;
pub const RETRY_MS: u64 = 1_000;
pub const PAUSE_MS: u64 = 500;

/// Agents of two levels, two attempts each.
pub const AGENT: Fencing = Fencing::Agent { levels: 2, attempts: 2, pause_ms: PAUSE_MS };

pub fn node(n: u32) -> NodeId {
    NodeId(n)
}

pub fn nodes(list: &[u32]) -> Vec<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

pub fn boot(n: u32) -> BootId {
    BootId(u128::from(n))
}

pub fn member(n: u32) -> Member {
    Member { node: NodeId(n), pid: Pid(100 * n) }
}

pub fn members(list: &[u32]) -> Vec<Member> {
    list.iter().copied().map(member).collect()
}

pub fn changes(list: &[u32], reason: Reason) -> Vec<(Member, Reason)> {
    list.iter().map(|n| (member(*n), reason)).collect()
}

pub fn inc(n: u32) -> Incarnation {
    Incarnation(1000 * u64::from(n))
}

pub fn user(n: u32) -> User {
    User { incarnation: inc(n), boot: boot(n) }
}

pub fn users(list: &[u32]) -> Users {
    list.iter().map(|n| (NodeId(*n), user(*n))).collect()
}

pub fn peers(list: &[u32]) -> Peers {
    list.iter().map(|n| (NodeId(*n), inc(*n))).collect()
}

pub fn ring(seq: u64) -> RingId {
    RingId { seq, node: NodeId(1) }
}

pub fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

pub fn mnt() -> ServiceName {
    name("/mnt")
}

pub fn group_channel() -> Channel {
    Channel::Group(G)
}

pub fn tunables(fencing: Fencing) -> Tunables {
    Tunables {
        grace_ms: GRACE_MS,
        begin_timeout_ms: BEGIN_MS,
        complete_timeout_ms: COMPLETE_MS,
        leave_timeout_ms: LEAVE_MS,
        retry_ms: RETRY_MS,
        inquorate_reset_ms: 0,
        fencing,
    }
}

pub fn config(fencing: Fencing) -> Config {
    Config {
        boot: boot(1),
        first_incarnation: inc(1),
        locking: Locking::default(),
        tunables: tunables(fencing),
    }
}

// ---- events ----

pub fn connected(nodelist: &[u32]) -> Event {
    Event::Connected { node: node(1), cluster: "east".into(), nodelist: nodes(nodelist) }
}

pub fn quorum(quorate: bool, seq: u64, list: &[u32]) -> Event {
    Event::Quorum { quorate, ring: ring(seq), nodes: nodes(list), left: Vec::new() }
}

pub fn totem(channel: Channel, seq: u64, list: &[u32]) -> Event {
    Event::Totem { channel, ring: ring(seq), nodes: nodes(list) }
}

/// These came, and all of `all` are there now.
pub fn joined(channel: Channel, all: &[u32], who: &[u32], reason: Reason) -> Event {
    let (members, joined) = (members(all), changes(who, reason));
    Event::Confchg { channel, members, left: vec![], joined }
}

/// These went, and all of `all` are there now.
pub fn left(channel: Channel, all: &[u32], who: &[u32], reason: Reason) -> Event {
    let (members, left) = (members(all), changes(who, reason));
    Event::Confchg { channel, members, left, joined: vec![] }
}

pub fn done(op: OpId) -> Event {
    Event::Done { op, result: Ok(()) }
}

pub fn failed(op: OpId, errno: i32) -> Event {
    Event::Done { op, result: Err(OpError::Errno(errno)) }
}

pub fn said(channel: Channel, n: u32, bytes: Vec<u8>) -> Event {
    Event::Message { channel, from: member(n), bytes }
}

/// The daemon of node n says its Hello.
pub fn hello_of(n: u32, hello: Hello) -> Event {
    let in_use = !hello.uses.is_empty();
    said(Channel::Control, n, proto::encode(1, in_use, &Body::Hello(hello)))
}

/// Node n says its State in [`G`].
pub fn state_of(n: u32, told: &[u32]) -> Event {
    let state = State { incarnation: inc(n), boot: boot(n), told: users(told) };
    said(group_channel(), n, proto::encode(1, true, &Body::State(state)))
}

pub fn begin(request: u64, service: &ServiceName) -> Begin {
    Begin {
        request: RequestId(request),
        client: ClientId(1),
        group: G,
        service: service.clone(),
        cluster: None,
        device: None,
        held: true,
    }
}

pub fn complete(request: u64, service: &ServiceName, code: i32) -> Event {
    let (request, client) = (RequestId(request), ClientId(1));
    Event::Complete { request, client, group: G, service: service.clone(), code }
}

pub fn leave(request: u64, service: &ServiceName) -> Event {
    let (request, client) = (RequestId(request), ClientId(1));
    Event::Leave { request, client, group: G, service: service.clone() }
}

// ---- messages ----

/// The Hello of node n in this ring: it uses nothing, and knows all users there are.
pub fn hello(n: u32, seq: u64) -> Hello {
    Hello {
        boot: boot(n),
        memory_from: inc(n),
        witness: true,
        ring: Some(ring(seq)),
        uses: BTreeMap::new(),
        locking: Locking::default(),
        testimony: vec![],
    }
}

/// The same, using [`G`].
pub fn hello_using(n: u32, seq: u64) -> Hello {
    Hello { uses: BTreeMap::from([(G, inc(n))]), ..hello(n, seq) }
}

/// What is said of node n, which used [`G`].
pub fn testimony(n: u32, fate: Fate) -> Testimony {
    Testimony { node: node(n), boot: boot(n), uses: BTreeMap::from([(G, inc(n))]), fate }
}

/// What node n says of others.
pub fn hello_with(n: u32, words: Vec<Testimony>) -> Event {
    hello_of(n, Hello { testimony: words, ..hello_using(n, 1) })
}

pub fn condemned(n: u32) -> Testimony {
    testimony(n, Fate::Condemned { turn: 0 })
}

/// A message of a daemon that speaks versions 7 to 9 only, whose node uses OCFS2.
pub fn foreign_bytes(kind: u8) -> Vec<u8> {
    vec![b'O', b'2', b'B', b'R', kind, 7, 0, 9, 0, 1, 9, 0]
}

// ---- actions ----

/// Our Hello; our node uses something if the Hello says so.
pub fn say_hello(hello: Hello) -> Action {
    let in_use = !hello.uses.is_empty();
    let bytes = proto::encode(1, in_use, &Body::Hello(hello));
    Action::Mcast { channel: Channel::Control, bytes }
}

/// Our State in [`G`].
pub fn say_state(told: &[u32]) -> Action {
    let state = State { incarnation: inc(1), boot: boot(1), told: users(told) };
    let bytes = proto::encode(1, true, &Body::State(state));
    Action::Mcast { channel: group_channel(), bytes }
}

pub fn verb(op: OpId, verb: Verb) -> Action {
    Action::Verb { op, group: G, verb }
}

pub fn reply(request: u64, reply: Reply) -> Action {
    Action::Reply { request: RequestId(request), reply }
}

pub fn refused(request: u64, refusal: Refusal) -> Action {
    reply(request, Reply::Refused(refusal))
}

/// What is saved of [`G`] when `/mnt` is its only service.
pub fn image(told: &[u32], live: bool, unfinished: bool) -> SavedGroup {
    SavedGroup {
        incarnation: inc(1),
        services: vec![SavedService { name: mnt(), live }],
        device: None,
        told: users(told),
        unfinished,
    }
}

pub fn save(op: OpId, image: SavedGroup) -> Action {
    Action::Save { op, group: G, image: Some(image) }
}

pub fn note(note: Note) -> Action {
    Action::Note(note)
}

// ---- the rig ----

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
