//! Starting a keeper that belongs to nobody.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Settings;
use crate::clock::{Millis, now};
use crate::process::{READY, START};

/// How long a keeper may take to say that it is ready, in milliseconds.
pub(super) const READY_MS: u64 = 5000;
/// What is read of its last words.
const TEXT_BYTES: usize = 1024;

/// Starts a keeper. When this returns, it listens.
///
/// # Errors
/// Why it does not, in its own words if it had any.
pub(super) fn spawn(settings: &Settings) -> Result<(), String> {
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
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    false
}
