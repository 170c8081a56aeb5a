//! What the daemon can ask for. Every write comes before its answer.

use super::say::say;
use super::server::Server;
use crate::clock::now;
use crate::record::{Record, Status};
use crate::state::{Beat, Due};
use crate::{Area, Generation, Line, Slot};

impl Server {
    pub(super) fn entry(&self, asked: Record) -> Record {
        let index = usize::try_from(asked.value).unwrap_or(usize::MAX);
        match self.state.beats().get(index) {
            Some(beat) => {
                let generation = beat.generation.0.get();
                let (area, slot) = (beat.area.0, beat.slot.0);
                Record { area, slot, generation, ..asked.answer(Status::Entry) }
            }
            None if index == self.state.beats().len() && self.state.line().is_some() => {
                let generation = self.state.line().map_or(0, Line::to_bits);
                Record { generation, ..asked.answer(Status::Held) }
            }
            None => {
                let generation = u64::from(self.fingerprint);
                Record { generation, value: self.missing, ..asked.answer(Status::Done) }
            }
        }
    }

    pub(super) fn beat(&mut self, asked: Record) -> Result<(), Status> {
        let (area, slot) = self.place(asked)?;
        let generation = Generation::new(asked.generation).ok_or(Status::OutOfRange)?;
        if !self.state.admit(area, slot, generation)? {
            return Ok(());
        }
        self.hands.arm().map_err(|_| Status::Watchdog)?;
        let written = self.device.seq(area, slot).and_then(|seq| {
            let seq = seq.wrapping_add(1);
            self.device.write(area, slot, seq, asked.generation).map(|()| seq)
        });
        match written {
            Ok(seq) => self.state.insert(Beat { area, slot, generation, seq }, now()),
            Err(_) => self.rest(),
        }
        written.map(|_| ()).map_err(|_| Status::Device)
    }

    /// The write comes before the answer, and nothing is beaten again even if it fails: the slot
    /// then falls silent, which is the same word said slowly.
    pub(super) fn down(&mut self, asked: Record) -> Result<(), Status> {
        let (area, slot) = self.place(asked)?;
        self.state.accepting()?;
        let last = self.state.forget(area, slot);
        let seq = last.map_or_else(|| self.device.seq(area, slot), Ok);
        let written = seq.and_then(|seq| self.device.write(area, slot, seq.wrapping_add(1), 0));
        self.rest();
        written.map_err(|_| Status::Device)
    }

    pub(super) fn clear(&mut self, asked: Record) -> Result<(), Status> {
        let (area, _) = self.place(Record { slot: 0, ..asked })?;
        self.state.accepting()?;
        self.state.forget_area(area);
        let wiped = self.device.wipe(area);
        self.rest();
        wiped.map_err(|_| Status::Device)
    }

    /// Refused by the kernel if another process holds another line.
    pub(super) fn hold(&mut self, asked: Record) -> Result<(), Status> {
        let line = Line::from_bits(asked.generation).ok_or(Status::OutOfRange)?;
        if !self.state.admit_line(line)? {
            return Ok(());
        }
        self.hands.arm().map_err(|_| Status::Watchdog)?;
        if let Err(error) = self.hands.hold(line) {
            say(format_args!("cannot hold the line of {line}: {error}"));
            self.rest();
            return Err(Status::Control);
        }
        self.state.keep(line, now());
        Ok(())
    }

    pub(super) fn release(&mut self) -> Result<(), Status> {
        self.state.accepting()?;
        self.hands.let_go();
        self.state.let_go();
        self.rest();
        Ok(())
    }

    pub(super) fn reset_asked(&mut self) -> Result<(), Status> {
        let now = now();
        self.state.reset(now);
        match self.state.due(now, now) {
            Due::Reset(reason) => self.reset(reason).map_err(|_| Status::ResetFailed),
            Due::Nothing | Due::Round | Due::End => Ok(()),
        }
    }

    fn place(&self, asked: Record) -> Result<(Area, Slot), Status> {
        let (area, slot) = (Area(asked.area), Slot(asked.slot));
        if self.device.has(area, slot) { Ok((area, slot)) } else { Err(Status::OutOfRange) }
    }

    /// Nothing to beat: nothing that the watchdog would have to guard.
    fn rest(&mut self) {
        if self.state.stop().is_ok() {
            if let Err(error) = self.hands.disarm() {
                say(format_args!("cannot stop the watchdog: {error}"));
            }
        }
    }
}
