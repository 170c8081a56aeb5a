//! Starting a keeper that belongs to nobody.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Settings;
use crate::clock::{Millis, now};
use crate::process::{READY, START};

/// How long a keeper may take to say that it is ready, in milliseconds.
pub(super) const READY_MS: u64 = 5000;
/// What the thread that starts one may come too late by, in milliseconds.
const LATE_MS: u64 = 1000;
/// What is read of its last words.
const TEXT_BYTES: usize = 1024;

/// A start that is under way: one whose disk hangs does not come back, and no second one is tried meanwhile.
pub(super) type Start = Receiver<Result<(), String>>;

/// Starts a keeper, on a thread of its own. When this returns, it listens.
///
/// # Errors
/// Why it does not, in its own words if it had any.
pub(super) fn spawn(settings: &Settings, under_way: &mut Option<Start>) -> Result<(), String> {
    let program = settings.program.display();
    if under_way.is_none() {
        let (done, end) = channel();
        let settings = settings.clone();
        let thread = Builder::new().name("keeper-start".into());
        let started = thread.spawn(move || drop(done.send(start(&settings))));
        started.map_err(|error| format!("cannot start {program}: {error}"))?;
        *under_way = Some(end);
    }
    let limit = Duration::from_millis(READY_MS + LATE_MS);
    match under_way.as_ref().map(|end| end.recv_timeout(limit)) {
        Some(Err(RecvTimeoutError::Timeout)) => Err(format!(
            "{program} could not be started so far: does the disk that it is on answer?"
        )),
        Some(Ok(result)) => {
            *under_way = None;
            result
        }
        Some(Err(RecvTimeoutError::Disconnected)) | None => {
            *under_way = None;
            Err(format!("the thread that starts {program} ended"))
        }
    }
}

fn start(settings: &Settings) -> Result<(), String> {
    let mut command = Command::new(&settings.program);
    let command = command.arg(START).args(settings.to_args());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let program = settings.program.display();
    let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let said = child.stdout.take().map(|pipe| listen(pipe, now().plus(READY_MS)));
    end(&mut child);
    match said.unwrap_or_default().as_str() {
        READY => Ok(()),
        "" => Err(format!("{program} ended, or hung for {READY_MS} ms, without a word")),
        error => Err(error.trim_end().into()),
    }
}

/// What is said until the pipe is closed, or the time is over.
fn listen(mut pipe: ChildStdout, deadline: Millis) -> String {
    let mut said = Vec::new();
    let mut bytes = [0; TEXT_BYTES];
    while said.len() < TEXT_BYTES {
        let timeout = PollTimeout::try_from(deadline.since(now())).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut ready, timeout).is_ok_and(|count| count > 0) {
            break;
        }
        match pipe.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(length) => said.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The first process only starts the second; it must not stay as a zombie.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        if now_or_soon(child) {
            return;
        }
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn now_or_soon(child: &mut Child) -> bool {
    for _ in 0..100 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}
