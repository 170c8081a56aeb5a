//! What is known of each device, and which has to be read. Pure; times are milliseconds.
//!
//! | device \ event | listed | listed as another | not listed | hint | due | answer | no answer in time |
//! |---|---|---|---|---|---|---|---|
//! | unknown | → due, unread | - | - | - | - | - | - |
//! | due     | - | → due, unread | forgotten | - | → asked | - | - |
//! | asked   | - | → due, unread | forgotten | asked again after the answer | - | → read | gone on without |
//! | read    | - | → due, unread | forgotten | → due | → asked | - | - |
//!
//! A disk that cannot be read keeps what it last said: an error is no proof that the volume is
//! gone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use o2bridge_core::{DeviceId, GroupId};

use super::Present;
use crate::volume::devices::Device;
use crate::volume::disk::VolumeError;
use crate::volume::superblock::Superblock;

/// How long a reading that could not be begun waits for the next try, in ms.
const POSTPONED_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Survey {
    seen: BTreeMap<String, Seen>,
    reread_ms: u64,
    answer_ms: u64,
}

#[derive(Debug)]
struct Seen {
    device: Device,
    superblock: Option<Superblock>,
    due_at: u64,
    asked_at: Option<u64>,
    was_read: bool,
}

impl Survey {
    pub(super) fn new(reread_ms: u64, answer_ms: u64) -> Self {
        Self { seen: BTreeMap::new(), reread_ms, answer_ms }
    }

    /// These are the devices now.
    pub(super) fn list(&mut self, devices: Vec<Device>, now: u64) {
        let mut old = std::mem::take(&mut self.seen);
        for device in devices {
            let known = old.remove(&device.name).filter(|seen| seen.device == device);
            let fresh = || Seen {
                device: device.clone(),
                superblock: None,
                due_at: now,
                asked_at: None,
                was_read: false,
            };
            self.seen.insert(device.name.clone(), known.unwrap_or_else(fresh));
        }
    }

    /// Something may have happened to this device, or with `None` to any of them.
    pub(super) fn hint(&mut self, name: Option<&str>, now: u64) {
        let meant =
            self.seen.values_mut().filter(|seen| name.is_none_or(|name| seen.device.name == name));
        meant.for_each(|seen| seen.due_at = seen.due_at.min(now));
    }

    /// The devices that have to be read now; taken as asked.
    pub(super) fn take_due(&mut self, now: u64) -> Vec<Device> {
        let due =
            self.seen.values_mut().filter(|seen| seen.asked_at.is_none() && seen.due_at <= now);
        due.map(|seen| {
            seen.asked_at = Some(now);
            seen.due_at = now.saturating_add(self.reread_ms);
            seen.device.clone()
        })
        .collect()
    }

    /// A reading could not be begun.
    pub(super) fn postpone(&mut self, device: &Device, now: u64) {
        if let Some(seen) = self.seen.get_mut(&device.name) {
            seen.asked_at = None;
            seen.due_at = now.saturating_add(POSTPONED_MS);
        }
    }

    /// A reading ended.
    pub(super) fn answer(&mut self, device: &Device, result: Result<Superblock, VolumeError>) {
        let Some(seen) = self.seen.get_mut(&device.name).filter(|seen| seen.device == *device)
        else {
            return;
        };
        seen.asked_at = None;
        seen.was_read = true;
        match result {
            Ok(superblock) => seen.superblock = Some(superblock),
            Err(VolumeError::NoVolume(_)) => seen.superblock = None,
            Err(VolumeError::Io { .. } | VolumeError::NoHeartbeat(_)) => {}
        }
    }

    /// Whether every new device was read, or had its time.
    pub(super) fn is_settled(&self, now: u64) -> bool {
        let waiting = |seen: &Seen| {
            let patience = seen.asked_at.map(|at| at.saturating_add(self.answer_ms));
            !seen.was_read && patience.is_some_and(|until| now < until)
        };
        !self.seen.values().any(waiting)
    }

    /// The volumes, in the order of their devices' names.
    pub(super) fn present(&self) -> Vec<Present> {
        let volumes = self.seen.values().filter_map(|seen| {
            let superblock = seen.superblock.clone()?;
            Some(Present { device: seen.device.clone(), superblock })
        });
        volumes.collect()
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

    /// When something is due, or late.
    pub(super) fn next_at(&self) -> Option<u64> {
        let at = |seen: &Seen| match seen.asked_at {
            None => Some(seen.due_at),
            Some(at) if !seen.was_read => Some(at.saturating_add(self.answer_ms)),
            Some(_) => None,
        };
        self.seen.values().filter_map(at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::superblock::{Bad, Stack};

    fn device(name: &str, number: u64) -> Device {
        Device { name: name.into(), path: name.into(), number: DeviceId(number), sectors: 8 }
    }

    fn superblock(uuid: u128) -> Superblock {
        Superblock {
            uuid: GroupId(uuid),
            label: String::new(),
            stack: Stack::Classic,
            block_bytes: 4096,
            cluster_bytes: 4096,
            slots_max: 2,
            is_local: false,
            is_heartbeat_device: false,
            is_in_repair: false,
            system_dir_block: 6,
        }
    }

    fn uuids(survey: &Survey) -> Vec<u128> {
        survey.present().iter().map(|present| present.superblock.uuid.0).collect()
    }

    fn io() -> Result<Superblock, VolumeError> {
        let source = std::io::ErrorKind::Other.into();
        Err(VolumeError::Io { step: "read", path: "x".into(), source })
    }

    /// Two devices, one of them a volume.
    fn read() -> Survey {
        let mut survey = Survey::new(1_000, 100);
        survey.list(vec![device("a", 1), device("b", 2)], 0);
        assert_eq!(survey.take_due(0), [device("a", 1), device("b", 2)]);
        survey.answer(&device("a", 1), Ok(superblock(7)));
        survey.answer(&device("b", 2), Err(VolumeError::NoVolume(Bad::NoSignature)));
        survey
    }

    #[test]
    fn listed_due_asked_read() {
        let mut survey = Survey::new(1_000, 100);
        assert!(survey.is_settled(0));
        assert_eq!(survey.next_at(), None);
        survey.list(vec![device("a", 1)], 5);
        assert_eq!(survey.next_at(), Some(5));
        assert_eq!(survey.take_due(4), []);
        assert_eq!(survey.take_due(5), [device("a", 1)]);
        assert_eq!(survey.take_due(5), [], "asked once");
        assert_eq!(survey.next_at(), Some(105), "its deadline");
        assert!(!survey.is_settled(104));
        assert!(survey.is_settled(105), "gone on without");
        survey.answer(&device("a", 1), Ok(superblock(7)));
        assert!(survey.is_settled(6));
        assert_eq!(uuids(&survey), [7]);
        assert_eq!(survey.uuids().collect::<Vec<_>>(), [(DeviceId(1), GroupId(7))]);
        assert_eq!(survey.path_of(DeviceId(1)), Some("a".into()));
        assert_eq!(survey.path_of(DeviceId(2)), None);
        assert_eq!(survey.next_at(), Some(1_005), "to be read again");
        assert_eq!(survey.take_due(1_005), [device("a", 1)]);
        assert!(survey.is_settled(1_006), "a second reading holds nobody up");
        assert_eq!(survey.next_at(), None, "and a dead disk is not asked on top");
    }

    #[test]
    fn a_hint_makes_due() {
        let mut survey = read();
        survey.hint(Some("b"), 50);
        survey.hint(Some("nobody"), 50);
        assert_eq!(survey.take_due(50), [device("b", 2)]);
        survey.hint(None, 60);
        assert_eq!(survey.take_due(60), [device("a", 1)], "b is asked already");
        survey.answer(&device("b", 2), Ok(superblock(8)));
        assert_eq!(survey.take_due(60), [device("b", 2)], "and once more after that");
        assert_eq!(uuids(&survey), [7, 8]);
    }

    #[test]
    fn gone_and_replaced() {
        let mut survey = read();
        survey.list(vec![device("a", 1)], 10);
        assert_eq!(uuids(&survey), [7], "as it was");
        assert_eq!(survey.take_due(10), []);
        survey.list(vec![device("a", 9)], 20);
        assert_eq!(uuids(&survey), [], "another device of that name");
        assert_eq!(survey.take_due(20), [device("a", 9)]);
        survey.answer(&device("a", 1), Ok(superblock(7)));
        assert_eq!(uuids(&survey), [], "a late answer of the one before");
        survey.list(vec![], 30);
        assert_eq!(survey.next_at(), None);
        survey.answer(&device("a", 9), Ok(superblock(7)));
        assert_eq!(uuids(&survey), []);
    }

    #[test]
    fn an_error_is_no_proof() {
        let mut survey = read();
        survey.hint(None, 10);
        survey.take_due(10);
        survey.answer(&device("a", 1), io());
        assert_eq!(uuids(&survey), [7]);
        survey.hint(None, 20);
        survey.take_due(20);
        survey.answer(&device("a", 1), Err(VolumeError::NoVolume(Bad::NoSignature)));
        assert_eq!(uuids(&survey), [] as [u128; 0], "wiped");
    }

    #[test]
    fn a_reading_that_could_not_begin() {
        let mut survey = Survey::new(1_000, 100);
        survey.list(vec![device("a", 1)], 0);
        survey.take_due(0);
        survey.postpone(&device("a", 1), 0);
        survey.postpone(&device("b", 2), 0);
        assert!(survey.is_settled(0));
        assert_eq!(survey.next_at(), Some(POSTPONED_MS));
        assert_eq!(survey.take_due(POSTPONED_MS), [device("a", 1)]);
    }
}
