//! A guard asks the storage of one volume again and again, on a thread that may hang with it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::libc::EIO;

use super::helpers::thread as named_thread;
use super::{Guarded, Health};
use crate::volume::disk::{Disk, VolumeError};

/// One sector says enough; it is read with the page around it.
const ASKED_BYTES: usize = 512;

/// A running guard; it ends when this is dropped, as soon as its disk lets it.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) guarded: Guarded,
    shared: Arc<Shared>,
    thread: Thread,
    said: Option<(Health, Instant)>,
}

#[derive(Debug, Default)]
struct Shared {
    pulse: Mutex<Pulse>,
    is_over: AtomicBool,
}

/// What the last questions came to.
#[derive(Debug, Default, Clone, Copy)]
struct Pulse {
    /// The question under way.
    asked_at: Option<Instant>,
    /// Whether any question was ever answered.
    has_answered: bool,
    /// Since when there is no good answer, and the last error.
    bad: Option<(Instant, i32)>,
}

impl Guard {
    /// Starts to ask.
    ///
    /// # Errors
    /// There are no more threads.
    pub(super) fn start(guarded: Guarded, pause: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (asks, target) = (Arc::clone(&shared), guarded.clone());
        let handle = named_thread("volume-guard").spawn(move || {
            while !asks.is_over.load(Ordering::Relaxed) {
                asks.ask(|| read(&target));
                thread::park_timeout(pause);
            }
        })?;
        Ok(Self { guarded, shared, thread: handle.thread().clone(), said: None })
    }

    /// How the storage is, if that has to be said: it changed, or is still bad after the pause.
    pub(super) fn news(&mut self, silent: Duration, pause: Duration) -> Option<Health> {
        let now = Instant::now();
        let health = self.shared.pulse().health(now, silent)?;
        let is_due = match self.said {
            None => true,
            Some((said, at)) => match health {
                Health::Good => said != health,
                Health::Failing { .. } | Health::Silent { .. } => {
                    !is_same_kind(said, health) || now.duration_since(at) >= pause
                }
            },
        };
        is_due.then(|| {
            self.said = Some((health, now));
            health
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Shared {
    /// A panic of a guard loses its question, and that is noticed.
    fn pulse(&self) -> Pulse {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pulse: Pulse) {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = pulse;
    }

    fn ask(&self, read: impl FnOnce() -> Result<(), i32>) {
        let asked_at = Instant::now();
        let before = self.pulse();
        self.set(Pulse { asked_at: Some(asked_at), ..before });
        let bad = match read() {
            Ok(()) => None,
            Err(errno) => Some((before.bad.map_or(asked_at, |(since, _)| since), errno)),
        };
        self.set(Pulse { asked_at: None, has_answered: true, bad });
    }
}

impl Pulse {
    fn health(&self, now: Instant, silent: Duration) -> Option<Health> {
        let for_ms = |since: Instant| {
            u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
        };
        match (self.asked_at, self.bad) {
            (Some(asked), bad) if now.saturating_duration_since(asked) >= silent => {
                let since = bad.map_or(asked, |(since, _)| since);
                Some(Health::Silent { for_ms: for_ms(since) })
            }
            (_, Some((since, errno))) => Some(Health::Failing { errno, for_ms: for_ms(since) }),
            (_, None) => self.has_answered.then_some(Health::Good),
        }
    }
}

fn read(guarded: &Guarded) -> Result<(), i32> {
    let read = Disk::open(&guarded.path).and_then(|disk| disk.read(guarded.offset, ASKED_BYTES));
    read.map(drop).map_err(|error| match error {
        VolumeError::Io { source, .. } => source.raw_os_error().unwrap_or(EIO),
        VolumeError::NoVolume(_) | VolumeError::NoHeartbeat(_) => EIO,
    })
}

fn is_same_kind(a: Health, b: Health) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::{EIO, ENOENT};

    const SILENT: Duration = Duration::from_millis(3_000);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn health_by_the_pulse() {
        let start = Instant::now();
        let pulse = |asked: Option<u64>, has_answered, bad: Option<u64>| Pulse {
            asked_at: asked.map(|ms| at(start, ms)),
            has_answered,
            bad: bad.map(|ms| (at(start, ms), EIO)),
        };
        let health = |pulse: Pulse, ms| pulse.health(at(start, ms), SILENT);
        assert_eq!(health(pulse(None, false, None), 9_000), None, "nothing asked yet");
        assert_eq!(health(pulse(Some(0), false, None), 2_999), None, "not late yet");
        let silent = |for_ms| Some(Health::Silent { for_ms });
        assert_eq!(health(pulse(Some(0), false, None), 3_000), silent(3_000));
        assert_eq!(health(pulse(None, true, None), 9_000), Some(Health::Good));
        assert_eq!(health(pulse(Some(7_000), true, None), 9_000), Some(Health::Good));
        let failing = |for_ms| Some(Health::Failing { errno: EIO, for_ms });
        assert_eq!(health(pulse(None, true, Some(1_000)), 9_000), failing(8_000));
        assert_eq!(health(pulse(Some(8_000), true, Some(1_000)), 9_000), failing(8_000));
        assert_eq!(health(pulse(Some(6_000), true, Some(1_000)), 9_000), silent(8_000));
    }

    #[test]
    fn a_bad_stretch_begins_with_the_first_question_without_a_good_answer() {
        let shared = Shared::default();
        shared.ask(|| Ok(()));
        assert!(shared.pulse().bad.is_none());
        shared.ask(|| Err(EIO));
        let (since, errno) = shared.pulse().bad.unwrap();
        assert_eq!(errno, EIO);
        shared.ask(|| Err(ENOENT));
        assert_eq!(shared.pulse().bad, Some((since, ENOENT)));
        shared.ask(|| Ok(()));
        assert_eq!(shared.pulse().bad, None);
    }

    #[test]
    fn what_has_to_be_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 8192]).unwrap();
        let pause = Duration::from_millis(20);
        let guarded = Guarded { path: path.clone(), offset: 4096 };
        let mut guard = Guard::start(guarded, pause).unwrap();
        let mut next = || loop {
            match guard.news(SILENT, pause) {
                Some(health) => return health,
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(next(), Health::Good);
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        assert!(matches!(next(), Health::Failing { errno: ENOENT, .. }));
        let Health::Failing { for_ms, .. } = next() else { panic!("said again while bad") };
        assert!(for_ms >= 15, "{for_ms}");
        std::fs::write(&path, [0; 4096]).unwrap();
        while !matches!(next(), Health::Failing { errno: EIO, .. }) {}
        std::fs::rename(dir.path().join("away"), &path).unwrap();
        while next() != Health::Good {}
        assert_eq!(guard.news(SILENT, pause), None, "good news are said once");
    }
}
