//! A device's number from its path.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use o2bridge_core::DeviceId;

/// Looks up the number of a block device. `None` for anything else, such as the image file that a
/// tool works on: it has no number that could contradict another one.
///
/// Only paths in /dev are looked at. Any other may lie on the very volume that hangs until our loop,
/// which asks, has told its kernel of a death.
///
/// # Errors
/// The errno of `stat`; ENOENT for an empty path, EINVAL for one with a NUL.
pub(crate) fn device_id(path: &str) -> Result<Option<DeviceId>, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.contains('\0') {
        return Err(Errno::EINVAL);
    }
    if !path.starts_with("/dev/") || path.split('/').any(|part| part == "..") {
        return Ok(None);
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Ok(Some(DeviceId(meta.rdev()))),
        Ok(_) => Ok(None),
        Err(error) => Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
    }
}
