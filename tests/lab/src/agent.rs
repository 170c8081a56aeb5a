//! The lab's side of the line to a guest's agent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, Result};
use crate::power::lock;
use crate::wire::{FromGuest, ToGuest};

/// What a command has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + signal if it was killed.
    pub exit: i32,
    /// Standard output, at most its last MiB.
    pub stdout: String,
    /// Standard error, at most its last MiB.
    pub stderr: String,
    /// When the lab heard of its end.
    pub at: Instant,
}

#[derive(Debug, Default)]
struct Heard {
    hello: Option<(String, String)>,
    outputs: BTreeMap<u64, Output>,
    closed: bool,
    next: u64,
}

/// Shared by the guest, its jobs, and the thread that reads.
#[derive(Debug)]
pub(crate) struct Agent {
    guest: String,
    stream: Mutex<UnixStream>,
    heard: Mutex<Heard>,
    news: Condvar,
}

/// What to do with a fence request: its id, action and victim, and the way back.
pub(crate) type OnFence = dyn Fn(Arc<Agent>, u64, String, String) + Send + Sync;

impl Agent {
    pub(crate) fn new(
        guest: &str,
        stream: UnixStream,
        on_fence: Arc<OnFence>,
    ) -> Result<Arc<Self>> {
        let copy = stream.try_clone().map_err(LabError::io("agent"))?;
        let agent = Arc::new(Self {
            guest: guest.to_owned(),
            stream: Mutex::new(stream),
            heard: Mutex::default(),
            news: Condvar::new(),
        });
        let reader = Arc::clone(&agent);
        thread::spawn(move || reader.read(copy, &on_fence));
        Ok(agent)
    }

    fn read(self: &Arc<Self>, stream: UnixStream, on_fence: &Arc<OnFence>) {
        for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
            match serde_json::from_str(&line) {
                Ok(FromGuest::Fence { id, action, node }) => {
                    let (agent, on_fence) = (Arc::clone(self), Arc::clone(on_fence));
                    thread::spawn(move || on_fence(agent, id, action, node));
                }
                Ok(FromGuest::Hello { boot_id, release }) => {
                    lock(&self.heard).hello = Some((boot_id, release));
                }
                Ok(FromGuest::Exit { id, exit, stdout, stderr }) => {
                    let output = Output { exit, stdout, stderr, at: Instant::now() };
                    lock(&self.heard).outputs.insert(id, output);
                }
                Err(_) => {}
            }
            self.news.notify_all();
        }
        lock(&self.heard).closed = true;
        self.news.notify_all();
    }

    pub(crate) fn say(&self, message: &ToGuest) -> Result<()> {
        let line = serde_json::to_string(message).map_err(|e| LabError::Setup(e.to_string()))?;
        let sent = lock(&self.stream).write_all((line + "\n").as_bytes());
        sent.map_err(|_| self.gone("a request"))
    }

    fn gone(&self, what: &str) -> LabError {
        LabError::Gone { guest: self.guest.clone(), what: what.to_owned() }
    }

    /// A number for a request.
    pub(crate) fn number(&self) -> u64 {
        let mut heard = lock(&self.heard);
        heard.next += 1;
        heard.next
    }

    /// Waits for the guest's first word: boot id and kernel release.
    pub(crate) fn hello(&self, limit: Duration) -> Result<(String, String)> {
        self.wait("its agent's first word", limit, |heard| heard.hello.clone())
    }

    /// Waits for the end of a request.
    pub(crate) fn output(&self, id: u64, what: &str, limit: Duration) -> Result<Output> {
        self.wait(what, limit, |heard| heard.outputs.get(&id).cloned())
    }

    /// The end of a request, if it has ended.
    pub(crate) fn ended(&self, id: u64) -> Option<Output> {
        lock(&self.heard).outputs.get(&id).cloned()
    }

    fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Heard) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        let mut heard = lock(&self.heard);
        loop {
            if let Some(found) = look(&heard) {
                return Ok(found);
            }
            if heard.closed {
                return Err(self.gone(what));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("{}: {what}", self.guest);
                return Err(LabError::Late { what, limit });
            }
            heard = self.news.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
