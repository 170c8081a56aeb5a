//! The two ways to reset the node: a letter to the kernel, and a watchdog that nobody feeds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use crate::Settings;

/// The kernel resets the node without a sync, at once.
const RESET: &[u8] = b"b";
/// The watchdog's word for an intended close; without it the clock runs on.
const FAREWELL: &[u8] = b"V";
/// Any other byte keeps it from biting.
const FOOD: &[u8] = b"\0";

/// Opened at start, so that nothing has to be looked up in the moment that counts.
pub(super) struct Hands {
    sysrq: File,
    watchdog_path: Option<PathBuf>,
    watchdog: Option<File>,
}

impl Hands {
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let sysrq = OpenOptions::new().write(true).open(&settings.sysrq)?;
        Ok(Self { sysrq, watchdog_path: settings.watchdog.clone(), watchdog: None })
    }

    /// Resets the node. Who returns from here without an error is in a test, or has a kernel that
    /// does not do as it is told.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.sysrq.write_all(RESET)
    }

    /// Opens the watchdog, which starts it. Nothing if there is none, or if it runs.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        if let (Some(path), None) = (&self.watchdog_path, &self.watchdog) {
            self.watchdog = Some(OpenOptions::new().write(true).open(path)?);
        }
        Ok(())
    }

    /// Feeds the watchdog, if it runs.
    pub(super) fn feed(&mut self) -> io::Result<()> {
        self.watchdog.as_mut().map_or(Ok(()), |watchdog| watchdog.write_all(FOOD))
    }

    /// Stops the watchdog, if it runs.
    pub(super) fn disarm(&mut self) -> io::Result<()> {
        self.watchdog.take().map_or(Ok(()), |mut watchdog| watchdog.write_all(FAREWELL))
    }
}
