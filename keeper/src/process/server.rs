//! The loop: what the daemon says, then what the clock says, then wait.
//!
//! The daemon first: a keeper that was stopped for a while must read the signs of life that waited
//! for it before it takes the daemon for absent.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;

use super::device::Device;
use super::hands::Hands;
use super::say::say;
use crate::clock::{Millis, now};
use crate::record::{Op, RECORD_BYTES, Record, Status};
use crate::state::{Beat, Due, Reason, State};

/// Records taken before the clock is looked at again.
const RECORDS_MAX: usize = 64;
/// A connection that said nothing for so long, in milliseconds, makes room for another.
const STALE_MS: u64 = 3000;
/// Pause after an error that may be there again at once, so that the loop does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The connection of the daemon.
struct Daemon {
    stream: UnixStream,
    heard: Millis,
    /// Whether it did more than look.
    is_in_charge: bool,
}

/// What a connection's record led to.
enum Next {
    Go,
    Drop,
    End,
}

/// The running keeper.
pub(super) struct Server {
    pub(super) state: State,
    pub(super) device: Device,
    pub(super) hands: Hands,
    pub(super) listener: UnixListener,
    pub(super) fingerprint: u32,
    pub(super) missing: u64,
    daemon: Option<Daemon>,
    is_failing: bool,
}

impl Server {
    pub(super) fn new(
        state: State,
        device: Device,
        hands: Hands,
        listener: UnixListener,
        fingerprint: u32,
        missing: u64,
    ) -> Self {
        let (daemon, is_failing) = (None, false);
        Self { state, device, hands, listener, fingerprint, missing, daemon, is_failing }
    }

    /// Returns when the keeper may end. Allocates nothing.
    pub(super) fn serve(&mut self) {
        loop {
            let newcomer = self.accept();
            let heard = now();
            let is_end = self.hear();
            newcomer.into_iter().for_each(|stream| self.greet(stream));
            if is_end || self.work(heard) {
                break;
            }
            self.wait();
        }
        if let Err(error) = self.hands.disarm() {
            say(format_args!("cannot stop the watchdog: {error}"));
        }
    }

    fn wait(&self) {
        let timeout = PollTimeout::try_from(self.state.idle_ms(now())).unwrap_or(PollTimeout::MAX);
        let listener = PollFd::new(self.listener.as_fd(), PollFlags::POLLIN);
        let ready = match &self.daemon {
            Some(daemon) => poll(
                &mut [listener, PollFd::new(daemon.stream.as_fd(), PollFlags::POLLIN)],
                timeout,
            ),
            None => poll(&mut [listener], timeout),
        };
        if ready.is_err() {
            std::thread::sleep(ERROR_PAUSE);
        }
    }

    /// Does all that is due; whether that is to end.
    fn work(&mut self, heard: Millis) -> bool {
        loop {
            match self.state.due(now(), heard) {
                Due::Nothing => return false,
                Due::End => return true,
                Due::Round => self.round(),
                Due::Reset(reason) => {
                    let _ = self.reset(reason);
                }
            }
        }
    }

    fn round(&mut self) {
        let mut result = Ok(());
        let mut index = 0;
        while self.state.may_beat(now()) {
            let Some(beat) = self.state.beat_mut(index) else { break };
            beat.seq = beat.seq.wrapping_add(1);
            let Beat { area, slot, generation, seq } = *beat;
            result = self.device.write(area, slot, seq, generation.0.get()).and(result);
            index += 1;
        }
        // A slot that could not be written is silent: for its peers this node dies, whatever the others say.
        if result.is_ok() && !self.state.round_completed(now()) {
            result = Err(io::ErrorKind::TimedOut.into());
        }
        if result.is_ok() && !self.state.is_resetting() {
            result = self.hands.feed();
        }
        match &result {
            Err(error) if !self.is_failing => say(format_args!("a round failed: {error}")),
            Ok(()) if self.is_failing => say(format_args!("rounds succeed again")),
            Ok(()) | Err(_) => {}
        }
        self.is_failing = result.is_err();
    }

    pub(super) fn reset(&mut self, reason: Reason) -> io::Result<()> {
        say(format_args!("resetting this node: {}", text(reason)));
        let result = self.hands.reset();
        match &result {
            Ok(()) => say(format_args!("the node was not reset by that")),
            Err(error) => say(format_args!("cannot reset the node: {error}")),
        }
        result
    }

    /// Before the daemon is heard: that it hung up before another one came must be known then.
    fn accept(&self) -> Option<UnixStream> {
        match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    std::thread::sleep(ERROR_PAUSE);
                }
                None
            }
        }
    }

    /// One daemon at a time: the one that is here stays unless it fell silent.
    fn greet(&mut self, stream: UnixStream) {
        let now = now();
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let caller = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
        let is_allowed = caller.is_ok_and(|uid| uid == 0 || uid == geteuid().as_raw());
        let is_busy = self.daemon.as_ref().is_some_and(|it| now.since(it.heard) < STALE_MS);
        match (is_allowed, is_busy) {
            (true, false) => {
                self.daemon = Some(Daemon { stream, heard: now, is_in_charge: false });
            }
            (true, true) => send(&stream, Record::new(Op::Hello).answer(Status::Busy)),
            (false, _) => send(&stream, Record::new(Op::Hello).answer(Status::NotAllowed)),
        }
    }

    /// Takes what the daemon said; whether it said to end.
    fn hear(&mut self) -> bool {
        for _ in 0..RECORDS_MAX {
            let Some(daemon) = &mut self.daemon else { return false };
            // A byte more than a record, to tell a longer packet from it.
            let mut bytes = [0; RECORD_BYTES + 1];
            let next = match daemon.stream.read(&mut bytes) {
                Ok(0) => Next::Drop,
                Ok(length) => {
                    daemon.heard = now();
                    self.take(bytes.get(..length).unwrap_or_default())
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => Next::Drop,
            };
            match next {
                Next::Go => {}
                Next::End => return true,
                Next::Drop => {
                    if self.daemon.take().is_some_and(|daemon| daemon.is_in_charge) {
                        self.state.lost(now());
                    }
                }
            }
        }
        false
    }

    fn take(&mut self, bytes: &[u8]) -> Next {
        let Some(record) = Record::decode(bytes) else {
            self.answer(Record::new(Op::Hello).answer(Status::BadRecord));
            return Next::Drop;
        };
        if record.op != Op::Hello {
            self.state.seen(now());
            self.daemon.iter_mut().for_each(|daemon| daemon.is_in_charge = true);
        }
        let status = match record.op {
            Op::Hello => {
                self.answer(self.entry(record));
                return Next::Go;
            }
            Op::Ping => Ok(()),
            Op::Beat => self.beat(record),
            Op::Down => self.down(record),
            Op::Clear => self.clear(record),
            Op::Hold => self.hold(record),
            Op::Release => self.release(),
            Op::Stop => self.state.stop(),
            Op::Reset => self.reset_asked(),
        };
        self.answer(record.answer(status.err().unwrap_or(Status::Done)));
        if record.op == Op::Stop && status.is_ok() { Next::End } else { Next::Go }
    }

    fn answer(&self, record: Record) {
        if let Some(daemon) = &self.daemon {
            send(&daemon.stream, record);
        }
    }
}

fn text(reason: Reason) -> &'static str {
    match reason {
        Reason::DaemonAbsent => "no daemon came back in time",
        Reason::Silent => "its heartbeat was silent for too long",
        Reason::Asked => "the daemon wants it",
    }
}

/// To a client that does not read the answer is lost, and it asks again.
fn send(mut stream: &UnixStream, record: Record) {
    let _ = stream.write(&record.encode());
}
