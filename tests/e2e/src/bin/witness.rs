//! A plain client of corosync, driven from standard input with the steps of a recording, that says
//! what it hears in a recording's words (see `recording.rs`), with the wall clock in microseconds in
//! front, and process and ring ids as they are. It connects by itself, and again when corosync was
//! gone; a call is made when it is possible, in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use o2bridge_core::{Channel, Member, NodeId, OpError, OpId, Reason};
use o2bridge_cpg::{Bus, BusEvent, LostCause, Options};
use o2bridge_e2e::recording::{Call, Step, channel_name};

const WAKER: Token = Token(0);
const HANDLES: std::ops::Range<usize> = 1..64;
/// A corosync that is back should be met while it is still alone.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// Longer than any message may be: whoever sends it loses all its handles.
const TOO_LONG_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let steps = read_steps(Arc::clone(&waker));
    let options = Options { connect_pause: CONNECT_PAUSE, ..Options::default() };
    let mut bus = Bus::new(poll.registry(), HANDLES, waker, options)?;
    let mut client = Client::default();
    let mut ready = Events::with_capacity(64);
    let mut heard = Vec::new();
    bus.connect();
    loop {
        let patience = bus.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut ready, patience) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            Ok(()) | Err(_) => {}
        }
        client.at_us = wall_us();
        for event in &ready {
            bus.ready(event.token());
        }
        bus.tick(Instant::now());
        bus.drain(&mut heard);
        for event in heard.drain(..) {
            client.hear(event, &mut bus)?;
        }
        for line in steps.try_iter() {
            client.steps.push_back(line.parse()?);
        }
        client.obey(&mut bus);
        std::io::stdout().flush()?;
    }
}

/// The end of standard input is nobody's concern: whoever holds it ends this process by a signal.
fn read_steps(waker: Arc<Waker>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
    });
    receiver
}

/// What it knows of itself.
#[derive(Default)]
struct Client {
    at_us: u128,
    connected: bool,
    /// Not yet possible.
    steps: VecDeque<Step>,
    /// Not yet ended.
    calls: BTreeMap<OpId, Call>,
    /// With a handle.
    channels: BTreeSet<Channel>,
    last_op: u64,
}

impl Client {
    fn hear(&mut self, event: BusEvent, bus: &mut Bus) -> Result<(), Box<dyn Error>> {
        match event {
            BusEvent::Connected(_) => {
                self.connected = true;
                self.say("connected");
            }
            BusEvent::Lost(cause) => {
                if !matches!(
                    cause,
                    LostCause::Corosync(_)
                        | LostCause::SendLimit { .. }
                        | LostCause::Outside { .. }
                ) {
                    return Err(cause.to_string().into());
                }
                self.connected = false;
                self.channels.clear();
                self.say("disconnected");
                bus.connect();
            }
            BusEvent::Refused(cause) => return Err(cause.to_string().into()),
            BusEvent::Quorum { quorate, ring, nodes, left } => {
                let quorate = if quorate { "yes" } else { "no" };
                let (nodes, left) =
                    (list(&nodes, NodeId::to_string), list(&left, NodeId::to_string));
                self.say(&format!("quorum {quorate} {ring} {nodes} left {left}"));
            }
            BusEvent::Confchg { channel, members, left, joined } => self.say(&format!(
                "{} confchg {} left {} joined {}",
                channel_name(channel),
                list(&members, member),
                list(&left, member_and_reason),
                list(&joined, member_and_reason)
            )),
            BusEvent::Totem { channel, ring, nodes } => {
                let nodes = list(&nodes, NodeId::to_string);
                self.say(&format!("{} totem {ring} {nodes}", channel_name(channel)));
            }
            BusEvent::Message { channel, from, bytes } => {
                let text = String::from_utf8_lossy(&bytes);
                self.say(&format!("{} message {} {text}", channel_name(channel), member(&from)));
            }
            BusEvent::Done { op, result } => self.done(op, result),
            BusEvent::Nodelist(_) | BusEvent::Notice(_) => {}
        }
        Ok(())
    }

    fn done(&mut self, op: OpId, result: Result<(), OpError>) {
        let Some(call) = self.calls.remove(&op) else { return };
        let end = match result {
            Ok(()) => String::new(),
            Err(OpError::Corosync(code)) => format!(" error {code}"),
            Err(OpError::TimedOut) => " timeout".to_owned(),
            Err(other) => format!(" {other:?}"),
        };
        if let Call::Leave(channel) = call {
            self.channels.remove(&channel);
        }
        self.say(&format!("done {call}{end}"));
    }

    fn obey(&mut self, bus: &mut Bus) {
        while self.steps.front().is_some_and(|step| self.is_possible(step)) {
            let Some(step) = self.steps.pop_front() else { return };
            self.at_us = wall_us();
            self.say(&format!("step {step}"));
            self.last_op += 1;
            let op = OpId(self.last_op);
            match step {
                Step::Call(_, call) => {
                    self.calls.insert(op, call);
                    self.call(op, call, bus);
                }
                Step::Mcast(_, channel, bytes) => bus.mcast(channel, bytes),
                Step::Finalize(_) => {
                    if let Some(channel) = self.channels.first() {
                        bus.mcast(*channel, vec![0; TOO_LONG_BYTES]);
                    }
                }
                Step::Corosync(..)
                | Step::Client(..)
                | Step::Split(_)
                | Step::Mute(..)
                | Step::Heal => {}
            }
        }
    }

    fn call(&mut self, op: OpId, call: Call, bus: &mut Bus) {
        match call {
            Call::Join(channel) => {
                self.channels.insert(channel);
                bus.join(op, channel);
            }
            Call::Leave(channel) => bus.depart(op, channel),
            Call::KillNode(node) => bus.kill_node(op, node),
        }
    }

    /// A handle is good for one join: the next one waits for the end of the leave.
    fn is_possible(&self, step: &Step) -> bool {
        let Step::Call(_, Call::Join(channel)) = step else { return self.connected };
        self.connected && !self.calls.values().any(|call| *call == Call::Leave(*channel))
    }

    fn say(&self, text: &str) {
        println!("{} {text}", self.at_us);
    }
}

fn list<T>(items: &[T], spell: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(spell).collect::<Vec<_>>().join(" "))
}

fn member(member: &Member) -> String {
    format!("{}:{}", member.node, member.pid.0)
}

fn member_and_reason((who, why): &(Member, Reason)) -> String {
    let why = match why {
        Reason::Join => "JOIN",
        Reason::Leave => "LEAVE",
        Reason::NodeDown => "NODEDOWN",
        Reason::NodeUp => "NODEUP",
        Reason::ProcDown => "PROCDOWN",
        Reason::Undefined => "UNDEFINED",
    };
    format!("{} {why}", member(who))
}

fn wall_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}
