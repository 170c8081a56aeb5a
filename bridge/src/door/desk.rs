//! What both doors share: the ids that they give out, whom they trust, and the last status that was
//! made, so that a crowd of readers costs one.

use std::sync::{Arc, OnceLock};

use mio::Token;
use o2bridge_core::{ClientId, Event, Now, RequestId};
use o2bridge_wire::Asker;

use super::{LogLevel, Machine, STREAM_PAUSE_MS, Status, Turn, View};

/// How old a status may be when nothing was said to have changed: its uptime is part of it.
const STATUS_AGE_MAX_MS: u64 = 1_000;

/// One status as it is shown, to as many readers as want it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) status: Status,
    /// Of which version it is; see [`Desk::version`].
    pub(crate) version: u64,
    /// Grows when more than the time is different.
    pub(crate) edition: u64,
    json: OnceLock<String>,
}

impl Shown {
    /// The same as JSON, made once.
    pub(crate) fn json(&self) -> &str {
        // Plain data of strings and numbers: it cannot fail, and if it ever did, an empty reply is
        // better than a dead daemon.
        let make = || serde_json::to_string(&self.status).unwrap_or_else(|_| "{}".to_owned());
        self.json.get_or_init(make)
    }
}

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
    /// The last status that was made, and when.
    last: Option<(Now, Arc<Shown>)>,
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
    fn status(&mut self, trusted: bool, now: Now, view: &dyn View) -> Arc<Shown> {
        if let Some((at, shown)) = &self.last {
            let age_ms = now.0.saturating_sub(at.0);
            let unchanged = shown.version == self.version && age_ms < STATUS_AGE_MAX_MS;
            if unchanged || (!trusted && age_ms < STREAM_PAUSE_MS) {
                return Arc::clone(shown);
            }
        }
        let status = view.status();
        let edition = match &self.last {
            Some((_, last)) if last.status.is_same_but_for_time(&status) => last.edition,
            Some((_, last)) => last.edition + 1,
            None => 0,
        };
        let shown =
            Arc::new(Shown { status, version: self.version, edition, json: OnceLock::new() });
        self.last = Some((now, Arc::clone(&shown)));
        shown
    }
}

/// One request on its way through a door: who asks, and what the door may use to answer.
pub(crate) struct Call<'a, 'b> {
    /// With the id for the event, if the request becomes one.
    pub(crate) asker: Asker,
    /// Whether the client may change things.
    pub(crate) trusted: bool,
    pub(crate) desk: &'a mut Desk,
    pub(crate) turn: &'a mut Turn<'b>,
}

impl Call<'_, '_> {
    pub(crate) fn status(&mut self) -> Arc<Shown> {
        self.desk.status(self.trusted, self.turn.now, self.turn.view)
    }

    pub(crate) fn dump(&self) -> String {
        self.turn.view.dump()
    }

    pub(crate) fn machine(&mut self) -> Machine {
        self.turn.view.machine()
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
