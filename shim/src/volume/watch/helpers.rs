//! Threads for what a dead disk may keep.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::Beats;
use crate::volume::devices::Device;
use crate::volume::heartbeat;

/// The most jobs under way that still have their time.
const HELPERS_MAX: usize = 64;
/// The most whose disks have not answered in time, and that keep nobody else waiting: more dead disks than a node can
/// be of any use with.
const LATE_MAX: usize = 64;

/// These threads read into the heap; the process's memory may be locked, stacks included.
const STACK_BYTES: usize = 256 * 1024;

pub(super) fn thread(name: &str) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK_BYTES)
}

/// The jobs under way, of one kind: those of another do not keep these waiting.
#[derive(Debug)]
pub(super) struct Helpers {
    patience: Duration,
    busy: Vec<Busy>,
}

#[derive(Debug)]
struct Busy {
    since: Instant,
    place: Weak<()>,
}

/// Held by a thread for as long as it is in anybody's way. To be given up before the word is sent that the job is done:
/// whoever hears it finds the place free.
#[derive(Debug)]
pub(super) struct Place(Arc<()>);

impl Helpers {
    /// None is busy. Whoever is for longer than this does not count.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, busy: Vec::new() }
    }

    /// How many jobs can be begun.
    pub(super) fn free(&mut self) -> usize {
        self.busy.retain(|busy| busy.place.strong_count() > 0);
        let late = self.busy.iter().filter(|busy| busy.since.elapsed() >= self.patience).count();
        (HELPERS_MAX + late.min(LATE_MAX)).saturating_sub(self.busy.len())
    }

    /// Runs a job on a thread of its own. False: there are too many already, and it was not begun.
    pub(super) fn start(&mut self, job: impl FnOnce(Place) + Send + 'static) -> bool {
        if self.free() == 0 {
            return false;
        }
        let place = Place(Arc::new(()));
        let busy = Busy { since: Instant::now(), place: Arc::downgrade(&place.0) };
        let spawned = thread("volume-read").spawn(move || job(place));
        self.busy.push(busy);
        spawned.is_ok()
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

    /// Jobs that end when what is returned is dropped.
    fn start(helpers: &mut Helpers, jobs: usize) -> std::sync::mpsc::Sender<()> {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..jobs {
            let gate = Arc::clone(&gate);
            assert!(helpers.start(move |_place| drop(gate.lock().map(|gate| gate.recv()))));
        }
        release
    }

    #[test]
    fn no_more_than_the_most() {
        let mut helpers = Helpers::new(Duration::from_secs(3_600));
        let release = start(&mut helpers, HELPERS_MAX);
        assert_eq!(helpers.free(), 0);
        assert!(!helpers.start(drop));
        drop(release);
        while helpers.free() < HELPERS_MAX {
            std::thread::yield_now();
        }
        assert!(helpers.start(drop));
    }

    #[test]
    fn who_is_late_keeps_nobody_waiting() {
        let mut helpers = Helpers::new(Duration::ZERO);
        let _release = start(&mut helpers, LATE_MAX);
        assert_eq!(helpers.free(), HELPERS_MAX);
        let _release = start(&mut helpers, HELPERS_MAX);
        assert!(!helpers.start(drop), "there are too many dead disks");
    }
}
