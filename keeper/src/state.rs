//! What the keeper decides. No I/O and no clock: time is an argument.
//!
//! | event | Idle (beats and holds nothing) | Beating | Resetting |
//! |---|---|---|---|
//! | beat, new slot | Beating | one more; refused if full | refused |
//! | hold a line | Beating | held; refused if another is held | refused |
//! | release the line | nothing to let go | let go; no slot beaten either: Idle | refused |
//! | beat, same generation | - | is done already | refused |
//! | beat, other generation | - | refused: must go down first | refused |
//! | down, clear | written, nothing to forget | forgotten; the last one: Idle | refused |
//! | sign of life | daemon seen | daemon seen | daemon seen, changes nothing |
//! | connection lost | seen a ping after the last time, at most | the same | the same |
//! | daemon not seen for `daemon_back` | End | Resetting | - |
//! | no completed round for `silence_max` | - | Resetting | - |
//! | `beat_ms` since the last round | - | Round | Round, unless the kernel may have buried |
//! | a round completed | - | silence ends | the same |
//! | a round failed | - | silence goes on | the same |
//! | reset asked | Resetting | Resetting | at once again |
//! | a second since the last try | - | - | Reset again |
//! | stop | End | refused | refused |
//!
//! A keeper that holds a line and beats no slot is Beating, too: it guards the node against a daemon that
//! stays away, in rounds that write nothing. Its own silence harms nobody then.
//!
//! **Two times.** Whether this keeper was silent is judged by the clock. Whether the daemon is absent is
//! judged by when its words were last looked for: a keeper that was stopped between listening and
//! acting wakes with a daemon that has been calling all the while, and must hear it first.
//!
//! There is no way out of Resetting: the hardware watchdog is not fed any more, and peers may have
//! given this node up.
//!
//! **A reset that fails.** The node lives on, against the keeper's will. Then silence would do the
//! harm that the reset was to avert: the kernel would bury peers that live. So the beats go on
//! while the reset is tried every second and the watchdog runs out. Only when the silence has been so
//! long that the kernel may have buried them already nothing is beaten any more: to show it the dead
//! alive would not undo the recovery of their journals.

use crate::clock::Millis;
use crate::record::Status;
use crate::timing::{MARGIN_MS, PING_MS};
use crate::{Area, BEATS_MAX, Generation, Line, Settings, Slot};

/// From one try of a reset to the next, in milliseconds.
pub const RESET_RETRY_MS: u64 = 1000;

/// One slot that is beaten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Its region.
    pub area: Area,
    /// Its place there.
    pub slot: Slot,
    /// What it says of the node's life.
    pub generation: Generation,
    /// What was written last.
    pub seq: u64,
}

/// Why the node is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No daemon for too long.
    DaemonAbsent,
    /// The keeper itself has not beaten for too long.
    Silent,
    /// The daemon wants it.
    Asked,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: wait.
    Nothing,
    /// Write all slots, and report with [`State::round_completed`] unless one failed.
    Round,
    /// Reset the node.
    Reset(Reason),
    /// Nothing to beat, and nobody there: end.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Beating,
    Resetting { reason: Reason, try_at: Millis },
}

/// All that the keeper knows.
#[derive(Debug)]
pub struct State {
    beat_ms: u64,
    daemon_back_ms: u64,
    silence_max_ms: u64,
    buried_ms: u64,
    phase: Phase,
    /// Sorted by area and slot. Never grows beyond its first allocation.
    beats: Vec<Beat>,
    line: Option<Line>,
    seen: Millis,
    round_at: Millis,
    completed: Millis,
}

impl State {
    /// A keeper that beats nothing. Allocates all the memory that it will ever need.
    #[must_use]
    pub fn new(settings: &Settings, now: Millis) -> Self {
        Self {
            beat_ms: settings.beat_ms,
            daemon_back_ms: settings.daemon_back_ms,
            silence_max_ms: settings.silence_max_ms,
            buried_ms: settings.dead_ms().saturating_sub(MARGIN_MS),
            phase: Phase::Idle,
            beats: Vec::with_capacity(BEATS_MAX),
            line: None,
            seen: now,
            round_at: now,
            completed: now,
        }
    }

    /// The slots that are beaten.
    #[must_use]
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// One of them, to be written; `None` past the end.
    pub fn beat_mut(&mut self, index: usize) -> Option<&mut Beat> {
        self.beats.get_mut(index)
    }

    /// Whether the reset is decided.
    #[must_use]
    pub fn is_resetting(&self) -> bool {
        matches!(self.phase, Phase::Resetting { .. })
    }

    /// Whether the slot may be beaten: `Ok(true)` if it has to be written and
    /// [inserted](Self::insert), `Ok(false)` if it is beaten already.
    ///
    /// # Errors
    /// What to answer; nothing changed.
    pub fn admit(&self, area: Area, slot: Slot, generation: Generation) -> Result<bool, Status> {
        self.accepting()?;
        match self.position(area, slot) {
            Ok(index) if self.beats[index].generation == generation => Ok(false),
            Ok(_) => Err(Status::OtherGeneration),
            Err(_) if self.beats.len() >= BEATS_MAX => Err(Status::Full),
            Err(_) => Ok(true),
        }
    }

    /// Whether commands are accepted.
    ///
    /// # Errors
    /// The node is being reset.
    pub fn accepting(&self) -> Result<(), Status> {
        if self.is_resetting() { Err(Status::Resetting) } else { Ok(()) }
    }

    /// Beats the slot from now on: it has been admitted, and written for the first time.
    pub fn insert(&mut self, beat: Beat, now: Millis) {
        let Err(index) = self.position(beat.area, beat.slot) else { return };
        if self.beats.len() >= BEATS_MAX {
            return;
        }
        if self.beats.is_empty() {
            (self.round_at, self.completed) = (now, now);
        }
        self.beats.insert(index, beat);
        self.guard(now);
    }

    /// The line that is held.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        self.line
    }

    /// Whether the line may be held: `Ok(true)` if hands have to be shaken and it is to be
    /// [kept](Self::keep), `Ok(false)` if it is held already.
    ///
    /// # Errors
    /// What to answer; nothing changed.
    pub fn admit_line(&self, line: Line) -> Result<bool, Status> {
        self.accepting()?;
        match self.line {
            None => Ok(true),
            Some(held) if held == line => Ok(false),
            Some(_) => Err(Status::OtherLine),
        }
    }

    /// Holds the line from now on.
    pub fn keep(&mut self, line: Line, now: Millis) {
        self.line = Some(line);
        self.guard(now);
    }

    /// The line was let go.
    pub fn let_go(&mut self) {
        self.line = None;
        self.rest();
    }

    fn guard(&mut self, now: Millis) {
        if self.phase == Phase::Idle {
            (self.phase, self.round_at, self.completed) = (Phase::Beating, now, now);
        }
    }

    /// Beats the slot no more. Returns what was written last, if it was beaten.
    pub fn forget(&mut self, area: Area, slot: Slot) -> Option<u64> {
        let index = self.position(area, slot).ok()?;
        let beat = self.beats.remove(index);
        self.rest();
        Some(beat.seq)
    }

    /// Beats no slot of the area any more.
    pub fn forget_area(&mut self, area: Area) {
        self.beats.retain(|beat| beat.area != area);
        self.rest();
    }

    /// Whether the keeper may end.
    ///
    /// # Errors
    /// It still beats, or resets the node.
    pub fn stop(&self) -> Result<(), Status> {
        match self.phase {
            Phase::Idle => Ok(()),
            Phase::Beating => Err(Status::Beating),
            Phase::Resetting { .. } => Err(Status::Resetting),
        }
    }

    /// The daemon gave a sign of life.
    pub fn seen(&mut self, now: Millis) {
        self.seen = now;
    }

    /// The daemon's connection is gone, but the daemon was not here all the time until now just
    /// because nobody closed it: a daemon that hung before it was killed counts from its last ping.
    pub fn lost(&mut self, now: Millis) {
        self.seen = now.min(self.seen.plus(PING_MS));
    }

    /// The daemon wants the node to be reset. [`State::due`] says so next.
    pub fn reset(&mut self, now: Millis) {
        self.become_resetting(Reason::Asked, now);
    }

    /// What is to be done now, when all that the daemon had said until `heard` was taken. To be
    /// asked again until it is nothing.
    pub fn due(&mut self, now: Millis, heard: Millis) -> Due {
        match self.phase {
            Phase::Idle if self.is_daemon_absent(heard) => return Due::End,
            Phase::Idle => return Due::Nothing,
            Phase::Beating if !self.may_beat(now) => {
                self.become_resetting(Reason::Silent, now);
            }
            Phase::Beating if self.is_daemon_absent(heard) => {
                self.become_resetting(Reason::DaemonAbsent, now);
            }
            Phase::Beating | Phase::Resetting { .. } => {}
        }
        if let Phase::Resetting { reason, try_at } = self.phase {
            if now >= try_at {
                self.phase = Phase::Resetting { reason, try_at: now.plus(RESET_RETRY_MS) };
                return Due::Reset(reason);
            }
        }
        let is_round_due = now >= self.round_at.plus(self.beat_ms);
        let is_needed = self.phase == Phase::Beating || !self.beats.is_empty();
        if is_round_due && is_needed && self.may_beat(now) {
            self.round_at = now;
            return Due::Round;
        }
        Due::Nothing
    }

    /// How long [`State::due`] will have nothing to do unless something happens, in milliseconds.
    #[must_use]
    pub fn idle_ms(&self, now: Millis) -> u64 {
        let absent_at = self.seen.plus(self.daemon_back_ms);
        let round_at = self.round_at.plus(self.beat_ms);
        let at = match self.phase {
            Phase::Idle => absent_at,
            Phase::Beating => absent_at.min(round_at),
            Phase::Resetting { try_at, .. } if self.may_beat(now) => try_at.min(round_at),
            Phase::Resetting { try_at, .. } => try_at,
        };
        at.since(now)
    }

    /// Whether a slot may still be written: asked before each one, because the process may have been
    /// stopped since the last.
    #[must_use]
    pub fn may_beat(&self, now: Millis) -> bool {
        let silent_ms = now.since(self.completed);
        match self.phase {
            Phase::Idle => false,
            Phase::Beating => self.beats.is_empty() || silent_ms <= self.silence_max_ms,
            Phase::Resetting { .. } => silent_ms < self.buried_ms,
        }
    }

    /// Every slot was written in the round that began last. What is `false` came too late: the round
    /// hung, and counts as failed.
    pub fn round_completed(&mut self, now: Millis) -> bool {
        let is_in_time = self.may_beat(now);
        if is_in_time {
            self.completed = self.round_at;
        }
        is_in_time
    }

    fn is_daemon_absent(&self, heard: Millis) -> bool {
        heard.since(self.seen) >= self.daemon_back_ms
    }

    fn position(&self, area: Area, slot: Slot) -> Result<usize, usize> {
        self.beats.binary_search_by_key(&(area, slot), |beat| (beat.area, beat.slot))
    }

    fn rest(&mut self) {
        let is_free = self.beats.is_empty() && self.line.is_none();
        if is_free && self.phase == Phase::Beating {
            self.phase = Phase::Idle;
        }
    }

    /// The next round waits for a beat: nothing is written in the moment of the reset.
    fn become_resetting(&mut self, reason: Reason, now: Millis) {
        self.round_at = now;
        self.phase = Phase::Resetting { reason, try_at: now };
    }
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
