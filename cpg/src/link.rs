//! One channel: its handle, its way in and out, and its messages to send.
//!
//! A handle is good for one join, `leave` before the own JOIN was delivered spins, and a handle that
//! is closed without a leave looks like a crash to the others. Hence:
//!
//! | state    | handle is with | call ended well   | own JOIN    | own LEAVE | own PROCDOWN | depart is asked     |
//! |----------|----------------|-------------------|-------------|-----------|--------------|---------------------|
//! | Joining  | helper         | Arriving          | -           | -         | -            | remembered          |
//! | Arriving | loop           | -                 | In          | -         | -            | remembered          |
//! | In       | loop           | -                 | -           | -         | Arriving     | Leaving, queue sent |
//! | Leaving  | helper         | Left              | -           | -         | -            | refused             |
//! | Left     | loop           | -                 | -           | Closing   | -            | refused             |
//! | Closing  | helper         | the link is gone  | -           | -         | -            | refused             |
//!
//! A cell with `-` cannot happen or changes nothing. A join that failed ends the link. A depart that
//! is not through in its time goes to Closing from Arriving, In and Left.
//!
//! Corosync knows a handle in a group by node and process alone. One that was closed without a leave, while a ring
//! broke, may be told of after the next one joined: its JOIN was taken for ours, and so is its end. If our own JOIN
//! was on its way after that, it comes now. If it was before, corosync has dropped it: we are in no group, and
//! nobody hears us. So an own JOIN that does not follow in its time loses the connection.

use std::collections::VecDeque;
use std::time::Instant;

use o2bridge_core::types::{Channel, Member, OpId, Reason};
use rust_corosync::CsError;

use crate::calls::Cpg;
use crate::event::BusEvent;
use crate::sink::Heard;

/// Messages of ours that corosync may have taken and not yet delivered to us. A libcpg that is never
/// answered fills its notification socket after some 280 and then spins for ever inside the call;
/// this stays far below.
pub(crate) const IN_FLIGHT_MAX: usize = 32;
/// Messages that may wait to be sent.
const QUEUE_MAX: usize = 4096;
/// Bytes that may wait to be sent.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// The largest message that libcpg sends in one piece (`cpg_max_atomic_msgsize_get`, measured).
/// Larger ones it sends in pieces, sleeping in between.
const MESSAGE_BYTES_MAX: usize = 1_047_552;

/// See the table.
#[derive(Debug)]
pub(crate) enum State {
    Joining { op: OpId },
    Arriving(Cpg),
    In(Cpg),
    Leaving,
    Left(Cpg),
    Closing,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) state: State,
    /// Index of its token.
    pub(crate) slot: usize,
    /// There may be something to read.
    pub(crate) is_ready: bool,
    /// Who waits for the end of the link.
    pub(crate) depart: Option<OpId>,
    /// When the depart is no longer waited for.
    pub(crate) give_up_at: Option<Instant>,
    /// Since when our own JOIN is awaited once more.
    pub(crate) outside_since: Option<Instant>,
    queue: VecDeque<Vec<u8>>,
    queue_bytes: usize,
    in_flight: usize,
}

/// What is left of the queue after an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Nothing.
    Empty,
    /// Something, until our own messages come back.
    Waiting,
    /// Something, because corosync said: try again.
    TryAgain,
}

impl Link {
    pub(crate) fn new(channel: Channel, op: OpId, slot: usize) -> Self {
        Self {
            channel,
            state: State::Joining { op },
            slot,
            is_ready: false,
            depart: None,
            give_up_at: None,
            outside_since: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            in_flight: 0,
        }
    }

    /// The handle, if the loop has it.
    pub(crate) fn cpg(&self) -> Option<&Cpg> {
        match &self.state {
            State::Arriving(cpg) | State::In(cpg) | State::Left(cpg) => Some(cpg),
            State::Joining { .. } | State::Leaving | State::Closing => None,
        }
    }

    /// Moves on and gives up the handle, if the loop has it.
    pub(crate) fn take_cpg(&mut self, next: State) -> Option<Cpg> {
        match std::mem::replace(&mut self.state, next) {
            State::Arriving(cpg) | State::In(cpg) | State::Left(cpg) => Some(cpg),
            State::Joining { .. } | State::Leaving | State::Closing => None,
        }
    }

    /// Takes what its handle heard. Returns whether that ended with our own LEAVE: what comes after it
    /// is dropped, because a handle goes on to hear of a group that it left.
    pub(crate) fn hear(
        &mut self,
        me: Member,
        heard: Vec<Heard>,
        events: &mut Vec<BusEvent>,
    ) -> bool {
        let channel = self.channel;
        for heard in heard {
            match heard {
                Heard::Confchg { members, left, joined } => {
                    if joined.iter().any(|(member, _)| *member == me) {
                        self.own_join();
                    }
                    if left.contains(&(me, Reason::ProcDown)) {
                        self.own_end();
                    }
                    let is_over =
                        matches!(self.state, State::Left(_)) && left.contains(&(me, Reason::Leave));
                    events.push(BusEvent::Confchg { channel, members, left, joined });
                    if is_over {
                        return true;
                    }
                }
                Heard::Totem { ring, nodes } => {
                    events.push(BusEvent::Totem { channel, ring, nodes });
                }
                Heard::Message { from, bytes } => {
                    if from == me {
                        self.in_flight = self.in_flight.saturating_sub(1);
                    }
                    events.push(BusEvent::Message { channel, from, bytes });
                }
                // No CPG handle says this.
                Heard::Quorum { .. } | Heard::Left { .. } => (),
            }
        }
        false
    }

    fn own_join(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Closing) {
            State::Arriving(cpg) => State::In(cpg),
            state => state,
        };
        self.outside_since = None;
    }

    fn own_end(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Closing) {
            State::In(cpg) => {
                self.outside_since = Some(Instant::now());
                State::Arriving(cpg)
            }
            state => state,
        };
    }

    /// Takes a message to be sent.
    ///
    /// # Errors
    /// The name of the limit that it breaks. It was not taken.
    pub(crate) fn queue(&mut self, bytes: Vec<u8>) -> Result<(), &'static str> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err("message size");
        }
        if self.queue.len() >= QUEUE_MAX || self.queue_bytes + bytes.len() > QUEUE_BYTES_MAX {
            return Err("messages waiting to be sent");
        }
        self.queue_bytes += bytes.len();
        self.queue.push_back(bytes);
        Ok(())
    }

    /// Whether messages may be queued: a channel that was asked to depart takes none.
    pub(crate) fn takes_messages(&self) -> bool {
        self.depart.is_none()
    }

    /// Whether [`Self::pump`] may have something to do.
    pub(crate) fn wants_pump(&self) -> bool {
        matches!(self.state, State::In(_)) && (!self.queue.is_empty() || self.depart.is_some())
    }

    /// Sends what may be sent, in order.
    pub(crate) fn pump(&mut self) -> Result<Pumped, CsError> {
        let State::In(cpg) = &self.state else { return Ok(Pumped::Waiting) };
        while let Some(bytes) = self.queue.front() {
            if self.in_flight >= IN_FLIGHT_MAX {
                return Ok(Pumped::Waiting);
            }
            match cpg.send(bytes) {
                Ok(()) => {
                    self.in_flight += 1;
                    self.queue_bytes -= bytes.len();
                    self.queue.pop_front();
                }
                Err(CsError::CsErrTryAgain) => return Ok(Pumped::TryAgain),
                Err(error) => return Err(error),
            }
        }
        Ok(Pumped::Empty)
    }
}
