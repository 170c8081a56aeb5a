//! The watch: one thread that says what changes about volumes, mounts and storage.
//!
//! ```text
//!   uevents ─────────┐                        ┌──▶ Volumes   which there are
//!   mount table ─────┼──▶ the watch's thread ─┼──▶ Mounts    where they are mounted
//!   lockspaces ──────┤                        ├──▶ Lockspaces of a user stack, and their users
//!   a timer ─────────┤    (never reads a disk)├──▶ Beats     who beats on a volume's disk
//!   orders ──────────┘        │        ▲      └──▶ Storage   whether a volume's disk answers
//!                             ▼        │
//!                    helpers, one for each reading of a disk; guards, one for each volume in use
//! ```
//!
//! A disk that is dead keeps whoever reads it. So each reading has a thread of its own and a
//! deadline, and a disk with a reading under way is not asked again: what hangs is one thread for
//! each dead disk. Of more disks than there are threads, those that were never read come first, each as
//! soon as a thread is free.
//!
//! A volume that comes may be mounted at once. So a new device is read when the kernel first names it, and its volume
//! is told of when it was read; the list of all devices, and who is gone, take their time.
//!
//! The guards are the only ones to notice that storage is lost while a volume is mounted: when the
//! kernel's heartbeat goes to memory, it does not stop with the disk. They ask by reading, so a
//! disk that can still be read and not written looks healthy to them.

mod eye;
mod guard;
mod helpers;
mod survey;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use o2bridge_core::GroupId;

use super::devices::Device;
use super::disk::VolumeError;
use super::lockspaces::{self, Lockspaces};
use super::superblock::Superblock;

pub use super::mounts::Mount;

/// Where to look, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
    /// o2cb's clusters in configfs.
    pub clusters: PathBuf,
    /// Where fs/dlm is, if its lockspaces are to be watched.
    pub lockspaces: Option<lockspaces::Places>,
    /// The pause between two looks at the list of devices and at the mount table, should the
    /// kernel's word about a change have been lost, in ms.
    pub list_ms: u64,
    /// The pause between two readings of a superblock, in ms: another node may have changed it.
    pub reread_ms: u64,
    /// How long a disk may take to answer before it is gone on without it, in ms.
    pub answer_ms: u64,
    /// The pause between two questions to the storage of a volume in use, in ms.
    pub storage_ms: u64,
    /// How long such a question may take before it is told to have no answer, in ms.
    pub silent_ms: u64,
    /// How far the two readings lie apart that show who beats, in ms.
    pub beats_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
            mountinfo: "/proc/self/mountinfo".into(),
            clusters: "/sys/kernel/config/cluster".into(),
            lockspaces: None,
            list_ms: 5_000,
            reread_ms: 15_000,
            answer_ms: 5_000,
            storage_ms: 2_000,
            silent_ms: 3_000,
            beats_ms: 6_000,
        }
    }
}

/// A volume on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The device.
    pub device: Device,
    /// What the volume says of itself, when it was last asked.
    pub superblock: Superblock,
}

/// Something is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These are all the volumes that there are, in the order of their devices' names. The first
    /// one comes once every device had its time to answer, and before that to be asked. After it one that
    /// comes is told of at once; one that is gone, once all devices had their time.
    Volumes(Vec<Present>),
    /// These are all the OCFS2 mounts. The first one comes after the first [`Change::Volumes`].
    Mounts(Vec<Mount>),
    /// These are all lockspaces of volumes. The first one comes before the first [`Change::Mounts`], if
    /// they are watched at all.
    Lockspaces(Lockspaces),
    /// The answer to [`Order::Beats`].
    Beats {
        /// Of this volume.
        uuid: GroupId,
        /// Who beats.
        beats: Beats,
    },
    /// How the storage of a guarded volume is: when that changes, and again and again while it is
    /// bad.
    Storage {
        /// Of this volume.
        uuid: GroupId,
        /// How.
        health: Health,
    },
}

/// Who beats on the disk of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beats {
    /// Nobody.
    Quiet,
    /// Somebody: a classic mount, or a tool at work.
    Beating {
        /// The o2cb numbers of the nodes; empty if nothing was seen but this node's own region.
        slots: Vec<u8>,
        /// Whether this node's kernel has a heartbeat region on the disk.
        here: bool,
    },
    /// It could not be found out, which is no reason to believe in nobody.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// How the storage of a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered the last question.
    Good,
    /// It answers with errors.
    Failing {
        /// The last one.
        errno: i32,
        /// For how long there was no good answer, in ms.
        for_ms: u64,
    },
    /// It does not answer.
    Silent {
        /// For how long there was no good answer, in ms.
        for_ms: u64,
    },
}

/// The storage of a volume in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// Its device.
    pub path: PathBuf,
    /// Where to ask: at its superblock, in bytes.
    pub offset: u64,
}

/// What the watch is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Find out who beats for a volume; answered with one [`Change::Beats`], in bounded time. An
    /// order for the same volume replaces an earlier one.
    Beats {
        /// The volume.
        uuid: GroupId,
        /// Where beats for it would be seen: its own device, and with a global heartbeat every
        /// device of its cluster.
        devices: Vec<Device>,
    },
    /// Read the list of devices and all superblocks now: something was made or changed elsewhere.
    Reread,
    /// Guard the storage of these volumes from now on, and of no others.
    Guard(BTreeMap<GroupId, Guarded>),
}

/// What reaches the watch's thread from others.
#[derive(Debug)]
enum Mail {
    Order(Order),
    Superblock(Device, Result<Superblock, VolumeError>),
    Beats { uuid: GroupId, token: u64, beats: Beats },
    Stop,
}

/// The running watch. It ends when this is dropped; threads that a dead disk keeps end with it.
#[derive(Debug)]
pub struct Watch {
    post: Post,
}

impl Watch {
    /// Starts to watch. `tell` is called on the watch's thread and should not keep it.
    ///
    /// # Errors
    /// There are no more descriptors or threads. Nothing runs then.
    pub fn start(
        settings: Settings,
        tell: impl FnMut(Change) + Send + 'static,
    ) -> io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let (sender, mail) = mpsc::channel();
        let post = Post { sender, bell: Arc::new(bell) };
        let eye = eye::Eye::new(settings, post.clone(), mail, ear, Box::new(tell));
        helpers::thread("volumes").spawn(move || eye.run())?;
        Ok(Self { post })
    }

    /// Gives an order. Never waits.
    pub fn order(&self, order: Order) {
        self.post.send(Mail::Order(order));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.post.send(Mail::Stop);
    }
}

/// How to reach the watch's thread.
#[derive(Debug, Clone)]
struct Post {
    sender: Sender<Mail>,
    bell: Arc<UnixStream>,
}

impl Post {
    /// A full bell rings already, and a thread that ended needs no mail.
    fn send(&self, mail: Mail) {
        let _ = self.sender.send(mail);
        let _ = io::Write::write(&mut &*self.bell, &[1]);
    }
}

#[cfg(test)]
mod tests;
