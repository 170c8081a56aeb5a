//! The one object that the loop owns: every handle, and who waits for what.

mod nodelist;
mod outcome;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Registry, Token, Waker};
use o2bridge_core::event::OpError;
use o2bridge_core::types::{Channel, Member, NodeId, OpId, RingId};
use rust_corosync::CsError;

use self::nodelist::Nodelist;
use crate::calls::{self, Handle, Quorum};
use crate::crew::{self, CallId, Crew, Job, Outcome, Void};
use crate::event::{BusEvent, LostCause, Notice, Unsuitable};
use crate::link::{Link, Pumped, State};
use crate::sink::Heard;
use crate::stack::{self, StackTooSmall};

/// What one CPG handle takes from `/dev/shm` (measured: three ring buffers of 1 MiB, and their heads).
pub const SHM_BYTES_PER_CHANNEL: u64 = 3_195_000;

/// What closing a handle can take when corosync is dead but not yet reaped (measured: 41 ms).
const CLOSE_LIMIT_PER_HANDLE: Duration = Duration::from_millis(100);
/// The first tokens belong to no channel: quorum's and the node list's.
const SLOTS_OF_NOBODY: usize = nodelist::SLOT + 1;
/// After corosync said: try again.
const SEND_RETRY: Duration = Duration::from_millis(5);

/// `CS_ERR_LIBRARY`: corosync is not there.
const NOT_THERE: u32 = CsError::CsErrLibrary as u32;
/// `CS_ERR_EXIST`: the channel is there already.
const EXIST: u32 = CsError::CsErrExist as u32;
/// `CS_ERR_BUSY`: a depart is under way.
const BUSY: u32 = CsError::CsErrBusy as u32;
/// `CS_ERR_NO_RESOURCES`: more channels than tokens.
const NO_RESOURCES: u32 = CsError::CsErrNoResources as u32;

/// Times and limits of a [`Bus`].
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a call may take that corosync answers in milliseconds. Then its operation ends as
    /// timed out, and if it ends after all, what it made is undone. Default 10 s: a corosync that is
    /// stopped for some seconds should not fail a mount.
    pub call_limit: Duration,
    /// The pause between attempts to connect. Default 250 ms.
    pub connect_pause: Duration,
    /// The pause after [`BusEvent::Refused`], and after an attempt that was given up: each may leave a thread
    /// behind. Default 5 s.
    pub refused_pause: Duration,
    /// From more channels than this on, [`Notice::ManyGroups`] is given. Default 64.
    pub channels_warn: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            call_limit: Duration::from_secs(10),
            connect_pause: Duration::from_millis(250),
            refused_pause: Duration::from_secs(5),
            channels_warn: 64,
        }
    }
}

/// The connection to corosync.
#[derive(Debug)]
enum Phase {
    /// Nobody asked for one, or it was lost.
    Down,
    /// A helper tries.
    Connecting,
    /// The next attempt comes then.
    Waiting(Instant),
    /// There.
    Up(Quorum, Member),
}

/// What a call is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Connect,
    Join(Channel),
    Leave(Channel),
    Close(Option<Channel>),
    Kill(OpId),
    Nodelist,
}

/// Corosync, as the loop sees it. See the crate's documentation for how a loop uses it.
///
/// Not `Send`: the thread that made it is the one whose stack was looked at, and handles must not be
/// read by two threads.
pub struct Bus {
    registry: Registry,
    waker: Arc<Waker>,
    tokens: Range<usize>,
    options: Options,
    phase: Phase,
    crew: Crew,
    calls: BTreeMap<CallId, Purpose>,
    links: BTreeMap<Channel, Link>,
    /// Whose each token is. The first two, quorum's and the node list's, are nobody's.
    slots: Vec<Option<Channel>>,
    nodelist: Nodelist,
    pending: Vec<BusEvent>,
    /// Who left on the way into rings that the quorum service has yet to speak of.
    left: Vec<(RingId, Vec<NodeId>)>,
    retry_send_at: Option<Instant>,
    told_code: Option<u32>,
    told_unsuitable: Option<Unsuitable>,
    told_many: bool,
    _not_send: PhantomData<*const ()>,
}

impl Bus {
    /// Makes a bus that is not connected. It uses the `tokens` of the registry's poll: the first for
    /// quorum, the second for the node list, one for each channel. The `waker` belongs to the same poll; it fires when a helper
    /// thread has something to say.
    ///
    /// # Errors
    /// This thread's stack is too small to dispatch on: libcpg puts a message of 1 MiB there without
    /// looking. Or the registry could not be cloned: descriptors are used up.
    pub fn new(
        registry: &Registry,
        tokens: Range<usize>,
        waker: Arc<Waker>,
        options: Options,
    ) -> Result<Self, NewError> {
        stack::check()?;
        let registry = registry.try_clone()?;
        let crew = Crew::new(Arc::clone(&waker));
        Ok(Self {
            registry,
            waker,
            tokens,
            options,
            phase: Phase::Down,
            crew,
            calls: BTreeMap::new(),
            links: BTreeMap::new(),
            slots: vec![None; SLOTS_OF_NOBODY],
            nodelist: Nodelist::default(),
            pending: Vec::new(),
            left: Vec::new(),
            retry_send_at: None,
            told_code: None,
            told_unsuitable: None,
            told_many: false,
            _not_send: PhantomData,
        })
    }

    /// Tries to connect until it works. Does nothing when that is under way or done.
    pub fn connect(&mut self) {
        if matches!(self.phase, Phase::Down) {
            self.start_connect();
        }
    }

    /// Joins a channel, with a handle of its own. The confchg that shows us in it comes after `Done`.
    pub fn join(&mut self, op: OpId, channel: Channel) {
        if !matches!(self.phase, Phase::Up(..)) {
            return self.done_soon(op, Err(OpError::Corosync(NOT_THERE)));
        }
        if let Some(link) = self.links.get(&channel) {
            let code = if link.depart.is_some() { BUSY } else { EXIST };
            return self.done_soon(op, Err(OpError::Corosync(code)));
        }
        let Some(slot) = self.take_slot(channel) else {
            return self.done_soon(op, Err(OpError::Corosync(NO_RESOURCES)));
        };
        self.links.insert(channel, Link::new(channel, op, slot));
        self.call("join", Purpose::Join(channel), move |void| {
            Outcome::Join(calls::join(channel, void))
        });
        self.warn_of_many();
    }

    /// Leaves a channel, after what was queued for it was sent, and frees its handle. Our own LEAVE
    /// comes before `Done`. A channel that we are not in is left already.
    pub fn depart(&mut self, op: OpId, channel: Channel) {
        let deadline = Instant::now() + self.options.call_limit;
        let Some(link) = self.links.get_mut(&channel) else {
            return self.done_soon(op, Ok(()));
        };
        if link.depart.is_some() {
            return self.done_soon(op, Err(OpError::Corosync(BUSY)));
        }
        link.depart = Some(op);
        link.give_up_at = Some(deadline);
        self.pump(channel);
    }

    /// Sends to a channel, after all that was sent to it before. Without the channel the message is
    /// dropped: whoever sent it hears, or heard, that the channel is lost. A message that breaks a
    /// limit loses the whole connection, since nothing may be left out or overtaken.
    pub fn mcast(&mut self, channel: Channel, bytes: Vec<u8>) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        if !link.takes_messages() {
            return;
        }
        match link.queue(bytes) {
            Ok(()) => self.pump(channel),
            Err(what) => self.lose(LostCause::SendLimit { channel, what }),
        }
    }

    /// Asks corosync to end the corosync of a node. That it ended is seen in the ring, two token
    /// times later.
    pub fn kill_node(&mut self, op: OpId, node: NodeId) {
        if !matches!(self.phase, Phase::Up(..)) {
            return self.done_soon(op, Err(OpError::Corosync(NOT_THERE)));
        }
        self.call("kill-node", Purpose::Kill(op), move |void| {
            Outcome::Kill(calls::kill_node(node, void))
        });
    }

    /// Whether a token of the poll is one of the bus's.
    #[must_use]
    pub fn is_token(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// Notes that one of the bus's tokens is ready. [`Self::drain`] reads.
    pub fn ready(&mut self, token: Token) {
        let Some(slot) = token.0.checked_sub(self.tokens.start) else { return };
        if slot == nodelist::SLOT {
            self.nodelist.ring();
        }
        let channel = self.slots.get(slot).copied().flatten();
        if let Some(link) = channel.and_then(|channel| self.links.get_mut(&channel)) {
            link.is_ready = true;
        }
    }

    /// When [`Self::tick`] has something to do at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let connect = match self.phase {
            Phase::Waiting(at) => Some(at),
            Phase::Down | Phase::Connecting | Phase::Up(..) => None,
        };
        let departs = self.links.values().filter_map(|link| link.give_up_at).min();
        let joins = self.links.values().filter_map(|link| self.join_deadline(link)).min();
        let rest = [self.retry_send_at, self.nodelist.read_at, self.crew.deadline()];
        rest.into_iter().chain([connect, departs, joins]).flatten().min()
    }

    /// Until when a link that is out of its group waits for its own JOIN.
    fn join_deadline(&self, link: &Link) -> Option<Instant> {
        link.outside_since.map(|since| since + self.options.call_limit)
    }

    /// Does what is due: the watchdog over calls, the next attempt to connect or to send.
    pub fn tick(&mut self, now: Instant) {
        // What ended in its time was not too slow because this process was.
        self.take_outcomes();
        for given_up in self.crew.give_up(now) {
            self.handle_given_up(&given_up);
        }
        if matches!(self.phase, Phase::Waiting(at) if at <= now) {
            self.start_connect();
        }
        if self.retry_send_at.is_some_and(|at| at <= now) {
            self.retry_send_at = None;
            self.pump_all();
        }
        if self.nodelist.read_at.is_some_and(|at| at <= now) {
            self.read_nodelist();
        }
        let is_over = |link: &&Link| link.give_up_at.is_some_and(|at| at <= now);
        let over: Vec<Channel> =
            self.links.values().filter(is_over).map(|link| link.channel).collect();
        for channel in over {
            self.handle_depart_over(channel);
        }
        let is_out = |link: &&Link| self.join_deadline(link).is_some_and(|at| at <= now);
        if let Some(channel) = self.links.values().find(is_out).map(|link| link.channel) {
            self.lose(LostCause::Outside { channel });
        }
    }

    /// Hands over all that happened. Does not block.
    ///
    /// Reads every ready mountgroup, then the control group, then quorum, each to the bottom, and
    /// hands over quorum first, then control, then the mountgroups: so whoever is judged by a
    /// group's event is judged with knowledge of the ring that is at least as new.
    pub fn drain(&mut self, out: &mut Vec<BusEvent>) {
        self.take_outcomes();
        self.dispatch();
        self.pump_all();
        out.append(&mut self.pending);
    }

    /// What the channels take from `/dev/shm`, in bytes.
    #[must_use]
    pub fn shm_bytes(&self) -> u64 {
        SHM_BYTES_PER_CHANNEL * u64::try_from(self.links.len()).unwrap_or(u64::MAX)
    }

    /// The channels that have a handle, or are about to.
    pub fn channels(&self) -> impl Iterator<Item = Channel> + '_ {
        self.links.keys().copied()
    }

    fn take_outcomes(&mut self) {
        while let Some((id, outcome, late)) = self.crew.next_outcome() {
            self.handle_outcome(id, outcome, late);
        }
    }

    fn dispatch(&mut self) {
        let Phase::Up(quorum, me) = &self.phase else { return };
        let (mut groups, mut control, mut first) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = Vec::new();
        let mut result = Ok(());
        // `Channel::Control` sorts before the groups, so this reads it last.
        for (channel, link) in self.links.iter_mut().rev() {
            let is_control = *channel == Channel::Control;
            if !(link.is_ready || is_control) {
                continue;
            }
            // A handle that is with a helper is read when it is back.
            let Some(cpg) = link.cpg() else { continue };
            let (heard, end) = cpg.dispatch();
            link.is_ready = false;
            let events = if is_control { &mut control } else { &mut groups };
            if link.hear(*me, heard, events) {
                left.push(*channel);
            }
            result = result.and(end);
        }
        let (heard, end) = quorum.dispatch();
        result = result.and(end);
        for heard in heard {
            match heard {
                Heard::Left { ring, nodes } => self.left.push((ring, nodes)),
                Heard::Quorum { quorate, ring, nodes } => {
                    let is_by_now = |(then, _): &(RingId, Vec<NodeId>)| then.seq <= ring.seq;
                    let by_now = self.left.iter().filter(|it| is_by_now(it));
                    let left = by_now.flat_map(|(_, nodes)| nodes.iter().copied()).collect();
                    self.left.retain(|it| !is_by_now(it));
                    first.push(BusEvent::Quorum { quorate, ring, nodes, left });
                }
                // No quorum handle says these.
                Heard::Confchg { .. } | Heard::Totem { .. } | Heard::Message { .. } => (),
            }
        }
        self.pending.extend(first.into_iter().chain(control).chain(groups));
        for channel in left {
            self.close_link(channel);
        }
        if let Err(error) = result {
            self.lose(LostCause::Corosync(error as u32));
        }
    }

    fn start_connect(&mut self) {
        self.phase = Phase::Connecting;
        self.call("connect", Purpose::Connect, |_| Outcome::Connect(calls::connect()));
    }

    fn call(
        &mut self,
        what: &'static str,
        purpose: Purpose,
        run: impl FnOnce(&Void) -> Outcome + Send + 'static,
    ) {
        let limit = self.options.call_limit;
        let id = self.crew.submit(Job { what, limit, run: Box::new(run) });
        self.calls.insert(id, purpose);
    }

    fn close(&mut self, handles: Vec<Handle>, channel: Option<Channel>) {
        let count = u32::try_from(handles.len()).unwrap_or(u32::MAX);
        let limit = self.options.call_limit + CLOSE_LIMIT_PER_HANDLE.saturating_mul(count);
        let run = Box::new(move |_: &Void| {
            calls::close(handles);
            Outcome::Close
        });
        let id = self.crew.submit(Job { what: crew::CLOSE, limit, run });
        self.calls.insert(id, Purpose::Close(channel));
    }

    /// Gives a link's handle to a helper to be closed.
    fn close_link(&mut self, channel: Channel) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        link.give_up_at = None;
        if let Some(cpg) = link.take_cpg(State::Closing) {
            let _ = self.registry.deregister(&mut SourceFd(&cpg.fd()));
            self.close(vec![Handle::Cpg(cpg)], Some(channel));
        }
    }

    /// Forgets a link; it has no handle any more.
    fn end_link(&mut self, channel: Channel, result: Result<(), OpError>) {
        if let Some(op) = self.forget_link(channel).and_then(|link| link.depart) {
            self.pending.push(BusEvent::Done { op, result });
        }
    }

    fn pump_all(&mut self) {
        let wanting = self.links.values().filter(|link| link.wants_pump());
        let channels: Vec<Channel> = wanting.map(|link| link.channel).collect();
        for channel in channels {
            self.pump(channel);
        }
    }

    /// Sends what a channel has queued. A channel that is to depart leaves when nothing is queued.
    fn pump(&mut self, channel: Channel) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        match link.pump() {
            Ok(Pumped::Empty) if link.depart.is_some() => {
                if let Some(cpg) = link.take_cpg(State::Leaving) {
                    self.call(crew::LEAVE, Purpose::Leave(channel), move |void| {
                        let result = calls::leave(&cpg, channel, void);
                        Outcome::Leave(cpg, result)
                    });
                }
            }
            Ok(Pumped::TryAgain) => {
                self.retry_send_at.get_or_insert(Instant::now() + SEND_RETRY);
            }
            Ok(Pumped::Empty | Pumped::Waiting) => (),
            Err(error) => self.lose(LostCause::Corosync(error as u32)),
        }
    }

    /// The connection is gone: all handles go to a helper, and whoever waits is told.
    fn lose(&mut self, cause: LostCause) {
        let mut handles = Vec::new();
        match std::mem::replace(&mut self.phase, Phase::Down) {
            Phase::Up(quorum, _) => {
                let _ = self.registry.deregister(&mut SourceFd(&quorum.fd()));
                handles.push(Handle::Quorum(quorum));
            }
            // Lost already.
            Phase::Down | Phase::Connecting | Phase::Waiting(_) => return,
        }
        if !matches!(cause, LostCause::Corosync(_)) {
            // Corosync is there, and what ended the connection may be, too.
            self.phase = Phase::Waiting(Instant::now() + self.options.connect_pause);
        }
        self.pending.push(BusEvent::Lost(cause));
        let mut ops = Vec::new();
        handles.extend(self.take_bell());
        self.nodelist = Nodelist::default();
        self.slots.truncate(SLOTS_OF_NOBODY);
        for mut link in std::mem::take(&mut self.links).into_values() {
            if let State::Joining { op } = link.state {
                ops.push(op);
            }
            ops.extend(link.depart);
            if let Some(cpg) = link.take_cpg(State::Closing) {
                let _ = self.registry.deregister(&mut SourceFd(&cpg.fd()));
                handles.push(Handle::Cpg(cpg));
            }
        }
        for purpose in std::mem::take(&mut self.calls).into_values() {
            if let Purpose::Kill(op) = purpose {
                ops.push(op);
            }
        }
        self.crew.void_all();
        self.close(handles, None);
        self.retry_send_at = None;
        for op in ops {
            self.done_soon(op, Err(OpError::Corosync(NOT_THERE)));
        }
        let _ = self.waker.wake();
    }

    fn done_soon(&mut self, op: OpId, result: Result<(), OpError>) {
        self.pending.push(BusEvent::Done { op, result });
        let _ = self.waker.wake();
    }

    fn take_slot(&mut self, channel: Channel) -> Option<usize> {
        let free =
            (SLOTS_OF_NOBODY..self.slots.len()).find(|&slot| self.slots.get(slot) == Some(&None));
        let slot = free.unwrap_or(self.slots.len());
        if slot >= self.tokens.len() {
            return None;
        }
        if free.is_none() {
            self.slots.push(None);
        }
        self.slots.get_mut(slot)?.replace(channel);
        Some(slot)
    }

    fn forget_link(&mut self, channel: Channel) -> Option<Link> {
        let link = self.links.remove(&channel)?;
        if let Some(slot) = self.slots.get_mut(link.slot) {
            *slot = None;
        }
        Some(link)
    }

    fn warn_of_many(&mut self) {
        let channels = self.links.len();
        if channels > self.options.channels_warn && !self.told_many {
            self.told_many = true;
            let shm_bytes = self.shm_bytes();
            self.pending.push(BusEvent::Notice(Notice::ManyGroups { channels, shm_bytes }));
        }
    }
}

/// Why a [`Bus`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// See [`StackTooSmall`].
    #[error(transparent)]
    Stack(#[from] StackTooSmall),
    /// The poll's registry could not be duplicated.
    #[error("cannot duplicate the poll's descriptor: {0}")]
    Registry(#[from] std::io::Error),
}
