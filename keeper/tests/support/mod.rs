//! A node made of plain files: a device, a file that takes the resets, a keeper.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::Pid;
use o2bridge_keeper::block::{self, Heartbeat};
use o2bridge_keeper::record::Record;
use o2bridge_keeper::{
    Area, Generation, Keeper, KeeperError, Notice, Settings, SignOfLife, Slot, block_number,
};
use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_o2bridge-keeper");
pub const AREAS: u64 = 18;
const BLOCK_BYTES: usize = 512;

/// Past the test harness, which swallows what a passing test says.
pub fn skipped(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn life(number: u64) -> Generation {
    Generation::new(number).unwrap()
}

/// Waits until it holds; how long that took.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(ms(5));
    }
    start.elapsed()
}

pub fn signal(pid: u32, signal: Signal) {
    assert!(pid > 1 && pid != std::process::id());
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A file whose disk hangs, until this is dropped: what opens it to run it waits, and then fails.
pub struct HungFile(Fanotify);

impl HungFile {
    /// `None`, said loudly, without the right to do that.
    pub fn new(name: &str, path: &Path) -> Option<Self> {
        let group = Fanotify::init(
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
            EventFFlags::O_RDONLY,
        );
        let marked = group.and_then(|group| {
            let (flags, mask) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM);
            group.mark(flags, mask, nix::fcntl::AT_FDCWD, Some(path)).map(|()| group)
        });
        marked
            .map_err(|error| skipped(name, &format!("fanotify: {error}; it needs root")))
            .ok()
            .map(Self)
    }
}

impl Drop for HungFile {
    fn drop(&mut self) {
        for event in self.0.read_events().into_iter().flatten() {
            let Some(fd) = event.fd() else { continue };
            self.0.write_response(FanotifyResponse::new(fd, Response::FAN_DENY)).unwrap();
        }
    }
}

pub struct Node {
    dir: TempDir,
    pub settings: Settings,
}

impl Node {
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    /// On a file system as fast as a RAM disk, for tests with thousands of slots.
    pub fn in_memory() -> Self {
        Self::in_dir(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn in_dir(dir: TempDir) -> Self {
        let at = |name: &str| dir.path().join(name);
        let device = File::create(at("device")).unwrap();
        device.set_len((1 + AREAS * 256) * BLOCK_BYTES as u64).unwrap();
        File::create(at("sysrq")).unwrap();
        let settings = Settings {
            program: PROGRAM.into(),
            socket: at("keeper.sock"),
            device: Some(at("device")),
            control: None,
            block_bytes: BLOCK_BYTES.try_into().unwrap(),
            dead_threshold: 31,
            beat_ms: 50,
            daemon_back_ms: 20_000,
            silence_max_ms: 20_000,
            sysrq: at("sysrq"),
            watchdog: None,
            lock_memory: false,
            realtime_priority: 0,
            log: Some(at("log")),
        };
        Self { dir, settings }
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut node = Self::new();
        change(&mut node.settings);
        node
    }

    /// The file that stands for the RAM disk.
    pub fn device(&self) -> PathBuf {
        self.settings.device.clone().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn try_keeper(&self) -> Result<(Keeper, Receiver<Notice>), KeeperError> {
        self.keeper_of(SignOfLife::Process)
    }

    /// The handle of a daemon that starts, and has not come to its work yet.
    pub fn starting(&self) -> (Keeper, Receiver<Notice>) {
        self.keeper_of(SignOfLife::Work).unwrap()
    }

    fn keeper_of(&self, sign: SignOfLife) -> Result<(Keeper, Receiver<Notice>), KeeperError> {
        let (said, notices) = channel();
        let log = Box::new(move |notice| said.send(notice).unwrap_or_default());
        Keeper::start(self.settings.clone(), sign, log).map(|keeper| (keeper, notices))
    }

    pub fn keeper(&self) -> (Keeper, Receiver<Notice>) {
        self.try_keeper().unwrap()
    }

    pub fn bytes(&self, area: u16, slot: u8) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        let at = block_number(Area(area), Slot(slot)) * BLOCK_BYTES as u64;
        File::open(self.device()).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub fn block(&self, area: u16, slot: u8) -> Heartbeat {
        block::decode(&self.bytes(area, slot)).unwrap()
    }

    pub fn write(&self, area: u16, slot: u8, bytes: &[u8]) {
        let at = block_number(Area(area), Slot(slot)) * BLOCK_BYTES as u64;
        let device = File::options().write(true).open(self.device()).unwrap();
        device.write_all_at(bytes, at).unwrap();
    }

    /// Waits for `count` more beats; how long that took.
    pub fn beats(&self, area: u16, slot: u8, count: u64) -> Duration {
        let first = self.block(area, slot).seq;
        until("beats", ms(10_000), || self.block(area, slot).seq.wrapping_sub(first) >= count)
    }

    /// Whether nothing is beaten for a while.
    pub fn is_silent(&self, area: u16, slot: u8, time: Duration) -> bool {
        let before = self.bytes(area, slot);
        sleep(time);
        before == self.bytes(area, slot)
    }

    /// How often the node was reset.
    pub fn resets(&self) -> usize {
        let letters = std::fs::read_to_string(&self.settings.sysrq).unwrap();
        assert!(letters.chars().all(|letter| letter == 'b'), "{letters}");
        letters.len()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A connection without the client library.
    pub fn dial(&self) -> Option<Dial> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(socket.as_raw_fd(), &UnixAddr::new(&self.settings.socket).unwrap()).ok()?;
        let stream = UnixStream::from(socket);
        stream.set_read_timeout(Some(ms(5000))).unwrap();
        Some(Dial(stream))
    }

    /// A daemon of another process: `keeperctl hold`.
    pub fn daemon(&self) -> Daemon {
        let mut command = self.keeperctl(&["hold"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 64];
        let length = child.stdout.as_mut().unwrap().read(&mut said).unwrap();
        assert!(said[..length].starts_with(b"keeper "), "keeperctl did not get a keeper");
        Daemon(child)
    }

    pub fn keeperctl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keeperctl"));
        command.arg("--program").arg(&self.settings.program).args(self.settings.to_args());
        command.args(words).stderr(Stdio::null());
        command
    }

    pub fn ctl(&self, words: &[&str]) -> (bool, String) {
        let output = self.keeperctl(words).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Node {
    /// A keeper that beats does not end by itself, and the reset of this node is only a file.
    fn drop(&mut self) {
        for _ in 0..100 {
            let Some(dial) = self.dial() else { return };
            let _ = kill(Pid::from_raw(dial.pid().try_into().unwrap()), Signal::SIGKILL);
            sleep(ms(10));
        }
    }
}

pub struct Daemon(pub Child);

impl Daemon {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Dial(pub UnixStream);

impl Dial {
    pub fn pid(&self) -> u32 {
        getsockopt(&self.0, PeerCredentials).unwrap().pid().try_into().unwrap()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// `None` if the connection was closed.
    pub fn receive(&mut self) -> Option<Record> {
        let mut bytes = [0; 64];
        let mut read = || self.0.read(&mut bytes);
        let is_reset = |error: &Error| error.kind() == ErrorKind::ConnectionReset;
        // The last words come after that.
        let length = read().or_else(|error| if is_reset(&error) { read() } else { Err(error) });
        match length.unwrap() {
            0 => None,
            length => Some(Record::decode(&bytes[..length]).expect("a record")),
        }
    }

    pub fn ask(&mut self, question: Record) -> Record {
        self.send(&question.encode());
        self.receive().expect("an answer")
    }
}
