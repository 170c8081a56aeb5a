//! What is known of each device, and which has to be read. Pure; times are milliseconds.
//!
//! | device \ event | listed, or heard of | listed as another | not listed | hint | due, and there is a helper | no helper | answer | first answer is an error | no answer in time |
//! |---|---|---|---|---|---|---|---|---|---|
//! | unknown | → due, unread | - | - | - | - | - | - | - | - |
//! | due     | - | → due, unread | forgotten | - | → asked | stays; unread: gone on without after twice the time | - | - | - |
//! | asked   | - | → due, unread | forgotten | asked again after the answer | - | - | → read | → failed | gone on without |
//! | failed  | - | → due, unread | forgotten | → due | → asked, after 1 s, then 2 s and so on | stays | - | - | - |
//! | read    | - | → due, unread | forgotten | → due | → asked | stays | - | - | - |
//!
//! A disk that cannot be read keeps what it last said: an error is no proof that the volume is
//! gone. Of one that never said anything, an error is no proof that there is none: it may not be ready yet.
//!
//! Who was never read comes before all others. Twice the time: should all helpers be with disks that do not answer, that
//! is noticed after once, and those behind them have their turn then.

use std::collections::BTreeMap;
use std::path::PathBuf;

use o2bridge_core::{DeviceId, GroupId};

use super::Present;
use crate::volume::devices::Device;
use crate::volume::disk::VolumeError;
use crate::volume::superblock::Superblock;

/// How long a reading that could not be begun waits for the next try, unless another one ends, in ms.
const POSTPONED_MS: u64 = 1_000;
/// The pause after the first reading of a device if that fails; the next ones are twice as long each, in ms.
const FAILED_MS: u64 = 1_000;
/// Hints come in flocks: between two readings of a device there is this much at least, in ms.
const FLOCK_MS: u64 = 200;

#[derive(Debug)]
pub(super) struct Survey {
    seen: BTreeMap<String, Seen>,
    reread_ms: u64,
    answer_ms: u64,
    /// When to look for a helper again, should none be free.
    helped_at: u64,
}

#[derive(Debug)]
struct Seen {
    device: Device,
    superblock: Option<Superblock>,
    listed_at: u64,
    due_at: u64,
    asked_at: Option<u64>,
    /// When it may be asked again for a hint.
    hinted_at: u64,
    known: Known,
}

/// What came of its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    Unread,
    /// Nothing but errors, and the last pause.
    Failed {
        pause_ms: u64,
    },
    Read,
}

impl Seen {
    fn new(device: Device, now: u64) -> Self {
        Self {
            device,
            superblock: None,
            listed_at: now,
            due_at: now,
            asked_at: None,
            hinted_at: now,
            known: Known::Unread,
        }
    }

    /// How long the first answer is waited for.
    fn patience_ends(&self, answer_ms: u64) -> Option<u64> {
        let ends = match self.asked_at {
            Some(at) => at.saturating_add(answer_ms),
            None => self.listed_at.saturating_add(answer_ms.saturating_mul(2)),
        };
        (self.known == Known::Unread).then_some(ends)
    }

    fn fail(&mut self, reread_ms: u64, now: u64) {
        let pause_ms = match self.known {
            Known::Unread => FAILED_MS,
            Known::Failed { pause_ms } => pause_ms.saturating_mul(2),
            Known::Read => return,
        };
        let pause_ms = pause_ms.min(reread_ms);
        self.known = Known::Failed { pause_ms };
        self.due_at = self.due_at.min(now.saturating_add(pause_ms));
    }
}

impl Survey {
    pub(super) fn new(reread_ms: u64, answer_ms: u64) -> Self {
        Self { seen: BTreeMap::new(), reread_ms, answer_ms, helped_at: 0 }
    }

    /// These are the devices now.
    pub(super) fn list(&mut self, devices: Vec<Device>, now: u64) {
        let mut old = std::mem::take(&mut self.seen);
        for device in devices {
            let known = old.remove(&device.name).filter(|seen| seen.device == device);
            let name = device.name.clone();
            self.seen.insert(name, known.unwrap_or_else(|| Seen::new(device, now)));
        }
    }

    /// Whether there is a device of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// This device is new.
    pub(super) fn add(&mut self, device: Device, now: u64) {
        self.seen.entry(device.name.clone()).or_insert_with(|| Seen::new(device, now));
    }

    /// Something may have happened to this device, or with `None` to any of them.
    pub(super) fn hint(&mut self, name: Option<&str>, now: u64) {
        let meant =
            self.seen.values_mut().filter(|seen| name.is_none_or(|name| seen.device.name == name));
        meant.for_each(|seen| seen.due_at = seen.due_at.min(seen.hinted_at.max(now)));
    }

    /// The devices that have to be read now, as many as there are helpers; taken as asked.
    pub(super) fn take_due(&mut self, helpers: usize, now: u64) -> Vec<Device> {
        let due =
            self.seen.values_mut().filter(|seen| seen.asked_at.is_none() && seen.due_at <= now);
        let mut due: Vec<&mut Seen> = due.collect();
        due.sort_by_key(|seen| (seen.known != Known::Unread, seen.due_at));
        if due.len() > helpers {
            self.helped_at = now.saturating_add(POSTPONED_MS);
        }
        let asked = due.into_iter().take(helpers).map(|seen| {
            seen.asked_at = Some(now);
            seen.due_at = now.saturating_add(self.reread_ms);
            seen.hinted_at = now.saturating_add(FLOCK_MS);
            seen.device.clone()
        });
        asked.collect()
    }

    /// A reading could not be begun.
    pub(super) fn postpone(&mut self, device: &Device, now: u64) {
        if let Some(seen) = self.seen.get_mut(&device.name) {
            seen.asked_at = None;
            seen.due_at = now;
            self.helped_at = now.saturating_add(POSTPONED_MS);
        }
    }

    /// A reading ended, and its helper is free.
    pub(super) fn answer(
        &mut self,
        device: &Device,
        result: Result<Superblock, VolumeError>,
        now: u64,
    ) {
        self.helped_at = 0;
        let Some(seen) = self.seen.get_mut(&device.name).filter(|seen| seen.device == *device)
        else {
            return;
        };
        seen.asked_at = None;
        match result {
            Ok(superblock) => seen.superblock = Some(superblock),
            Err(VolumeError::NoVolume(_)) => seen.superblock = None,
            Err(VolumeError::Io { .. } | VolumeError::NoHeartbeat(_)) => {
                return seen.fail(self.reread_ms, now);
            }
        }
        seen.known = Known::Read;
    }

    /// Whether every new device was read, or had its time.
    pub(super) fn is_settled(&self, now: u64) -> bool {
        let mut waiting = self.seen.values().filter_map(|seen| seen.patience_ends(self.answer_ms));
        waiting.all(|until| until <= now)
    }

    /// The volumes, in the order of their devices' names.
    pub(super) fn present(&self) -> Vec<Present> {
        let volumes = self.seen.values().filter_map(|seen| {
            let superblock = seen.superblock.clone()?;
            Some(Present { device: seen.device.clone(), superblock })
        });
        volumes.collect()
    }

    /// The volumes, if there is anything new to tell after what was told. The first word is about all of them; after
    /// it each that comes is told at once. One that is seen no more may be on a device that was not read yet, such as a
    /// multipath device over the one that showed it: it is told to be gone only when all are.
    pub(super) fn news(&self, told: Option<&[Present]>, now: u64) -> Option<Vec<Present>> {
        let mut present = self.present();
        if !self.is_settled(now) {
            let is_seen = |it: &Present| present.iter().any(|other| same_volume(it, other));
            let unseen: Vec<Present> = told?.iter().filter(|it| !is_seen(it)).cloned().collect();
            present.extend(unseen);
            present.sort_by(|a, b| a.device.name.cmp(&b.device.name));
        }
        (told != Some(&present)).then_some(present)
    }

    /// The volume on each device.
    pub(super) fn uuids(&self) -> impl Iterator<Item = (DeviceId, GroupId)> + '_ {
        self.seen
            .values()
            .filter_map(|seen| Some((seen.device.number, seen.superblock.as_ref()?.uuid)))
    }

    /// The node of a device.
    pub(super) fn path_of(&self, number: DeviceId) -> Option<PathBuf> {
        let mut devices = self.seen.values().map(|seen| &seen.device);
        devices.find(|device| device.number == number).map(|device| device.path.clone())
    }

    /// When something is due, or late that was not.
    pub(super) fn next_at(&self, now: u64) -> Option<u64> {
        let due = |seen: &Seen| match seen.asked_at {
            None => Some(seen.due_at.max(self.helped_at)),
            Some(_) => None,
        };
        let due = self.seen.values().filter_map(due);
        let late = self.seen.values().filter_map(|seen| seen.patience_ends(self.answer_ms));
        due.chain(late.filter(|at| *at > now)).min()
    }
}

fn same_volume(one: &Present, other: &Present) -> bool {
    one.superblock.uuid == other.superblock.uuid
}

#[cfg(test)]
mod tests;
