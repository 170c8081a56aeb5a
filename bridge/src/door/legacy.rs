//! The old door: the abstract socket that the stock OCFS2 tools know, byte for byte.
//!
//! Every request but a begin, complete and leave is answered at once. A connection stands for its
//! tool: when it ends between begin and complete, the tool is dead or, as with the libo2cb of today,
//! does not say what became of its mount; the core looks for itself.

use nix::errno::Errno;
use o2bridge_core::{DeviceId, Event, GroupId, Reply};
use o2bridge_wire::legacy::{
    BadMessage, MESSAGE_BYTES, Meaning, Refused, Request, Response, chunks,
};

use super::desk::{Call, Shown};
use super::device::device_id;
use super::dialect::{Dialect, Next};
use crate::status::Status;
use crate::volumes::{reserved_by_us, reserved_service};

/// Messages that a client may send ahead of their turn.
const AHEAD_MAX: usize = 16;

/// The old door's language. A connection has no state of its own.
#[derive(Debug, Default)]
pub(crate) struct Legacy;

impl Dialect for Legacy {
    const INPUT_BYTES_MAX: usize = AHEAD_MAX * MESSAGE_BYTES;

    fn split(input: &[u8]) -> Option<usize> {
        (input.len() >= MESSAGE_BYTES).then_some(MESSAGE_BYTES)
    }

    fn handle(&mut self, message: &[u8], call: &mut Call<'_, '_>, output: &mut Vec<u8>) -> Next {
        let answer = message
            .first_chunk()
            .ok_or(BadMessage::TooLong)
            .and_then(Request::decode)
            .map_err(|bad| refused(Errno::EINVAL, bad.to_string()))
            .and_then(|request| take(request, call));
        match answer {
            Ok(Answer::Later(event)) => {
                call.hand_over(event);
                return Next::Waits;
            }
            Ok(Answer::List(items)) => put_list(&items, output),
            Ok(Answer::Text(text)) => put_list(&chunks(&text).collect::<Vec<_>>(), output),
            Err(refused) => put(&refused.into(), output),
        }
        Next::Answered
    }

    /// Cannot happen: messages have one length.
    fn overlong(output: &mut Vec<u8>) {
        put(&refused(Errno::EMSGSIZE, BadMessage::TooLong.to_string()).into(), output);
    }

    fn crowded(output: &mut Vec<u8>) {
        put(&refused(Errno::ENFILE, "too many clients, try again".to_owned()).into(), output);
    }

    fn answer(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        put(&reply.into(), output);
    }

    /// Never called: this door has no streams.
    fn publish(&mut self, _shown: &Shown, _output: &mut Vec<u8>) {}

    fn outlives_input(&self) -> bool {
        false
    }
}

/// What a request leads to.
enum Answer {
    /// The core's reply.
    Later(Event),
    /// A list.
    List(Vec<String>),
    /// A text, sent as a list of its pieces.
    Text(String),
}

/// Checks a request and answers it, or makes it an event.
fn take(request: Request<'_>, call: &mut Call<'_, '_>) -> Result<Answer, Refused> {
    if request.needs_root() && !call.trusted {
        return Err(refused(Errno::EPERM, "only root may do this".to_owned()));
    }
    match request.meaning(call.asker, device)? {
        Meaning::Event(event) => match reserved_service(&event) {
            Some(service) => Err(refused(Errno::EPERM, reserved_by_us(service))),
            None => Ok(Answer::Later(event)),
        },
        Meaning::Groups { cluster } => list_groups(cluster, &call.status().status),
        Meaning::Services(group) => list_services(group, &call.status().status),
        Meaning::Clusters => {
            let cluster = call.status().status.cluster.clone();
            Ok(Answer::List(if cluster.is_empty() { Vec::new() } else { vec![cluster] }))
        }
        // A NUL would end its message early and lose what follows.
        Meaning::Dump => Ok(Answer::Text(call.dump().replace('\0', " "))),
    }
}

fn refused(errno: Errno, text: String) -> Refused {
    Refused { errno: errno as i32, text }
}

fn device(path: &str) -> Result<Option<DeviceId>, Refused> {
    device_id(path).map_err(|errno| refused(errno, format!("{path}: {}", errno.desc())))
}

fn list_groups(cluster: &str, status: &Status) -> Result<Answer, Refused> {
    if cluster != status.cluster {
        let text = format!("this node is in cluster '{}', not '{cluster}'", status.cluster);
        return Err(refused(Errno::EINVAL, text));
    }
    Ok(Answer::List(status.groups.iter().map(|group| group.group.clone()).collect()))
}

fn list_services(group: GroupId, status: &Status) -> Result<Answer, Refused> {
    let group = group.to_string();
    let found = status.groups.iter().find(|candidate| candidate.group == group);
    let found = found.ok_or_else(|| {
        refused(Errno::ENOENT, format!("nobody on this node uses the group {group}"))
    })?;
    Ok(Answer::List(found.services.iter().map(|service| service.service.clone()).collect()))
}

fn put(response: &Response, output: &mut Vec<u8>) {
    output.extend_from_slice(&response.encode());
}

/// A list: how many, each, and a status.
fn put_list(items: &[impl AsRef<str>], output: &mut Vec<u8>) {
    put(&Response::ItemCount(u32::try_from(items.len()).unwrap_or(u32::MAX)), output);
    for item in items {
        put(&Response::Item(item.as_ref().to_owned()), output);
    }
    put(&(&Reply::Done).into(), output);
}
