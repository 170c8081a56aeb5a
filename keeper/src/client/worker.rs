//! The client's thread: carries calls, says that the daemon lives, and sees that there is a keeper.
//!
//! | event | connected | alone (no keeper that answers) |
//! |---|---|---|
//! | call | asked, answered | a keeper is tried to get, until the call's deadline |
//! | a second passed, or the daemon is alive anew | ping, if the daemon is alive; repeats what is pending | - |
//! | connection lost | alone: a keeper at once | - |
//! | no answer within a second | alone: the keeper is suspect | - |
//! | keeper found or started | - | pending downs, then the table, then connected |
//! | the keeper found at the start beats another device | - | left as it is; there is no start |
//! | alone for `hung_ms` | - | the suspect is killed |
//! | alone for half of `silence_max` | - | the node is reset, if anything should be beaten |
//!
//! A keeper that does not answer is dropped, not waited for: the new connection begins with its
//! table, and what it did without an answer getting through is found there.
//!
//! **What is pending.** A `down` or a `clear` whose outcome is not known is repeated first of all and
//! until the keeper has done it: to say "gone" twice is harmless, not to say it is not. A `beat` whose
//! caller has given up is not carried out any more.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::attach::RETRY_MS;
use super::link::{Link, LinkError, Table};
use super::spawn::{READY_MS, Start};
use super::{Log, Shown, SignOfLife, View};
use crate::clock::{Millis, now};
use crate::record::{Op, Record, Status};
use crate::timing::PING_MS;
use crate::{Area, Generation, KeeperError, Line, Notice, Settings, Slot};

/// A call on its way to the thread.
pub(super) struct Call {
    pub(super) question: Record,
    pub(super) deadline: Millis,
    pub(super) reply: SyncSender<Result<(), KeeperError>>,
}

pub(super) struct Worker {
    pub(super) settings: Settings,
    pub(super) sign: SignOfLife,
    pub(super) log: Log,
    pub(super) view: Arc<View>,
    pub(super) calls: Receiver<Call>,
    pub(super) bell: UnixStream,
    pub(super) sysrq: File,
    pub(super) link: Option<Link>,
    pub(super) wanted: Table,
    pub(super) line: Option<Line>,
    pub(super) downs: BTreeSet<(Area, Slot)>,
    pub(super) clears: BTreeSet<Area>,
    pub(super) times: Times,
    pub(super) suspect: Option<u32>,
    pub(super) told: Option<String>,
    pub(super) starting: Option<Start>,
}

/// When things happened, or are to happen.
#[derive(Default)]
pub(super) struct Times {
    pub(super) alone_since: Option<Millis>,
    pub(super) retry_at: Option<Millis>,
    ping_at: Option<Millis>,
    was_alive: bool,
    repeat_at: Option<Millis>,
    pub(super) reset_at: Option<Millis>,
}

/// Whether a time that is not set counts as come.
pub(super) fn is_due(at: Option<Millis>, now: Millis) -> bool {
    at.is_none_or(|at| now >= at)
}

impl Worker {
    /// The first keeper: one that runs and beats, or a new one. One that hangs beats nothing either:
    /// whoever left it there is gone, and nobody else would end it. But where it may hold a line, nobody
    /// else does, and its end could be the node's: it is left to come back, and the daemon to be started again.
    pub(super) fn begin(&mut self) -> Result<(), KeeperError> {
        let may_hold_a_line = self.settings.control.is_some();
        let since = now();
        let mut deadline = since.plus(READY_MS);
        loop {
            match (self.attach(true), self.suspect) {
                (Err(KeeperError::Busy | KeeperError::Unanswered), _) if now() < deadline => {
                    sleep(Duration::from_millis(RETRY_MS));
                }
                (Err(error @ KeeperError::Unanswered), Some(pid)) if may_hold_a_line => {
                    let silent_ms = now().since(since);
                    (self.log)(Notice::Spared { pid, silent_ms });
                    return Err(error);
                }
                (Err(KeeperError::Unanswered), Some(_)) => {
                    self.kill_suspect(now().since(since));
                    deadline = now().plus(READY_MS);
                }
                (result, _) => return result,
            }
        }
    }

    /// Until the handle is dropped or the keeper stopped.
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            if self.link.is_none() {
                self.recover();
            }
            loop {
                match self.calls.try_recv() {
                    Ok(call) if self.carry(&call) => return,
                    Ok(_) => {}
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.repeat();
            self.ping();
        }
    }

    /// Until the bell rings, the connection is gone, or something is due.
    fn wait(&mut self) {
        let next = if self.link.is_some() { self.times.ping_at } else { self.times.retry_at };
        let idle_ms = next.map_or(0, |at| at.since(now()));
        let timeout = PollTimeout::try_from(idle_ms).unwrap_or(PollTimeout::ZERO);
        let bell = PollFd::new(self.bell.as_fd(), PollFlags::POLLIN);
        let mut is_lost = false;
        match &self.link {
            Some(link) => {
                let mut fds = [bell, PollFd::new(link.fd(), PollFlags::empty())];
                let _ = poll(&mut fds, timeout);
                is_lost = fds[1].any().unwrap_or(true);
            }
            None => {
                let _ = poll(&mut [bell], timeout);
            }
        }
        if is_lost {
            self.become_alone(now());
        }
        let mut bytes = [0; 64];
        while self.bell.read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }

    fn become_alone(&mut self, since: Millis) {
        self.link = None;
        self.times.retry_at = None;
        self.times.alone_since.get_or_insert(since);
    }

    /// Asks the keeper; one that is lost is replaced, and the new one is asked, until the deadline.
    fn ask(&mut self, question: Record, deadline: Millis) -> Result<Record, KeeperError> {
        let mut was_asked = false;
        loop {
            if self.link.is_none() {
                self.recover();
            }
            let since = now();
            let Some(link) = &mut self.link else {
                if since < deadline {
                    sleep(Duration::from_millis(RETRY_MS));
                    continue;
                }
                return Err(self.not_asked(question.op, was_asked));
            };
            if was_asked && since >= deadline {
                return Err(KeeperError::Unanswered);
            }
            was_asked = true;
            let pid = link.pid();
            match link.ask(question) {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Lost | LinkError::Refused(_)) => self.become_alone(since),
                Err(LinkError::Unanswered) => {
                    self.suspect = Some(pid);
                    self.become_alone(since);
                    return Err(KeeperError::Unanswered);
                }
            }
        }
    }

    /// What is pending is going to be done.
    fn not_asked(&self, op: Op, was_asked: bool) -> KeeperError {
        match op {
            _ if was_asked => KeeperError::Unanswered,
            Op::Down | Op::Clear => KeeperError::Unanswered,
            Op::Hello | Op::Beat | Op::Ping | Op::Reset | Op::Stop | Op::Hold | Op::Release => {
                KeeperError::NotStarted(self.told.clone().unwrap_or_default())
            }
        }
    }

    /// Carries one call; whether the keeper was stopped by it.
    fn carry(&mut self, call: &Call) -> bool {
        let question = call.question;
        let (area, slot) = (Area(question.area), Slot(question.slot));
        match question.op {
            Op::Beat | Op::Hold if now() >= call.deadline => return false,
            Op::Stop if !self.is_free() => {
                let _ = call.reply.try_send(Err(KeeperError::Refused(Status::Beating)));
                return false;
            }
            Op::Down => {
                self.wanted.remove(&(area, slot));
                self.downs.insert((area, slot));
            }
            Op::Clear => {
                self.wanted.retain(|place, _| place.0 != area);
                self.downs.retain(|place| place.0 != area);
                self.clears.insert(area);
            }
            // One that is lost on the way is found held when the keeper is asked again.
            Op::Release => self.line = None,
            Op::Beat | Op::Stop | Op::Hello | Op::Ping | Op::Reset | Op::Hold => {}
        }
        self.publish(self.view.pid());
        let result = self.carry_out(question, call.deadline);
        let is_stopped = question.op == Op::Stop && result.is_ok();
        self.publish(if is_stopped { None } else { self.link.as_ref().map(Link::pid) });
        let _ = call.reply.try_send(result);
        is_stopped
    }

    fn carry_out(&mut self, question: Record, deadline: Millis) -> Result<(), KeeperError> {
        let (area, slot) = (Area(question.area), Slot(question.slot));
        // What is to come up after it went down must go down first, and not again afterwards.
        if question.op == Op::Beat {
            let is_about = |it: &Record| Area(it.area) == area && is_for(it, slot);
            for first in self.pending().into_iter().filter(is_about) {
                self.carry_out(first, deadline)?;
            }
        }
        let status = self.ask(question, deadline)?.status;
        let is_pending = status == Status::Device;
        match (question.op, Generation::new(question.generation)) {
            (Op::Beat, Some(generation)) if status == Status::Done => {
                self.wanted.insert((area, slot), generation);
            }
            (Op::Hold, _) if status == Status::Done => {
                self.line = Line::from_bits(question.generation);
            }
            (Op::Down, _) if !is_pending => {
                self.downs.remove(&(area, slot));
            }
            (Op::Clear, _) if !is_pending => {
                self.clears.remove(&area);
            }
            _ => {}
        }
        match status {
            Status::Done => Ok(()),
            Status::Device => Err(KeeperError::Device),
            status => Err(KeeperError::Refused(status)),
        }
    }

    /// Whether the keeper has nothing to do.
    fn is_free(&self) -> bool {
        self.wanted.is_empty() && self.downs.is_empty() && self.line.is_none()
    }

    pub(super) fn publish(&self, pid: Option<u32>) {
        self.view.set(Shown { table: self.wanted.clone(), pid, line: self.line });
    }

    /// What could not be done yet.
    fn repeat(&mut self) {
        let now = now();
        if self.downs.is_empty() && self.clears.is_empty() || !is_due(self.times.repeat_at, now) {
            return;
        }
        self.times.repeat_at = Some(now.plus(PING_MS));
        for question in self.pending() {
            let _ = self.carry_out(question, now);
        }
    }

    pub(super) fn pending(&self) -> Vec<Record> {
        let downs = self.downs.iter().map(|(area, slot)| about(Op::Down, *area, *slot));
        downs.chain(self.clears.iter().map(|area| about(Op::Clear, *area, Slot(0)))).collect()
    }

    /// A daemon that has just come to its work is not late by a whole pause: its keeper has waited for long.
    fn ping(&mut self) {
        let now = now();
        let is_alive = self.view.is_alive(self.sign, now);
        let was_alive = std::mem::replace(&mut self.times.was_alive, is_alive);
        let is_news = is_alive && !was_alive;
        if !is_news && !is_due(self.times.ping_at, now) {
            return;
        }
        self.times.ping_at = Some(now.plus(PING_MS));
        if is_alive && self.link.is_some() {
            let _ = self.ask(Record::new(Op::Ping), now);
        }
    }
}

/// Whether a pending record says something of the slot; a cleared area says it of all.
fn is_for(pending: &Record, slot: Slot) -> bool {
    pending.op == Op::Clear || Slot(pending.slot) == slot
}

pub(super) fn about(op: Op, area: Area, slot: Slot) -> Record {
    Record { area: area.0, slot: slot.0, ..Record::new(op) }
}
