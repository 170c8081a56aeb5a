//! QEMU's control connection.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{LabError, Result};
use crate::power::lock;

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What QEMU has told by itself.
#[derive(Debug, Default, Clone)]
pub(crate) struct Events {
    /// Why the machine ended, in QEMU's words, and when.
    pub(crate) shutdown: Option<(String, Instant)>,
    /// The hardware watchdog has bitten.
    pub(crate) watchdog: bool,
}

#[derive(Debug)]
pub(crate) struct Qmp {
    stream: Mutex<UnixStream>,
    answers: Mutex<Receiver<Value>>,
    events: Arc<Mutex<Events>>,
}

impl Qmp {
    /// Takes over a connection to QEMU's socket.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let copy = stream.try_clone().map_err(LabError::io("qmp"))?;
        let events: Arc<Mutex<Events>> = Arc::default();
        let (sender, receiver) = channel();
        let seen = Arc::clone(&events);
        thread::spawn(move || read(copy, &sender, &seen));
        let qmp = Self { stream: Mutex::new(stream), answers: Mutex::new(receiver), events };
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    pub(crate) fn events(&self) -> Events {
        lock(&self.events).clone()
    }

    /// One command; gives back what QEMU returns.
    pub(crate) fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let answers = lock(&self.answers);
        let line = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        lock(&self.stream).write_all(line.as_bytes()).map_err(LabError::io("qmp"))?;
        let answer = answers
            .recv_timeout(ANSWER_LIMIT)
            .map_err(|_| LabError::Late { what: format!("qmp {command}"), limit: ANSWER_LIMIT })?;
        match answer.get("error") {
            Some(error) => Err(LabError::Setup(format!("qmp {command}: {error}"))),
            None => Ok(answer.get("return").cloned().unwrap_or_default()),
        }
    }
}

fn read(stream: UnixStream, answers: &Sender<Value>, events: &Mutex<Events>) {
    for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        match value.get("event").and_then(Value::as_str) {
            Some("SHUTDOWN") => {
                let reason = value["data"]["reason"].as_str().unwrap_or("unknown").to_owned();
                lock(events).shutdown = Some((reason, Instant::now()));
            }
            Some("WATCHDOG") => lock(events).watchdog = true,
            Some(_) => {}
            None if value.get("QMP").is_some() => {}
            None => drop(answers.send(value)),
        }
    }
}

/// Connects as soon as QEMU listens.
pub(crate) fn connect(path: &Path, limit: Duration) -> Result<UnixStream> {
    let end = Instant::now() + limit;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > end => return Err(LabError::at(path)(error)),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
