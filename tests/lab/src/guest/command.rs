//! What a guest is asked to do.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Guest;
use crate::agent::{Agent, Output};
use crate::error::{LabError, Result};
use crate::wire::ToGuest;

impl Guest {
    /// Runs a shell command to its end. Its standard input is empty. A daemon that it leaves behind
    /// is not waited for.
    ///
    /// # Errors
    /// It does not end within `limit` (its process group is killed then), or the guest is off. A
    /// command that fails is not an error.
    pub fn run(&self, command: &str, limit: Duration) -> Result<Output> {
        let job = self.spawn(command)?;
        let output = job.wait(limit);
        if output.is_err() {
            let _ = job.kill();
        }
        output
    }

    /// As [`Guest::run`] within 30 seconds, and the command must succeed; gives back its standard
    /// output without the last newline.
    ///
    /// # Errors
    /// As [`Guest::run`], and a failing command.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ok_within(command, Duration::from_secs(30))
    }

    /// [`Guest::ok`] with a limit.
    ///
    /// # Errors
    /// As [`Guest::ok`].
    pub fn ok_within(&self, command: &str, limit: Duration) -> Result<String> {
        let output = self.run(command, limit)?;
        if output.exit == 0 {
            return Ok(output.stdout.trim_end_matches('\n').to_owned());
        }
        let said = format!("{}{}", output.stdout, output.stderr);
        let exit = output.exit;
        Err(LabError::Expect(format!("{}: `{command}` exit {exit}: {said}", self.name())))
    }

    /// Starts a shell command and does not wait.
    ///
    /// # Errors
    /// The guest is off.
    pub fn spawn(&self, command: &str) -> Result<Job> {
        let agent = Arc::clone(&self.running(command)?.agent);
        let id = agent.number();
        agent.say(&ToGuest::Run { id, command: command.to_owned() })?;
        Ok(Job { agent, id, command: command.to_owned(), started: Instant::now() })
    }

    /// Writes a file in the guest, with mode 0644 and missing directories.
    ///
    /// # Errors
    /// The guest is off, or it cannot be written.
    pub fn put(&self, path: &str, text: &str) -> Result<()> {
        let agent = &self.running(path)?.agent;
        let id = agent.number();
        let (path, text) = (path.to_owned(), text.to_owned());
        agent.say(&ToGuest::Put { id, path: path.clone(), text, mode: 0o644 })?;
        let output = agent.output(id, &path, Duration::from_secs(30))?;
        match output.exit {
            0 => Ok(()),
            _ => Err(LabError::Expect(format!("{}: {path}: {}", self.name(), output.stderr))),
        }
    }

    /// Repeats a shell command, each time in its own process, until it succeeds.
    ///
    /// # Errors
    /// It does not within `limit`, or the guest is off.
    pub fn wait_until(&self, what: &str, limit: Duration, command: &str) -> Result<Output> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.run(command, left) {
                Ok(output) if output.exit == 0 => return Ok(output),
                Ok(output) if Instant::now() > end => {
                    let said = output.stderr;
                    let what = format!("{}: {what} (`{command}` said {said:?})", self.name());
                    return Err(LabError::Late { what, limit });
                }
                Ok(_) => thread::sleep(Duration::from_millis(200)),
                Err(LabError::Late { .. }) => {
                    let what = format!("{}: {what} (`{command}` hangs)", self.name());
                    return Err(LabError::Late { what, limit });
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A command that runs in a guest.
#[derive(Debug)]
pub struct Job {
    agent: Arc<Agent>,
    id: u64,
    command: String,
    started: Instant,
}

impl Job {
    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has left, if it has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Output> {
        self.agent.ended(self.id)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It takes longer than `limit` (it is left running), or the guest goes off.
    pub fn wait(&self, limit: Duration) -> Result<Output> {
        self.agent.output(self.id, &format!("`{}`", self.command), limit)
    }

    /// Kills its process group.
    ///
    /// # Errors
    /// The guest is off.
    pub fn kill(&self) -> Result<()> {
        self.agent.say(&ToGuest::Kill { id: self.id })
    }
}
