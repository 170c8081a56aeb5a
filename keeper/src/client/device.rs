//! On which device a running keeper beats. Its protocol does not say; its command line, which never changes, does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::link::{Found, Link};
use crate::KeeperError;

/// A keeper that beats slots of another device is not ours to take over: what it beats would be taken for what lies
/// on our own, and an area that is free here be cleared there, under living peers. It is only looked at, so nothing
/// changes for it. Where its command line cannot be read nobody knows, and it is believed.
pub(super) fn check(link: &Link, found: &Found, wanted: Option<&Path>) -> Result<(), KeeperError> {
    let (Some(wanted), false) = (wanted, found.table.is_empty()) else { return Ok(()) };
    match device_of(link.pid()) {
        Some(running) if !is_same(&running, wanted) => {
            Err(KeeperError::OtherDevice { pid: link.pid(), running, wanted: wanted.into() })
        }
        Some(_) | None => Ok(()),
    }
}

fn device_of(pid: u32) -> Option<PathBuf> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = bytes.split(|byte| *byte == 0);
    words.find(|word| *word == b"--device")?;
    words.next().map(|word| OsStr::from_bytes(word).into())
}

/// A device may have several names.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || identity(one).is_some_and(|it| Some(it) == identity(other))
}

fn identity(path: &Path) -> Option<(bool, u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(if metadata.file_type().is_block_device() {
        (true, metadata.rdev(), 0)
    } else {
        (false, metadata.dev(), metadata.ino())
    })
}
