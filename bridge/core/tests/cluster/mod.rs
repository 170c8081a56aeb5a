//! A small cluster in one thread under a seed: real cores and real peer messages; corosync, kernels,
//! tools and power as simple models. Two checkers watch every verb and every grant.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use o2bridge_core::timer::Timer;
use o2bridge_core::{
    Action, Begin, BootId, Channel, ClientId, Config, Core, Event, Fencing, Finding, GroupId,
    Incarnation, Member, NodeId, Now, OpError, OpId, Pid, Reason, Reply, RequestId, RingId, Saved,
    ServiceName, Tunables, Verb,
};

/// A reproducible source of choices (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What one kernel was told about one group.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    pub known: BTreeMap<NodeId, Incarnation>,
    pub suspended: bool,
}

#[derive(Default)]
struct Inbox {
    quorum: VecDeque<Event>,
    channels: BTreeMap<Channel, VecDeque<Event>>,
}

/// One machine.
pub struct Machine {
    id: NodeId,
    up: bool,
    boot: u128,
    corosync: bool,
    component: usize,
    pid: u32,
    pub core: Option<Core>,
    saved: Saved,
    pub kernels: BTreeMap<GroupId, Kernel>,
    /// Groups in which a tool was told to go ahead and has not ended its use: mounted volumes.
    pub mounted: BTreeMap<GroupId, Incarnation>,
    told_down: BTreeSet<(GroupId, NodeId, Incarnation)>,
    inbox: Inbox,
    pending: Vec<Action>,
    timers: Vec<(Now, Timer, u64)>,
    requests: BTreeMap<RequestId, (GroupId, &'static str)>,
    must_reset: bool,
    daemonless_since: u64,
}

/// What a run did, so that an idle one is noticed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub grants: u64,
    pub node_downs: u64,
    pub leaves: u64,
    pub fences: u64,
    pub kills: u64,
    pub expulsions: u64,
    pub partitions: u64,
    pub crashes: u64,
    pub restarts: u64,
}

pub struct World {
    pub dice: Dice,
    pub machines: Vec<Machine>,
    members: BTreeMap<Channel, BTreeSet<Member>>,
    rings: BTreeMap<usize, (RingId, BTreeSet<NodeId>)>,
    ring_seq: u64,
    now: u64,
    next: u64,
    fencing: Fencing,
    inquorate_reset_ms: u64,
    pub counts: Counts,
    pub trace: Vec<String>,
    messages: u64,
}

/// Far above what any run of the tests says.
const TRACE_MAX: usize = 200_000;
const MESSAGES_MAX: u64 = 200_000;

pub const GRACE_MS: u64 = 5_000;

fn tunables(fencing: Fencing, inquorate_reset_ms: u64) -> Tunables {
    Tunables {
        grace_ms: GRACE_MS,
        begin_timeout_ms: 60_000,
        complete_timeout_ms: 300_000,
        leave_timeout_ms: 30_000,
        retry_ms: 500,
        inquorate_reset_ms,
        fencing,
    }
}

impl World {
    pub fn new(nodes: u32, fencing: Fencing, seed: u64) -> Self {
        let machines = (1..=nodes)
            .map(|id| Machine {
                id: NodeId(id),
                up: true,
                boot: u128::from(id) << 64,
                corosync: false,
                component: 0,
                pid: 100,
                core: None,
                saved: Saved::default(),
                kernels: BTreeMap::new(),
                mounted: BTreeMap::new(),
                told_down: BTreeSet::new(),
                inbox: Inbox::default(),
                pending: Vec::new(),
                timers: Vec::new(),
                requests: BTreeMap::new(),
                must_reset: false,
                daemonless_since: 0,
            })
            .collect();
        let mut world = Self {
            dice: Dice(seed),
            machines,
            members: BTreeMap::new(),
            rings: BTreeMap::new(),
            ring_seq: 0,
            now: 1_000,
            next: 1_000,
            fencing,
            // In half of the clusters nodes reset themselves when they are outvoted.
            inquorate_reset_ms: if seed % 2 == 0 { 0 } else { 3_000 },
            counts: Counts::default(),
            trace: Vec::new(),
            messages: 0,
        };
        for index in 0..world.machines.len() {
            world.start_corosync(index);
            world.start_daemon(index);
        }
        world
    }

    fn say(&mut self, text: String) {
        // Nobody reads that much; what says that much never comes to rest.
        assert!(self.trace.len() < TRACE_MAX, "the cluster talks for ever");
        self.trace.push(format!("{:>7} {text}", self.now));
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // ---- power, corosync, daemons -------------------------------------------------------------

    fn start_daemon(&mut self, index: usize) {
        let first = Incarnation(self.fresh() * 1_000);
        let tunables = tunables(self.fencing, self.inquorate_reset_ms);
        let machine = &mut self.machines[index];
        if !machine.up || machine.core.is_some() {
            return;
        }
        machine.pid += 1;
        let mut saved = machine.saved.clone();
        saved.memory_from = Some(*machine.saved.memory_from.get_or_insert(first));
        let config = Config { boot: BootId(machine.boot), first_incarnation: first, tunables };
        machine.core = Some(Core::new(config, saved));
        let corosync = machine.corosync;
        self.say(format!("n{} daemon starts", index + 1));
        if corosync {
            self.connect(index);
        }
    }

    fn connect(&mut self, index: usize) {
        let node = self.machines[index].id;
        let nodelist = self.machines.iter().map(|machine| machine.id).collect();
        self.feed(index, Event::Connected { node, cluster: "lab".into(), nodelist });
        self.notify_quorum(index);
    }

    fn kill_daemon(&mut self, index: usize) {
        if self.machines[index].core.is_none() {
            return;
        }
        self.say(format!("n{} daemon dies", index + 1));
        self.counts.restarts += 1;
        self.drop_daemon(index, Reason::ProcDown);
    }

    fn drop_daemon(&mut self, index: usize, reason: Reason) {
        let machine = &mut self.machines[index];
        machine.core = None;
        machine.pending.clear();
        machine.timers.clear();
        machine.requests.clear();
        // A death told just before the end and not yet saved is told again: late is the only harm.
        let saved = &machine.saved.groups;
        machine.told_down.retain(|(group, node, incarnation)| {
            let told = saved.get(group).and_then(|image| image.told.get(node));
            told.is_none_or(|user| user.incarnation != *incarnation)
        });
        self.part_all(index, reason);
    }

    /// All processes of a machine go out of all channels, seen by those in its component.
    fn part_all(&mut self, index: usize, reason: Reason) {
        self.machines[index].inbox = Inbox::default();
        let node = self.machines[index].id;
        let channels: Vec<Channel> = self.members.keys().copied().collect();
        for channel in channels {
            let gone: Vec<Member> = self
                .members
                .get(&channel)
                .into_iter()
                .flatten()
                .copied()
                .filter(|member| member.node == node)
                .collect();
            for member in gone {
                self.members.entry(channel).or_default().remove(&member);
                self.announce(index, channel, vec![(member, reason)], vec![]);
            }
        }
    }

    fn stop_corosync(&mut self, index: usize, clean: bool) {
        if !self.machines[index].corosync {
            return;
        }
        self.say(format!("n{} corosync stops", index + 1));
        if clean {
            self.part_all(index, Reason::ProcDown);
        }
        let node = self.machines[index].id;
        self.machines[index].corosync = false;
        self.reform();
        for members in self.members.values_mut() {
            members.retain(|member| member.node != node);
        }
        self.machines[index].inbox = Inbox::default();
        self.machines[index].pending.retain(|action| !is_corosync(action));
        if self.machines[index].core.is_some() {
            self.feed(index, Event::Disconnected);
        }
    }

    fn start_corosync(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        if !machine.up || machine.corosync {
            return;
        }
        machine.corosync = true;
        self.say(format!("n{} corosync starts", index + 1));
        self.reform();
        if self.machines[index].core.is_some() {
            self.connect(index);
        }
    }

    fn crash(&mut self, index: usize) {
        if !self.machines[index].up {
            return;
        }
        self.say(format!("n{} loses power", index + 1));
        self.counts.crashes += 1;
        let node = self.machines[index].id;
        let machine = &mut self.machines[index];
        machine.up = false;
        machine.core = None;
        machine.corosync = false;
        machine.pending.clear();
        machine.timers.clear();
        machine.requests.clear();
        machine.kernels.clear();
        machine.mounted.clear();
        machine.told_down.clear();
        machine.saved = Saved::default();
        machine.inbox = Inbox::default();
        machine.must_reset = false;
        self.reform();
        for members in self.members.values_mut() {
            members.retain(|member| member.node != node);
        }
    }

    fn boot(&mut self, index: usize) {
        if self.machines[index].up {
            return;
        }
        self.say(format!("n{} boots", index + 1));
        let machine = &mut self.machines[index];
        machine.up = true;
        machine.boot += 1;
        machine.pid = 100;
        self.start_corosync(index);
        self.start_daemon(index);
    }

    // ---- the ring -----------------------------------------------------------------------------

    /// Forms the rings anew after power, corosync or cables changed.
    fn reform(&mut self) {
        let mut wanted: BTreeMap<usize, BTreeSet<NodeId>> = BTreeMap::new();
        for machine in self.machines.iter().filter(|machine| machine.corosync) {
            wanted.entry(machine.component).or_default().insert(machine.id);
        }
        let old = std::mem::take(&mut self.rings);
        let before = |node: NodeId| {
            old.values().find(|(_, nodes)| nodes.contains(&node)).map(|(_, nodes)| nodes.clone())
        };
        let mut changed = Vec::new();
        for (component, nodes) in wanted {
            match old.values().find(|(_, was)| *was == nodes) {
                Some(ring) => {
                    self.rings.insert(component, ring.clone());
                }
                None => {
                    self.ring_seq += 4;
                    let node = *nodes.first().expect("a component has nodes");
                    let id = RingId { seq: self.ring_seq, node };
                    self.rings.insert(component, (id, nodes.clone()));
                    let was: Vec<_> = nodes.iter().map(|node| (*node, before(*node))).collect();
                    changed.push((id, nodes, was));
                }
            }
        }
        for (id, nodes, was) in changed {
            for (node, was) in was {
                self.tell_ring(node, id, &nodes, &was.unwrap_or_default());
            }
        }
    }

    fn tell_ring(
        &mut self,
        node: NodeId,
        id: RingId,
        nodes: &BTreeSet<NodeId>,
        was: &BTreeSet<NodeId>,
    ) {
        let index = node.0 as usize - 1;
        let channels: Vec<(Channel, BTreeSet<Member>)> = self
            .members
            .iter()
            .filter(|(_, members)| members.iter().any(|member| member.node == node))
            .map(|(channel, members)| (*channel, members.clone()))
            .collect();
        for (channel, members) in channels {
            let of = |set: &BTreeSet<NodeId>| -> Vec<Member> {
                members.iter().copied().filter(|member| set.contains(&member.node)).collect()
            };
            let left: Vec<_> = of(was).into_iter().filter(|m| !nodes.contains(&m.node)).collect();
            let stay: Vec<_> = of(was).into_iter().filter(|m| nodes.contains(&m.node)).collect();
            let came: Vec<_> = of(nodes).into_iter().filter(|m| !was.contains(&m.node)).collect();
            let queue = self.machines[index].inbox.channels.entry(channel).or_default();
            if !left.is_empty() {
                queue.push_back(Event::Confchg {
                    channel,
                    members: stay,
                    left: left.into_iter().map(|member| (member, Reason::NodeDown)).collect(),
                    joined: vec![],
                });
            }
            if !came.is_empty() {
                queue.push_back(Event::Confchg {
                    channel,
                    members: of(nodes),
                    left: vec![],
                    joined: came.into_iter().map(|member| (member, Reason::NodeUp)).collect(),
                });
            }
            let nodes = nodes.iter().copied().collect();
            queue.push_back(Event::Totem { channel, ring: id, nodes });
        }
        self.notify_quorum(index);
    }

    fn notify_quorum(&mut self, index: usize) {
        let machine = &self.machines[index];
        let Some((ring, nodes)) = self.rings.get(&machine.component).cloned() else { return };
        if !nodes.contains(&machine.id) || machine.core.is_none() {
            return;
        }
        let quorate = nodes.len() * 2 > self.machines.len();
        let nodes = nodes.into_iter().collect();
        self.machines[index].inbox.quorum.push_back(Event::Quorum { quorate, ring, nodes });
    }

    fn neighbours(&self, index: usize) -> BTreeSet<NodeId> {
        let machine = &self.machines[index];
        let ring = self.rings.get(&machine.component).filter(|_| machine.corosync);
        ring.map(|(_, nodes)| nodes.clone()).unwrap_or_default()
    }

    fn announce(
        &mut self,
        index: usize,
        channel: Channel,
        left: Vec<(Member, Reason)>,
        joined: Vec<(Member, Reason)>,
    ) {
        let nodes = self.neighbours(index);
        let members: Vec<Member> = self
            .members
            .get(&channel)
            .into_iter()
            .flatten()
            .copied()
            .filter(|member| nodes.contains(&member.node))
            .collect();
        let mut hear: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        hear.extend(left.iter().map(|(member, _)| member.node));
        for node in hear {
            let event = Event::Confchg {
                channel,
                members: members.clone(),
                left: left.clone(),
                joined: joined.clone(),
            };
            self.enqueue(node, channel, event);
        }
    }

    fn enqueue(&mut self, node: NodeId, channel: Channel, event: Event) {
        let machine = &mut self.machines[node.0 as usize - 1];
        if machine.core.is_some() {
            machine.inbox.channels.entry(channel).or_default().push_back(event);
        }
    }

    fn member(&self, index: usize) -> Member {
        Member { node: self.machines[index].id, pid: Pid(self.machines[index].pid) }
    }

    // ---- events in, actions out ---------------------------------------------------------------

    fn feed(&mut self, index: usize, event: Event) {
        let mut actions = Vec::new();
        let now = Now(self.now);
        let Some(core) = self.machines[index].core.as_mut() else { return };
        core.handle(now, event.clone(), &mut actions);
        if let Err(broken) = core.check() {
            panic!("n{}: {broken} after {event:?}", index + 1);
        }
        if matches!(event, Event::Message { .. }) {
            self.messages += 1;
            assert!(self.messages < MESSAGES_MAX, "the cluster talks for ever");
        } else {
            self.say(format!("n{} <- {event:?}", index + 1));
        }
        for action in actions {
            self.take(index, action);
        }
    }

    fn take(&mut self, index: usize, action: Action) {
        match &action {
            Action::Mcast { channel, bytes } => self.mcast(index, *channel, bytes.clone()),
            Action::Arm { timer, generation, at } => {
                let machine = &mut self.machines[index];
                machine.timers.push((*at, timer.clone(), *generation));
            }
            Action::Reply { request, reply } => {
                self.say(format!("n{} -> {action:?}", index + 1));
                self.take_reply(index, *request, reply);
            }
            Action::FenceSelf { .. } => {
                self.say(format!("n{} -> {action:?}", index + 1));
                self.counts.expulsions += 1;
                self.machines[index].must_reset = true;
            }
            Action::Note(_) | Action::Exit => self.say(format!("n{} -> {action:?}", index + 1)),
            Action::Verb { group, verb, .. } => {
                self.say(format!("n{} -> {action:?}", index + 1));
                self.check_verb(index, *group, verb);
                self.machines[index].pending.push(action);
            }
            Action::Join { .. }
            | Action::Depart { .. }
            | Action::Save { .. }
            | Action::KillNode { .. }
            | Action::Fence { .. }
            | Action::Look { .. } => self.machines[index].pending.push(action),
        }
    }

    fn mcast(&mut self, index: usize, channel: Channel, bytes: Vec<u8>) {
        let from = self.member(index);
        let nodes = self.neighbours(index);
        if !self.members.get(&channel).is_some_and(|members| members.contains(&from)) {
            return;
        }
        let members = self.members.get(&channel).cloned().unwrap_or_default();
        for member in members.iter().filter(|member| nodes.contains(&member.node)) {
            let event = Event::Message { channel, from, bytes: bytes.clone() };
            self.enqueue(member.node, channel, event);
        }
    }

    fn take_reply(&mut self, index: usize, request: RequestId, reply: &Reply) {
        let (group, what) =
            self.machines[index].requests.remove(&request).expect("a request is answered once");
        if what == "begin" && *reply == Reply::Done {
            self.counts.grants += 1;
            self.check_grant(index, group);
            let incarnation = self.use_of(index, group);
            self.machines[index].mounted.insert(group, incarnation);
            self.request(index, group, "complete");
        }
        if what == "leave" && *reply == Reply::Done {
            self.counts.leaves += 1;
        }
    }

    fn use_of(&self, index: usize, group: GroupId) -> Incarnation {
        let snapshot = self.machines[index].core.as_ref().expect("it replied").snapshot();
        let status = snapshot.groups.iter().find(|status| status.group == group);
        status.expect("a granted group exists").incarnation
    }

    /// Whether a node is a user that could still write.
    fn lives(&self, node: NodeId, group: GroupId, incarnation: Incarnation) -> bool {
        self.machines[node.0 as usize - 1].mounted.get(&group) == Some(&incarnation)
    }

    fn is_physical(&self) -> bool {
        matches!(self.fencing, Fencing::Agent { .. })
    }

    fn check_verb(&mut self, index: usize, group: GroupId, verb: &Verb) {
        let me = self.machines[index].id;
        match verb {
            Verb::NodeDown(node, incarnation) => {
                self.counts.node_downs += 1;
                assert_ne!(*node, me, "node_down for ourselves");
                let kernel = &self.machines[index].kernels[&group];
                assert!(kernel.suspended, "node_down before suspend");
                if self.is_physical() {
                    let lives = self.lives(*node, group, *incarnation);
                    assert!(!lives, "n{me} buries n{node} that still writes");
                }
                let key = (group, *node, *incarnation);
                let machine = &mut self.machines[index];
                let first = machine.told_down.insert(key);
                assert!(first, "one death told twice to n{me}: {key:?}");
            }
            Verb::Resume(peers) | Verb::Attach(peers) => {
                assert!(peers.contains_key(&me), "we are no member of our own group");
                for (node, incarnation) in peers {
                    self.check_return(index, (group, *node, *incarnation));
                }
            }
            Verb::Suspend | Verb::Detach => {}
        }
    }

    /// Without fencing, a node that was buried and not reset may come back when all who knew have been
    /// restarted: it dies anew. While anyone in the ring remembers, it must not be let in.
    fn check_return(&mut self, index: usize, key: (GroupId, NodeId, Incarnation)) {
        if self.is_physical() || !self.machines[index].told_down.contains(&key) {
            return;
        }
        for node in self.neighbours(index) {
            let core = self.machines[node.0 as usize - 1].core.as_ref();
            let nodes = core.map(|core| core.snapshot().nodes).unwrap_or_default();
            let remembers = nodes.iter().any(|dead| dead.node == key.1 && dead.fencing != "none");
            assert!(!remembers, "n{} lets in what n{node} buried: {key:?}", index + 1);
        }
        self.machines[index].told_down.remove(&key);
    }

    /// Everyone who writes must know the newcomer before it mounts.
    fn check_grant(&self, index: usize, group: GroupId) {
        if !self.is_physical() {
            return;
        }
        let incarnation = self.use_of(index, group);
        let me = self.machines[index].id;
        for machine in self.machines.iter().filter(|machine| machine.id != me) {
            if machine.mounted.contains_key(&group) {
                let kernel = &machine.kernels[&group];
                assert_eq!(
                    kernel.known.get(&me),
                    Some(&incarnation),
                    "n{me} may mount, and n{} that writes does not know it",
                    machine.id
                );
            }
        }
    }

    // ---- effects ------------------------------------------------------------------------------

    fn run_effect(&mut self, index: usize, faults: bool) {
        let count = self.machines[index].pending.len();
        if count == 0 {
            return;
        }
        let at = self.dice.below(count);
        let action = self.machines[index].pending.remove(at);
        let fails = faults && self.dice.one_in(12);
        match action {
            Action::Join { op, channel } => self.do_join(index, op, channel),
            Action::Depart { op, channel } => self.do_depart(index, op, channel),
            Action::Save { op, group, image } => {
                if !fails {
                    let saved = &mut self.machines[index].saved.groups;
                    match image {
                        Some(image) => saved.insert(group, image),
                        None => saved.remove(&group),
                    };
                }
                self.done(index, op, fails);
            }
            Action::Verb { op, group, verb } => {
                if fails {
                    if let Verb::NodeDown(node, incarnation) = verb {
                        let machine = &mut self.machines[index];
                        machine.told_down.remove(&(group, node, incarnation));
                    }
                } else {
                    self.do_verb(index, group, verb);
                }
                self.done(index, op, fails);
            }
            Action::KillNode { op, node } => {
                self.counts.kills += 1;
                self.done(index, op, false);
                self.stop_corosync(node.0 as usize - 1, false);
            }
            Action::Fence { op, node, .. } => {
                self.counts.fences += 1;
                if !fails {
                    self.crash(node.0 as usize - 1);
                }
                self.done(index, op, fails);
            }
            Action::Look { op, group, .. } => {
                let mounted = self.machines[index].mounted.contains_key(&group);
                let finding = if mounted { Finding::Mounted } else { Finding::NotMounted };
                self.feed(index, Event::Looked { op, finding });
            }
            other => panic!("not an effect: {other:?}"),
        }
    }

    fn done(&mut self, index: usize, op: OpId, fails: bool) {
        let result = if fails { Err(OpError::Errno(5)) } else { Ok(()) };
        self.feed(index, Event::Done { op, result });
    }

    fn do_join(&mut self, index: usize, op: OpId, channel: Channel) {
        let member = self.member(index);
        self.members.entry(channel).or_default().insert(member);
        self.announce(index, channel, vec![], vec![(member, Reason::Join)]);
        self.done(index, op, false);
    }

    fn do_depart(&mut self, index: usize, op: OpId, channel: Channel) {
        let member = self.member(index);
        if self.members.entry(channel).or_default().remove(&member) {
            self.announce(index, channel, vec![(member, Reason::Leave)], vec![]);
        }
        self.machines[index].inbox.channels.remove(&channel);
        self.done(index, op, false);
    }

    fn do_verb(&mut self, index: usize, group: GroupId, verb: Verb) {
        let machine = &mut self.machines[index];
        match verb {
            Verb::Attach(peers) => {
                machine.kernels.insert(group, Kernel { known: peers, suspended: false });
            }
            Verb::Suspend => machine.kernels.entry(group).or_default().suspended = true,
            Verb::NodeDown(node, _) => {
                machine.kernels.get_mut(&group).expect("attached").known.remove(&node);
            }
            Verb::Resume(peers) => {
                let kernel = machine.kernels.entry(group).or_default();
                *kernel = Kernel { known: peers, suspended: false };
            }
            Verb::Detach => {
                machine.kernels.remove(&group);
            }
        }
    }

    // ---- tools and time -----------------------------------------------------------------------

    fn request(&mut self, index: usize, group: GroupId, what: &'static str) {
        let request = RequestId(self.fresh());
        let client = ClientId(1);
        let service = ServiceName::new("/mnt").expect("valid");
        let event = match what {
            "begin" => Event::Begin(Begin {
                request,
                client,
                group,
                service,
                cluster: Some("lab".into()),
                device: None,
                held: false,
            }),
            "complete" => Event::Complete { request, client, group, service, code: 0 },
            _ => Event::Leave { request, client, group, service },
        };
        if self.machines[index].core.is_some() {
            self.machines[index].requests.insert(request, (group, what));
            if what == "leave" {
                self.machines[index].mounted.remove(&group);
            }
            self.feed(index, event);
        }
    }

    /// Reads what corosync has queued, in the order that the adapter promises.
    fn drain(&mut self, index: usize, all: bool) {
        let channels: Vec<Channel> = self.machines[index].inbox.channels.keys().copied().collect();
        let mut batches = Vec::new();
        for channel in channels {
            let Channel::Group(_) = channel else { continue };
            let queue = self.machines[index].inbox.channels.entry(channel).or_default();
            let count = queue.len();
            let take = if all || count == 0 { count } else { self.dice.below(count + 1) };
            let queue = self.machines[index].inbox.channels.entry(channel).or_default();
            batches.extend(queue.drain(..take).collect::<Vec<_>>());
        }
        let inbox = &mut self.machines[index].inbox;
        let control: Vec<Event> =
            inbox.channels.entry(Channel::Control).or_default().drain(..).collect();
        let quorum: Vec<Event> = inbox.quorum.drain(..).collect();
        for event in quorum.into_iter().chain(control).chain(batches) {
            self.feed(index, event);
        }
    }

    fn pass_time(&mut self, ms: u64) {
        self.keep(ms);
        self.now += ms;
        for index in 0..self.machines.len() {
            let now = Now(self.now);
            let due: Vec<_> =
                self.machines[index].timers.iter().filter(|(at, ..)| *at <= now).cloned().collect();
            self.machines[index].timers.retain(|(at, ..)| *at > now);
            for (_, timer, generation) in due {
                self.feed(index, Event::Timer { timer, generation });
            }
        }
    }

    pub fn step(&mut self, groups: usize) {
        let index = self.dice.below(self.machines.len());
        let group = GroupId(1 + self.dice.below(groups) as u128);
        match self.dice.below(200) {
            0..=69 => self.drain(index, false),
            70..=139 => self.run_effect(index, true),
            140..=159 => self.pass_time(20),
            160..=169 => {
                if !self.machines[index].mounted.contains_key(&group) {
                    self.request(index, group, "begin");
                }
            }
            170..=175 => {
                if self.machines[index].mounted.contains_key(&group) {
                    self.request(index, group, "leave");
                }
            }
            176..=177 => self.kill_daemon(index),
            178..=185 => self.start_daemon(index),
            186 => self.crash(index),
            187..=190 => self.boot(index),
            191 => self.split(),
            192..=193 => self.heal_cables(),
            194 => {
                let clean = self.dice.one_in(2);
                self.stop_corosync(index, clean);
            }
            195..=197 => self.start_corosync(index),
            198 => self.pass_time(GRACE_MS),
            _ => self.reset_expelled(index),
        }
    }

    /// The keeper: a node with a volume mounted whose daemon stays away resets itself within a grace.
    fn keep(&mut self, ms: u64) {
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            let nodes = machine.core.as_ref().map(|core| core.snapshot().nodes).unwrap_or_default();
            if nodes.iter().any(|node| node.node == machine.id && node.daemon == "speaking") {
                machine.daemonless_since = self.now;
            }
            let away = self.now + ms >= machine.daemonless_since + GRACE_MS * 4 / 5;
            if !machine.mounted.is_empty() && away {
                self.crash(index);
            }
        }
    }

    fn reset_expelled(&mut self, index: usize) {
        if self.machines[index].must_reset {
            self.crash(index);
        }
    }

    fn split(&mut self) {
        self.counts.partitions += 1;
        for index in 0..self.machines.len() {
            self.machines[index].component = self.dice.below(2);
        }
        self.say("the network splits".into());
        self.reform();
    }

    fn heal_cables(&mut self) {
        self.machines.iter_mut().for_each(|machine| machine.component = 0);
        self.say("the network heals".into());
        self.reform();
    }

    /// Ends all faults and lets the cluster come to rest.
    pub fn settle(&mut self) {
        self.heal_cables();
        for _ in 0..60 {
            for index in 0..self.machines.len() {
                self.boot(index);
                self.start_corosync(index);
                self.start_daemon(index);
                self.reset_expelled(index);
                for _ in 0..200 {
                    self.drain(index, true);
                    self.run_effect(index, false);
                }
            }
            self.pass_time(4_000);
        }
    }

    /// After rest: every request is answered, and all kernels know exactly who uses a group.
    pub fn check_rest(&self, groups: usize) {
        for machine in &self.machines {
            assert!(machine.requests.is_empty(), "n{}: {:?}", machine.id, machine.requests);
            for (group, kernel) in &machine.kernels {
                assert!(!kernel.suspended, "n{} stays suspended in {group}", machine.id);
            }
        }
        for group in (1..=groups).map(|group| GroupId(group as u128)) {
            let users: BTreeMap<NodeId, Incarnation> = self
                .machines
                .iter()
                .filter(|machine| machine.kernels.contains_key(&group))
                .map(|machine| (machine.id, machine.kernels[&group].known[&machine.id]))
                .collect();
            for machine in &self.machines {
                if let Some(kernel) = machine.kernels.get(&group) {
                    assert_eq!(kernel.known, users, "n{} in {group}", machine.id);
                }
            }
        }
    }
}

fn is_corosync(action: &Action) -> bool {
    matches!(action, Action::Join { .. } | Action::Depart { .. } | Action::KillNode { .. })
}
