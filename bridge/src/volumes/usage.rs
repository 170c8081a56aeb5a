//! One service that the daemon itself begins and ends: the region of a volume, or a mount.
//!
//! | state \ event | wanted | not wanted | due | Done | Already, InUse | Busy | NoGroup, NoService | NotBegun, TimedOut, Failed | other refusals |
//! |---|---|---|---|---|---|---|---|---|---|
//! | Idle       | → Beginning, begin | - | | | | | | | |
//! | Beginning  | - | → Leaving, client gone, leave | | → Completing, complete | → Live, another's | → Pausing, short | → Pausing | → Pausing | → Pausing |
//! | Completing | - | - | | → Live | → Pausing | → Pausing, short | → Pausing | → Pausing | → Pausing |
//! | Live       | - | ours: → Leaving, leave; another's: → Lapsing | wanted: → Assuring, begin | | | | | | |
//! | Assuring   | - | → Leaving, client gone, leave | | → Completing, complete | → Live | → Live | → Pausing | → Pausing | → Live, soon again |
//! | Lapsing    | → Live | - | → Leaving, leave | | | | | | |
//! | Leaving    | - | - | | → Idle | → Again | → Again | → Idle | → Again | → Again |
//! | Again      | - | - | → Leaving, leave | | | | | | |
//! | Pausing    | - | - | → Idle | | | | | | |
//!
//! An empty cell cannot be: only the request that is under way is answered.
//!
//! `Assuring`: an administrator can end any service by hand, and the core tells nobody; so what
//! should be there is begun again from time to time. `Lapsing`: a tool began the service and may be
//! about to end it; if it does not, we do. `Again`: a leave that timed out goes on in the core, and
//! asking again is the only way to hear that it is done.

use o2bridge_core::{Begin, ClientId, Event, GroupId, Now, Refusal, Reply, RequestId, ServiceName};

/// The pause before a refused begin is tried again.
pub(super) const RETRY_MS: u64 = 10_000;
/// The same if only something else has to end first.
pub(super) const BUSY_MS: u64 = 1_000;
/// The pause between two assurances.
pub(super) const ASSURE_MS: u64 = 60_000;
/// How long a tool has to end what it began.
pub(super) const LAPSE_MS: u64 = 10_000;

/// Set in every id of ours; those of the doors count up from 0.
const OURS: u64 = 1 << 63;

/// Whether this request is one of the daemon's own.
pub(super) fn is_ours(request: RequestId) -> bool {
    request.0 & OURS != 0
}

/// Gives out ids that no door gives out.
#[derive(Debug, Default)]
pub(super) struct Ids {
    next: u64,
}

impl Ids {
    fn next(&mut self) -> u64 {
        self.next += 1;
        OURS | self.next
    }
}

/// What a step needs.
pub(super) struct Step<'a> {
    pub(super) now: Now,
    pub(super) group: GroupId,
    /// The cluster that the volume names.
    pub(super) cluster: Option<&'a str>,
    pub(super) ids: &'a mut Ids,
    pub(super) out: &'a mut Vec<Event>,
}

/// One service, as far as we know.
#[derive(Debug)]
pub(super) struct Usage {
    service: ServiceName,
    /// Of its own, so that its begin can be taken back without those of others.
    client: ClientId,
    /// A tool began it.
    is_anothers: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Idle,
    Beginning(RequestId),
    Completing(RequestId),
    Live { assure_at: Now },
    Assuring(RequestId),
    Lapsing { until: Now },
    Leaving(RequestId),
    Again { at: Now },
    Pausing { until: Now, why: String, is_final: bool },
}

impl Usage {
    pub(super) fn new(service: ServiceName, ids: &mut Ids) -> Self {
        let client = ClientId(ids.next());
        Self { service, client, is_anothers: false, state: State::Idle }
    }

    /// One that a tool began, and that is ours to end.
    pub(super) fn of_tool(service: ServiceName, ids: &mut Ids) -> Self {
        let state = State::Live { assure_at: Now(u64::MAX) };
        Self { state, ..Self::new(service, ids) }
    }

    /// A predecessor's, which the core has taken over. One that was not live is completed: nobody
    /// else would.
    pub(super) fn inherit(service: ServiceName, live: bool, step: &mut Step<'_>) -> Self {
        let mut usage = Self::new(service, step.ids);
        if live {
            usage.become_live(step.now, ASSURE_MS);
        } else {
            usage.complete(step);
        }
        usage
    }

    /// Whether nothing of it is left, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the core has it, as far as we know, and is not about to lose it.
    pub(super) fn is_live(&self) -> bool {
        match self.state {
            State::Live { .. } | State::Assuring(_) | State::Lapsing { .. } => true,
            State::Idle
            | State::Beginning(_)
            | State::Completing(_)
            | State::Leaving(_)
            | State::Again { .. }
            | State::Pausing { .. } => false,
        }
    }

    /// Whether it is begun or about to be, and was not refused.
    pub(super) fn is_begun(&self) -> bool {
        self.is_live() || matches!(self.state, State::Beginning(_) | State::Completing(_))
    }

    /// Whether it is on its way out.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.state, State::Leaving(_) | State::Again { .. })
    }

    /// Why it was refused.
    pub(super) fn refusal(&self) -> Option<&str> {
        match &self.state {
            State::Pausing { why, .. } => Some(why),
            _ => None,
        }
    }

    /// Whether it was refused for what asking again does not change.
    pub(super) const fn is_refused_for_good(&self) -> bool {
        matches!(self.state, State::Pausing { is_final: true, .. })
    }

    /// Whether this is the request that it waits for.
    pub(super) fn waits_for(&self, request: RequestId) -> bool {
        match self.state {
            State::Beginning(own)
            | State::Completing(own)
            | State::Assuring(own)
            | State::Leaving(own) => own == request,
            State::Idle
            | State::Live { .. }
            | State::Lapsing { .. }
            | State::Again { .. }
            | State::Pausing { .. } => false,
        }
    }

    /// When something is due.
    pub(super) fn next_at(&self) -> Option<Now> {
        match self.state {
            State::Live { assure_at: at }
            | State::Lapsing { until: at }
            | State::Again { at }
            | State::Pausing { until: at, .. } => Some(at),
            State::Idle
            | State::Beginning(_)
            | State::Completing(_)
            | State::Assuring(_)
            | State::Leaving(_) => None,
        }
    }

    /// Ends a pause that is over. Whether it is wanted then has to be judged anew.
    pub(super) fn expire(&mut self, now: Now) {
        if matches!(self.state, State::Pausing { until, .. } if until <= now) {
            self.state = State::Idle;
        }
    }

    /// Something changed that may have been in the way.
    pub(super) fn hurry(&mut self, now: Now) {
        if let State::Pausing { until, .. } = &mut self.state {
            *until = now;
        }
    }

    /// Takes the next step, if there is one: the columns wanted, not wanted and due.
    pub(super) fn advance(&mut self, wanted: bool, step: &mut Step<'_>) {
        match self.state {
            State::Idle if wanted => {
                self.is_anothers = false;
                self.state = State::Beginning(self.begin(step));
            }
            State::Beginning(_) | State::Assuring(_) if !wanted => {
                step.out.push(Event::ClientGone { client: self.client });
                self.leave(step);
            }
            State::Live { .. } if !wanted && self.is_anothers => {
                self.state = State::Lapsing { until: step.now.after(LAPSE_MS) };
            }
            State::Live { .. } if !wanted => self.leave(step),
            State::Live { assure_at } if assure_at <= step.now => {
                self.state = State::Assuring(self.begin(step));
            }
            State::Lapsing { .. } if wanted => self.become_live(step.now, ASSURE_MS),
            State::Lapsing { until } if until <= step.now => self.leave(step),
            State::Again { at } if at <= step.now => self.leave(step),
            State::Idle
            | State::Beginning(_)
            | State::Completing(_)
            | State::Live { .. }
            | State::Assuring(_)
            | State::Lapsing { .. }
            | State::Leaving(_)
            | State::Again { .. }
            | State::Pausing { .. } => {}
        }
    }

    /// Takes the answer to the request that is under way: the columns of replies.
    pub(super) fn handle_reply(&mut self, reply: &Reply, step: &mut Step<'_>) {
        let kind = Kind::of(reply);
        match (&self.state, kind) {
            (State::Beginning(_) | State::Assuring(_), Kind::Done) => self.complete(step),
            (State::Beginning(_), Kind::There) => {
                self.is_anothers = true;
                self.become_live(step.now, ASSURE_MS);
            }
            (State::Completing(_), Kind::Done) => self.become_live(step.now, ASSURE_MS),
            (State::Assuring(_), Kind::There | Kind::Busy) => {
                self.become_live(step.now, ASSURE_MS);
            }
            (State::Assuring(_), Kind::Refused) => self.become_live(step.now, RETRY_MS),
            (State::Leaving(_), Kind::Done | Kind::Absent) => self.state = State::Idle,
            (State::Leaving(_), Kind::There | Kind::Busy | Kind::Undone | Kind::Refused) => {
                self.state = State::Again { at: step.now.after(BUSY_MS) };
            }
            (State::Beginning(_) | State::Completing(_), Kind::Busy) => {
                self.pause(reply, BUSY_MS, step.now);
            }
            (State::Beginning(_), Kind::Absent | Kind::Undone | Kind::Refused)
            | (State::Completing(_), Kind::There | Kind::Absent | Kind::Undone | Kind::Refused)
            | (State::Assuring(_), Kind::Absent | Kind::Undone) => {
                self.pause(reply, RETRY_MS, step.now);
            }
            (
                State::Idle
                | State::Live { .. }
                | State::Lapsing { .. }
                | State::Again { .. }
                | State::Pausing { .. },
                _,
            ) => {}
        }
    }

    fn become_live(&mut self, now: Now, assure_ms: u64) {
        self.state = State::Live { assure_at: now.after(assure_ms) };
    }

    fn pause(&mut self, reply: &Reply, ms: u64, now: Now) {
        let why = match reply {
            Reply::Refused(refusal) => refusal.to_string(),
            Reply::Done | Reply::Already => "ended by somebody else".into(),
        };
        let is_final = Kind::of(reply) == Kind::Refused;
        self.state = State::Pausing { until: now.after(ms), why, is_final };
    }

    /// Devices come, go and change their number while the group is in use; only tools name theirs.
    fn begin(&self, step: &mut Step<'_>) -> RequestId {
        let request = RequestId(step.ids.next());
        step.out.push(Event::Begin(Begin {
            request,
            client: self.client,
            group: step.group,
            service: self.service.clone(),
            cluster: step.cluster.map(str::to_owned),
            device: None,
            held: false,
        }));
        request
    }

    fn complete(&mut self, step: &mut Step<'_>) {
        let request = RequestId(step.ids.next());
        let service = self.service.clone();
        let (client, group) = (self.client, step.group);
        step.out.push(Event::Complete { request, client, group, service, code: 0 });
        self.state = State::Completing(request);
    }

    fn leave(&mut self, step: &mut Step<'_>) {
        let request = RequestId(step.ids.next());
        let service = self.service.clone();
        let (client, group) = (self.client, step.group);
        step.out.push(Event::Leave { request, client, group, service });
        self.state = State::Leaving(request);
    }
}

/// The columns of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Done,
    /// It is there already.
    There,
    Busy,
    /// It is not there.
    Absent,
    /// What was begun is undone, or goes on without us.
    Undone,
    Refused,
}

impl Kind {
    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Already | Reply::Refused(Refusal::InUse) => Self::There,
            Reply::Refused(Refusal::Busy) => Self::Busy,
            Reply::Refused(Refusal::NoGroup | Refusal::NoService) => Self::Absent,
            Reply::Refused(Refusal::NotBegun | Refusal::TimedOut(_) | Refusal::Failed { .. }) => {
                Self::Undone
            }
            Reply::Refused(
                Refusal::WrongCluster { .. }
                | Refusal::DeviceMismatch
                | Refusal::NoCluster
                | Refusal::Expelled
                | Refusal::Incompatible { .. }
                | Refusal::LockingMismatch { .. }
                | Refusal::TooMany { .. }
                | Refusal::NothingToAck(_)
                | Refusal::Stopping,
            ) => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests;
