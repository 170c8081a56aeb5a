//! One connection to a keeper: a question, an answer.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

use crate::clock::now;
use crate::record::{Op, RECORD_BYTES, Record, Status};
use crate::{Area, BEATS_MAX, Generation, Line, Slot};

/// How long an answer may take, in milliseconds.
pub(super) const ANSWER_MS: u64 = 1000;

/// What is beaten, by place.
pub(super) type Table = BTreeMap<(Area, Slot), Generation>;

/// A question without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkError {
    /// The connection is gone. The keeper may have done what was asked.
    Lost,
    /// No answer in time. The connection is of no use any more.
    Unanswered,
    /// The keeper does not talk to this client.
    Refused(Status),
}

/// What a keeper says of itself.
pub(super) struct Found {
    pub(super) table: Table,
    pub(super) line: Option<Line>,
    pub(super) missing: u64,
    pub(super) fingerprint: u64,
}

pub(super) struct Link {
    stream: UnixStream,
    pid: u32,
    id: u32,
}

impl Link {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let kind = SockType::SeqPacket;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let stream = UnixStream::from(socket);
        // Also for connect, which waits if too many do.
        stream.set_write_timeout(Some(Duration::from_millis(ANSWER_MS)))?;
        stream.set_read_timeout(Some(Duration::from_millis(ANSWER_MS)))?;
        connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
        let peer = getsockopt(&stream, PeerCredentials)?;
        Ok(Self { stream, pid: u32::try_from(peer.pid()).unwrap_or(0), id: 0 })
    }

    /// The keeper's process id, as the kernel knows it.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Asks, and waits for the answer to this very question.
    pub(super) fn ask(&mut self, question: Record) -> Result<Record, LinkError> {
        self.id = self.id.wrapping_add(1);
        let question = Record { id: self.id, ..question };
        let deadline = now().plus(ANSWER_MS);
        let sent = self.stream.write_all(&question.encode());
        while now() < deadline {
            let answer = self.receive()?;
            match answer.status {
                Status::Busy | Status::NotAllowed | Status::BadRecord => {
                    return Err(LinkError::Refused(answer.status));
                }
                _ if answer.id == question.id && answer.op == question.op => return Ok(answer),
                _ => {
                    sent.as_ref().map_err(classify)?;
                }
            }
        }
        Err(LinkError::Unanswered)
    }

    /// A keeper that closes a connection says why; that comes after the word of the end if it left
    /// something unread, and it can be read when nothing can be sent any more.
    fn receive(&mut self) -> Result<Record, LinkError> {
        let mut bytes = [0; RECORD_BYTES + 1];
        let mut length = self.stream.read(&mut bytes);
        if length.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset) {
            length = self.stream.read(&mut bytes);
        }
        let length = length.map_err(|error| classify(&error))?;
        bytes.get(..length).and_then(Record::decode).ok_or(LinkError::Lost)
    }

    /// Everything that the keeper says of itself.
    pub(super) fn hello(&mut self) -> Result<Found, LinkError> {
        let (mut table, mut line) = (Table::new(), None);
        for index in 0..=BEATS_MAX + 1 {
            let value = u64::try_from(index).unwrap_or(u64::MAX);
            let answer = self.ask(Record { value, ..Record::new(Op::Hello) })?;
            if answer.status == Status::Held {
                line = Line::from_bits(answer.generation);
                continue;
            }
            if answer.status != Status::Entry {
                let (missing, fingerprint) = (answer.value, answer.generation);
                return Ok(Found { table, line, missing, fingerprint });
            }
            if let Some(generation) = Generation::new(answer.generation) {
                table.insert((Area(answer.area), Slot(answer.slot)), generation);
            }
        }
        Err(LinkError::Lost)
    }
}

fn classify(error: &io::Error) -> LinkError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
            LinkError::Unanswered
        }
        _ => LinkError::Lost,
    }
}
