//! The daemon's handle of its keeper.
//!
//! A thread of the handle owns the connection; calls are handed to it and wait a second for their
//! outcome. It replaces a keeper that ends or hangs, and tells the new one everything again.
//!
//! The keeper process outlives the handle: dropping it is what a crash of the daemon is, and begins
//! the countdown to the reset. Only [`Keeper::stop`] ends the keeper.

mod attach;
mod device;
mod link;
mod spawn;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::link::Table;
use self::worker::{Call, Times, Worker};
use crate::clock::{Millis, now};
use crate::record::{Op, Record};
use crate::{AREA_MAX, Area, Generation, KeeperError, Line, Notice, SLOT_MAX, Settings, Slot};

/// A daemon that has said [`Keeper::alive`] is taken for hung if it does not for so long.
const ALIVE_MS: u64 = 5000;
/// Stack of the thread, in bytes: all of it is locked memory in a daemon that locks its own.
const STACK_BYTES: usize = 256 * 1024;

/// How long a call waits for its outcome, in milliseconds.
const CALL_MS: u64 = 1000;
/// How long it may wait for a keeper first: what is asked after that could be answered to nobody.
const PATIENCE_MS: u64 = 800;

type Log = Arc<dyn Fn(Notice) + Send + Sync>;

/// What tells the keeper that the daemon lives, before the first [`Keeper::alive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOfLife {
    /// That the process runs.
    Process,
    /// Nothing but what has to be asked of the keeper: the start has `daemon_back_ms` to come to its work, and a
    /// daemon that dies before that, again and again, is an absent one. What a start asks for is no way around
    /// it: what was done for one is not asked for again by the next.
    Work,
}

/// What the thread shows to the callers.
#[derive(Default)]
struct Shown {
    table: Table,
    pid: Option<u32>,
    line: Option<Line>,
}

/// Where it shows it.
#[derive(Default)]
struct View {
    shown: Mutex<Shown>,
    /// The last [`Keeper::alive`]; 0 is never.
    alive: AtomicU64,
}

impl View {
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, shown: Shown) {
        *self.shown() = shown;
    }

    fn pid(&self) -> Option<u32> {
        self.shown().pid
    }

    fn take_pid(&self) -> Option<u32> {
        self.shown().pid.take()
    }

    /// Whether that is news: nobody knew that it lives, or it was missed.
    fn say_alive(&self, now: Millis) -> bool {
        let last = self.alive.swap(now.0, Ordering::Relaxed);
        last == 0 || now.since(Millis(last)) >= ALIVE_MS
    }

    fn is_alive(&self, sign: SignOfLife, now: Millis) -> bool {
        match self.alive.load(Ordering::Relaxed) {
            0 => sign == SignOfLife::Process,
            last => now.since(Millis(last)) < ALIVE_MS,
        }
    }
}

/// The daemon's handle of its keeper.
pub struct Keeper {
    calls: Option<Sender<Call>>,
    bell: UnixStream,
    view: Arc<View>,
    sysrq: Mutex<File>,
    log: Log,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Connects to the keeper that runs already and beats (adopts it), or starts one. A keeper that
    /// beats nothing is replaced, so that a new version and new settings take effect. May take some
    /// seconds. [`check`](crate::check) is the caller's to call first.
    ///
    /// # Errors
    /// No keeper can be started, or the running one serves another daemon that is alive, or beats another device.
    pub fn start(
        settings: Settings,
        sign: SignOfLife,
        log: Box<dyn Fn(Notice) + Send + Sync>,
    ) -> Result<Self, KeeperError> {
        let settings = settings.with_absolute_paths();
        let name = settings.sysrq.display().to_string();
        let cannot = |error: io::Error| KeeperError::NotStarted(format!("{name}: {error}"));
        let sysrq = OpenOptions::new().append(true).open(&settings.sysrq).map_err(cannot)?;
        let (bell, heard) = bell().map_err(cannot)?;
        let (calls, waiting) = channel();
        let (log, view): (Log, _) = (log.into(), Arc::new(View::default()));
        let mut worker = Worker {
            settings,
            sign,
            log: Arc::clone(&log),
            view: Arc::clone(&view),
            calls: waiting,
            bell: heard,
            sysrq: sysrq.try_clone().map_err(cannot)?,
            link: None,
            wanted: BTreeMap::new(),
            line: None,
            downs: BTreeSet::new(),
            clears: BTreeSet::new(),
            times: Times::default(),
            suspect: None,
            told: None,
            starting: None,
        };
        worker.begin()?;
        let thread = std::thread::Builder::new().name("keeper".into()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || worker.run()).map_err(cannot)?;
        let (sysrq, thread) = (Mutex::new(sysrq), Some(thread));
        Ok(Self { calls: Some(calls), bell, view, sysrq, log, thread })
    }

    /// What it beats now; after an adoption, what the predecessor had told it. What a `down` was
    /// asked for is not in it, whether the keeper has done it yet or not.
    #[must_use]
    pub fn table(&self) -> BTreeMap<(Area, Slot), Generation> {
        self.view.shown().table.clone()
    }

    /// Beats the slot from now on; returns after the first write. A slot that is beaten with another
    /// generation is refused: the kernel would see a death, which only [`Keeper::down`] may say.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn beat(&self, area: Area, slot: Slot, generation: Generation) -> Result<(), KeeperError> {
        self.call(place(Op::Beat, area, slot, generation.0.get())?)
    }

    /// Writes generation 0 once, and beats the slot no more. Can be repeated.
    ///
    /// # Errors
    /// See [`KeeperError`]; if the outcome is not known, it goes on being tried.
    pub fn down(&self, area: Area, slot: Slot) -> Result<(), KeeperError> {
        self.call(place(Op::Down, area, slot, 0)?)
    }

    /// The region is gone: forgets all slots of the area and fills it with zeros.
    ///
    /// # Errors
    /// See [`KeeperError`]; if the outcome is not known, it goes on being tried.
    pub fn clear(&self, area: Area) -> Result<(), KeeperError> {
        self.call(place(Op::Clear, area, Slot(0), 0)?)
    }

    /// The line that it holds; after an adoption, what the predecessor had told it.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        self.view.shown().line
    }

    /// Holds a line to the kernel; returns when hands are shaken. Can be repeated.
    ///
    /// # Errors
    /// See [`KeeperError`]; refused while another line is held, here or by any process.
    pub fn hold(&self, line: Line) -> Result<(), KeeperError> {
        self.call(Record { generation: line.to_bits(), ..Record::new(Op::Hold) })
    }

    /// Lets go of the line. Can be repeated. **With a volume of a user stack mounted, and nobody else who
    /// holds one, the kernel resets the node.**
    ///
    /// # Errors
    /// See [`KeeperError`]; if the outcome is not known, [`Keeper::line`] tells once it is.
    pub fn release(&self) -> Result<(), KeeperError> {
        self.call(Record::new(Op::Release))
    }

    /// Resets this node, now: first with its own hands, then, if it is still there, through the
    /// keeper, which goes on trying and feeds the watchdog no more.
    ///
    /// # Errors
    /// The system refused both.
    pub fn reset_node(&self, why: &str) -> Result<(), KeeperError> {
        (self.log)(Notice::Reset { why: why.into() });
        let own = {
            let mut sysrq = self.sysrq.lock().unwrap_or_else(PoisonError::into_inner);
            sysrq.write_all(b"b")
        };
        let told = self.call(Record::new(Op::Reset));
        let Err(error) = own else { return Ok(()) };
        let error = error.to_string();
        (self.log)(Notice::ResetFailed { error: error.clone() });
        told.map_err(|_| KeeperError::ResetFailed(error))
    }

    /// Ends the keeper; refused while it beats or holds anything. Afterwards every call fails.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn stop(&self) -> Result<(), KeeperError> {
        self.call(Record::new(Op::Stop))
    }

    /// The process id of the keeper that runs now; `None` while there is none.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.view.pid()
    }

    /// Says that the daemon's own work goes on. The first time that is passed on at once, and from
    /// then on it must be said every few seconds (five at most), or the keeper takes the daemon for
    /// absent; before, what counts is the [`SignOfLife`].
    pub fn alive(&self) {
        if self.view.say_alive(now()) {
            self.ring();
        }
    }

    fn call(&self, question: Record) -> Result<(), KeeperError> {
        let (reply, answer) = sync_channel(1);
        let call = Call { question, deadline: now().plus(PATIENCE_MS), reply };
        let calls = self.calls.as_ref().ok_or(KeeperError::Stopped)?;
        calls.send(call).map_err(|_| KeeperError::Stopped)?;
        self.ring();
        match answer.recv_timeout(Duration::from_millis(CALL_MS)) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(KeeperError::Unanswered),
            Err(RecvTimeoutError::Disconnected) => Err(KeeperError::Stopped),
        }
    }

    /// If the bell is full, it rings already.
    fn ring(&self) {
        let _ = (&self.bell).write(&[0]);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.calls = None;
        self.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bell() -> io::Result<(UnixStream, UnixStream)> {
    let (ringer, heard) = UnixStream::pair()?;
    ringer.set_nonblocking(true)?;
    heard.set_nonblocking(true)?;
    Ok((ringer, heard))
}

fn place(op: Op, area: Area, slot: Slot, generation: u64) -> Result<Record, KeeperError> {
    if area.0 > AREA_MAX || slot.0 > SLOT_MAX {
        return Err(KeeperError::OutOfRange(area, slot));
    }
    Ok(Record { area: area.0, slot: slot.0, generation, ..Record::new(op) })
}
