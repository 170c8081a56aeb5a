//! The daemon's log. The loop only puts a record into a bounded queue; a thread of its own formats
//! and writes. When the journal or a terminal is slow, records are dropped and counted: a log line
//! must never delay a death.
//!
//! ```text
//! loop ──queue──▶ thread ──┬──▶ ring of recent lines, debug included (dump, SIGUSR1)
//!                          └──▶ level ──▶ journal or standard error
//! ```
//!
//! The same keys everywhere: `node`, `group`, `service`, `op`, `state`, `error`. Levels: error, the
//! operator must act; warning, something happened to the cluster; info, a transition; debug, the rest.

mod fields;
mod journald;
pub mod note;
pub mod repeat;
mod ring;
pub mod trace;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::config::LogTarget;
use crate::status::LogLevel;
use journald::Journald;
pub use ring::Ring;

/// Records that may wait for the thread. A death of 64 groups is about 1,000 lines.
const QUEUE_MAX: usize = 8_192;

/// How long an end of the daemon waits for a journal or terminal that does not take its lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The log as the daemon holds it.
pub struct Log {
    /// Where to log to.
    pub logger: Logger,
    /// How much is written.
    pub level: LevelSwitch,
    /// What was logged lately.
    pub ring: Ring,
    /// Why the target is another one than configured.
    pub fallback: Option<String>,
    guard: AsyncGuard,
}

impl Log {
    /// Starts the thread.
    #[must_use]
    pub fn start(level: LogLevel, target: LogTarget) -> Self {
        let (level, ring) = (LevelSwitch::new(level), Ring::default());
        let (target, fallback) = open(target);
        let drain = Tee { ring: ring.clone(), level: level.clone(), target };
        let (queue, guard) = Async::new(drain)
            .chan_size(QUEUE_MAX)
            .overflow_strategy(OverflowStrategy::DropAndReport)
            .thread_name("log".into())
            .build_with_guard();
        Self { logger: Logger::root(queue.fuse(), o!()), level, ring, fallback, guard }
    }

    /// Ends the log: what was logged is written before it returns, unless nobody takes it.
    pub fn finish(self) {
        flush(move || drop((self.logger, self.guard)));
    }
}

/// Says why on standard error, unless nobody takes it, and ends the process with SIGABRT.
pub fn abort(words: String) -> ! {
    // Not through the queue: there may be more in it than the limit has time for.
    flush(move || drop(std::io::stderr().write_all(words.as_bytes())));
    std::process::abort();
}

/// Runs something that may hang with whoever reads the log, and waits for it no longer than the limit.
fn flush(write: impl FnOnce() + Send + 'static) {
    let (done, wait) = std::sync::mpsc::channel();
    let job = move || {
        write();
        // Nobody waits any more if this comes too late.
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("flush".into()).spawn(job).is_ok() {
        let _ = wait.recv_timeout(FLUSH_LIMIT);
    }
}

/// How much is written; may be changed at any time from any thread.
#[derive(Debug, Clone)]
pub struct LevelSwitch(Arc<AtomicUsize>);

impl LevelSwitch {
    fn new(level: LogLevel) -> Self {
        Self(Arc::new(AtomicUsize::new(slog_level(level).as_usize())))
    }

    /// The least important level that is written.
    #[must_use]
    pub fn get(&self) -> LogLevel {
        let number = self.0.load(Ordering::Relaxed);
        let is_it = |level: &LogLevel| slog_level(*level).as_usize() == number;
        LogLevel::ALL.into_iter().find(is_it).unwrap_or(LogLevel::Info)
    }

    /// Changes it.
    pub fn set(&self, level: LogLevel) {
        self.0.store(slog_level(level).as_usize(), Ordering::Relaxed);
    }

    fn lets_through(&self, level: Level) -> bool {
        level.as_usize() <= self.0.load(Ordering::Relaxed)
    }
}

const fn slog_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::Error,
        LogLevel::Warning => Level::Warning,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    }
}

type Terminal =
    std::sync::Mutex<slog_term::FullFormat<slog_term::PlainSyncDecorator<std::io::Stderr>>>;

enum Target {
    Journald(Journald),
    Stderr(Box<Terminal>),
}

/// The journal if it is wanted and there, else standard error.
fn open(wanted: LogTarget) -> (Target, Option<String>) {
    let journal = match wanted {
        LogTarget::Stderr => false,
        LogTarget::Journald => true,
        LogTarget::Auto => stderr_is_the_journal(),
    };
    let mut fallback = None;
    if journal {
        match Journald::open() {
            Ok(journald) => return (Target::Journald(journald), None),
            Err(error) => fallback = Some(format!("no journal to log to: {error}")),
        }
    }
    let decorator = slog_term::PlainSyncDecorator::new(std::io::stderr());
    let format = slog_term::FullFormat::new(decorator).use_original_order();
    (Target::Stderr(Box::new(std::sync::Mutex::new(format.build()))), fallback)
}

/// systemd names the device and inode of the stream that it gave us as standard error.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// The end of the queue.
struct Tee {
    ring: Ring,
    level: LevelSwitch,
    target: Target,
}

impl Drain for Tee {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        self.ring.push(fields::line(record, values));
        if self.level.lets_through(record.level()) {
            // There is nobody left to tell that the log cannot be written.
            match &self.target {
                Target::Journald(journald) => journald.write(record, values),
                Target::Stderr(terminal) => drop(terminal.log(record, values)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::Instant;

    /// In the environment of the process that is to abort.
    const ABORTS: &str = "O2BRIDGE_TEST_ABORTS";
    const WORDS_BYTES: usize = 1 << 20;

    /// This very test once more, as a process with this standard error.
    fn aborting(stderr: UnixStream) -> Child {
        let test = "log::tests::a_process_aborts_whether_or_not_its_words_are_read";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).env(ABORTS, "1").stdout(Stdio::null());
        command.stderr(OwnedFd::from(stderr)).spawn().unwrap()
    }

    fn end_of(child: &mut Child) -> Option<ExitStatus> {
        let end = Instant::now() + 5 * FLUSH_LIMIT;
        while Instant::now() < end {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        None
    }

    #[test]
    fn a_process_aborts_whether_or_not_its_words_are_read() {
        if std::env::var_os(ABORTS).is_some() {
            abort("x".repeat(WORDS_BYTES));
        }
        let is_abort = |status: ExitStatus| status.signal() == Some(nix::libc::SIGABRT);

        // The journal's stream is a socket, too; one that is not read takes less than all of this.
        let (_unread, stderr) = UnixStream::pair().unwrap();
        assert!(end_of(&mut aborting(stderr)).is_some_and(is_abort));

        let (mut reader, stderr) = UnixStream::pair().unwrap();
        let mut child = aborting(stderr);
        let mut words = String::new();
        reader.read_to_string(&mut words).unwrap();
        assert!(words.matches('x').count() >= WORDS_BYTES, "{} bytes", words.len());
        assert!(end_of(&mut child).is_some_and(is_abort));
    }
}
