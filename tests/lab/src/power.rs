//! Processes of guests: started so that they cannot outlive the lab, and always reaped.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::error::{LabError, Result};

/// A panic of a scenario must not make the lab unable to clean up.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Process ids that are to be killed when the lab is interrupted.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A program that is killed by the kernel when the lab dies, however that happens.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with arguments.
    pub(crate) fn start(
        program: &str,
        arguments: &[String],
        setup: fn(&mut Command),
    ) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]).args(arguments);
        setup(&mut command);
        let child = spawn(command).map_err(LabError::io(program))?;
        if let Ok(id) = i32::try_from(child.id()) {
            lock(&RUNNING).insert(id);
        }
        Ok(Self { child })
    }

    /// Whether it has ended, with how.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        self.forget();
        Some(status.to_string())
    }

    /// Kills it and returns once it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.forget();
    }

    fn forget(&self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            lock(&RUNNING).remove(&id);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// The kernel sends the death signal when the *thread* ends that started the process, so one thread
/// that lives as long as the lab starts all of them.
fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, receiver) = channel();
    let gone = |_| io::Error::other("the thread that starts guests is gone");
    lock(orders).send((command, sender)).map_err(|_| gone(()))?;
    receiver.recv().map_err(|_| gone(()))?
}

/// Makes ctrl-C and SIGTERM end all guests and then the lab. To be called before there are threads.
///
/// # Errors
/// The signals cannot be blocked.
pub fn end_with_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|e| LabError::io("sigprocmask")(e.into()))?;
    thread::spawn(move || {
        let signal = signals.wait();
        eprintln!("lab: {signal:?}, ending");
        for id in lock(&RUNNING).iter() {
            let _ = kill(Pid::from_raw(*id), Signal::SIGKILL);
        }
        std::process::exit(130);
    });
    Ok(())
}
