//! The new door's words: calls and replies of varlink, and what those that change something mean.

mod message;

use o2bridge_core::{Begin, DeviceId, Event, GroupId, NodeId, Reply, ServiceName};
use serde_json::json;

use crate::Asker;
use crate::errno::EINVAL;
pub use message::{Call, END, InvalidParameter, Parameters, Response, SERVICE, put_json};

/// Our interface.
pub const INTERFACE: &str = "io.o2bridge";

/// Why a call leads to nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// The call is not one of ours.
    Call(Response),
    /// The daemon does not do it.
    No {
        /// A stable word for programs.
        code: &'static str,
        /// A Linux errno.
        errno: i32,
        /// What is wrong.
        message: String,
    },
}

impl From<InvalidParameter> for Refused {
    fn from(invalid: InvalidParameter) -> Self {
        Self::Call(Response::service_error("InvalidParameter", "parameter", &invalid.0))
    }
}

impl Refused {
    fn invalid(code: &'static str, message: String) -> Self {
        Self::No { code, errno: EINVAL, message }
    }

    /// There is no such thing; `error` and `key` are the protocol's own.
    #[must_use]
    pub fn not_found(error: &str, key: &str, name: &str) -> Self {
        Self::Call(Response::service_error(error, key, name))
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Call(response) => response,
            Refused::No { code, errno, message } => Self::refused(code, errno, &message),
        }
    }
}

/// The methods that the core answers. All need root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// About to use a group.
    Begin,
    /// What became of it.
    Complete,
    /// Ends its use.
    Leave,
    /// The administrator's word that a node is off.
    FenceAck,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Begin, Self::Complete, Self::Leave, Self::FenceAck];

    /// Its name in our interface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "Begin",
            Self::Complete => "Complete",
            Self::Leave => "Leave",
            Self::FenceAck => "FenceAck",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Checks the parameters. `device` finds a device's number, and is asked only once its group and
    /// its service are right.
    ///
    /// # Errors
    /// A parameter is missing, wrong, or none of ours.
    pub fn event(
        self,
        said: &mut Parameters,
        asker: Asker,
        device: impl FnOnce(&str) -> Result<Option<DeviceId>, Refused>,
    ) -> Result<Event, Refused> {
        let Asker { request, client } = asker;
        let event = match self {
            Self::Begin => {
                let (group, service) = (group(said)?, service(said)?);
                let cluster = said.optional_text("cluster")?;
                let path = said.optional_text("device")?;
                let held = said.flag("hold")?;
                let device = path.map_or(Ok(None), |path| device(&path))?;
                Event::Begin(Begin { request, client, group, service, cluster, device, held })
            }
            Self::Complete => {
                let (group, service) = (group(said)?, service(said)?);
                Event::Complete { request, client, group, service, code: said.number("code")? }
            }
            Self::Leave => {
                let (group, service) = (group(said)?, service(said)?);
                Event::Leave { request, client, group, service }
            }
            Self::FenceAck => {
                Event::FenceAck { request, client, node: NodeId(said.number("node")?) }
            }
        };
        said.end()?;
        Ok(event)
    }

    /// The core's answer. Only to a begin does it matter whether the service lives already.
    #[must_use]
    pub fn response(self, reply: &Reply) -> Response {
        match (reply, self) {
            (Reply::Refused(refusal), _) => {
                Response::refused(refusal.code(), refusal.errno(), &refusal.to_string())
            }
            (Reply::Done | Reply::Already, Self::Begin) => {
                Response::Last(json!({ "already": *reply == Reply::Already }))
            }
            (Reply::Done | Reply::Already, Self::Complete | Self::Leave | Self::FenceAck) => {
                Response::Last(json!({}))
            }
        }
    }
}

impl Response {
    /// A refusal, by a stable word for programs, an errno and a sentence.
    #[must_use]
    pub fn refused(code: &str, errno: i32, message: &str) -> Self {
        let parameters = json!({ "code": code, "errno": errno, "message": message });
        Self::Error(format!("{INTERFACE}.Refused"), parameters)
    }

    /// What came is no call.
    #[must_use]
    pub fn bad_message(message: &str) -> Self {
        let parameters = json!({ "message": message });
        Self::Error(format!("{INTERFACE}.BadMessage"), parameters)
    }
}

fn group(said: &mut Parameters) -> Result<GroupId, Refused> {
    let text = said.text("group")?;
    parse_group(&text).ok_or_else(|| {
        let message = format!("'{text}' is no UUID of a volume: it has 32 hex digits");
        Refused::invalid("BadGroup", message)
    })
}

/// Reads a UUID with dashes or without, in either case.
#[must_use]
pub fn parse_group(text: &str) -> Option<GroupId> {
    if let Ok(group) = text.parse() {
        return Some(group);
    }
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = text.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq(lengths);
    is_uuid.then(|| parts.concat().parse().ok()).flatten()
}

fn service(said: &mut Parameters) -> Result<ServiceName, Refused> {
    ServiceName::new(&said.text("service")?)
        .map_err(|bad| Refused::invalid("BadService", bad.to_string()))
}

#[cfg(test)]
mod tests;
