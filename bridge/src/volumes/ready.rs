//! When what is ordered after the daemon may mount.
//!
//! | kind | what holds a mount back that comes too early | READY waits for |
//! |---|---|---|
//! | o2cb, heartbeat mode local | the tools' semaphore of its volume, which is closed until the region stands | nothing here |
//! | o2cb, heartbeat mode global | nothing: those tools take no semaphore, and the mount fails at once | each region |
//! | a user stack that is told by us | nothing, by tools that ask nobody: it fails, or goes ahead of a fencing | each group |
//! | a user stack that is watched | dlm_controld | nothing here |
//!
//! Who mounts at boot does not try again, so READY has to come late rather than early. A volume that was refused for
//! what asking again does not change, or is left alone, is not waited for.

use o2bridge_kmod_ctl::Mode;

use super::volume::Volume;
use super::{Serves, Volumes};

impl Volumes {
    /// Whether every volume that is present can be mounted, or waits by itself, or will not be served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match (self.policy.serves, self.cluster.as_ref().map(|cluster| cluster.mode)) {
            (Serves::UserSeen, _) | (Serves::O2cb, Some(Mode::Local)) => true,
            (Serves::O2cb | Serves::UserAhead, None) => false,
            (Serves::O2cb, Some(Mode::Global)) | (Serves::UserAhead, Some(_)) => {
                let is_known = self.has_seen_volumes && self.mounts.is_some();
                is_known && !self.volumes.values().any(Volume::is_to_come)
            }
        }
    }
}
