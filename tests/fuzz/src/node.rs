//! One node, and what must hold of everything that its core does.

mod wishes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use libfuzzer_sys::arbitrary::Unstructured;
use o2bridge_core::timer::Timer;
use o2bridge_core::{
    Begin, BootId, Channel, ClientId, Config, Core, Event, Fencing, Finding, GroupId, Incarnation,
    Locking, LockingProtocol, Member, NodeId, Now, OpError, OpId, Pid, Reason, RequestId, RingId,
    Saved, SavedGroup, ServiceName, Snapshot, Tunables, Verb,
};

use crate::kernel::Kernel;

/// Nodes in the nodelist, ourselves included.
pub(crate) const NODES: u32 = 4;
/// The groups that tools here use.
pub(crate) const GROUPS: [GroupId; 2] = [GroupId(0xA), GroupId(0xB)];
/// What tools call themselves.
const NAMES: [&str; 3] = ["ocfs2", "/mnt", "fsck.ocfs2"];
/// The largest message that corosync takes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages may be a MiB each: an input of more steps than this takes too long.
const STEPS_MAX: usize = 256;
/// Nor may it take longer than this until nothing is left to do.
const REST_STEPS_MAX: usize = 1_000;
/// No event may ask for more than this.
const ACTIONS_MAX: usize = 10_000;
/// There is an end to what is kept of other nodes, and of what one of them uses.
const KNOWN_MAX: usize = 255 + NODES as usize;
const USES_MAX: usize = 512;

/// An effect that has not ended.
#[derive(Debug, Clone)]
enum Effect {
    Join(Channel),
    Depart(Channel),
    Verb(GroupId, Verb),
    Save(GroupId, Option<SavedGroup>),
    Look,
    Other,
}

/// A core with what is around it.
pub struct Node<'a> {
    pub(crate) input: Unstructured<'a>,
    /// This node's id; an administrator may give it another.
    pub(crate) me: u32,
    is_renumbered: bool,
    pub(crate) boot: BootId,
    /// The newest locking protocol that the kernel knows, if it is told any.
    highest: Option<LockingProtocol>,
    /// The one that it was told to run last.
    running: Option<LockingProtocol>,
    /// Entries of large messages that may still be made up: enough for all limits, and an end.
    pub(crate) entries_left: usize,
    core: Core,
    now: u64,
    next_request: u64,
    /// What has not been answered.
    asked: BTreeMap<RequestId, Event>,
    /// What needs no answer any more: who asked is gone.
    excused: BTreeSet<RequestId>,
    effects: Vec<(OpId, Effect)>,
    echo: VecDeque<(Channel, Vec<u8>)>,
    timers: BTreeMap<Timer, (u64, Now)>,
    kernels: BTreeMap<GroupId, Kernel>,
    quorate: bool,
    pub(crate) ring_seq: u64,
    ring: BTreeSet<NodeId>,
    members: BTreeMap<Channel, BTreeSet<Member>>,
    /// There is an end to the nodes that are known, to the users and to the services of a group, those of
    /// the state files included.
    known_max: usize,
    users_max: usize,
    names_max: usize,
    has_ended: bool,
}

pub(crate) fn member(node: u32, pid: u32) -> Member {
    Member { node: NodeId(node), pid: Pid(pid) }
}

/// The daemon of a node.
pub(crate) fn daemon(node: u32) -> Member {
    member(node, 100 * node)
}

/// Whose request it is.
fn client_of(asked: &Event) -> Option<ClientId> {
    match asked {
        Event::Begin(Begin { client, .. })
        | Event::Complete { client, .. }
        | Event::Leave { client, .. }
        | Event::FenceAck { client, .. } => Some(*client),
        _ => None,
    }
}

fn tunables(fencing: Fencing) -> Tunables {
    Tunables {
        grace_ms: 10_000,
        begin_timeout_ms: 60_000,
        complete_timeout_ms: 120_000,
        leave_timeout_ms: 30_000,
        retry_ms: 1_000,
        inquorate_reset_ms: 45_000,
        fencing,
    }
}

/// What the kernel knows, and what a line that an earlier daemon left may run.
fn locking(input: &mut Unstructured<'_>, is_restart: bool) -> Locking {
    let version = |major, minor| Some(LockingProtocol { major, minor });
    let highest = [None, version(1, 0), version(1, 1), version(2, 1)];
    let highest = *input.choose(&highest).unwrap_or(&None);
    let running = highest.filter(|_| is_restart).and_then(|highest| {
        let oldest = LockingProtocol { minor: 0, ..highest };
        *input.choose(&[None, Some(highest), Some(oldest)]).unwrap_or(&None)
    });
    Locking { highest, running, choice: 0 }
}

impl<'a> Node<'a> {
    /// A daemon that has just started with what an earlier one left, and has corosync's first words.
    pub fn start(bytes: &'a [u8], boot: BootId, saved: Saved) -> Self {
        let mut input = Unstructured::new(bytes);
        let fencing = match input.int_in_range(0..=2).unwrap_or(0) {
            0 => Fencing::None,
            1 => Fencing::Ack,
            _ => Fencing::Agent { levels: 2, attempts: 2, pause_ms: 500 },
        };
        // Above all that an earlier daemon gave out.
        let used = saved.groups.values().map(|group| group.incarnation.0.saturating_add(1));
        let first_incarnation = Incarnation(used.fold(1_000, u64::max));
        let told: usize = saved.groups.values().map(|group| group.told.len()).sum();
        let names: usize = saved.groups.values().map(|group| group.services.len()).sum();
        let is_restart = !saved.groups.is_empty();
        let locking = locking(&mut input, is_restart);
        let config = Config { boot, first_incarnation, locking, tunables: tunables(fencing) };
        let left = |group| (group, Kernel::left(saved.groups.get(&group).cloned()));
        let kernels = GROUPS.into_iter().map(left).collect();
        let mut node = Self {
            input,
            me: 1,
            is_renumbered: false,
            boot,
            highest: locking.highest,
            running: locking.running,
            entries_left: 100_000,
            core: Core::new(config, saved),
            now: 1_000,
            next_request: 0,
            asked: BTreeMap::new(),
            excused: BTreeSet::new(),
            effects: Vec::new(),
            echo: VecDeque::new(),
            timers: BTreeMap::new(),
            kernels,
            quorate: false,
            ring_seq: 0,
            ring: BTreeSet::new(),
            members: BTreeMap::new(),
            known_max: KNOWN_MAX + told,
            users_max: NODES as usize + told,
            names_max: NAMES.len() + names,
            has_ended: false,
        };
        node.check();
        node.connect();
        node
    }

    /// Lives until the input is used up, and comes to rest.
    pub fn run(mut self) {
        self.settle();
        self.live();
        self.is_bounded();
        self.settle();
        self.wait();
        let mut owed = self.asked.keys().filter(|request| !self.excused.contains(request));
        assert_eq!(owed.next(), None, "never answered: {:?}", self.asked);
    }

    /// Lets this happen until the input is used up: each step one thing.
    fn live(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.input.is_empty() || self.has_ended {
                return;
            }
            self.now += 1;
            match self.below(16) {
                0..=3 => self.finish_effect(),
                4..=5 => self.hear_ourselves(),
                6..=9 => self.hear_peer(),
                10 => self.change_members(),
                11 => self.change_ring(),
                12 => self.fire(),
                13..=14 => self.ask(),
                _ => self.disturb(),
            }
        }
    }

    /// Nothing has grown without end.
    fn is_bounded(&self) {
        let Snapshot { nodes, groups, .. } = self.core.snapshot();
        assert!(nodes.len() <= self.known_max, "{} nodes are known", nodes.len());
        for node in &nodes {
            assert!(node.groups <= USES_MAX, "{node:?}");
        }
        assert!(groups.len() <= GROUPS.len());
        for group in &groups {
            assert!(group.services.len() <= self.names_max, "{group:?}");
            assert!(group.members.len() <= 2 * self.users_max, "{group:?}");
        }
        let services: usize = groups.iter().map(|group| group.services.len()).sum();
        let timers_max = services + 2 * groups.len() + 3 * nodes.len() + 2;
        let timers = self.due().len();
        assert!(
            timers <= timers_max,
            "{timers} timers are set, and no more than {timers_max} needed"
        );
    }

    /// Everything that is asked for succeeds, and we hear ourselves, until nothing is left.
    fn settle(&mut self) {
        for _ in 0..REST_STEPS_MAX {
            if self.effects.is_empty() && self.echo.is_empty() {
                return;
            }
            self.hear_ourselves();
            if !self.effects.is_empty() {
                let (op, effect) = self.effects.remove(0);
                self.end(op, effect, Ok(()));
            }
        }
        panic!("it does not come to rest: {:?}", self.effects);
    }

    /// The timers that are set.
    fn due(&self) -> Vec<(Now, Timer, u64)> {
        let timers = self.timers.iter().map(|(timer, (generation, at))| (timer, *generation, *at));
        let set = timers.filter(|(timer, generation, _)| self.core.awaits(timer, *generation));
        set.map(|(timer, generation, at)| (at, timer.clone(), generation)).collect()
    }

    /// What is set now fires, in its order, and everything that is asked for then succeeds.
    fn wait(&mut self) {
        let mut due = self.due();
        // Each word of hundreds of nodes that there are not would be said again.
        due.retain(|(_, timer, _)| match timer {
            Timer::Grace(node) | Timer::Fence(node) | Timer::Turn(node) => node.0 <= NODES,
            Timer::Begin(..) | Timer::Complete(..) | Timer::Leave(..) => true,
            Timer::Lane(_) | Timer::Channel(_) | Timer::Outvoted => true,
        });
        due.sort();
        for (at, timer, generation) in due {
            self.now = self.now.max(at.0);
            self.handle(Event::Timer { timer, generation });
            self.settle();
        }
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.input.int_in_range(0..=n - 1).unwrap_or(0)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    pub(crate) fn ring_id(&self) -> RingId {
        RingId { seq: self.ring_seq, node: NodeId(self.me) }
    }

    fn check(&self) {
        assert_eq!(self.core.check(), Ok(()), "{:?}", self.core.snapshot());
    }

    pub(crate) fn handle(&mut self, event: Event) {
        if self.has_ended {
            return;
        }
        let mut actions = Vec::new();
        self.core.handle(Now(self.now), event, &mut actions);
        self.check();
        assert!(actions.len() <= ACTIONS_MAX, "{} actions for one event", actions.len());
        for action in actions {
            self.take(action);
        }
    }

    // ---- what the core does ----

    // ---- corosync, shim, clock and tools: what they may say now ----

    fn connect(&mut self) {
        let nodelist = (1..=NODES).map(NodeId).collect();
        self.handle(Event::Connected { node: NodeId(self.me), cluster: "east".into(), nodelist });
        self.new_ring((1..=NODES).map(NodeId).collect(), true);
    }

    fn new_ring(&mut self, nodes: BTreeSet<NodeId>, quorate: bool) {
        self.ring_seq += 4;
        // Every other time we slept, and whoever is in the new ring left all the same.
        let slept = self.ring_seq % 8 == 0;
        let left = self.ring.iter().filter(|node| slept || !nodes.contains(node));
        let left = left.copied().filter(|node| node.0 != self.me).collect();
        (self.ring, self.quorate) = (nodes, quorate);
        let (ring, nodes): (_, Vec<NodeId>) = (self.ring_id(), self.ring.iter().copied().collect());
        self.handle(Event::Quorum { quorate, ring, nodes: nodes.clone(), left });
        let ours = |members: &BTreeSet<Member>| members.contains(&daemon(self.me));
        let channels: Vec<Channel> =
            self.members.iter().filter(|(_, members)| ours(members)).map(|(one, _)| *one).collect();
        for channel in channels {
            // Corosync forgets a ghost now and then.
            let gone = |member: &Member| !nodes.contains(&member.node);
            let members = self.members[&channel].clone();
            let (left, rest): (Vec<Member>, Vec<Member>) = members.into_iter().partition(gone);
            if !left.is_empty() && self.below(8) != 7 {
                self.set_members(channel, rest, &[], &left, Reason::NodeDown);
            }
            self.handle(Event::Totem { channel, ring, nodes: nodes.clone() });
        }
    }

    fn set_members(
        &mut self,
        channel: Channel,
        members: Vec<Member>,
        came: &[Member],
        went: &[Member],
        reason: Reason,
    ) {
        self.members.insert(channel, members.iter().copied().collect());
        let with = |list: &[Member], reason| list.iter().map(|member| (*member, reason)).collect();
        let (left, joined) = (with(went, reason), with(came, Reason::Join));
        self.handle(Event::Confchg { channel, members, left, joined });
    }

    fn change_ring(&mut self) {
        let which = self.below(1 << NODES);
        let is_here = |node: &u32| *node == self.me || which & (1 << (node - 1)) != 0;
        let nodes: BTreeSet<NodeId> = (1..=NODES).filter(is_here).map(NodeId).collect();
        let quorate = self.below(4) != 0;
        self.new_ring(nodes, quorate);
    }

    /// A daemon, or another process, comes to a channel or goes.
    fn change_members(&mut self) {
        let channel = self.channel();
        let node = 1 + self.below(NODES as usize) as u32;
        let one = if self.below(4) == 0 { member(node, 100 * node + 1) } else { daemon(node) };
        let mut members = self.members.get(&channel).cloned().unwrap_or_default();
        let is_in = members.contains(&daemon(self.me));
        if !is_in || node == self.me || !self.ring.contains(&one.node) {
            return;
        }
        let reason = self.one_of(&[Reason::Leave, Reason::ProcDown]);
        let (came, went) =
            if members.insert(one) { (vec![one], vec![]) } else { (vec![], vec![one]) };
        members.retain(|member| !went.contains(member));
        self.set_members(channel, members.into_iter().collect(), &came, &went, reason);
    }

    pub(crate) fn channel(&mut self) -> Channel {
        self.one_of(&[Channel::Control, Channel::Group(GROUPS[0]), Channel::Group(GROUPS[1])])
    }

    fn hear_ourselves(&mut self) {
        let Some((channel, bytes)) = self.echo.pop_front() else { return };
        let is_in = |members: &BTreeSet<Member>| members.contains(&daemon(self.me));
        if self.members.get(&channel).is_some_and(is_in) {
            self.handle(Event::Message { channel, from: daemon(self.me), bytes });
        }
    }

    fn finish_effect(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        let at = self.below(self.effects.len().min(4));
        let (op, effect) = self.effects.remove(at);
        let result = match self.below(8) {
            0 => Err(self.one_of(&[OpError::Errno(16), OpError::TimedOut, OpError::Agent(1)])),
            _ => Ok(()),
        };
        self.end(op, effect, result);
    }

    fn end(&mut self, op: OpId, effect: Effect, result: Result<(), OpError>) {
        match (effect, result) {
            (Effect::Look, _) => {
                let finding =
                    self.one_of(&[Finding::Unknown, Finding::Mounted, Finding::NotMounted]);
                return self.handle(Event::Looked { op, finding });
            }
            (Effect::Verb(group, verb), _) => self.kernel(group).handle_done(&verb, result.is_ok()),
            (Effect::Save(group, image), Ok(())) => self.kernel(group).handle_saved(image),
            (Effect::Join(channel), Ok(())) => return self.join(op, channel),
            (Effect::Depart(channel), Ok(())) => {
                self.members.remove(&channel);
                self.echo.retain(|(other, _)| *other != channel);
            }
            (Effect::Join(_) | Effect::Depart(_) | Effect::Save(..) | Effect::Other, _) => {}
        }
        self.handle(Event::Done { op, result });
    }

    /// Our own join comes with everyone who is there already.
    fn join(&mut self, op: OpId, channel: Channel) {
        self.handle(Event::Done { op, result: Ok(()) });
        let present = self.below(1 << (NODES - 1));
        let is_here =
            |node: &u32| self.ring.contains(&NodeId(*node)) && present & (1 << (node - 2)) != 0;
        let mut members: Vec<Member> = (2..=NODES).filter(is_here).map(daemon).collect();
        members.insert(0, daemon(self.me));
        self.set_members(channel, members, &[daemon(self.me)], &[], Reason::Leave);
    }

    fn fire(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let at = self.below(self.timers.len());
        let Some(timer) = self.timers.keys().nth(at).cloned() else { return };
        let Some((generation, at)) = self.timers.remove(&timer) else { return };
        self.now = self.now.max(at.0);
        self.handle(Event::Timer { timer, generation });
    }

    /// A tool wants something.
    fn ask(&mut self) {
        let group = self.one_of(&GROUPS);
        let client = ClientId(self.below(2) as u64);
        let name = self.one_of(&NAMES);
        let service = ServiceName::new(name).expect("a good name");
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let event = match self.below(8) {
            0..=3 => Event::Begin(Begin {
                request,
                client,
                group,
                service,
                cluster: None,
                device: None,
                held: self.below(2) == 0,
            }),
            4..=5 => {
                let code = self.one_of(&[0, 0, 5]);
                Event::Complete { request, client, group, service, code }
            }
            6 => Event::Leave { request, client, group, service },
            _ => {
                let node = NodeId(1 + self.below(NODES as usize + 1) as u32);
                Event::FenceAck { request, client, node }
            }
        };
        self.asked.insert(request, event.clone());
        self.handle(event);
    }

    /// What is rarer: corosync ends, a client dies, the configuration changes, the daemon is to end.
    fn disturb(&mut self) {
        match self.below(7) {
            0 => {
                self.effects
                    .retain(|(_, effect)| !matches!(effect, Effect::Join(_) | Effect::Depart(_)));
                self.members.clear();
                self.echo.clear();
                self.quorate = false;
                self.handle(Event::Disconnected);
                if self.below(8) == 0 {
                    self.me = 1 + self.below(NODES as usize) as u32;
                    self.is_renumbered = true;
                }
                self.connect();
            }
            1..=2 => {
                let client = ClientId(self.below(2) as u64);
                // Its requests need no answer, but may still get one.
                let asked = self.asked.iter();
                let of_client = asked.filter(|(_, asked)| client_of(asked) == Some(client));
                self.excused.extend(of_client.map(|(request, _)| *request));
                self.handle(Event::ClientGone { client });
            }
            3 => {
                let agent = Fencing::Agent { levels: 1, attempts: 1, pause_ms: 0 };
                let fencing = self.one_of(&[Fencing::None, Fencing::Ack, agent]);
                self.handle(Event::Reconfigure(tunables(fencing)));
            }
            4 => {
                let last = 1 + self.below(NODES as usize + 2) as u32;
                self.handle(Event::Nodelist((1..=last).map(NodeId).collect()));
            }
            5 => self.handle(Event::Stalled),
            _ => self.handle(Event::Stop),
        }
    }
}
