//! One door: the socket that clients come to, and the clients that came.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use o2bridge_core::{ClientId, Event, Now, Reply, RequestId};

use super::connection::{Connection, Fate, Phase};
use super::desk::Desk;
use super::dialect::Dialect;
use super::{CLIENTS_MAX, STRANGERS_MAX, Turn};

/// The socket that clients come to.
pub(crate) type Listener = mio::net::UnixListener;

/// Clients taken in, or served again, before the loop gets its turn.
const BATCH_MAX: usize = 64;

/// The pause before another accept when the system has no descriptors or memory left.
const ACCEPT_PAUSE_MS: u64 = 100;

/// How often clients that are out of time are looked for.
const PATROL_PAUSE_MS: u64 = 1_000;

/// One door.
#[derive(Debug)]
pub(crate) struct Server<D> {
    registry: Registry,
    token: Token,
    listener: Option<Listener>,
    connections: BTreeMap<ClientId, Connection<D>>,
    strangers: usize,
    /// Whose reply is whose.
    waiting: BTreeMap<RequestId, ClientId>,
    streams: BTreeSet<ClientId>,
    /// Clients that have more to do without a new edge from the poll.
    again: BTreeSet<ClientId>,
    accept_at: Option<Now>,
    patrol_at: Option<Now>,
}

impl<D: Dialect> Server<D> {
    /// A door that listens, or with `None` a closed one.
    pub(crate) fn new(
        registry: &Registry,
        token: Token,
        mut listener: Option<Listener>,
    ) -> io::Result<Self> {
        let registry = registry.try_clone()?;
        if let Some(listener) = &mut listener {
            registry.register(listener, token, Interest::READABLE)?;
        }
        Ok(Self {
            registry,
            token,
            listener,
            connections: BTreeMap::new(),
            strangers: 0,
            waiting: BTreeMap::new(),
            streams: BTreeSet::new(),
            again: BTreeSet::new(),
            accept_at: None,
            patrol_at: None,
        })
    }

    pub(crate) fn ready(
        &mut self,
        event: &mio::event::Event,
        desk: &mut Desk,
        turn: &mut Turn<'_>,
    ) {
        if event.token() == self.token {
            return self.accept(desk, turn.now);
        }
        let Some(client) = desk.client(event.token()) else { return };
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.note_closed(event);
            self.serve(client, desk, turn);
        }
    }

    /// Answers a request; false if it is not one of this door's.
    pub(crate) fn reply(&mut self, request: RequestId, reply: &Reply, now: Now) -> bool {
        let Some(client) = self.waiting.remove(&request) else { return false };
        if let Some(connection) = self.connections.get_mut(&client) {
            connection.answer(reply, now);
            // What it sent ahead is served at the next tick: not here, where the daemon may be in
            // the middle of a death.
            self.again.insert(client);
        }
        true
    }

    pub(crate) fn deadline(&self, now: Now, desk: &Desk) -> Option<Now> {
        if !self.again.is_empty() {
            return Some(now);
        }
        let streams = self.streams.iter().filter_map(|client| {
            self.connections.get(client).and_then(|one| one.stream_due(desk.version()))
        });
        streams.chain(self.accept_at).chain(self.patrol_at).min()
    }

    pub(crate) fn tick(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) {
        if self.accept_at.is_some_and(|at| at <= turn.now) {
            self.accept(desk, turn.now);
        }
        for _ in 0..BATCH_MAX {
            let Some(client) = self.again.pop_first() else { break };
            self.serve(client, desk, turn);
        }
        self.publish(desk, turn);
        if self.patrol_at.is_some_and(|at| at <= turn.now) {
            self.patrol(desk, turn);
        }
    }

    /// Takes in whoever stands before the door.
    fn accept(&mut self, desk: &mut Desk, now: Now) {
        self.accept_at = None;
        for _ in 0..BATCH_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream, desk, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    // No descriptors or no memory: the client waits at the door, and no new edge
                    // will tell of it.
                    _ => {
                        self.accept_at = Some(now.after(ACCEPT_PAUSE_MS));
                        return;
                    }
                },
            }
        }
        self.accept_at = Some(now);
    }

    /// Lets one client in, if there is room.
    fn admit(&mut self, mut stream: UnixStream, desk: &mut Desk, now: Now) {
        let uid = getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.uid());
        let trusted = uid.is_some_and(|uid| desk.trusts(uid));
        if self.connections.len() >= CLIENTS_MAX || (!trusted && self.strangers >= STRANGERS_MAX) {
            let mut output = Vec::new();
            D::crowded(&mut output);
            // It fits into an empty socket; whoever does not read it sees the end all the same.
            let _ = stream.write(&output);
            return;
        }
        let client = desk.new_client();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut stream, desk.token(client), interest).is_err() {
            return;
        }
        self.strangers += usize::from(!trusted);
        self.connections.insert(client, Connection::new(stream, client, trusted, now));
        self.patrol_at.get_or_insert(now.after(PATROL_PAUSE_MS));
    }

    /// Lets one client do all that it can.
    fn serve(&mut self, client: ClientId, desk: &mut Desk, turn: &mut Turn<'_>) {
        self.again.remove(&client);
        let Some(connection) = self.connections.get_mut(&client) else { return };
        let fate = connection.pump(desk, turn);
        match connection.phase {
            Phase::Waiting(request) => {
                self.waiting.insert(request, client);
            }
            Phase::Streaming { .. } => {
                desk.streams += usize::from(self.streams.insert(client));
            }
            Phase::Idle | Phase::Closing => {}
        }
        match fate {
            Fate::Stays => {}
            Fate::Again => {
                self.again.insert(client);
            }
            Fate::Gone => self.remove(client, desk, turn),
        }
    }

    /// Sends a status to every stream whose turn it is.
    fn publish(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) {
        let is_due = |client: &ClientId| {
            let connection = self.connections.get(client);
            let due = connection.and_then(|one| one.stream_due(desk.version()));
            due.is_some_and(|at| at <= turn.now)
        };
        let due: Vec<ClientId> = self.streams.iter().copied().filter(is_due).collect();
        for client in due {
            if let Some(connection) = self.connections.get_mut(&client) {
                connection.publish(desk, turn);
            }
            self.serve(client, desk, turn);
        }
    }

    /// Sends away who keeps us waiting for too long.
    fn patrol(&mut self, desk: &mut Desk, turn: &mut Turn<'_>) {
        let late = |connection: &&Connection<D>| connection.is_out_of_time(turn.now);
        let late: Vec<ClientId> =
            self.connections.values().filter(late).map(|one| one.client).collect();
        for client in late {
            self.remove(client, desk, turn);
        }
        let next = turn.now.after(PATROL_PAUSE_MS);
        self.patrol_at = (!self.connections.is_empty()).then_some(next);
    }

    /// Forgets a client. The core hears of it if it knows it.
    fn remove(&mut self, client: ClientId, desk: &mut Desk, turn: &mut Turn<'_>) {
        let Some(mut connection) = self.connections.remove(&client) else { return };
        // Closing the socket takes it out of the poll as well.
        let _ = self.registry.deregister(&mut connection.stream);
        self.strangers -= usize::from(!connection.trusted);
        desk.streams -= usize::from(self.streams.remove(&client));
        self.again.remove(&client);
        if let Phase::Waiting(request) = connection.phase {
            self.waiting.remove(&request);
        }
        if connection.is_known {
            turn.out.push(Event::ClientGone { client });
        }
    }
}
