//! The service manager's side of `Type=notify`, and of `notify-reload`. Without a service manager nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use o2bridge_core::Now;

/// A line to the service manager. Never waits: what does not fit into its socket is lost, and a
/// watchdog that is not fed for that reason is its own finding.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog_ms: Option<u64>,
    status: String,
}

impl Manager {
    /// Finds the service manager by the environment that it gave us (sd_notify(3), sd_watchdog_enabled(3)).
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name| std::env::var_os(name);
        let socket = var("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        let number = |name| var(name)?.to_str()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog_ms =
            number("WATCHDOG_USEC").filter(|us| for_us && *us > 0).map(|us| us / 1_000);
        Self { socket, watchdog_ms, status: String::new() }
    }

    /// How often the watchdog wants to be fed: twice in its time.
    #[must_use]
    pub fn watchdog_interval_ms(&self) -> Option<u64> {
        self.watchdog_ms.map(|ms| (ms / 2).max(1))
    }

    /// The start or the rereading is over.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being reread.
    pub fn reloading(&self, now: Now) {
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}",
            monotonic_us().unwrap_or(now.0 * 1_000)
        ));
    }

    /// The daemon ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The daemon lives.
    pub fn feed_watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for `systemctl status`; sent only if it changed.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            self.status = status.into();
            self.send(&format!("STATUS={status}"));
        }
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn monotonic_us() -> Option<u64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok()?;
    u64::try_from(time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000).ok()
}
