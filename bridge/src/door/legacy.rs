//! The old door: the abstract socket that the stock OCFS2 tools know, byte for byte.
//!
//! Every request but a begin, complete and leave is answered at once. A connection stands for its
//! tool: when it ends between begin and complete, the tool is dead or, as with the libo2cb of today,
//! does not say what became of its mount; the core looks for itself.

pub mod codec;

use std::num::IntErrorKind;

use nix::errno::Errno;
use o2bridge_core::{Begin, Event, GroupId, Reply, ServiceName};

use super::desk::{Call, Shown};
use super::device::device_id;
use super::dialect::{Dialect, Next};
use crate::status::Status;
use codec::{BadMessage, MESSAGE_BYTES, Request, Response};

/// Messages that a client may send ahead of their turn.
const AHEAD_MAX: usize = 16;

/// The one file system of this door.
const FSTYPE: &str = "ocfs2";

/// The length of a UUID on this door.
const UUID_BYTES: usize = 32;

/// A refusal of the door itself: an errno and what is wrong.
type Refused = (Errno, String);

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
            .map_err(|bad| (Errno::EINVAL, bad.to_string()))
            .and_then(|request| take(request, call));
        match answer {
            Ok(Answer::Later(event)) => {
                call.hand_over(event);
                return Next::Waits;
            }
            Ok(Answer::List(items)) => put_list(&items, output),
            Ok(Answer::Text(text)) => put_list(&codec::chunks(&text).collect::<Vec<_>>(), output),
            Err((errno, text)) => put_status(errno as i32, text, output),
        }
        Next::Answered
    }

    /// Cannot happen: messages have one length.
    fn overlong(output: &mut Vec<u8>) {
        put_status(Errno::EMSGSIZE as i32, BadMessage::TooLong.to_string(), output);
    }

    fn crowded(output: &mut Vec<u8>) {
        put_status(Errno::ENFILE as i32, "too many clients, try again".to_owned(), output);
    }

    fn answer(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        match reply {
            Reply::Done => put_status(0, "OK".to_owned(), output),
            Reply::Already => {
                put_status(Errno::EALREADY as i32, "in use already, go ahead".to_owned(), output);
            }
            Reply::Refused(refusal) => put_status(refusal.errno(), refusal.to_string(), output),
        }
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
    match request {
        Request::Mount { fstype, uuid, cluster, device, service } => {
            need_root(call)?;
            let group = group(fstype, uuid)?;
            let begin = Begin {
                request: call.request,
                client: call.client,
                group,
                service: service_name(service)?,
                cluster: Some(cluster.to_owned()),
                device: device_id(device)
                    .map_err(|errno| (errno, format!("{device}: {}", errno.desc())))?,
                held: true,
            };
            Ok(Answer::Later(Event::Begin(begin)))
        }
        Request::MountResult { fstype, uuid, code, service } => {
            need_root(call)?;
            let group = group(fstype, uuid)?;
            let (code, service) = (number(code)?, service_name(service)?);
            let (request, client) = (call.request, call.client);
            Ok(Answer::Later(Event::Complete { request, client, group, service, code }))
        }
        Request::Unmount { fstype, uuid, service } => {
            need_root(call)?;
            let (group, service) = (group(fstype, uuid)?, service_name(service)?);
            let (request, client) = (call.request, call.client);
            Ok(Answer::Later(Event::Leave { request, client, group, service }))
        }
        Request::ListFs { fstype, cluster } => list_groups(fstype, cluster, &call.status().status),
        Request::ListMounts { fstype, uuid } => list_services(fstype, uuid, &call.status().status),
        Request::ListClusters => {
            let cluster = call.status().status.cluster.clone();
            Ok(Answer::List(if cluster.is_empty() { Vec::new() } else { vec![cluster] }))
        }
        Request::Dump => {
            need_root(call)?;
            // A NUL would end its message early and lose what follows.
            Ok(Answer::Text(call.dump().replace('\0', " ")))
        }
    }
}

fn list_groups(fstype: &str, cluster: &str, status: &Status) -> Result<Answer, Refused> {
    check_fstype(fstype)?;
    if cluster != status.cluster {
        let text = format!("this node is in cluster '{}', not '{cluster}'", status.cluster);
        return Err((Errno::EINVAL, text));
    }
    Ok(Answer::List(status.groups.iter().map(|group| group.group.clone()).collect()))
}

fn list_services(fstype: &str, uuid: &str, status: &Status) -> Result<Answer, Refused> {
    let group = group(fstype, uuid)?.to_string();
    let found = status.groups.iter().find(|candidate| candidate.group == group);
    let found = found
        .ok_or_else(|| (Errno::ENOENT, format!("nobody on this node uses the group {group}")))?;
    Ok(Answer::List(found.services.iter().map(|service| service.service.clone()).collect()))
}

fn need_root(call: &Call<'_, '_>) -> Result<(), Refused> {
    if call.trusted { Ok(()) } else { Err((Errno::EPERM, "only root may do this".to_owned())) }
}

fn check_fstype(fstype: &str) -> Result<(), Refused> {
    if fstype == FSTYPE {
        return Ok(());
    }
    Err((Errno::EINVAL, format!("the file system is '{fstype}', not '{FSTYPE}'")))
}

fn group(fstype: &str, uuid: &str) -> Result<GroupId, Refused> {
    check_fstype(fstype)?;
    if uuid.len() > UUID_BYTES {
        return Err((Errno::ENAMETOOLONG, format!("a UUID has {UUID_BYTES} digits, not more")));
    }
    uuid.parse().map_err(|bad| (Errno::EINVAL, format!("'{uuid}': {bad}")))
}

fn service_name(service: &str) -> Result<ServiceName, Refused> {
    ServiceName::new(service).map_err(|bad| (Errno::EINVAL, bad.to_string()))
}

/// The number of a complete. Tools other than mount.ocfs2 send large negative ones.
fn number(text: &str) -> Result<i32, Refused> {
    text.parse::<i32>().map_err(|bad| match bad.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            (Errno::ERANGE, format!("the result {text} does not fit"))
        }
        _ => (Errno::EINVAL, format!("the result '{text}' is no number")),
    })
}

fn put(response: &Response, output: &mut Vec<u8>) {
    output.extend_from_slice(&response.encode());
}

fn put_status(errno: i32, text: String, output: &mut Vec<u8>) {
    put(&Response::Status { errno, text }, output);
}

/// A list: how many, each, and a status.
fn put_list(items: &[impl AsRef<str>], output: &mut Vec<u8>) {
    put(&Response::ItemCount(u32::try_from(items.len()).unwrap_or(u32::MAX)), output);
    for item in items {
        put(&Response::Item(item.as_ref().to_owned()), output);
    }
    put_status(0, "OK".to_owned(), output);
}
