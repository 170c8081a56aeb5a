//! The new door: varlink, which our own command, `varlinkctl`, and every program that can write JSON
//! to a socket speak. The interface is described in `io.o2bridge.varlink`, which the door serves.

mod message;

use std::sync::Arc;

use nix::errno::Errno;
use o2bridge_core::{Begin, Event, GroupId, NodeId, Reply, ServiceName};
use serde_json::{Value, json};

use super::STREAMS_MAX;
use super::desk::{Call, Shown};
use super::device::device_id;
use super::dialect::{Dialect, Next};
use message::{InvalidParameter, Parameters, Response, SERVICE};

/// The description of our interface.
pub const DESCRIPTION: &str = include_str!("io.o2bridge.varlink");

/// Our interface.
pub const INTERFACE: &str = "io.o2bridge";

/// The description of the protocol's own interface.
const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

/// The longest call.
pub const CALL_BYTES_MAX: usize = 16 * 1024;

/// The new door's language.
#[derive(Debug, Default)]
pub(crate) struct Varlink {
    /// The call that waits.
    asked: Asked,
    /// Whether this connection stands for a tool that has begun.
    holds: bool,
}

/// What the answer to the waiting call looks like.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nothing waits, or nobody wants the answer.
    #[default]
    Nothing,
    /// A begin: whether it lives already.
    Begin,
    /// Anything else: that it is done.
    Other,
}

/// What a call leads to.
enum Answer {
    Now(Value),
    Status(Arc<Shown>),
    Later(Asked, Event),
    Stream(Arc<Shown>),
}

/// Why it leads to nothing.
enum Refused {
    /// The call is not one of ours.
    Call(Response),
    /// The daemon does not do it.
    No { code: &'static str, errno: Errno, message: String },
}

impl From<InvalidParameter> for Refused {
    fn from(invalid: InvalidParameter) -> Self {
        Self::Call(Response::service_error("InvalidParameter", "parameter", &invalid.0))
    }
}

impl Refused {
    fn invalid(code: &'static str, message: String) -> Self {
        Self::No { code, errno: Errno::EINVAL, message }
    }

    fn into_response(self) -> Response {
        match self {
            Self::Call(response) => response,
            Self::No { code, errno, message } => refused(code, errno as i32, &message),
        }
    }
}

impl Dialect for Varlink {
    const INPUT_BYTES_MAX: usize = CALL_BYTES_MAX;

    fn split(input: &[u8]) -> Option<usize> {
        input.iter().position(|byte| *byte == message::END).map(|end| end + 1)
    }

    fn handle(&mut self, message: &[u8], call: &mut Call<'_, '_>, output: &mut Vec<u8>) -> Next {
        let message = message.strip_suffix(&[message::END]).unwrap_or(message);
        let said = match message::Call::decode(message) {
            Ok(said) => said,
            Err(error) => {
                bad_message(&format!("this is no varlink call: {error}"), output);
                return Next::Closes;
            }
        };
        let oneway = said.oneway;
        let response = match self.take(said, call) {
            Ok(Answer::Later(asked, event)) => {
                self.asked = if oneway { Asked::Nothing } else { asked };
                call.hand_over(event);
                return Next::Waits;
            }
            Ok(Answer::Stream(shown)) => {
                self.publish(&shown, output);
                return Next::Streams;
            }
            Ok(Answer::Status(shown)) => {
                if !oneway {
                    message::put_json(shown.json(), false, output);
                }
                return Next::Answered;
            }
            Ok(Answer::Now(value)) => Response::Last(value),
            Err(refused) => refused.into_response(),
        };
        if !oneway {
            response.encode(output);
        }
        Next::Answered
    }

    fn overlong(output: &mut Vec<u8>) {
        bad_message(&format!("a call is longer than {CALL_BYTES_MAX} bytes"), output);
    }

    fn crowded(output: &mut Vec<u8>) {
        let message = "too many clients, try again";
        refused("TooMany", Errno::ENFILE as i32, message).encode(output);
    }

    fn answer(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        let asked = std::mem::take(&mut self.asked);
        let response = match (reply, asked) {
            (_, Asked::Nothing) => return,
            (Reply::Refused(refusal), _) => {
                refused(refusal.code(), refusal.errno(), &refusal.to_string())
            }
            (Reply::Done | Reply::Already, Asked::Begin) => {
                Response::Last(json!({ "already": *reply == Reply::Already }))
            }
            (Reply::Done | Reply::Already, Asked::Other) => Response::Last(json!({})),
        };
        response.encode(output);
    }

    fn publish(&mut self, shown: &Shown, output: &mut Vec<u8>) {
        message::put_json(shown.json(), true, output);
    }

    fn outlives_input(&self) -> bool {
        !self.holds
    }
}

impl Varlink {
    /// Finds the method.
    fn take(&mut self, said: message::Call, call: &mut Call<'_, '_>) -> Result<Answer, Refused> {
        let more = said.more && !said.oneway;
        let upgrade = said.upgrade;
        let (interface, method) = said.name();
        let (interface, method) = (interface.to_owned(), method.to_owned());
        let mut parameters = Parameters::new(said.parameters.unwrap_or_default());
        if upgrade {
            return Err(not_found("MethodNotImplemented", "method", &method));
        }
        let answer = match interface.as_str() {
            SERVICE => about(&method, &mut parameters, call),
            INTERFACE => self.method(&method, more, &mut parameters, call),
            other => Err(not_found("InterfaceNotFound", "interface", other)),
        };
        let answer = answer?;
        parameters.end()?;
        Ok(answer)
    }

    /// Our methods. Nothing is done before all parameters are known to be right: who acts at once
    /// checks first that none is left over.
    fn method(
        &mut self,
        method: &str,
        more: bool,
        parameters: &mut Parameters,
        call: &mut Call<'_, '_>,
    ) -> Result<Answer, Refused> {
        match method {
            "List" => Ok(Answer::Now(json!({ "groups": call.status().status.uses() }))),
            "Status" if more => {
                if call.desk.streams >= STREAMS_MAX {
                    let message = format!("more than {STREAMS_MAX} clients watch the status");
                    return Err(Refused::No { code: "TooMany", errno: Errno::ENFILE, message });
                }
                Ok(Answer::Stream(call.status()))
            }
            "Status" => Ok(Answer::Status(call.status())),
            "Capabilities" => Ok(Answer::Now(json!(call.machine()))),
            "Begin" => self.begin(parameters, need_root(call)?),
            "Complete" => complete(parameters, need_root(call)?),
            "Leave" => leave(parameters, need_root(call)?),
            "FenceAck" => fence_ack(parameters, need_root(call)?),
            "Dump" => Ok(Answer::Now(json!({ "text": need_root(call)?.dump() }))),
            "SetLogLevel" => set_log_level(parameters, need_root(call)?),
            other => Err(not_found("MethodNotFound", "method", other)),
        }
    }

    fn begin(&mut self, said: &mut Parameters, call: &Call<'_, '_>) -> Result<Answer, Refused> {
        let (group, service) = (group(said)?, service(said)?);
        let cluster = said.optional_text("cluster")?;
        let device = said.optional_text("device")?;
        let held = said.flag("hold")?;
        let device = device.map_or(Ok(None), |path| {
            device_id(&path).map_err(|errno| Refused::No {
                code: "BadDevice",
                errno,
                message: format!("{path}: {}", errno.desc()),
            })
        })?;
        self.holds |= held;
        let (request, client) = (call.request, call.client);
        let begin = Begin { request, client, group, service, cluster, device, held };
        Ok(Answer::Later(Asked::Begin, Event::Begin(begin)))
    }
}

fn complete(said: &mut Parameters, call: &Call<'_, '_>) -> Result<Answer, Refused> {
    let (group, service, code) = (group(said)?, service(said)?, said.number("code")?);
    let (request, client) = (call.request, call.client);
    let event = Event::Complete { request, client, group, service, code };
    Ok(Answer::Later(Asked::Other, event))
}

fn leave(said: &mut Parameters, call: &Call<'_, '_>) -> Result<Answer, Refused> {
    let (group, service) = (group(said)?, service(said)?);
    let (request, client) = (call.request, call.client);
    Ok(Answer::Later(Asked::Other, Event::Leave { request, client, group, service }))
}

fn fence_ack(said: &mut Parameters, call: &Call<'_, '_>) -> Result<Answer, Refused> {
    let node = NodeId(said.number("node")?);
    let (request, client) = (call.request, call.client);
    Ok(Answer::Later(Asked::Other, Event::FenceAck { request, client, node }))
}

fn set_log_level(said: &mut Parameters, call: &mut Call<'_, '_>) -> Result<Answer, Refused> {
    let level = said.text("level")?;
    let level = level.parse().map_err(|_| InvalidParameter("level".to_owned()))?;
    said.end()?;
    call.set_log_level(level);
    Ok(Answer::Now(json!({})))
}

/// The protocol's own interface.
fn about(
    method: &str,
    parameters: &mut Parameters,
    call: &mut Call<'_, '_>,
) -> Result<Answer, Refused> {
    match method {
        "GetInfo" => Ok(Answer::Now(json!({
            "vendor": "o2bridge",
            "product": "o2bridged",
            "version": call.status().status.version,
            "url": "",
            "interfaces": [SERVICE, INTERFACE],
        }))),
        "GetInterfaceDescription" => {
            let interface = parameters.text("interface")?;
            let description = match interface.as_str() {
                SERVICE => SERVICE_DESCRIPTION,
                INTERFACE => DESCRIPTION,
                other => return Err(not_found("InterfaceNotFound", "interface", other)),
            };
            Ok(Answer::Now(json!({ "description": description })))
        }
        other => Err(not_found("MethodNotFound", "method", other)),
    }
}

fn need_root<'a, 'b, 'c>(call: &'a mut Call<'b, 'c>) -> Result<&'a mut Call<'b, 'c>, Refused> {
    if call.trusted {
        return Ok(call);
    }
    let message = "only root may do this".to_owned();
    Err(Refused::No { code: "PermissionDenied", errno: Errno::EPERM, message })
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

fn not_found(error: &str, key: &str, name: &str) -> Refused {
    Refused::Call(Response::service_error(error, key, name))
}

fn refused(code: &str, errno: i32, message: &str) -> Response {
    let parameters = json!({ "code": code, "errno": errno, "message": message });
    Response::Error(format!("{INTERFACE}.Refused"), parameters)
}

fn bad_message(message: &str, output: &mut Vec<u8>) {
    let parameters = json!({ "message": message });
    Response::Error(format!("{INTERFACE}.BadMessage"), parameters).encode(output);
}
