//! The watch's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use o2bridge_core::{DeviceId, GroupId};

use super::guard::Guard;
use super::helpers::{Helpers, look_for_beats};
use super::survey::Survey;
use super::{Beats, Change, Guarded, Mail, Mount, Order, Post, Present, Settings};
use crate::volume::devices::{self, Device, Uevent, Uevents};
use crate::volume::{Lockspaces, lockspaces, mounts, superblock};

/// Uevents come in flocks: the list is looked at when they have had time to land, in ms. A device that they name need
/// not wait for it.
const FLOCK_MS: u64 = 200;
/// The pause between two looks at the lockspaces, in ms.
const LOCKSPACES_MS: u64 = 1_000;
/// The longest sleep, in ms.
const SLEEP_MS_MAX: u64 = 60_000;
/// The pause after a poll that failed, so that a bug does not eat a processor.
const POLL_FAILED: Duration = Duration::from_millis(100);

pub(super) struct Eye {
    settings: Settings,
    tell: Box<dyn FnMut(Change) + Send>,
    post: Post,
    mail: Receiver<Mail>,
    ear: UnixStream,
    uevents: Option<Uevents>,
    /// Kept open: the kernel counts the changes for each open table.
    table: Option<File>,
    started: Instant,
    survey: Survey,
    /// For superblocks.
    readers: Helpers,
    /// For beats: a look takes seconds even where all is well.
    lookers: Helpers,
    guards: BTreeMap<GroupId, Guard>,
    /// What is to be guarded, also while there is no thread for it.
    guarded: BTreeMap<GroupId, Guarded>,
    /// The looks for beats under way: which, and until when an answer is waited for.
    looks: BTreeMap<GroupId, (u64, u64)>,
    next_token: u64,
    list_at: u64,
    /// The table as it was last read.
    mounts: Option<Vec<Mount>>,
    /// The volumes of mounted devices, which may be dead or gone by now.
    known: BTreeMap<DeviceId, GroupId>,
    told_volumes: Option<Vec<Present>>,
    told_mounts: Option<Vec<Mount>>,
    /// When the lockspaces are looked at next.
    lockspaces_at: u64,
    told_lockspaces: Option<Lockspaces>,
}

/// What woke the thread.
struct Woken {
    uevents: bool,
    table: bool,
}

impl Eye {
    pub(super) fn new(
        settings: Settings,
        post: Post,
        mail: Receiver<Mail>,
        ear: UnixStream,
        tell: Box<dyn FnMut(Change) + Send>,
    ) -> Self {
        Self {
            tell,
            post,
            mail,
            ear,
            // Without it the timer sees every change too, only later.
            uevents: Uevents::open().ok(),
            table: File::open(&settings.mountinfo).ok(),
            started: Instant::now(),
            survey: Survey::new(settings.reread_ms, settings.answer_ms),
            readers: Helpers::new(Duration::from_millis(settings.answer_ms)),
            lookers: Helpers::new(Duration::from_millis(patience_with_look_ms(&settings))),
            settings,
            guards: BTreeMap::new(),
            guarded: BTreeMap::new(),
            looks: BTreeMap::new(),
            next_token: 0,
            list_at: 0,
            mounts: None,
            known: BTreeMap::new(),
            told_volumes: None,
            told_mounts: None,
            lockspaces_at: 0,
            told_lockspaces: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let woken = self.sleep();
            while let Ok(mail) = self.mail.try_recv() {
                match mail {
                    Mail::Stop => return,
                    Mail::Order(order) => self.obey(order),
                    Mail::Superblock(device, result) => {
                        self.survey.answer(&device, result, self.now())
                    }
                    Mail::Beats { uuid, token, beats } => self.answer_look(uuid, token, beats),
                }
            }
            if woken.uevents {
                self.hear_uevents();
            }
            let now = self.now();
            if now >= self.list_at {
                self.list_at = now.saturating_add(self.settings.list_ms);
                self.list(now);
                self.read_table();
            } else if woken.table {
                self.read_table();
            }
            self.read_due(now);
            self.give_up_looks(now);
            self.tell_volumes(now);
            self.tell_lockspaces(now);
            self.tell_mounts();
            self.tell_storage();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for any word, or for the next thing that is due.
    fn sleep(&mut self) -> Woken {
        let pulse = (!self.guarded.is_empty()).then(|| self.now() + self.settings.storage_ms / 2);
        let looks = self.looks.values().map(|(_, until)| *until);
        let lockspaces = self.settings.lockspaces.as_ref().map(|_| self.lockspaces_at);
        let times = looks.chain(self.survey.next_at(self.now())).chain(pulse).chain(lockspaces);
        let times = times.chain([self.list_at]);
        let at = times.min().unwrap_or(u64::MAX);
        let ms = at.saturating_sub(self.now()).min(SLEEP_MS_MAX);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::ZERO);

        let ear = PollFd::new(self.ear.as_fd(), PollFlags::POLLIN);
        let uevents = self.uevents.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        let table = self.table.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI));
        let (has_uevents, has_table) = (uevents.is_some(), table.is_some());
        let mut fds: Vec<PollFd<'_>> = [Some(ear), uevents, table].into_iter().flatten().collect();
        if poll(&mut fds, timeout).is_err() {
            std::thread::sleep(POLL_FAILED);
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        ready.next();
        let woken = Woken {
            uevents: has_uevents && ready.next().unwrap_or(false),
            table: has_table && ready.next().unwrap_or(false),
        };
        while self.ear.read(&mut [0; 256]).is_ok_and(|len| len > 0) {}
        woken
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Beats { uuid, devices } => self.look(uuid, devices),
            Order::Reread => {
                self.list_at = 0;
                self.survey.hint(None, self.now());
            }
            Order::Guard(guarded) => {
                self.guards.retain(|uuid, guard| guarded.get(uuid) == Some(&guard.guarded));
                self.guarded = guarded;
            }
        }
    }

    fn look(&mut self, uuid: GroupId, devices: Vec<Device>) {
        self.next_token += 1;
        let (token, post) = (self.next_token, self.post.clone());
        let clusters = self.settings.clusters.clone();
        let pause = Duration::from_millis(self.settings.beats_ms);
        let job = move |place| {
            let beats = look_for_beats(&devices, &clusters, pause);
            drop(place);
            post.send(Mail::Beats { uuid, token, beats });
        };
        if self.lookers.start(job) {
            let patience_ms = patience_with_look_ms(&self.settings);
            self.looks.insert(uuid, (token, self.now().saturating_add(patience_ms)));
        } else {
            self.looks.remove(&uuid);
            self.unknown(uuid, "too many disks do not answer");
        }
    }

    fn answer_look(&mut self, uuid: GroupId, token: u64, beats: Beats) {
        // An answer to an earlier order, or one that came too late, is not waited for any more.
        if self.looks.get(&uuid).is_some_and(|(asked, _)| *asked == token) {
            self.looks.remove(&uuid);
            (self.tell)(Change::Beats { uuid, beats });
        }
    }

    fn give_up_looks(&mut self, now: u64) {
        let late: Vec<GroupId> =
            self.looks.iter().filter(|(_, look)| look.1 <= now).map(|(uuid, _)| *uuid).collect();
        for uuid in late {
            self.looks.remove(&uuid);
            self.unknown(uuid, "the disk does not answer");
        }
    }

    fn unknown(&mut self, uuid: GroupId, why: &str) {
        (self.tell)(Change::Beats { uuid, beats: Beats::Unknown { why: why.into() } });
    }

    fn hear_uevents(&mut self) {
        let now = self.now();
        let Some(uevents) = &mut self.uevents else { return };
        let mut heard = false;
        let mut names = BTreeSet::new();
        while let Some(uevent) = uevents.next() {
            heard = true;
            match uevent {
                Uevent::Block(name) => drop(names.insert(name)),
                Uevent::Lockspace => self.lockspaces_at = now,
                Uevent::Lost => {
                    self.survey.hint(None, now.saturating_add(FLOCK_MS));
                    self.lockspaces_at = now;
                }
            }
        }
        names.iter().for_each(|name| self.hear_of(name, now));
        if heard {
            self.list_at = self.list_at.min(now.saturating_add(FLOCK_MS));
        }
    }

    /// A new device is not waited for: it may be mounted at once.
    fn hear_of(&mut self, name: &str, now: u64) {
        if self.survey.knows(name) {
            self.survey.hint(Some(name), now);
        } else {
            let found = devices::find(&self.settings.sys, &self.settings.dev, name);
            found.into_iter().for_each(|device| self.survey.add(device, now));
        }
    }

    /// A list that cannot be read says nothing about devices.
    fn list(&mut self, now: u64) {
        if let Ok(devices) = devices::list(&self.settings.sys, &self.settings.dev) {
            self.survey.list(devices, now);
        }
    }

    fn read_due(&mut self, now: u64) {
        for device in self.survey.take_due(self.readers.free(), now) {
            let (post, target) = (self.post.clone(), device.clone());
            let begun = self.readers.start(move |place| {
                let result = superblock::read(&target.path);
                drop(place);
                post.send(Mail::Superblock(target, result));
            });
            if !begun {
                self.survey.postpone(&device, now);
            }
        }
    }

    /// A table that cannot be read or understood says nothing about mounts.
    fn read_table(&mut self) {
        let text = std::fs::read(&self.settings.mountinfo).ok();
        if let Some(read) = text.and_then(|text| mounts::mounts(&text)) {
            self.mounts = Some(read);
        }
    }

    fn tell_volumes(&mut self, now: u64) {
        if let Some(present) = self.survey.news(self.told_volumes.as_deref(), now) {
            self.told_volumes = Some(present.clone());
            (self.tell)(Change::Volumes(present));
        }
    }

    /// Who uses a lockspace changes without a word of the kernel.
    fn tell_lockspaces(&mut self, now: u64) {
        let Some(places) = &self.settings.lockspaces else { return };
        if self.told_volumes.is_none() || now < self.lockspaces_at {
            return;
        }
        self.lockspaces_at = now.saturating_add(LOCKSPACES_MS);
        let Ok(found) = lockspaces::lockspaces(places) else { return };
        if self.told_lockspaces.as_ref() != Some(&found) {
            self.told_lockspaces = Some(found.clone());
            (self.tell)(Change::Lockspaces(found));
        }
    }

    fn tell_mounts(&mut self) {
        let is_watched = self.settings.lockspaces.is_some();
        let is_time =
            self.told_volumes.is_some() && (!is_watched || self.told_lockspaces.is_some());
        let Some(mounts) = self.mounts.as_ref().filter(|_| is_time) else { return };
        let is_mounted = |device: &DeviceId| mounts.iter().any(|mount| mount.device == *device);
        self.known.retain(|device, _| is_mounted(device));
        self.known.extend(self.survey.uuids().filter(|(device, _)| is_mounted(device)));
        let whole = |mount: &Mount| Mount {
            uuid: self.known.get(&mount.device).copied(),
            path: self.survey.path_of(mount.device),
            ..mount.clone()
        };
        let mounts: Vec<Mount> = mounts.iter().map(whole).collect();
        if self.told_mounts.as_ref() != Some(&mounts) {
            self.told_mounts = Some(mounts.clone());
            (self.tell)(Change::Mounts(mounts));
        }
    }

    fn tell_storage(&mut self) {
        let pause = Duration::from_millis(self.settings.storage_ms);
        let silent = Duration::from_millis(self.settings.silent_ms);
        for (uuid, guarded) in &self.guarded {
            // A guard that there is no thread for is tried again in the next round.
            if !self.guards.contains_key(uuid) {
                let started = Guard::start(guarded.clone(), pause).ok();
                self.guards.extend(started.map(|guard| (*uuid, guard)));
            }
        }
        for (uuid, guard) in &mut self.guards {
            if let Some(health) = guard.news(silent, pause) {
                (self.tell)(Change::Storage { uuid: *uuid, health });
            }
        }
    }
}

/// How long a look for beats may take.
fn patience_with_look_ms(settings: &Settings) -> u64 {
    settings.beats_ms.saturating_add(settings.answer_ms.saturating_mul(2))
}
