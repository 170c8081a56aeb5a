//! The new door: varlink, which our own command, `varlinkctl`, and every program that can write JSON
//! to a socket speak. The interface is described in `io.o2bridge.varlink`, which the door serves.

use std::sync::Arc;

use nix::errno::Errno;
use o2bridge_core::{DeviceId, Event, Reply};
use o2bridge_wire::varlink::{
    self as wire, END, INTERFACE, InvalidParameter, Method, Parameters, Refused, Response, SERVICE,
};
use serde_json::{Value, json};

use super::STREAMS_MAX;
use super::desk::{Call, Shown};
use super::device::device_id;
use super::dialect::{Dialect, Next};
use crate::volumes::{reserved_by_us, reserved_service};

/// The description of our interface.
pub const DESCRIPTION: &str = include_str!("io.o2bridge.varlink");

/// The description of the protocol's own interface.
const SERVICE_DESCRIPTION: &str = include_str!("org.varlink.service.varlink");

/// The longest call.
pub const CALL_BYTES_MAX: usize = 16 * 1024;

/// The new door's language.
#[derive(Debug, Default)]
pub(crate) struct Varlink {
    /// The call that waits, if somebody wants its answer.
    asked: Option<Method>,
    /// Whether this connection stands for a tool that has begun.
    holds: bool,
}

/// What a call leads to.
enum Answer {
    Now(Value),
    Status(Arc<Shown>),
    Later(Method, Event),
    Stream(Arc<Shown>),
}

impl Dialect for Varlink {
    const INPUT_BYTES_MAX: usize = CALL_BYTES_MAX;

    fn split(input: &[u8]) -> Option<usize> {
        input.iter().position(|byte| *byte == END).map(|end| end + 1)
    }

    fn handle(&mut self, message: &[u8], call: &mut Call<'_, '_>, output: &mut Vec<u8>) -> Next {
        let message = message.strip_suffix(&[END]).unwrap_or(message);
        let said = match wire::Call::decode(message) {
            Ok(said) => said,
            Err(error) => {
                let text = format!("this is no varlink call: {error}");
                Response::bad_message(&text).encode(output);
                return Next::Closes;
            }
        };
        let oneway = said.oneway;
        let response = match self.take(said, call) {
            Ok(Answer::Later(method, event)) => {
                self.asked = (!oneway).then_some(method);
                call.hand_over(event);
                return Next::Waits;
            }
            Ok(Answer::Stream(shown)) => {
                self.publish(&shown, output);
                return Next::Streams;
            }
            Ok(Answer::Status(shown)) => {
                if !oneway {
                    wire::put_json(shown.json(), false, output);
                }
                return Next::Answered;
            }
            Ok(Answer::Now(value)) => Response::Last(value),
            Err(refused) => refused.into(),
        };
        if !oneway {
            response.encode(output);
        }
        Next::Answered
    }

    fn overlong(output: &mut Vec<u8>) {
        let text = format!("a call is longer than {CALL_BYTES_MAX} bytes");
        Response::bad_message(&text).encode(output);
    }

    fn crowded(output: &mut Vec<u8>) {
        let message = "too many clients, try again";
        Response::refused("TooMany", Errno::ENFILE as i32, message).encode(output);
    }

    fn answer(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        if let Some(method) = self.asked.take() {
            method.response(reply).encode(output);
        }
    }

    fn publish(&mut self, shown: &Shown, output: &mut Vec<u8>) {
        wire::put_json(shown.json(), true, output);
    }

    fn outlives_input(&self) -> bool {
        !self.holds
    }
}

impl Varlink {
    /// Finds the method.
    fn take(&mut self, said: wire::Call, call: &mut Call<'_, '_>) -> Result<Answer, Refused> {
        let more = said.more && !said.oneway;
        let upgrade = said.upgrade;
        let (interface, method) = said.name();
        let (interface, method) = (interface.to_owned(), method.to_owned());
        let mut parameters = Parameters::new(said.parameters.unwrap_or_default());
        if upgrade {
            return Err(Refused::not_found("MethodNotImplemented", "method", &method));
        }
        let answer = match interface.as_str() {
            SERVICE => about(&method, &mut parameters, call),
            INTERFACE => self.method(&method, more, &mut parameters, call),
            other => Err(Refused::not_found("InterfaceNotFound", "interface", other)),
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
                    return Err(refused("TooMany", Errno::ENFILE, message));
                }
                Ok(Answer::Stream(call.status()))
            }
            "Status" => Ok(Answer::Status(call.status())),
            "Capabilities" => Ok(Answer::Now(json!(call.machine()))),
            "Dump" => Ok(Answer::Now(json!({ "text": need_root(call)?.dump() }))),
            "SetLogLevel" => set_log_level(parameters, need_root(call)?),
            other => match Method::named(other) {
                Some(method) => self.hand_over(method, parameters, need_root(call)?),
                None => Err(Refused::not_found("MethodNotFound", "method", other)),
            },
        }
    }

    /// What the core answers.
    fn hand_over(
        &mut self,
        method: Method,
        parameters: &mut Parameters,
        call: &Call<'_, '_>,
    ) -> Result<Answer, Refused> {
        let event = method.event(parameters, call.asker, device)?;
        if let Some(service) = reserved_service(&event) {
            return Err(refused("Reserved", Errno::EPERM, reserved_by_us(service)));
        }
        if let Event::Begin(begin) = &event {
            self.holds |= begin.held;
        }
        Ok(Answer::Later(method, event))
    }
}

fn device(path: &str) -> Result<Option<DeviceId>, Refused> {
    device_id(path)
        .map_err(|errno| refused("BadDevice", errno, format!("{path}: {}", errno.desc())))
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
                other => return Err(Refused::not_found("InterfaceNotFound", "interface", other)),
            };
            Ok(Answer::Now(json!({ "description": description })))
        }
        other => Err(Refused::not_found("MethodNotFound", "method", other)),
    }
}

fn need_root<'a, 'b, 'c>(call: &'a mut Call<'b, 'c>) -> Result<&'a mut Call<'b, 'c>, Refused> {
    if call.trusted {
        return Ok(call);
    }
    Err(refused("PermissionDenied", Errno::EPERM, "only root may do this".to_owned()))
}

fn refused(code: &'static str, errno: Errno, message: String) -> Refused {
    Refused::No { code, errno: errno as i32, message }
}
