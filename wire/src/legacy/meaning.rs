//! What the words of a message mean: an event for the core, or something to be looked up.

use std::num::IntErrorKind;

use o2bridge_core::{Begin, DeviceId, Event, GroupId, Reply, ServiceName};

use super::{Request, Response};
use crate::Asker;
use crate::errno::{EALREADY, EINVAL, ENAMETOOLONG, ERANGE};

/// The one file system of this door.
const FSTYPE: &str = "ocfs2";

/// The length of a UUID on this door.
const UUID_BYTES: usize = 32;

/// A refusal of the door itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A Linux errno.
    pub errno: i32,
    /// What is wrong.
    pub text: String,
}

impl Refused {
    fn invalid(text: String) -> Self {
        Self { errno: EINVAL, text }
    }
}

impl From<Refused> for Response {
    fn from(Refused { errno, text }: Refused) -> Self {
        Self::Status { errno, text }
    }
}

impl From<&Reply> for Response {
    /// The core's answer.
    fn from(reply: &Reply) -> Self {
        let (errno, text) = match reply {
            Reply::Done => (0, "OK".to_owned()),
            Reply::Already => (EALREADY, "in use already, go ahead".to_owned()),
            Reply::Refused(refusal) => (refusal.errno(), refusal.to_string()),
        };
        Self::Status { errno, text }
    }
}

/// What a request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// The core decides.
    Event(Event),
    /// The groups in use, if we are in this cluster.
    Groups {
        /// The cluster that the tool takes for ours.
        cluster: &'a str,
    },
    /// The services of a group.
    Services(GroupId),
    /// Our cluster's name.
    Clusters,
    /// The daemon's memory.
    Dump,
}

impl<'a> Request<'a> {
    /// Whether it changes something, or shows what is not for everyone.
    #[must_use]
    pub const fn needs_root(&self) -> bool {
        match self {
            Self::Mount { .. } | Self::MountResult { .. } | Self::Unmount { .. } | Self::Dump => {
                true
            }
            Self::ListFs { .. } | Self::ListMounts { .. } | Self::ListClusters => false,
        }
    }

    /// Checks the words. `device` finds a device's number, and is asked only once all else is right.
    ///
    /// # Errors
    /// A word is not what belongs there.
    pub fn meaning(
        self,
        asker: Asker,
        device: impl FnOnce(&str) -> Result<Option<DeviceId>, Refused>,
    ) -> Result<Meaning<'a>, Refused> {
        let Asker { request, client } = asker;
        let event = match self {
            Self::Mount { fstype, uuid, cluster, device: path, service } => Event::Begin(Begin {
                request,
                client,
                group: group(fstype, uuid)?,
                service: service_name(service)?,
                cluster: Some(cluster.to_owned()),
                device: device(path)?,
                held: true,
            }),
            Self::MountResult { fstype, uuid, code, service } => {
                let group = group(fstype, uuid)?;
                let (code, service) = (number(code)?, service_name(service)?);
                Event::Complete { request, client, group, service, code }
            }
            Self::Unmount { fstype, uuid, service } => {
                let (group, service) = (group(fstype, uuid)?, service_name(service)?);
                Event::Leave { request, client, group, service }
            }
            Self::ListFs { fstype, cluster } => {
                check_fstype(fstype)?;
                return Ok(Meaning::Groups { cluster });
            }
            Self::ListMounts { fstype, uuid } => {
                return group(fstype, uuid).map(Meaning::Services);
            }
            Self::ListClusters => return Ok(Meaning::Clusters),
            Self::Dump => return Ok(Meaning::Dump),
        };
        Ok(Meaning::Event(event))
    }
}

fn check_fstype(fstype: &str) -> Result<(), Refused> {
    if fstype == FSTYPE {
        return Ok(());
    }
    Err(Refused::invalid(format!("the file system is '{fstype}', not '{FSTYPE}'")))
}

fn group(fstype: &str, uuid: &str) -> Result<GroupId, Refused> {
    check_fstype(fstype)?;
    if uuid.len() > UUID_BYTES {
        let text = format!("a UUID has {UUID_BYTES} digits, not more");
        return Err(Refused { errno: ENAMETOOLONG, text });
    }
    uuid.parse().map_err(|bad| Refused::invalid(format!("'{uuid}': {bad}")))
}

fn service_name(service: &str) -> Result<ServiceName, Refused> {
    ServiceName::new(service).map_err(|bad| Refused::invalid(bad.to_string()))
}

/// The number of a complete. Tools other than mount.ocfs2 send large negative ones.
fn number(text: &str) -> Result<i32, Refused> {
    text.parse::<i32>().map_err(|bad| match bad.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            Refused { errno: ERANGE, text: format!("the result {text} does not fit") }
        }
        _ => Refused::invalid(format!("the result '{text}' is no number")),
    })
}

#[cfg(test)]
mod tests {
    use o2bridge_core::{ClientId, OpError, Refusal, RequestId};

    use super::*;

    const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
    const ASKER: Asker = Asker { request: RequestId(7), client: ClientId(3) };

    fn mount<'a>(uuid: &'a str, service: &'a str) -> Request<'a> {
        Request::Mount { fstype: "ocfs2", uuid, cluster: "demo", device: "/dev/sdb1", service }
    }

    fn no_device(path: &str) -> Result<Option<DeviceId>, Refused> {
        Err(Refused { errno: 2, text: format!("{path}: not there") })
    }

    fn errno(request: Request<'_>) -> i32 {
        request.meaning(ASKER, no_device).unwrap_err().errno
    }

    #[test]
    fn what_changes_something_becomes_an_event() {
        let (group, service) = (UUID.parse().unwrap(), ServiceName::new("ocfs2").unwrap());
        let Asker { request, client } = ASKER;
        let begin = Begin {
            request,
            client,
            group,
            service: service.clone(),
            cluster: Some("demo".to_owned()),
            device: Some(DeviceId(8)),
            held: true,
        };
        let found = mount(UUID, "ocfs2").meaning(ASKER, |path| {
            assert_eq!(path, "/dev/sdb1");
            Ok(Some(DeviceId(8)))
        });
        assert_eq!(found, Ok(Meaning::Event(Event::Begin(begin))));
        let result =
            Request::MountResult { fstype: "ocfs2", uuid: UUID, code: "-5", service: "ocfs2" };
        let complete =
            Event::Complete { request, client, group, service: service.clone(), code: -5 };
        assert_eq!(result.meaning(ASKER, no_device), Ok(Meaning::Event(complete)));
        let unmount = Request::Unmount { fstype: "ocfs2", uuid: UUID, service: "ocfs2" };
        let leave = Event::Leave { request, client, group, service };
        assert_eq!(unmount.meaning(ASKER, no_device), Ok(Meaning::Event(leave)));
        assert!(mount(UUID, "ocfs2").needs_root() && unmount.needs_root() && result.needs_root());
    }

    #[test]
    fn lists_name_what_they_list() {
        let meaning = |request: Request<'static>| request.meaning(ASKER, no_device);
        let groups = Request::ListFs { fstype: "ocfs2", cluster: "demo" };
        assert_eq!(meaning(groups), Ok(Meaning::Groups { cluster: "demo" }));
        let services = Request::ListMounts { fstype: "ocfs2", uuid: UUID };
        assert_eq!(meaning(services), Ok(Meaning::Services(UUID.parse().unwrap())));
        assert_eq!(meaning(Request::ListClusters), Ok(Meaning::Clusters));
        assert_eq!(meaning(Request::Dump), Ok(Meaning::Dump));
        assert!(!groups.needs_root() && !services.needs_root() && Request::Dump.needs_root());
    }

    #[test]
    fn a_wrong_word_has_its_errno() {
        assert_eq!(errno(mount("19D1", "ocfs2")), EINVAL);
        assert_eq!(errno(mount(&UUID.repeat(2), "ocfs2")), ENAMETOOLONG);
        assert_eq!(errno(mount(UUID, "a\tb")), EINVAL);
        assert_eq!(errno(mount(UUID, "ocfs2")), 2, "the device is looked at last");
        let result =
            |code| Request::MountResult { fstype: "ocfs2", uuid: UUID, code, service: "s" };
        assert_eq!(errno(result("99999999999")), ERANGE);
        assert_eq!(errno(result("-99999999999")), ERANGE);
        assert_eq!(errno(result("five")), EINVAL);
        assert_eq!(errno(Request::ListFs { fstype: "ext4", cluster: "demo" }), EINVAL);
    }

    #[test]
    fn every_reply_is_a_status() {
        let failed = Refusal::Failed { what: "attach", error: OpError::Errno(28) };
        for (reply, text) in [
            (Reply::Done, "STATUS 0 OK"),
            (Reply::Already, "STATUS 114 in use already, go ahead"),
            (Reply::Refused(failed), "STATUS 28 attach failed: errno 28"),
        ] {
            let bytes = Response::from(&reply).encode();
            assert_eq!(&bytes[..text.len()], text.as_bytes());
            assert_eq!(bytes[text.len()], 0);
        }
    }
}
