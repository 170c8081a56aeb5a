//! How a guest went off.

use std::thread;
use std::time::{Duration, Instant};

use super::{Guest, LOOK};
use crate::error::{LabError, Result};
use crate::power::lock;

/// How a guest went off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Off {
    /// Its kernel reset the machine: sysrq, a panic, an emergency restart, `reboot -f`.
    Reset,
    /// The hardware watchdog did.
    Watchdog,
    /// It powered itself off.
    PowerOff,
    /// The lab or a fence agent cut its power.
    Killed,
    /// QEMU itself ended; a fault of the lab.
    Broken(String),
}

impl Guest {
    /// Waits until it goes off by itself, and says how and when.
    ///
    /// # Errors
    /// It stays on for all of `limit`.
    pub fn wait_off(&self, limit: Duration) -> Result<(Off, Instant)> {
        let end = Instant::now() + limit;
        loop {
            self.look();
            if let Some(found) = lock(&self.off).clone() {
                return Ok(found);
            }
            if Instant::now() > end {
                let what = format!("{} going off", self.name());
                return Err(LabError::Late { what, limit });
            }
            thread::sleep(LOOK);
        }
    }

    /// As [`Guest::wait_off`], and it must be its own kernel, or its watchdog, that did it.
    ///
    /// # Errors
    /// As [`Guest::wait_off`], or it went off in another way.
    pub fn wait_reset(&self, limit: Duration) -> Result<Instant> {
        match self.wait_off(limit)? {
            (Off::Reset | Off::Watchdog, at) => Ok(at),
            (off, _) => Err(LabError::Expect(format!("{} was not reset: {off:?}", self.name()))),
        }
    }

    /// How it went off, if it is off.
    #[must_use]
    pub fn off(&self) -> Option<Off> {
        self.look();
        lock(&self.off).clone().map(|(off, _)| off)
    }

    /// Notices that QEMU has ended.
    pub(super) fn look(&self) {
        let mut running = lock(&self.running);
        let Some(status) = running.as_ref().and_then(|r| lock(&r.process).ended()) else { return };
        let Some(gone) = running.take() else { return };
        // The last event may still be on its way to us.
        thread::sleep(LOOK);
        let events = gone.qmp.events();
        let off = match events.shutdown {
            _ if events.watchdog => Off::Watchdog,
            Some((ref reason, _)) if reason == "guest-reset" => Off::Reset,
            Some((ref reason, _)) if reason == "guest-shutdown" => Off::PowerOff,
            Some((ref reason, _)) => Off::Broken(reason.clone()),
            None => Off::Broken(status),
        };
        let at = events.shutdown.map_or_else(Instant::now, |(_, at)| at);
        *lock(&self.off) = Some((off, at));
    }
}
