//! What a tool says goes through the real doors' codecs: bytes out of the tool, an event into the
//! core; the core's reply as bytes, and what the tool reads in them.

use o2bridge_core::{ClientId, Event, Reply, RequestId};
use o2bridge_wire::legacy::{Meaning, Request, Response};
use o2bridge_wire::varlink::{Call, INTERFACE, Method, Parameters, Refused};
use o2bridge_wire::{Asker, errno};

/// Which way a tool speaks to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// 256-byte messages.
    Old,
    /// Varlink.
    New,
    /// None: the daemon's own eyes.
    Inside,
}

/// What a tool reads in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Go ahead, or done.
    Good,
    /// Something else is under way.
    Busy,
    /// No.
    No,
}

/// The event that arrives when a tool asks for this one. `None`: the door does not let it through.
#[must_use]
pub fn through(door: Door, event: Event) -> Option<Event> {
    match door {
        Door::Inside => Some(event),
        Door::Old => old(&event),
        Door::New => new(&event),
    }
}

/// The cluster as tools name it.
pub const CLUSTER: &str = "sim";

fn old(event: &Event) -> Option<Event> {
    let fstype = "ocfs2";
    let (group, service, code);
    let (asker, request) = match event {
        Event::Begin(begin) => {
            (group, service) = (begin.group.to_string(), begin.service.as_str());
            let request = Request::Mount {
                fstype,
                uuid: &group,
                cluster: CLUSTER,
                device: "/dev/x",
                service,
            };
            (asker(begin.request, begin.client), request)
        }
        Event::Complete { request, client, group: id, service: name, code: result } => {
            (group, service, code) = (id.to_string(), name.as_str(), result.to_string());
            let said = Request::MountResult { fstype, uuid: &group, code: &code, service };
            (asker(*request, *client), said)
        }
        Event::Leave { request, client, group: id, service: name } => {
            (group, service) = (id.to_string(), name.as_str());
            (asker(*request, *client), Request::Unmount { fstype, uuid: &group, service })
        }
        _ => return None,
    };
    let bytes = request.encode().ok()?;
    match Request::decode(&bytes).ok()?.meaning(asker, |_| Ok(None)).ok()? {
        Meaning::Event(event) => Some(event),
        Meaning::Groups { .. } | Meaning::Services(_) | Meaning::Clusters | Meaning::Dump => None,
    }
}

fn new(event: &Event) -> Option<Event> {
    let (asker, method, parameters) = match event {
        Event::Begin(begin) => {
            let held = begin.held;
            let more = format!(",\"cluster\":\"{CLUSTER}\",\"hold\":{held}");
            let said = parameters(&begin.group.to_string(), begin.service.as_str(), &more);
            (asker(begin.request, begin.client), Method::Begin, said)
        }
        Event::Complete { request, client, group, service, code } => {
            let more = format!(",\"code\":{code}");
            let said = parameters(&group.to_string(), service.as_str(), &more);
            (asker(*request, *client), Method::Complete, said)
        }
        Event::Leave { request, client, group, service } => {
            let said = parameters(&group.to_string(), service.as_str(), "");
            (asker(*request, *client), Method::Leave, said)
        }
        _ => return None,
    };
    let text =
        format!("{{\"method\":\"{INTERFACE}.{}\",\"parameters\":{parameters}}}", method.name());
    let call = Call::decode(text.as_bytes()).ok()?;
    let (_, name) = call.name();
    let method = Method::named(name)?;
    let mut parameters = Parameters::new(call.parameters.unwrap_or_default());
    let no_device = |_: &str| -> Result<_, Refused> { Ok(None) };
    method.event(&mut parameters, asker, no_device).ok()
}

const fn asker(request: RequestId, client: ClientId) -> Asker {
    Asker { request, client }
}

fn parameters(group: &str, service: &str, more: &str) -> String {
    format!("{{\"group\":\"{group}\",\"service\":\"{service}\"{more}}}")
}

/// What a tool reads in an answer that went through its door.
#[must_use]
pub fn read(door: Door, method: Method, reply: &Reply) -> Read {
    match door {
        Door::Inside => read_reply(reply),
        Door::Old => match Response::decode(&Response::from(reply).encode()) {
            Ok(Response::Status { errno: 0 | errno::EALREADY, .. }) => Read::Good,
            Ok(Response::Status { errno: EBUSY, .. }) => Read::Busy,
            Ok(Response::Status { .. } | Response::ItemCount(_) | Response::Item(_)) | Err(_) => {
                Read::No
            }
        },
        Door::New => {
            let mut bytes = Vec::new();
            method.response(reply).encode(&mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            if !text.contains("\"error\"") {
                Read::Good
            } else if text.contains("\"Busy\"") {
                Read::Busy
            } else {
                Read::No
            }
        }
    }
}

const EBUSY: i32 = 16;

fn read_reply(reply: &Reply) -> Read {
    match reply {
        Reply::Done | Reply::Already => Read::Good,
        Reply::Refused(o2bridge_core::Refusal::Busy) => Read::Busy,
        Reply::Refused(_) => Read::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use o2bridge_core::{Begin, GroupId, Refusal, ServiceName};

    fn events(held: bool) -> Vec<Event> {
        let service = ServiceName::new("/mnt0").unwrap();
        let (request, client, group) = (RequestId(3), ClientId(4), GroupId(0xA0 << 120));
        let begin = Begin {
            request,
            client,
            group,
            service: service.clone(),
            cluster: Some(CLUSTER.into()),
            device: None,
            held,
        };
        vec![
            Event::Begin(begin),
            Event::Complete { request, client, group, service: service.clone(), code: -5 },
            Event::Leave { request, client, group, service },
        ]
    }

    #[test]
    fn what_a_tool_means_arrives() {
        for event in events(true) {
            assert_eq!(through(Door::Old, event.clone()), Some(event.clone()));
            assert_eq!(through(Door::New, event.clone()), Some(event));
        }
        for event in events(false) {
            assert_eq!(through(Door::New, event.clone()), Some(event));
        }
    }

    #[test]
    fn answers_are_read_alike() {
        let replies = [
            (Reply::Done, Read::Good),
            (Reply::Already, Read::Good),
            (Reply::Refused(Refusal::Busy), Read::Busy),
            (Reply::Refused(Refusal::NoGroup), Read::No),
            (Reply::Refused(Refusal::Expelled), Read::No),
        ];
        for (reply, wanted) in replies {
            for door in [Door::Old, Door::New, Door::Inside] {
                assert_eq!(read(door, Method::Begin, &reply), wanted, "{door:?} {reply:?}");
            }
        }
    }
}
