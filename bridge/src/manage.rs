//! The daemon and whoever runs it: signals, the configuration, the service manager.

use std::collections::VecDeque;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use o2bridge_core::{Core, Event, Now};
use signal_hook_mio::v1_0::Signals;
use slog::{Logger, error, info, warn};

use crate::adapter::systemd::Manager;
use crate::adapter::timers::now;
use crate::config::{self, Policy};
use crate::exec::Hands;
use crate::kernel;
use crate::window::{Facts, dump, status_line};

/// The signals that mean something.
pub const SIGNALS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// How long READY waits at most: a corosync that does not answer, or a volume whose region does not come, must not fail
/// the unit's start.
const READY_MS: u64 = 60_000;

/// The pause between two status lines to the service manager.
const STATUS_PAUSE_MS: u64 = 500;

/// Everything about running the daemon.
pub struct Manage {
    caught: Signals,
    manager: Manager,
    /// What is known of the daemon.
    pub facts: Facts,
    /// `--config`.
    config_path: Option<PathBuf>,
    log: Logger,
    /// When the watchdog wants to be fed.
    feed_at: Option<Now>,
    /// Until when READY waits for the kernel's cluster, and for what a mount does not wait for by itself.
    ready_by: Option<Now>,
    /// When the status line is due, because something changed.
    status_at: Option<Now>,
}

impl Manage {
    /// Finds the service manager by the environment.
    #[must_use]
    pub fn new(caught: Signals, facts: Facts, config_path: Option<PathBuf>, log: Logger) -> Self {
        let manager = Manager::from_env();
        Self {
            caught,
            manager,
            facts,
            config_path,
            log,
            feed_at: None,
            ready_by: None,
            status_at: None,
        }
    }

    /// The doors are open. Where a kernel is served, what is ordered after us would mount volumes that it
    /// cannot take yet: READY waits for its cluster, and with it for the volumes, but not for ever.
    pub fn started(&mut self) {
        if self.facts.has_kernel() {
            self.ready_by = Some(now().after(READY_MS));
        } else {
            self.manager.ready();
        }
        self.manager.status("waiting for corosync");
        self.feed();
    }

    /// The loop ended.
    pub fn stopping(&self) {
        info!(self.log, "stopping: nothing is in use, every group was left");
        self.manager.stopping();
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        [self.feed_at, self.ready_by, self.status_at].into_iter().flatten().min()
    }

    /// Something changed that the status line could show. Only sets a mark.
    pub fn changed(&mut self, now: Now) {
        self.status_at.get_or_insert(now.after(STATUS_PAUSE_MS));
    }

    /// Feeds the watchdog and says how things stand, if it is time.
    pub fn tick(&mut self, now: Now, core: &Core, is_ready: bool) {
        if self.ready_by.is_some_and(|by| is_ready || by <= now) {
            self.ready_by = None;
            self.manager.ready();
        }
        if self.feed_at.is_some_and(|at| at <= now) {
            self.feed();
        }
        if self.status_at.is_some_and(|at| at <= now) {
            self.status_at = None;
            self.manager.status(&status_line(&core.snapshot()));
        }
    }

    fn feed(&mut self) {
        self.manager.feed_watchdog();
        self.feed_at = self.manager.watchdog_interval_ms().map(|ms| now().after(ms));
    }

    /// Takes all signals that came. They are rare, so nobody asks whether their token was ready.
    pub fn signals(&mut self, inbox: &mut VecDeque<Event>, core: &Core, hands: &mut Hands) {
        let caught: Vec<i32> = self.caught.pending().collect();
        for signal in caught {
            match signal {
                SIGHUP => inbox.extend(self.reread(hands)),
                SIGUSR1 => self.write_dump(core),
                SIGTERM | SIGINT => {
                    info!(self.log, "asked to stop"; "signal" => signal);
                    match &mut hands.volumes {
                        Some(volumes) => volumes.stop(&core.snapshot(), now()),
                        None => inbox.push_back(Event::Stop),
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads the configuration again. One that cannot be used changes nothing.
    fn reread(&mut self, hands: &mut Hands) -> Option<Event> {
        self.manager.reloading(now());
        // A file that is gone is no wish to have all defaults.
        let path = self.config_path.as_deref().unwrap_or(Path::new(config::DEFAULT_PATH));
        let loaded = config::load(Some(path)).map_err(|error| error.to_string());
        let shim = &self.facts.shim.0;
        let usable = loaded.and_then(|new| check(&self.facts.settings, new, shim));
        let event = match usable {
            Ok(settings) => Some(self.adopt(settings, hands)),
            Err(error) => {
                error!(self.log, "the configuration stays as it was"; "error" => error);
                None
            }
        };
        if self.ready_by.is_none() {
            self.manager.ready();
        }
        event
    }

    fn adopt(&mut self, settings: config::Settings, hands: &mut Hands) -> Event {
        let waiting = self.facts.settings.needs_restart(&settings);
        info!(self.log, "the configuration was read again");
        if !waiting.is_empty() {
            warn!(self.log, "changes that wait for a restart: {}", waiting.join(", "));
        }
        self.facts.level.set(settings.log.level);
        hands.fencing = settings.fencing.clone();
        let event = Event::Reconfigure(settings.tunables(self.facts.has_kernel()));
        self.facts.settings = merged(&self.facts.settings, &settings);
        for warning in self.facts.warnings() {
            warn!(self.log, "{warning}");
        }
        event
    }

    /// The dump holds names that are not for everyone, so only root may read it.
    fn write_dump(&self, core: &Core) {
        let path = self.facts.settings.paths.run_dir.join("o2bridged.dump");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        let text = dump(core, &self.facts);
        match file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())) {
            Ok(()) => info!(self.log, "dumped to {}", path.display()),
            Err(error) => error!(self.log, "cannot dump to {}", path.display(); "error" => %error),
        }
    }
}

/// What is in force after a rereading: the rest waits for a restart.
fn merged(old: &config::Settings, new: &config::Settings) -> config::Settings {
    let (timing, fencing) = (new.timing.clone(), new.fencing.clone());
    let mut merged = config::Settings { timing, fencing, ..old.clone() };
    merged.log.level = new.log.level;
    merged
}

/// Keeper, peers and kernel race each other: the new times must fit those that stay.
fn check(
    old: &config::Settings,
    new: config::Settings,
    shim: &str,
) -> Result<config::Settings, String> {
    if old.fencing.policy != Policy::None && new.fencing.policy == Policy::None {
        return Err("fencing.policy would become \"none\", and every lost node be taken for dead at once, fenced or \
                    not: if that is meant, restart o2bridged"
            .into());
    }
    let checked = kernel::check_timing_of(shim, &merged(old, &new));
    checked.map_err(|error| error.to_string())?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rereading of this text by a daemon with the defaults.
    fn reread(text: &str, shim: &str) -> Result<(), String> {
        check(&config::Settings::default(), toml::from_str(text).unwrap(), shim).map(|_| ())
    }

    /// A file that was emptied, or lost its end while it was saved.
    #[test]
    fn fencing_is_not_turned_off_in_passing() {
        let agent = "fencing.policy = \"ack\"";
        let old: config::Settings = toml::from_str(agent).unwrap();
        for text in ["", "fencing.policy = \"none\"", "timing.grace_ms = 40000"] {
            let error = check(&old, toml::from_str(text).unwrap(), "record").unwrap_err();
            assert!(error.contains("restart o2bridged"), "{error}");
        }
        check(&old, toml::from_str(agent).unwrap(), "record").unwrap();
        assert_eq!(reread(agent, "record"), Ok(()), "turned on");
    }

    #[test]
    fn new_times_must_fit_those_that_stay() {
        // The keeper's time would fit, but waits for a restart.
        let early = "timing.grace_ms = 10000\nkeeper.daemon_back_ms = 5000";
        for shim in ["user-heartbeat", "control"] {
            let error = reread(early, shim).unwrap_err();
            assert!(error.contains("daemon_back_ms 20000 >= grace_ms 10000"), "{error}");
            assert_eq!(reread("timing.grace_ms = 40000", shim), Ok(()));
        }
        let late = "fencing.inquorate_reset_ms = 100000";
        let error = reread(late, "user-heartbeat").unwrap_err();
        assert!(error.contains("inquorate_reset_ms (100000)"), "{error}");
        assert_eq!(reread(late, "control"), Ok(()), "fs/dlm settles nothing by itself");
        for shim in ["record", "observe"] {
            assert_eq!([reread(early, shim), reread(late, shim)], [Ok(()), Ok(())]);
        }
    }
}
