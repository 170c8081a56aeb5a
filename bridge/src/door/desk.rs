//! What both doors share: the ids that they give out, whom they trust, and the last status that was
//! made, so that a crowd of readers costs one.

use std::sync::Arc;

use mio::Token;
use o2bridge_core::{ClientId, Event, Now, RequestId};

use super::{LogLevel, STREAM_PAUSE_MS, Status, Turn, View};

/// How old a status may be when nothing was said to have changed: its uptime is part of it.
const STATUS_AGE_MAX_MS: u64 = 1_000;

/// The shared part of the doors.
#[derive(Debug)]
pub(crate) struct Desk {
    /// The token of the client with id 0.
    first_client: usize,
    next_client: u64,
    next_request: u64,
    trusted_uids: Vec<u32>,
    version: u64,
    /// How many clients watch the status.
    pub(crate) streams: usize,
    last: Option<(u64, Now, Arc<Status>)>,
}

impl Desk {
    pub(crate) fn new(first_client: Token, trusted_uids: Vec<u32>) -> Self {
        Self {
            first_client: first_client.0,
            next_client: 0,
            next_request: 0,
            trusted_uids,
            version: 0,
            streams: 0,
            last: None,
        }
    }

    /// A new client; no id is ever used twice.
    pub(crate) fn new_client(&mut self) -> ClientId {
        self.next_client += 1;
        ClientId(self.next_client - 1)
    }

    pub(crate) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request - 1)
    }

    /// The token of a client's connection.
    pub(crate) fn token(&self, client: ClientId) -> Token {
        Token(self.first_client + client.0 as usize)
    }

    /// The client of a token.
    pub(crate) fn client(&self, token: Token) -> Option<ClientId> {
        token.0.checked_sub(self.first_client).map(|number| ClientId(number as u64))
    }

    pub(crate) fn trusts(&self, uid: u32) -> bool {
        self.trusted_uids.contains(&uid)
    }

    /// Grows with every change that status could show.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn changed(&mut self) {
        self.version += 1;
    }

    /// The status now. For strangers it may be as old as one in a stream: they must not be able to
    /// make the loop copy the core's state as fast as they can ask.
    fn status(&mut self, trusted: bool, now: Now, view: &dyn View) -> Arc<Status> {
        if let Some((version, at, status)) = &self.last {
            let age_ms = now.0.saturating_sub(at.0);
            let unchanged = *version == self.version && age_ms < STATUS_AGE_MAX_MS;
            if unchanged || (!trusted && age_ms < STREAM_PAUSE_MS) {
                return Arc::clone(status);
            }
        }
        let status = Arc::new(view.status());
        self.last = Some((self.version, now, Arc::clone(&status)));
        status
    }
}

/// One request on its way through a door: who asks, and what the door may use to answer.
pub(crate) struct Call<'a, 'b> {
    pub(crate) client: ClientId,
    /// The id for the event, if the request becomes one.
    pub(crate) request: RequestId,
    /// Whether the client may change things.
    pub(crate) trusted: bool,
    pub(crate) desk: &'a mut Desk,
    pub(crate) turn: &'a mut Turn<'b>,
}

impl Call<'_, '_> {
    pub(crate) fn status(&mut self) -> Arc<Status> {
        self.desk.status(self.trusted, self.turn.now, self.turn.view)
    }

    pub(crate) fn dump(&self) -> String {
        self.turn.view.dump()
    }

    pub(crate) fn set_log_level(&mut self, level: LogLevel) {
        self.turn.view.set_log_level(level);
        self.desk.changed();
    }

    /// Hands the request to the core; its reply comes later.
    pub(crate) fn hand_over(&mut self, event: Event) {
        self.turn.out.push(event);
    }
}
