//! What a keeper is started with, in memory and as its command line.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::block::is_block_size;

/// The most that `silence_max_ms` and the like may be: a day. Nothing overflows below it.
const MS_MAX: u64 = 24 * 3600 * 1000;

/// What a keeper is started with. It never changes in a running keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The program `o2bridge-keeper`.
    pub program: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// The RAM disk; in tests a plain file. `None` if no slot is ever beaten.
    pub device: Option<PathBuf>,
    /// The kernel's control device, if a line to it may have to be held.
    pub control: Option<PathBuf>,
    /// The device's logical block size in bytes.
    pub block_bytes: u32,
    /// The kernel's threshold, in rounds of two seconds.
    pub dead_threshold: u32,
    /// Time from beat to beat, in milliseconds.
    pub beat_ms: u64,
    /// The node is reset if no daemon has been alive for so long, in milliseconds.
    pub daemon_back_ms: u64,
    /// The node is reset if the keeper itself has not beaten for so long, in milliseconds.
    pub silence_max_ms: u64,
    /// Where "b" resets the node. It must exist.
    pub sysrq: PathBuf,
    /// A hardware watchdog, open and fed while slots are beaten.
    pub watchdog: Option<PathBuf>,
    /// Whether to lock all memory.
    pub lock_memory: bool,
    /// SCHED_RR with this priority, 1 to 99; 0 is ordinary scheduling.
    pub realtime_priority: u8,
    /// Where the keeper writes its few lines: `/dev/kmsg`, or something else that never blocks,
    /// because its last line comes before the reset. `None` is nowhere.
    pub log: Option<PathBuf>,
}

/// A command line or settings that no keeper can work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsError {
    /// An argument that is none.
    Unknown(String),
    /// An argument that must be there.
    Absent(&'static str),
    /// A value that is none for its argument.
    Value {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown argument \"{argument}\""),
            Self::Absent(name) => write!(f, "{name} is missing"),
            Self::Value { name, value } => write!(f, "{name} cannot be \"{value}\""),
        }
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// The command line of a keeper with these settings, without the program.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut put = |name: &str, value: &OsStr| args.extend([name.into(), value.to_os_string()]);
        put("--socket", self.socket.as_os_str());
        put("--sysrq", self.sysrq.as_os_str());
        let paths = [
            ("--device", &self.device),
            ("--control", &self.control),
            ("--watchdog", &self.watchdog),
            ("--log", &self.log),
        ];
        for (name, path) in paths {
            if let Some(path) = path {
                put(name, path.as_os_str());
            }
        }
        let numbers = [
            ("--block-bytes", u64::from(self.block_bytes)),
            ("--dead-threshold", u64::from(self.dead_threshold)),
            ("--beat-ms", self.beat_ms),
            ("--daemon-back-ms", self.daemon_back_ms),
            ("--silence-max-ms", self.silence_max_ms),
            ("--lock-memory", u64::from(self.lock_memory)),
            ("--realtime-priority", u64::from(self.realtime_priority)),
        ];
        for (name, number) in numbers {
            put(name, OsStr::new(&number.to_string()));
        }
        args
    }

    /// Reads what [`Settings::to_args`] wrote.
    ///
    /// # Errors
    /// An argument that is unknown, missing or cannot be.
    pub fn from_args(args: &[OsString]) -> Result<Self, SettingsError> {
        const NAMES: [&str; 13] = [
            "--socket",
            "--device",
            "--control",
            "--sysrq",
            "--watchdog",
            "--log",
            "--block-bytes",
            "--dead-threshold",
            "--beat-ms",
            "--daemon-back-ms",
            "--silence-max-ms",
            "--lock-memory",
            "--realtime-priority",
        ];
        for pair in args.chunks(2) {
            let is_known = pair.len() == 2 && NAMES.iter().any(|name| pair[0] == *name);
            if !is_known {
                let argument = pair.first().map(|name| name.to_string_lossy().into_owned());
                return Err(SettingsError::Unknown(argument.unwrap_or_default()));
            }
        }
        Self::from_pairs(&Pairs(args))
    }

    fn from_pairs(pairs: &Pairs<'_>) -> Result<Self, SettingsError> {
        let small = |name, max| pairs.number(name, 0, max);
        let settings = Self {
            program: PathBuf::new(),
            socket: pairs.path("--socket")?,
            device: pairs.get("--device").map(PathBuf::from),
            control: pairs.get("--control").map(PathBuf::from),
            sysrq: pairs.path("--sysrq")?,
            watchdog: pairs.get("--watchdog").map(PathBuf::from),
            log: pairs.get("--log").map(PathBuf::from),
            block_bytes: narrow(pairs.number("--block-bytes", 512, 4096)?),
            dead_threshold: narrow(pairs.number("--dead-threshold", 2, 100_000)?),
            beat_ms: pairs.number("--beat-ms", 1, MS_MAX)?,
            daemon_back_ms: pairs.number("--daemon-back-ms", 1, MS_MAX)?,
            silence_max_ms: pairs.number("--silence-max-ms", 1, MS_MAX)?,
            lock_memory: small("--lock-memory", 1)? == 1,
            realtime_priority: u8::try_from(small("--realtime-priority", 99)?).unwrap_or(0),
        };
        let block_bytes = usize::try_from(settings.block_bytes).unwrap_or(0);
        if !is_block_size(block_bytes) {
            return Err(pairs.bad("--block-bytes"));
        }
        Ok(settings)
    }

    /// A number for settings that differ, to find out whether a running keeper has these.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for arg in self.to_args() {
            hasher.update(arg.as_bytes());
            hasher.update(&[0]);
        }
        hasher.finalize()
    }

    /// The same with paths that do not depend on the working directory: the keeper's is `/`.
    #[must_use]
    pub fn with_absolute_paths(mut self) -> Self {
        let paths = [&mut self.program, &mut self.socket, &mut self.sysrq];
        let more = [&mut self.device, &mut self.control, &mut self.watchdog, &mut self.log];
        let more = more.into_iter().flatten();
        for path in paths.into_iter().chain(more) {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        self
    }

    /// The file that the keeper holds locked as long as it lives: one keeper for each socket.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        beside(&self.socket, ".lock")
    }

    /// How long the kernel waits for a silent slot, in milliseconds.
    #[must_use]
    pub fn dead_ms(&self) -> u64 {
        u64::from(self.dead_threshold) * crate::KERNEL_ROUND_MS
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

struct Pairs<'a>(&'a [OsString]);

impl Pairs<'_> {
    fn get(&self, name: &str) -> Option<&OsStr> {
        let pair = self.0.chunks(2).find(|pair| pair.first().is_some_and(|first| first == name));
        pair.and_then(|pair| pair.get(1)).map(OsString::as_os_str)
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, SettingsError> {
        self.get(name).map(PathBuf::from).ok_or(SettingsError::Absent(name))
    }

    fn bad(&self, name: &'static str) -> SettingsError {
        let value = self.get(name).unwrap_or_default().to_string_lossy().into_owned();
        SettingsError::Value { name, value }
    }

    fn number(&self, name: &'static str, min: u64, max: u64) -> Result<u64, SettingsError> {
        let text = self.get(name).ok_or(SettingsError::Absent(name))?;
        let number = text.to_str().and_then(|text| text.parse().ok());
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| self.bad(name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Settings {
        Settings {
            program: "/usr/sbin/o2bridge-keeper".into(),
            socket: "/run/o2bridge/keeper.sock".into(),
            device: Some("/dev/ram0".into()),
            control: None,
            block_bytes: 512,
            dead_threshold: 31,
            beat_ms: 1000,
            daemon_back_ms: 20_000,
            silence_max_ms: 52_000,
            sysrq: "/proc/sysrq-trigger".into(),
            watchdog: None,
            lock_memory: true,
            realtime_priority: 50,
            log: None,
        }
    }

    #[test]
    fn settings_survive_the_command_line() {
        let all = Settings {
            program: PathBuf::new(),
            watchdog: Some("/dev/watchdog".into()),
            control: Some("/dev/ocfs2_control".into()),
            log: Some("/dev/kmsg".into()),
            ..example()
        };
        assert_eq!(Settings::from_args(&all.to_args()), Ok(all.clone()));
        let few =
            Settings { program: PathBuf::new(), device: None, lock_memory: false, ..example() };
        assert_eq!(Settings::from_args(&few.to_args()), Ok(few.clone()));
        assert_ne!(all.fingerprint(), few.fingerprint());
    }

    #[test]
    fn bad_command_lines_are_refused() {
        let good = example().to_args();
        let try_with = |name: &str, value: &str| {
            let mut args = good.clone();
            let at = args.iter().position(|arg| arg == name).unwrap();
            args[at + 1] = value.into();
            Settings::from_args(&args).unwrap_err().to_string()
        };
        assert_eq!(try_with("--block-bytes", "1000"), "--block-bytes cannot be \"1000\"");
        assert_eq!(try_with("--dead-threshold", "1"), "--dead-threshold cannot be \"1\"");
        assert_eq!(try_with("--beat-ms", "0"), "--beat-ms cannot be \"0\"");
        assert_eq!(try_with("--daemon-back-ms", "soon"), "--daemon-back-ms cannot be \"soon\"");
        assert_eq!(try_with("--realtime-priority", "100"), "--realtime-priority cannot be \"100\"");
        let error = |args: &[OsString]| Settings::from_args(args).unwrap_err();
        assert_eq!(error(&good[2..]), SettingsError::Absent("--socket"));
        assert_eq!(error(&["--help".into()]), SettingsError::Unknown("--help".into()));
        let odd = [good.as_slice(), &["--log".into()]].concat();
        assert_eq!(error(&odd), SettingsError::Unknown("--log".into()));
    }
}
