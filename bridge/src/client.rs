//! A client of `o2bridged` for Rust programs: blocking, one connection, one call at a time.
//!
//! ```no_run
//! use o2bridge::client::{Begin, Client};
//!
//! # fn mount() -> i32 { 0 }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let group = "19D19F8ECA01475EBA67AFD6D84C3B45".parse()?;
//! let mut client = Client::connect_default()?;
//! client.begin(&Begin::new(group, "/mnt/shared").device("/dev/sdb1").hold())?;
//! let code = mount();
//! client.complete(group, "/mnt/shared", code)?;
//! # Ok(())
//! # }
//! ```
//!
//! The library says nothing by itself; a program that wants to hear of calls and answers gives it a
//! sink with [`Client::log_to`].

mod error;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use o2bridge_wire::varlink::INTERFACE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::door::VARLINK_PATH;
use crate::machine::Machine;
use crate::status::{LogLevel, Status, Use};
pub use error::{ClientError, Refused};
pub use o2bridge_core::{GroupId, NodeId};
pub use o2bridge_wire::varlink::parse_group;

/// How long a call may take, unless [`Client::set_timeout`] says otherwise: longer than the daemon's
/// own default limits, so that its answer, which says what was waited for, comes first.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// The longest reply that is taken.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a tool tells before it uses a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    group: GroupId,
    service: String,
    cluster: Option<String>,
    device: Option<String>,
    hold: bool,
}

impl Begin {
    /// About to use this group: `service` is a mountpoint, or a tool's name.
    #[must_use]
    pub fn new(group: GroupId, service: &str) -> Self {
        Self { group, service: service.to_owned(), cluster: None, device: None, hold: false }
    }

    /// Refuse if this node is in another cluster.
    #[must_use]
    pub fn cluster(self, cluster: &str) -> Self {
        Self { cluster: Some(cluster.to_owned()), ..self }
    }

    /// The path of the volume's device. Refuse if another device of the same UUID is in use.
    #[must_use]
    pub fn device(self, device: &str) -> Self {
        Self { device: Some(device.to_owned()), ..self }
    }

    /// The connection stands for the tool: if it ends before complete, the daemon looks whether the
    /// volume is mounted, and if not, takes the begin back. Without this, a timeout does so.
    #[must_use]
    pub fn hold(self) -> Self {
        Self { hold: true, ..self }
    }
}

/// The answer to a begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// Go ahead, and complete.
    Ready,
    /// The service lives already: go ahead.
    Already,
}

type Sink = Box<dyn FnMut(&str) + Send>;

/// A connection to the daemon.
pub struct Client {
    stream: UnixStream,
    /// Bytes of the reply that is being read.
    input: Vec<u8>,
    timeout: Duration,
    sink: Option<Sink>,
    /// A call went wrong half-way: what comes next from the socket is not the next call's answer.
    is_dead: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("stream", &self.stream).finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// Connects to the daemon of this node.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_default() -> Answer<Self> {
        Self::connect(Path::new(VARLINK_PATH))
    }

    /// Connects to the daemon behind this socket.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Unreachable`]. Nothing was changed.
    pub fn connect(path: &Path) -> Answer<Self> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::from_connect(PathBuf::from(path), source))?;
        Ok(Self { stream, input: Vec::new(), timeout: TIMEOUT, sink: None, is_dead: false })
    }

    /// How long each of the following calls may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Hears of each call and each answer, one line each.
    pub fn log_to(&mut self, sink: impl FnMut(&str) + Send + 'static) {
        self.sink = Some(Box::new(sink));
    }

    /// About to use a group. Returns when the kernel knows who else uses it.
    ///
    /// # Errors
    /// After [`ClientError::Refused`] the begin is undone; for some milliseconds another one of the
    /// same group may be `Busy`. After a timeout the daemon takes it
    /// back, unless it was granted in that very moment: then [`Self::leave`] does.
    pub fn begin(&mut self, begin: &Begin) -> Answer<Begun> {
        let parameters = json!({
            "group": begin.group.to_string(),
            "service": begin.service,
            "cluster": begin.cluster,
            "device": begin.device,
            "hold": begin.hold,
        });
        #[derive(serde::Deserialize)]
        struct Reply {
            already: bool,
        }
        let reply: Reply = self.call("Begin", parameters)?;
        Ok(if reply.already { Begun::Already } else { Begun::Ready })
    }

    /// Says what became of the mount: 0 is good.
    ///
    /// # Errors
    /// The daemon knows of no begin, or could not be asked; then it looks for itself after a while.
    pub fn complete(&mut self, group: GroupId, service: &str, code: i32) -> Answer<()> {
        let group = group.to_string();
        self.call("Complete", json!({ "group": group, "service": service, "code": code }))
            .map(|Empty {}| ())
    }

    /// The service does not use the group any more.
    ///
    /// # Errors
    /// After [`ClientError::Refused`] with the code `TimedOut`, and after a timeout of ours, the leave
    /// goes on in the daemon.
    pub fn leave(&mut self, group: GroupId, service: &str) -> Answer<()> {
        self.call("Leave", json!({ "group": group.to_string(), "service": service }))
            .map(|Empty {}| ())
    }

    /// The groups in use on this node.
    ///
    /// # Errors
    /// The daemon could not be asked.
    pub fn list(&mut self) -> Answer<Vec<Use>> {
        #[derive(serde::Deserialize)]
        struct Reply {
            groups: Vec<Use>,
        }
        self.call("List", json!({})).map(|reply: Reply| reply.groups)
    }

    /// Everything that status shows.
    ///
    /// # Errors
    /// The daemon could not be asked.
    pub fn status(&mut self) -> Answer<Status> {
        self.call("Status", json!({}))
    }

    /// What this machine's kernel allows, and a verdict for each shim.
    ///
    /// # Errors
    /// The daemon could not be asked.
    pub fn capabilities(&mut self) -> Answer<Machine> {
        self.call("Capabilities", json!({}))
    }

    /// The status now, and again after each change. The connection serves nothing else afterwards.
    ///
    /// # Errors
    /// The daemon could not be asked.
    pub fn watch(mut self) -> Answer<Watch> {
        self.send("Status", json!({}), true)?;
        Ok(Watch { client: self, is_first: true })
    }

    /// The daemon's memory of what happened.
    ///
    /// # Errors
    /// The daemon could not be asked, or only root may.
    pub fn dump(&mut self) -> Answer<String> {
        #[derive(serde::Deserialize)]
        struct Reply {
            text: String,
        }
        self.call("Dump", json!({})).map(|reply: Reply| reply.text)
    }

    /// States that a node has been reset or is off. **If it is not, its volumes are lost.**
    ///
    /// # Errors
    /// The node waits for no such statement, or the daemon could not be asked.
    pub fn fence_ack(&mut self, node: NodeId) -> Answer<()> {
        self.call("FenceAck", json!({ "node": node.0 })).map(|Empty {}| ())
    }

    /// Logs this much from now on.
    ///
    /// # Errors
    /// The daemon could not be asked, or only root may.
    pub fn set_log_level(&mut self, level: LogLevel) -> Answer<()> {
        self.call("SetLogLevel", json!({ "level": level })).map(|Empty {}| ())
    }

    /// One call and its one reply.
    fn call<T: DeserializeOwned>(&mut self, method: &'static str, parameters: Value) -> Answer<T> {
        self.send(method, parameters, false)?;
        // A limit beyond the end of time is none.
        let deadline = Instant::now().checked_add(self.timeout);
        self.receive(method, deadline)
    }

    fn send(&mut self, method: &'static str, parameters: Value, more: bool) -> Answer<()> {
        if self.is_dead {
            return Err(ClientError::Dead);
        }
        let mut call =
            json!({ "method": format!("{INTERFACE}.{method}"), "parameters": parameters });
        if more {
            call["more"] = Value::Bool(true);
        }
        let mut message = call.to_string().into_bytes();
        self.log("call", &message);
        message.push(0);
        let timeout = Some(self.timeout.max(Duration::from_millis(1)));
        let written =
            self.stream.set_write_timeout(timeout).and_then(|()| self.stream.write_all(&message));
        match written {
            // Sent away, perhaps with a reason: that is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.fail(method, error)),
            Ok(()) => Ok(()),
        }
    }

    /// The next reply of a call.
    fn receive<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        deadline: Option<Instant>,
    ) -> Answer<T> {
        let message = self.read_message(deadline).map_err(|error| self.fail(method, error))?;
        self.log("answer", &message);
        let strange = |what: String| ClientError::Strange { method, what };
        let reply: Reply =
            serde_json::from_slice(&message).map_err(|error| strange(error.to_string()))?;
        match reply.error {
            None => {
                serde_json::from_value(reply.parameters).map_err(|error| strange(error.to_string()))
            }
            Some(name) => Err(ClientError::from_reply(method, &name, reply.parameters)),
        }
    }

    /// The connection is of no use any more; the daemon hears of it at once.
    fn fail(&mut self, method: &'static str, error: io::Error) -> ClientError {
        self.is_dead = true;
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ClientError::TimedOut { method, timeout: self.timeout }
            }
            _ => ClientError::Lost { method, source: error },
        }
    }

    /// Reads up to the next NUL.
    fn read_message(&mut self, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        let mut chunk = [0; 4096];
        let mut searched = 0;
        loop {
            if let Some(end) = self.input[searched..].iter().position(|byte| *byte == 0) {
                let mut message: Vec<u8> = self.input.drain(..=searched + end).collect();
                message.pop();
                return Ok(message);
            }
            searched = self.input.len();
            if searched > REPLY_BYTES_MAX {
                return Err(io::Error::other("the reply is too long"));
            }
            let remaining = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if remaining.is_some_and(|remaining| remaining.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(remaining)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn log(&mut self, what: &str, message: &[u8]) {
        if let Some(sink) = &mut self.sink {
            sink(&format!("{what} {}", String::from_utf8_lossy(message)));
        }
    }
}

/// A reply that says nothing but that it is done.
#[derive(serde::Deserialize)]
struct Empty {}

/// A reply on the wire.
#[derive(serde::Deserialize)]
struct Reply {
    error: Option<String>,
    #[serde(default = "no_parameters")]
    parameters: Value,
}

fn no_parameters() -> Value {
    json!({})
}

/// The statuses of [`Client::watch`]: an iterator that ends with the first error.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    is_first: bool,
}

impl Iterator for Watch {
    type Item = Answer<Status>;

    /// Waits for the next change, however long that takes; only the first status has a time limit.
    fn next(&mut self) -> Option<Answer<Status>> {
        if self.client.is_dead {
            return None;
        }
        let first = self.is_first.then(|| Instant::now().checked_add(self.client.timeout));
        self.is_first = false;
        let status = self.client.receive("Status", first.flatten());
        self.client.is_dead |= status.is_err();
        Some(status)
    }
}
