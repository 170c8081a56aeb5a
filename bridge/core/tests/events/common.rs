//! Short words for what happens to a core, and what it does. Node 1 is the core's own node; node N is in boot N,
//! its daemon is process 100 N, its use of [`G`] is incarnation 1000 N.
#![allow(dead_code, reason = "each test file uses its own part of the rig")]

use std::collections::BTreeMap;

pub use o2bridge_core::proto::{self, Body, Fate, Hello, State, Testimony};
pub use o2bridge_core::timer::Timer;
pub use o2bridge_core::*;

pub use crate::rig::*;

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
