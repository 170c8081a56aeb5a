//! What becomes of the calls that helper threads make.

use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use o2bridge_core::event::OpError;
use o2bridge_core::types::{Channel, Member, Pid};
use rust_corosync::CsError;

use super::{Bus, Phase, Purpose};
use crate::calls::{Connection, Cpg, Handle, Quorum};
use crate::crew::{CallId, GivenUp, Outcome};
use crate::event::{BusEvent, Connected, LostCause, Notice};
use crate::link::State;

impl Bus {
    /// What ended. A call that is in nobody's list any more (its time was over, or the connection was
    /// lost) is undone.
    pub(super) fn handle_outcome(
        &mut self,
        id: CallId,
        outcome: Outcome,
        late: Option<&'static str>,
    ) {
        if let Some(what) = late {
            self.pending.push(BusEvent::Notice(Notice::LateCall { what }));
            // Corosync goes on, or has ended: the next attempt need not wait for long.
            if let Phase::Waiting(at) = &mut self.phase {
                *at = (*at).min(Instant::now() + self.options.connect_pause);
            }
        }
        match (self.calls.remove(&id), outcome) {
            (Some(Purpose::Connect), Outcome::Connect(result)) => self.handle_connect(result),
            (Some(Purpose::Join(channel)), Outcome::Join(result)) => {
                self.handle_join(channel, result);
            }
            (Some(Purpose::Leave(channel)), Outcome::Leave(cpg, result)) => {
                self.handle_leave(channel, cpg, result);
            }
            (Some(Purpose::Close(Some(channel))), _) => self.end_link(channel, Ok(())),
            (Some(Purpose::Kill(op)), Outcome::Kill(result)) => {
                let result = result.map_err(|error| OpError::Corosync(error as u32));
                self.pending.push(BusEvent::Done { op, result });
            }
            (Some(Purpose::Nodelist), Outcome::Nodelist(result)) => self.handle_nodelist(result),
            (_, Outcome::Nodelist(Ok((bell, _)))) => self.close(vec![Handle::Bell(bell)], None),
            (_, Outcome::Connect(Ok(Connection::Made(_, quorum)))) => {
                self.close(vec![Handle::Quorum(quorum)], None);
            }
            (_, Outcome::Join(Ok(cpg)) | Outcome::Leave(cpg, _)) => {
                let _ = self.registry.deregister(&mut SourceFd(&cpg.fd()));
                self.close(vec![Handle::Cpg(cpg)], None);
            }
            (
                _,
                Outcome::Connect(Ok(Connection::Unsuitable(_)) | Err(_))
                | Outcome::Join(Err(_))
                | Outcome::Close
                | Outcome::Kill(_)
                | Outcome::Nodelist(Err(_)),
            ) => (),
        }
    }

    fn handle_connect(&mut self, result: Result<Connection, CsError>) {
        let now = Instant::now();
        match result {
            Ok(Connection::Made(connected, quorum)) => self.become_up(connected, quorum),
            Ok(Connection::Unsuitable(why)) => {
                self.phase = Phase::Waiting(now + self.options.refused_pause);
                if self.told_unsuitable.replace(why) != Some(why) {
                    self.pending.push(BusEvent::Refused(why));
                }
            }
            Err(error) => {
                let code = error as u32;
                self.phase = Phase::Waiting(now + self.options.connect_pause);
                if self.told_code.replace(code) != Some(code) {
                    self.pending.push(BusEvent::Notice(Notice::NotRunning(code)));
                }
            }
        }
    }

    fn become_up(&mut self, connected: Connected, quorum: Quorum) {
        let token = Token(self.tokens.start);
        if let Err(error) =
            self.registry.register(&mut SourceFd(&quorum.fd()), token, Interest::READABLE)
        {
            self.close(vec![Handle::Quorum(quorum)], None);
            self.phase = Phase::Waiting(Instant::now() + self.options.connect_pause);
            let cause = LostCause::Errno(error.raw_os_error().unwrap_or(0));
            self.pending.push(BusEvent::Lost(cause));
            return;
        }
        self.left.clear();
        (self.told_code, self.told_unsuitable, self.told_many) = (None, None, false);
        let me = Member { node: connected.node, pid: Pid(std::process::id()) };
        self.phase = Phase::Up(quorum, me);
        let known = connected.nodelist.clone();
        self.pending.push(BusEvent::Connected(connected));
        self.watch_nodelist(known);
    }

    fn handle_join(&mut self, channel: Channel, result: Result<Cpg, CsError>) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        let State::Joining { op } = link.state else { return };
        let cpg = match result {
            Ok(cpg) => cpg,
            Err(error) => {
                let result = Err(OpError::Corosync(error as u32));
                self.pending.push(BusEvent::Done { op, result });
                // Who wanted to depart has what it wanted.
                return self.end_link(channel, Ok(()));
            }
        };
        let token = Token(self.tokens.start + link.slot);
        let registered =
            self.registry.register(&mut SourceFd(&cpg.fd()), token, Interest::READABLE);
        link.state = State::Arriving(cpg);
        link.is_ready = true;
        if let Err(error) = registered {
            let errno = error.raw_os_error().unwrap_or(0);
            self.pending.push(BusEvent::Done { op, result: Err(OpError::Errno(errno)) });
            return self.lose(LostCause::Errno(errno));
        }
        self.pending.push(BusEvent::Done { op, result: Ok(()) });
    }

    fn handle_leave(&mut self, channel: Channel, cpg: Cpg, result: Result<(), CsError>) {
        let Some(link) = self.links.get_mut(&channel) else { return };
        link.is_ready = true;
        match result {
            Ok(()) => link.state = State::Left(cpg),
            // Asked again by the next pump, until the depart is given up.
            Err(CsError::CsErrTryAgain) => link.state = State::In(cpg),
            Err(error) => {
                link.state = State::In(cpg);
                self.lose(LostCause::Corosync(error as u32));
            }
        }
    }

    /// A call is over its time: its operation ends, and its late outcome will be undone.
    pub(super) fn handle_given_up(&mut self, given_up: &GivenUp) {
        let GivenUp { id, what, limit } = *given_up;
        self.pending.push(BusEvent::Notice(match limit {
            Some(limit) => Notice::SlowCall { what, limit },
            None => Notice::NotMade { what },
        }));
        let Some(purpose) = self.calls.remove(&id) else { return };
        let timed_out = Err(OpError::TimedOut);
        match purpose {
            Purpose::Connect => {
                self.phase = Phase::Waiting(Instant::now() + self.options.refused_pause);
            }
            Purpose::Join(channel) => {
                if let Some(State::Joining { op }) =
                    self.links.get(&channel).map(|link| &link.state)
                {
                    self.pending.push(BusEvent::Done { op: *op, result: timed_out });
                }
                self.end_link(channel, Ok(()));
            }
            Purpose::Leave(channel) => self.end_link(channel, timed_out),
            Purpose::Close(Some(channel)) => self.end_link(channel, timed_out),
            Purpose::Close(None) => (),
            Purpose::Kill(op) => self.pending.push(BusEvent::Done { op, result: timed_out }),
            Purpose::Nodelist => self.read_nodelist_later(),
        }
    }

    /// A depart that waited too long for our own JOIN, for the queue or for our own LEAVE: the handle
    /// is closed all the same, which the others take for a crash of this daemon.
    pub(super) fn handle_depart_over(&mut self, channel: Channel) {
        let limit = self.options.call_limit;
        let Some(link) = self.links.get_mut(&channel) else { return };
        if link.cpg().is_none() {
            // A call is under way, and has its own watchdog.
            link.give_up_at = Some(Instant::now() + limit);
            return;
        }
        self.pending.push(BusEvent::Notice(Notice::SlowCall { what: "depart", limit }));
        if let Some(cpg) = link.take_cpg(State::Closing) {
            let _ = self.registry.deregister(&mut SourceFd(&cpg.fd()));
            // In nobody's name: the channel may be joined again before this is closed.
            self.close(vec![Handle::Cpg(cpg)], None);
        }
        self.end_link(channel, Err(OpError::TimedOut));
    }
}
