//! One service of a group: the life of a tool's request.
//!
//! | state \ event | group ready, saved | complete 0 | complete ≠ 0 | leave | client gone | timer | looked: mounted or unknown | looked: not mounted |
//! |---|---|---|---|---|---|---|---|---|
//! | Beginning  | → Granted, answer | NotBegun | NotBegun | Busy | → Leaving | → Leaving, answer | - | - |
//! | Granted    | - | → Completing | → Leaving | Busy if held, else → Leaving | held: → Looking | mounts: → Looking, tools: → Live | - | - |
//! | Completing | → Live, answer | Busy | Busy | Busy | - | - | - | - |
//! | Live       | - | NotBegun | NotBegun | → Leaving | - | - | - | - |
//! | Additional | - | → Completing | → Completing | Busy | held: → Live | → Live | - | - |
//! | Looking    | - | Busy | Busy | Busy | - | - | → Live | → Leaving |
//! | Leaving    | others stay: → gone, answer | NotBegun | NotBegun | Busy | - | answer, go on | - | - |
//!
//! `Additional`: the kernel's service `ocfs2` lives and one more mount of it is under way; whatever
//! comes of that, the service stays. A complete of another client than the begin's is `NotBegun`
//! where the begin was held by its connection.

use crate::action::{Refusal, Reply};
use crate::event::Finding;
use crate::types::{ClientId, OpId, RequestId};

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    Beginning { request: RequestId, client: ClientId, held: bool },
    Granted { client: ClientId, held: bool },
    Completing { request: RequestId },
    Live,
    Additional { client: ClientId, held: bool },
    Looking { op: OpId },
    Leaving { request: Option<RequestId> },
}

/// What a state move asks of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Nothing more.
    Quietly,
    /// Answer this request.
    Answer(RequestId, ReplyKind),
    /// Look into the mount table, then store the op.
    Look,
}

/// The answers that a service gives by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Already,
    Busy,
    NotBegun,
    InUse,
}

impl From<ReplyKind> for Reply {
    fn from(kind: ReplyKind) -> Self {
        match kind {
            ReplyKind::Already => Self::Already,
            ReplyKind::Busy => Self::Refused(Refusal::Busy),
            ReplyKind::NotBegun => Self::Refused(Refusal::NotBegun),
            ReplyKind::InUse => Self::Refused(Refusal::InUse),
        }
    }
}

impl Service {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Beginning { .. } => "beginning",
            Self::Granted { .. } => "granted",
            Self::Completing { .. } => "completing",
            Self::Live => "live",
            Self::Additional { .. } => "additional",
            Self::Looking { .. } => "looking",
            Self::Leaving { .. } => "leaving",
        }
    }

    pub(crate) const fn is_beginning(&self) -> bool {
        matches!(self, Self::Beginning { .. })
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving { .. })
    }

    /// Whether its tool said that it is mounted: to be saved as such.
    pub(crate) const fn is_live(&self) -> bool {
        match self {
            Self::Completing { .. } | Self::Live | Self::Additional { .. } => true,
            Self::Beginning { .. }
            | Self::Granted { .. }
            | Self::Looking { .. }
            | Self::Leaving { .. } => false,
        }
    }

    /// A begin of a service that is here already.
    pub(crate) fn begin_again(&mut self, again: bool, client: ClientId, held: bool) -> ReplyKind {
        match self {
            Self::Live if again => {
                *self = Self::Additional { client, held };
                ReplyKind::Already
            }
            Self::Live => ReplyKind::InUse,
            Self::Beginning { .. }
            | Self::Granted { .. }
            | Self::Completing { .. }
            | Self::Additional { .. }
            | Self::Looking { .. }
            | Self::Leaving { .. } => ReplyKind::Busy,
        }
    }

    pub(crate) fn complete(&mut self, request: RequestId, from: ClientId, code: i32) -> Moved {
        match *self {
            Self::Granted { client, held } | Self::Additional { client, held }
                if held && client != from =>
            {
                Moved::Answer(request, ReplyKind::NotBegun)
            }
            Self::Granted { .. } if code != 0 => {
                *self = Self::Leaving { request: Some(request) };
                Moved::Quietly
            }
            // That it lives may not have been saved yet: a look can be all that says so.
            Self::Granted { .. } | Self::Additional { .. } => {
                *self = Self::Completing { request };
                Moved::Quietly
            }
            Self::Completing { .. } | Self::Looking { .. } => {
                Moved::Answer(request, ReplyKind::Busy)
            }
            Self::Beginning { .. } | Self::Live | Self::Leaving { .. } => {
                Moved::Answer(request, ReplyKind::NotBegun)
            }
        }
    }

    pub(crate) fn leave(&mut self, request: RequestId) -> Moved {
        match *self {
            Self::Live | Self::Granted { held: false, .. } => {
                *self = Self::Leaving { request: Some(request) };
                Moved::Quietly
            }
            Self::Beginning { .. }
            | Self::Granted { .. }
            | Self::Completing { .. }
            | Self::Additional { .. }
            | Self::Looking { .. }
            | Self::Leaving { .. } => Moved::Answer(request, ReplyKind::Busy),
        }
    }

    pub(crate) fn client_gone(&mut self, gone: ClientId) -> Moved {
        match *self {
            Self::Beginning { client, .. } if client == gone => {
                *self = Self::Leaving { request: None };
                Moved::Quietly
            }
            Self::Granted { client, held: true } if client == gone => Moved::Look,
            Self::Additional { client, held: true } if client == gone => {
                *self = Self::Live;
                Moved::Quietly
            }
            Self::Beginning { .. }
            | Self::Granted { .. }
            | Self::Completing { .. }
            | Self::Live
            | Self::Additional { .. }
            | Self::Looking { .. }
            | Self::Leaving { .. } => Moved::Quietly,
        }
    }

    /// The tool had time enough to mount.
    pub(crate) fn complete_overdue(&mut self) -> Moved {
        match *self {
            Self::Granted { .. } => Moved::Look,
            Self::Additional { .. } => {
                *self = Self::Live;
                Moved::Quietly
            }
            Self::Beginning { .. }
            | Self::Completing { .. }
            | Self::Live
            | Self::Looking { .. }
            | Self::Leaving { .. } => Moved::Quietly,
        }
    }

    pub(crate) fn looked(&mut self, looked: OpId, finding: Finding) {
        if *self == (Self::Looking { op: looked }) {
            *self = match finding {
                Finding::Mounted | Finding::Unknown => Self::Live,
                Finding::NotMounted => Self::Leaving { request: None },
            };
        }
    }
}

#[cfg(test)]
mod tests;
