//! A device's number from its path.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use o2bridge_core::DeviceId;

/// Looks up the number of a block device. `None` for anything else, such as the image file that a
/// tool works on: it has no number that could contradict another one.
///
/// # Errors
/// The errno of `stat`.
pub(crate) fn device_id(path: &str) -> Result<Option<DeviceId>, Errno> {
    // A path in /dev cannot hang; only root can make us look at another one.
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Ok(Some(DeviceId(meta.rdev()))),
        Ok(_) => Ok(None),
        // Without an errno it is a path that cannot be one: it holds a NUL.
        Err(error) => Err(error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)),
    }
}
