//! Threads for what a dead disk may keep.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use super::Beats;
use crate::volume::devices::Device;
use crate::volume::heartbeat;

/// The most readings under way: more dead disks than a node can be of any use with.
const HELPERS_MAX: usize = 64;

/// These threads read into the heap; the process's memory may be locked, stacks included.
const STACK_BYTES: usize = 256 * 1024;

pub(super) fn thread(name: &str) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK_BYTES)
}

/// The readings under way.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    busy: Arc<AtomicUsize>,
}

impl Helpers {
    /// Runs a job on a thread of its own. False: there are too many already, and it was not begun.
    pub(super) fn start(&self, job: impl FnOnce() + Send + 'static) -> bool {
        // Only the watch's thread starts any, so nobody comes in between.
        if self.busy.load(Ordering::Relaxed) >= HELPERS_MAX {
            return false;
        }
        let place = Place::take(&self.busy);
        let spawned = thread("volume-read").spawn(move || {
            job();
            drop(place);
        });
        spawned.is_ok()
    }
}

/// Counts a thread for as long as it lives, and one that could not be made for no time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(busy: &Arc<AtomicUsize>) -> Self {
        busy.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(busy))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks who beats on these devices. Takes the pause at least, and hangs as long as the disks do.
pub(super) fn look_for_beats(devices: &[Device], clusters: &Path, pause: Duration) -> Beats {
    let here = has_region(devices, clusters);
    let paths: Vec<&Path> = devices.iter().map(|device| device.path.as_path()).collect();
    match heartbeat::beating(&paths, pause) {
        Ok(slots) if slots.is_empty() && !here => Beats::Quiet,
        Ok(slots) => Beats::Beating { slots, here },
        Err(_) if here => Beats::Beating { slots: Vec::new(), here },
        Err(error) => Beats::Unknown { why: error.to_string() },
    }
}

/// Whether a heartbeat region of this node's kernel is on one of these devices:
/// `<cluster>/heartbeat/<region>/dev` tells each region's device by the kernel's name.
fn has_region(devices: &[Device], clusters: &Path) -> bool {
    let dirs = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let regions = dirs(clusters).into_iter().flat_map(|cluster| dirs(&cluster.join("heartbeat")));
    let mut on = regions.filter_map(|region| std::fs::read_to_string(region.join("dev")).ok());
    on.any(|name| devices.iter().any(|device| device.name == name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use o2bridge_core::DeviceId;

    #[test]
    fn a_region_of_our_own_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let device = |name: &str| Device {
            name: name.into(),
            path: "/no/such".into(),
            number: DeviceId(0),
            sectors: 8,
        };
        assert!(!has_region(&[device("sdb")], dir.path()));
        let heartbeat = dir.path().join("lab/heartbeat");
        for (region, dev) in [("A", "ram0\n"), ("B", "sdb\n"), ("C", "\n")] {
            std::fs::create_dir_all(heartbeat.join(region)).unwrap();
            std::fs::write(heartbeat.join(region).join("dev"), dev).unwrap();
        }
        std::fs::write(heartbeat.join("mode"), "local\n").unwrap();
        assert!(has_region(&[device("sda"), device("sdb")], dir.path()));
        assert!(!has_region(&[device("sda")], dir.path()));
        assert!(!has_region(&[], dir.path()));
        let beats = |name: &str| look_for_beats(&[device(name)], dir.path(), Duration::ZERO);
        assert_eq!(beats("sdb"), Beats::Beating { slots: vec![], here: true });
        let why = "cannot open /no/such: No such file or directory (os error 2)".to_owned();
        assert_eq!(beats("sda"), Beats::Unknown { why });
    }

    #[test]
    fn no_more_than_the_most() {
        let helpers = Helpers::default();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..HELPERS_MAX {
            let gate = Arc::clone(&gate);
            assert!(helpers.start(move || drop(gate.lock().map(|gate| gate.recv()))));
        }
        assert!(!helpers.start(|| {}));
        drop(release);
        while helpers.busy.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert!(helpers.start(|| {}));
    }
}
