//! What is held open. The two ways to reset the node: a letter to the kernel, and a watchdog that nobody
//! feeds. And the line, whose end is a third.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::failed;
use crate::{Line, Settings, line};

/// The kernel resets the node without a sync, at once.
const RESET: &[u8] = b"b";
/// The watchdog's word for an intended close; without it the clock runs on.
const FAREWELL: &[u8] = b"V";
/// Any other byte keeps it from biting.
const FOOD: &[u8] = b"\0";

/// Where the kernel tells about its watchdogs.
const SYSFS: &str = "/sys/class/watchdog";

/// A watchdog that runs on after its farewell would reset a node that has nothing to beat.
fn is_unstoppable(device: &Path, sysfs: &str) -> bool {
    let name = device.file_name().unwrap_or_default();
    // The old name of the first one.
    let name = if name == "watchdog" { OsStr::new("watchdog0") } else { name };
    let answer = std::fs::read_to_string(Path::new(sysfs).join(name).join("nowayout"));
    answer.is_ok_and(|answer| answer.trim() == "1")
}

/// Opened at start, so that nothing has to be looked up in the moment that counts.
pub(super) struct Hands {
    sysrq: File,
    watchdog_path: Option<PathBuf>,
    watchdog: Option<File>,
    control: Option<PathBuf>,
    line: Option<File>,
}

impl Hands {
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let watchdog_path = settings.watchdog.clone();
        if let Some(path) = watchdog_path.iter().find(|path| is_unstoppable(path, SYSFS)) {
            return Err(format!("{} cannot be stopped again (nowayout)", path.display()));
        }
        let sysrq = OpenOptions::new().append(true).open(&settings.sysrq);
        let sysrq = sysrq.map_err(|error| failed("open", &settings.sysrq, error))?;
        let control = settings.control.clone();
        Ok(Self { sysrq, watchdog_path, watchdog: None, control, line: None })
    }

    /// Takes the line into our hands.
    pub(super) fn hold(&mut self, line: Line) -> io::Result<()> {
        let control = self.control.as_ref().ok_or(io::ErrorKind::NotFound)?;
        self.line = Some(line::open(control, line)?);
        Ok(())
    }

    /// Lets go of it, if it is held.
    pub(super) fn let_go(&mut self) {
        self.line = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_cannot_be_stopped_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let sysfs = dir.path().to_str().unwrap();
        for (name, answer) in [("watchdog0", "1\n"), ("watchdog1", "0\n")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("nowayout"), answer).unwrap();
        }
        assert!(is_unstoppable(Path::new("/dev/watchdog"), sysfs));
        assert!(is_unstoppable(Path::new("/dev/watchdog0"), sysfs));
        assert!(!is_unstoppable(Path::new("/dev/watchdog1"), sysfs));
        assert!(!is_unstoppable(Path::new("/dev/watchdog2"), sysfs));
    }
}
