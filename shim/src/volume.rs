//! Volumes: what OCFS2 volumes there are, whose they are, where they are mounted, and whether their
//! storage answers.
//!
//! Four things here are pure and checked to their last byte, because others write what they read:
//! [`parse`] for superblocks, the mount table's [`mounts()`], the way to a volume's own heartbeat area
//! ([`layout`]), and the kernel's broadcasts ([`uevent`]). Whatever reads a disk may hang for as long
//! as the disk does; [`Watch`] therefore reads on threads that it can afford to lose.

pub mod devices;
mod disk;
mod field;
pub mod heartbeat;
pub mod layout;
pub mod lockspaces;
pub mod mounts;
pub mod superblock;
pub mod uevent;
pub mod watch;

pub use devices::Device;
pub use disk::VolumeError;
pub use heartbeat::{Beat, beating, disk_heartbeat};
pub use lockspaces::Lockspaces;
pub use mounts::mounts;
pub use superblock::{Bad, Stack, Superblock, parse, read};
pub use watch::{Beats, Change, Guarded, Health, Mount, Order, Present, Settings, Watch};

#[cfg(test)]
mod image;
