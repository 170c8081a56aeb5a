//! One client of a door: its socket, its buffers, and whose turn it is.
//!
//! | phase \ what | a whole message | reply | end of input | both sides closed |
//! |---|---|---|---|---|
//! | Idle | handle → any | - | Gone, the buffer served first | Gone, the buffer served first |
//! | Waiting | stays in the buffer | → Idle | Gone, unless the dialect outlives it | Gone |
//! | Streaming | stays in the buffer | - | as Waiting | Gone |
//! | Closing | dropped | - | Gone once written | Gone |
//!
//! The next message is handled when the last answer has left for the socket entirely: so one answer
//! is all that the output ever holds, and a client that does not read is not served.

use std::io::{self, Read, Write};

use mio::net::UnixStream;
use o2bridge_core::{ClientId, Now, Reply, RequestId};
use o2bridge_wire::Asker;

use super::desk::{Call, Desk};
use super::dialect::{Dialect, Next};
use super::{STREAM_PAUSE_MS, Turn};

/// A message has to arrive whole, and an answer has to be taken on, in this time.
const PATIENCE_MS: u64 = 10_000;

/// A stranger that asks nothing for this long is sent away.
const STRANGER_IDLE_MS: u64 = 60_000;

/// Messages of one client that are handled before the others get their turn.
const BATCH_MAX: usize = 16;

/// An output buffer that grew beyond this is given back to the system after use.
const OUTPUT_KEPT_BYTES: usize = 16 * 1024;

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The client's.
    Idle,
    /// The core's.
    Waiting(RequestId),
    /// Ours, as often as status changes.
    Streaming {
        /// The version of the last status that was looked at.
        seen: u64,
        /// When.
        at: Now,
        /// The edition of the last status that was sent.
        sent: u64,
    },
    /// The connection ends with the output.
    Closing,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays until something happens.
    Stays,
    /// It has more to do, after the others had their turn.
    Again,
    /// It is dead.
    Gone,
}

/// What the client keeps us waiting with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    /// Nothing.
    None,
    /// Taking its answer.
    Taking,
    /// Sending the rest of a message.
    Sending,
    /// Asking anything.
    Asking,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection<D> {
    pub(crate) stream: UnixStream,
    pub(crate) client: ClientId,
    pub(crate) trusted: bool,
    /// Whether the core has heard of it.
    pub(crate) is_known: bool,
    pub(crate) phase: Phase,
    dialect: D,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// It sends no more.
    input_ended: bool,
    /// The same, said by the poll, perhaps ahead of bytes that are not read yet.
    input_ends: bool,
    /// Nobody is there any more.
    hung_up: bool,
    delay: Delay,
    delay_since: Now,
}

impl<D: Dialect> Connection<D> {
    pub(crate) fn new(stream: UnixStream, client: ClientId, trusted: bool, now: Now) -> Self {
        Self {
            stream,
            client,
            trusted,
            is_known: false,
            phase: Phase::Idle,
            dialect: D::default(),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            input_ended: false,
            input_ends: false,
            hung_up: false,
            delay: Delay::Asking,
            delay_since: now,
        }
    }

    /// Takes what the poll says about the other side.
    pub(crate) fn note_closed(&mut self, event: &mio::event::Event) {
        self.input_ends |= event.is_read_closed();
        self.hung_up |= event.is_write_closed();
    }

    /// Does all that can be done now: write, read, handle.
    pub(crate) fn pump(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) -> Fate {
        let before = (self.delay, self.input.len(), self.output.len() - self.written);
        let batch_max = if self.trusted { BATCH_MAX } else { 1 };
        let mut handled = 0;
        loop {
            if self.flush().is_err() || self.fill().is_err() {
                return Fate::Gone;
            }
            if !self.is_callable() {
                break;
            }
            if handled == batch_max {
                // The next turn may find nothing, and would take the client for one that never asked.
                self.delay_since = turn.now;
                return Fate::Again;
            }
            if !self.handle_next(desk, turn) {
                break;
            }
            handled += 1;
        }
        self.note_delay(handled > 0, before, turn.now);
        if self.is_over() { Fate::Gone } else { Fate::Stays }
    }

    /// Answers the request that waits, as far as the socket takes it.
    pub(crate) fn answer(&mut self, reply: &Reply, now: Now) {
        self.dialect.answer(reply, &mut self.output);
        self.phase = Phase::Idle;
        self.delay = Delay::None;
        self.delay_since = now;
        // A broken socket shows again at the next pump.
        let _ = self.flush();
    }

    /// When a stream wants its next status, if it lags behind and can take it.
    pub(crate) fn stream_due(&self, version: u64) -> Option<Now> {
        match &self.phase {
            Phase::Streaming { seen, at, .. } if *seen < version && self.output.is_empty() => {
                Some(at.after(STREAM_PAUSE_MS))
            }
            Phase::Streaming { .. } | Phase::Idle | Phase::Waiting(_) | Phase::Closing => None,
        }
    }

    /// Sends the status to a stream if it shows anything new.
    pub(crate) fn publish(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) {
        let now = turn.now;
        let mut call = self.call(desk, turn);
        let shown = call.status();
        let Phase::Streaming { seen, at, sent } = &mut self.phase else { return };
        // Perhaps not the newest version: then it is due again after the pause.
        (*seen, *at) = (shown.version, now);
        if *sent != shown.edition {
            *sent = shown.edition;
            self.dialect.publish(&shown, &mut self.output);
        }
    }

    /// Whether its client has kept us waiting for too long.
    pub(crate) fn is_out_of_time(&self, now: Now) -> bool {
        let patience_ms = match self.delay {
            Delay::None => return false,
            Delay::Taking | Delay::Sending => PATIENCE_MS,
            Delay::Asking if self.trusted => return false,
            Delay::Asking => STRANGER_IDLE_MS,
        };
        now >= self.delay_since.after(patience_ms)
    }

    fn call<'a, 'b>(&self, desk: &'a mut Desk, turn: &'a mut Turn<'b>) -> Call<'a, 'b> {
        let asker = Asker { request: desk.new_request(), client: self.client };
        Call { asker, trusted: self.trusted, desk, turn }
    }

    /// Whether a message may be handled now.
    fn is_callable(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.output.is_empty()
    }

    /// Handles one message; false if none is there.
    fn handle_next(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) -> bool {
        let Some(length) = D::split(&self.input) else {
            if self.input.len() < D::INPUT_BYTES_MAX {
                return false;
            }
            D::overlong(&mut self.output);
            self.phase = Phase::Closing;
            return true;
        };
        let message: Vec<u8> = self.input.drain(..length).collect();
        let now = turn.now;
        let mut call = self.call(desk, turn);
        let request = call.asker.request;
        self.phase = match self.dialect.handle(&message, &mut call, &mut self.output) {
            Next::Answered => Phase::Idle,
            Next::Waits => {
                self.is_known = true;
                Phase::Waiting(request)
            }
            Next::Streams => {
                let shown = call.status();
                Phase::Streaming { seen: shown.version, at: now, sent: shown.edition }
            }
            Next::Closes => Phase::Closing,
        };
        true
    }

    /// Whether the connection has nothing left to live for.
    fn is_over(&self) -> bool {
        let busy = match self.phase {
            Phase::Closing => return self.output.is_empty() || self.hung_up,
            Phase::Idle => false,
            Phase::Waiting(_) | Phase::Streaming { .. } => true,
        };
        if self.hung_up {
            return true;
        }
        if busy {
            return (self.input_ended || self.input_ends) && !self.dialect.outlives_input();
        }
        self.input_ended && self.output.is_empty()
    }

    /// Remembers since when the client keeps us waiting, and with what.
    fn note_delay(&mut self, handled: bool, before: (Delay, usize, usize), now: Now) {
        self.delay = match self.phase {
            _ if !self.output.is_empty() => Delay::Taking,
            Phase::Waiting(_) | Phase::Streaming { .. } | Phase::Closing => Delay::None,
            Phase::Idle if self.input.is_empty() => Delay::Asking,
            Phase::Idle => Delay::Sending,
        };
        let has_taken = self.output.len() - self.written < before.2;
        if handled || self.delay != before.0 || (self.delay == Delay::Taking && has_taken) {
            self.delay_since = now;
        }
    }

    /// Reads until the socket or the buffer has no more.
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while !self.input_ended && self.input.len() < D::INPUT_BYTES_MAX {
            let room = chunk.len().min(D::INPUT_BYTES_MAX - self.input.len());
            match self.stream.read(&mut chunk[..room]) {
                Ok(0) => self.input_ended = true,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes until the socket takes no more or nothing is left.
    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT_BYTES);
        Ok(())
    }
}
