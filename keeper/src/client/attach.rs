//! Getting a keeper: finding one or starting one, telling it all; and what to do without one.

use std::io::{ErrorKind, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::device;
use super::link::{Found, Link, LinkError};
use super::spawn::spawn;
use super::worker::{Times, Worker, about, is_due};
use crate::clock::now;
use crate::record::{Op, Record, Status};
use crate::timing::PING_MS;
use crate::{Area, KeeperError, Line, Missing, Notice, Slot};

/// From one try to get a keeper to the next, in milliseconds.
pub(super) const RETRY_MS: u64 = 100;
/// A keeper that does not answer for so long is killed; less if the settings are tight.
const HUNG_MS_MAX: u64 = 5000;

impl Worker {
    /// One try to get a keeper, and what follows if there is none for too long.
    pub(super) fn recover(&mut self) {
        if !is_due(self.times.retry_at, now()) {
            return;
        }
        let result = self.attach(false);
        let now = now();
        self.times.retry_at = Some(now.plus(RETRY_MS));
        match result {
            Ok(()) => return,
            // It beats, for somebody else.
            Err(KeeperError::Busy) => self.times.alone_since = Some(now),
            // It ends, or hangs: that is said when it is known.
            Err(KeeperError::Unanswered) => {}
            Err(error) => self.complain(error.to_string()),
        }
        let silent_ms = self.times.alone_since.map_or(0, |since| now.since(since));
        if silent_ms >= HUNG_MS_MAX.min(self.settings.silence_max_ms / 4) {
            self.kill_suspect(silent_ms);
        }
        let is_too_long = silent_ms > self.settings.silence_max_ms / 2;
        if is_too_long && !self.wanted.is_empty() && is_due(self.times.reset_at, now) {
            self.times.reset_at = Some(now.plus(PING_MS));
            self.reset(silent_ms);
        }
    }

    /// Once for each reason.
    fn complain(&mut self, error: String) {
        if self.told.as_ref() != Some(&error) {
            self.told = Some(error.clone());
            (self.log)(Notice::NotStarted { error });
        }
    }

    pub(super) fn kill_suspect(&mut self, silent_ms: u64) {
        let Some(pid) = self.suspect.take() else { return };
        (self.log)(Notice::Hung { pid, silent_ms });
        match i32::try_from(pid) {
            // In a test the keeper may be a thread of this process.
            Ok(number) if pid != 0 && pid != std::process::id() => {
                let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn reset(&mut self, silent_ms: u64) {
        let why = format!("no keeper for {silent_ms} ms, the kernel would bury peers that live");
        (self.log)(Notice::Reset { why });
        if let Err(error) = self.sysrq.write_all(b"b") {
            (self.log)(Notice::ResetFailed { error: error.to_string() });
        }
    }

    /// Finds a keeper or starts one, and makes it beat what is wanted.
    pub(super) fn attach(&mut self, is_first: bool) -> Result<(), KeeperError> {
        let mut is_new = false;
        let connected = Link::connect(&self.settings.socket);
        let (mut link, mut found) = match connected {
            Ok(link) => self.greet(link)?,
            Err(error) if is_nobody(error.kind()) => {
                is_new = true;
                self.start()?
            }
            Err(error) => return Err(KeeperError::NotStarted(format!("no connection: {error}"))),
        };
        // One that beats nothing may be of an older version, with older settings.
        if is_first && !is_new && found.table.is_empty() && found.line.is_none() {
            let _ = link.ask(Record::new(Op::Stop));
            is_new = true;
            (link, found) = self.start()?;
        }
        if is_first {
            device::check(&link, &found, self.settings.device.as_deref())?;
        }
        self.replay(&mut link, &mut found)?;
        self.become_connected(link, &found, is_new);
        Ok(())
    }

    fn start(&mut self) -> Result<(Link, Found), KeeperError> {
        if let Some(pid) = self.view.take_pid() {
            (self.log)(Notice::Died { pid });
        }
        spawn(&self.settings, &mut self.starting).map_err(KeeperError::NotStarted)?;
        let link = Link::connect(&self.settings.socket);
        let cannot = |error| KeeperError::NotStarted(format!("no connection: {error}"));
        self.greet(link.map_err(cannot)?)
    }

    fn greet(&mut self, mut link: Link) -> Result<(Link, Found), KeeperError> {
        match link.hello() {
            Ok(found) => Ok((link, found)),
            Err(error) => {
                if error == LinkError::Unanswered {
                    self.suspect = Some(link.pid());
                }
                Err(error.into())
            }
        }
    }

    /// First what went down, then what is up. What it beats without our knowledge stays: to stop it
    /// would be a death.
    fn replay(&mut self, link: &mut Link, found: &mut Found) -> Result<(), KeeperError> {
        for question in self.pending() {
            let area = Area(question.area);
            match tell(link, question) {
                // What is refused now was never possible.
                Ok(()) | Err(KeeperError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
            if question.op == Op::Clear {
                self.clears.remove(&area);
                found.table.retain(|place, _| place.0 != area);
            } else {
                self.downs.remove(&(area, Slot(question.slot)));
                found.table.remove(&(area, Slot(question.slot)));
            }
        }
        for (place, generation) in &self.wanted {
            if !found.table.contains_key(place) {
                let generation = generation.0.get();
                tell(link, Record { generation, ..about(Op::Beat, place.0, place.1) })?;
            }
        }
        self.replay_line(link, found.line)?;
        for ((area, slot), running) in &found.table {
            let told = self.wanted.insert((*area, *slot), *running);
            if let Some(told) = told.filter(|told| told != running) {
                let what = format!("{area}, {slot}: beats {running}, was told {told}");
                (self.log)(Notice::Conflict { what });
            }
        }
        Ok(())
    }

    /// A line that it holds without our knowledge stays: to let go of it could reset the node.
    fn replay_line(&mut self, link: &mut Link, found: Option<Line>) -> Result<(), KeeperError> {
        match (self.line, found) {
            (Some(wanted), None) => {
                let generation = wanted.to_bits();
                tell(link, Record { generation, ..Record::new(Op::Hold) })
            }
            (Some(wanted), Some(held)) if wanted != held => {
                let what = format!("it holds the line of {held}, was told {wanted}");
                (self.log)(Notice::Conflict { what });
                Ok(())
            }
            (_, held) => {
                self.line = held;
                Ok(())
            }
        }
    }

    fn become_connected(&mut self, link: Link, found: &Found, is_new: bool) {
        let pid = link.pid();
        let beats = self.wanted.len();
        let gap_ms = self.times.alone_since.map_or(0, |since| now().since(since));
        let is_known = self.view.pid() == Some(pid);
        self.publish(Some(pid));
        self.link = Some(link);
        self.times = Times::default();
        (self.suspect, self.told, self.starting) = (None, None, None);
        if is_known {
            return;
        }
        if is_new {
            (self.log)(Notice::Started { pid, beats, gap_ms });
        } else {
            (self.log)(Notice::Adopted { pid, beats });
        }
        for (missing, bit) in Missing::ALL {
            if found.missing & bit != 0 {
                (self.log)(Notice::Unprotected { pid, missing });
            }
        }
        if found.fingerprint != u64::from(self.settings.fingerprint()) {
            (self.log)(Notice::OtherSettings { pid, running: command_line(pid) });
        }
    }
}

fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn tell(link: &mut Link, question: Record) -> Result<(), KeeperError> {
    match link.ask(question).map_err(KeeperError::from)?.status {
        Status::Done => Ok(()),
        Status::Device => Err(KeeperError::Device),
        status => Err(KeeperError::Refused(status)),
    }
}

impl From<LinkError> for KeeperError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Lost | LinkError::Unanswered => Self::Unanswered,
            LinkError::Refused(Status::Busy) => Self::Busy,
            LinkError::Refused(status) => Self::Refused(status),
        }
    }
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().into()
}
