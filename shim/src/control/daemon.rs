//! dlm_controld over its two sockets: one connection for each question, and a limit for each answer.
//!
//! A connection whose answer is late stays open until it comes: dlm_controld may die of writing to one that is
//! closed (SIGPIPE, unless whoever started it had that ignored, as systemd does), and its death is the node's.
//! While an answer is late nothing else is asked.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use o2bridge_core::{GroupId, NodeId};

use super::dlmc::{self, Command, HEADER_BYTES, LOCKSPACE_BYTES, Lockspace, Node};
use super::error::ControlError;

/// How long an answer may take, in ms. It comes from memory: whoever takes longer is stopped.
const ANSWER_MS: u64 = 500;

/// Abstract names: one for questions, one for requests.
const QUESTIONS: &str = "dlmc_query_sock";
const REQUESTS: &str = "dlmc_sock";

/// What `control` needs of dlm_controld; in tests a stand-in.
pub(super) trait Dlm: Send + Sync {
    /// `None` if it knows no such lockspace.
    fn lockspace(&self, group: GroupId) -> Result<Option<Lockspace>, ControlError>;
    /// `None` if the node was never seen in the lockspace.
    fn node(&self, group: GroupId, node: NodeId) -> Result<Option<Node>, ControlError>;
    /// Right when repeated.
    fn register(&self, group: GroupId) -> Result<(), ControlError>;
    fn unregister(&self, group: GroupId) -> Result<(), ControlError>;
    /// The filesystem knows of the death. False: to be said again.
    fn notified(&self, group: GroupId, node: NodeId) -> Result<bool, ControlError>;
}

/// The one that runs beside us.
#[derive(Debug, Clone)]
pub(super) struct DlmControld {
    /// Before the sockets' names; tests have their own.
    prefix: String,
    /// Who may answer.
    uid: u32,
    answer_ms: u64,
    late: Arc<Mutex<Vec<Late>>>,
}

/// A connection whose answer is late.
#[derive(Debug)]
struct Late {
    stream: UnixStream,
    /// Bytes that are still to come.
    missing: usize,
}

impl Late {
    /// Whether the answer came, or nobody will answer any more.
    fn is_over(&mut self) -> bool {
        let mut bytes = [0; HEADER_BYTES + LOCKSPACE_BYTES];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(count) => self.missing = self.missing.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock || self.missing == 0,
            }
        }
    }
}

impl Default for DlmControld {
    fn default() -> Self {
        let late = Arc::default();
        Self { prefix: String::new(), uid: 0, answer_ms: ANSWER_MS, late }
    }
}

impl DlmControld {
    /// Sends a request in one piece: a part of one would keep the whole daemon waiting.
    fn send(
        &self,
        command: Command,
        group: GroupId,
        node: Option<NodeId>,
    ) -> Result<UnixStream, ControlError> {
        let name = match command {
            Command::LockspaceInfo | Command::NodeInfo => QUESTIONS,
            Command::Register | Command::Unregister | Command::Notified => REQUESTS,
        };
        let mut stream = self.connect(name)?;
        let limit = Some(Duration::from_millis(self.answer_ms));
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(limit))
            .and_then(|()| stream.set_write_timeout(limit))
            .map_err(ControlError::Connection)?;
        let request = dlmc::request(command, group, node);
        stream.write_all(&request).map_err(|error| self.failed(error))?;
        Ok(stream)
    }

    /// Without waiting: a queue that is full is that of a daemon that is stopped.
    fn connect(&self, name: &str) -> Result<UnixStream, ControlError> {
        let failed = |errno: Errno| self.failed(errno.into());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket: OwnedFd =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
        let address = UnixAddr::new_abstract(format!("{}{name}", self.prefix).as_bytes());
        connect(socket.as_raw_fd(), &address.map_err(failed)?).map_err(failed)?;
        let uid = getsockopt(&socket, PeerCredentials).map_err(failed)?.uid();
        if uid != self.uid {
            return Err(ControlError::Stranger { uid });
        }
        Ok(UnixStream::from(socket))
    }

    fn failed(&self, error: io::Error) -> ControlError {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => ControlError::Absent,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ControlError::Slow { for_ms: self.answer_ms }
            }
            _ => ControlError::Connection(error),
        }
    }

    /// The result, and what is behind it.
    fn ask(
        &self,
        command: Command,
        group: GroupId,
        node: Option<NodeId>,
    ) -> Result<(i32, Vec<u8>), ControlError> {
        self.await_late()?;
        let mut stream = self.send(command, group, node)?;
        let whole = HEADER_BYTES + command.payload_bytes();
        let mut answer = vec![0; whole];
        let mut length = 0;
        while length < whole {
            match stream.read(&mut answer[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let error = self.failed(error);
                    if matches!(error, ControlError::Slow { .. }) {
                        self.keep(stream, whole - length);
                    }
                    return Err(error);
                }
            }
            if length >= HEADER_BYTES {
                match answer_result(command, &answer) {
                    None => return Err(ControlError::Strange),
                    // One that failed has nothing behind its header.
                    Some(result) if result < 0 => break,
                    Some(_) => {}
                }
            }
        }
        let result = answer_result(command, &answer).ok_or(ControlError::Strange)?;
        if result >= 0 && length < whole {
            return Err(ControlError::Strange);
        }
        Ok((result, answer.split_off(HEADER_BYTES)))
    }

    fn keep(&self, stream: UnixStream, missing: usize) {
        if stream.set_nonblocking(true).is_ok() {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.push(Late { stream, missing });
        }
    }

    /// Asks nothing new of a daemon that still owes an answer.
    fn await_late(&self) -> Result<(), ControlError> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain_mut(|one| !one.is_over());
        if late.is_empty() { Ok(()) } else { Err(ControlError::Slow { for_ms: self.answer_ms }) }
    }
}

fn answer_result(command: Command, answer: &[u8]) -> Option<i32> {
    dlmc::result(command, answer.get(..HEADER_BYTES)?.try_into().ok()?)
}

fn refused(result: i32) -> ControlError {
    match Errno::from_raw(result.saturating_neg()) {
        Errno::EOPNOTSUPP => ControlError::NotAsked,
        errno => ControlError::Refused(errno as i32),
    }
}

impl Dlm for DlmControld {
    fn lockspace(&self, group: GroupId) -> Result<Option<Lockspace>, ControlError> {
        match self.ask(Command::LockspaceInfo, group, None)? {
            (result, _) if result == -(Errno::ENOENT as i32) => Ok(None),
            (result, _) if result < 0 => Err(refused(result)),
            (_, payload) => dlmc::lockspace(&payload).map(Some).ok_or(ControlError::Strange),
        }
    }

    fn node(&self, group: GroupId, node: NodeId) -> Result<Option<Node>, ControlError> {
        match self.ask(Command::NodeInfo, group, Some(node))? {
            (result, _) if result == -(Errno::ENOENT as i32) => Ok(None),
            (result, _) if result == -(Errno::ESRCH as i32) => Ok(None),
            (result, _) if result < 0 => Err(refused(result)),
            (_, payload) => dlmc::node(&payload).map(Some).ok_or(ControlError::Strange),
        }
    }

    fn register(&self, group: GroupId) -> Result<(), ControlError> {
        match self.ask(Command::Register, group, None)?.0 {
            0 => Ok(()),
            result if result == -(Errno::EALREADY as i32) => Ok(()),
            result => Err(refused(result)),
        }
    }

    fn unregister(&self, group: GroupId) -> Result<(), ControlError> {
        match self.send(Command::Unregister, group, None) {
            // A daemon that is gone remembers nothing.
            Ok(_) | Err(ControlError::Absent) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn notified(&self, group: GroupId, node: NodeId) -> Result<bool, ControlError> {
        match self.ask(Command::Notified, group, Some(node))?.0 {
            0 => Ok(true),
            result if result == -(Errno::EAGAIN as i32) => Ok(false),
            // A node or a lockspace that it does not know, it does not wait for.
            result if result == -(Errno::ESRCH as i32) => Ok(true),
            result if result == -(Errno::ENOENT as i32) => Ok(true),
            result => Err(refused(result)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::thread::{JoinHandle, spawn};

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn client(test: &str) -> DlmControld {
        let prefix = format!("o2bridge-test-{}-{test}-", std::process::id());
        let (uid, late) = (nix::unistd::getuid().as_raw(), Arc::default());
        DlmControld { prefix, uid, answer_ms: 200, late }
    }

    fn listen(client: &DlmControld, name: &str) -> UnixListener {
        let name = format!("{}{name}", client.prefix);
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
    }

    /// Answers one request; gives back what was asked.
    fn answer(listener: UnixListener, data: i32, payload: Vec<u8>) -> JoinHandle<Vec<u8>> {
        spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; HEADER_BYTES];
            stream.read_exact(&mut asked).unwrap();
            let mut header = asked.clone();
            header[20..24].copy_from_slice(&data.to_ne_bytes());
            stream.write_all(&header).unwrap();
            stream.write_all(&payload).unwrap();
            asked
        })
    }

    #[test]
    fn questions_and_requests() {
        let client = client("all");
        let mut payload = vec![0; dlmc::LOCKSPACE_BYTES];
        payload[64] = 4;
        let asked = answer(listen(&client, QUESTIONS), 0, payload);
        assert!(client.lockspace(GROUP).unwrap().unwrap().is_stopped);
        assert_eq!(asked.join().unwrap(), dlmc::request(Command::LockspaceInfo, GROUP, None));

        let mut payload = vec![0; dlmc::NODE_BYTES];
        payload[4] = 0x10;
        let asked = answer(listen(&client, QUESTIONS), 0, payload);
        assert!(client.node(GROUP, NodeId(3)).unwrap().unwrap().is_awaited);
        let expected = dlmc::request(Command::NodeInfo, GROUP, Some(NodeId(3)));
        assert_eq!(asked.join().unwrap(), expected);

        let asked = answer(listen(&client, QUESTIONS), -2, Vec::new());
        assert_eq!(client.lockspace(GROUP).unwrap(), None);
        asked.join().unwrap();

        for (result, expected) in
            [(0, Some(true)), (-11, Some(false)), (-3, Some(true)), (-5, None)]
        {
            let asked = answer(listen(&client, REQUESTS), result, Vec::new());
            assert_eq!(client.notified(GROUP, NodeId(3)).ok(), expected, "{result}");
            asked.join().unwrap();
        }
        for (result, expected) in [(0, None), (-114, None), (-95, Some(95)), (-12, Some(12))] {
            let asked = answer(listen(&client, REQUESTS), result, Vec::new());
            let said = client.register(GROUP).err().map(|error| error.errno());
            assert_eq!(said, expected, "{result}");
            asked.join().unwrap();
        }
    }

    #[test]
    fn nobody_there() {
        let client = client("nobody");
        assert!(matches!(client.register(GROUP), Err(ControlError::Absent)));
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Absent)));
        assert!(client.unregister(GROUP).is_ok());
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let client = client("slow");
        let listener = listen(&client, QUESTIONS);
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(2).unwrap()).unwrap();
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Slow { for_ms: 200 })));
        let mut waiting = Vec::new();
        // Its queue is full at some time, and then nobody waits for a place in it.
        for _ in 0..200 {
            match client.connect(QUESTIONS) {
                Ok(stream) => waiting.push(stream),
                Err(error) => {
                    assert!(matches!(error, ControlError::Slow { .. }), "{error}");
                    drop(listener);
                    return;
                }
            }
        }
        panic!("{} connections wait", waiting.len());
    }

    /// A daemon that writes to a connection that is closed may die of it.
    #[test]
    fn a_late_answer_is_taken_before_anything_else_is_asked() {
        let client = client("late");
        let listener = listen(&client, QUESTIONS);
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Slow { .. })));
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Slow { .. })), "nothing new");
        let (mut stream, _) = listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "one question was asked");
        let mut asked = [0; HEADER_BYTES];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(&asked).unwrap();
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Slow { .. })), "half of it");
        stream.write_all(&[0; LOCKSPACE_BYTES]).unwrap();
        drop(stream);
        listener.set_nonblocking(false).unwrap();
        let asked = answer(listener, 0, vec![0; LOCKSPACE_BYTES]);
        assert!(client.lockspace(GROUP).unwrap().is_some());
        asked.join().unwrap();
        assert!(client.late.lock().unwrap().is_empty());
    }

    #[test]
    fn an_answer_that_is_none() {
        let client = client("strange");
        let listener = listen(&client, QUESTIONS);
        let thread = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[7; HEADER_BYTES]).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
        });
        assert!(matches!(client.lockspace(GROUP), Err(ControlError::Strange)));
        thread.join().unwrap();
        let strangers = DlmControld { uid: client.uid + 1, ..client };
        let _listener = listen(&strangers, QUESTIONS);
        assert!(matches!(strangers.lockspace(GROUP), Err(ControlError::Stranger { .. })));
    }
}
