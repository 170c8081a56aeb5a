//! The old door's messages as bytes: 256 each, text, ended by a NUL, padded with zeros.
//!
//! The words of a message are separated by single spaces. All arguments but the last end at a space;
//! the last one takes the rest, spaces included. A message without arguments has no trailing space.

mod meaning;

use std::fmt;

pub use meaning::{Meaning, Refused};

/// The length of every message, both ways.
pub const MESSAGE_BYTES: usize = 256;

/// The longest text: the last byte is always NUL.
pub const TEXT_BYTES_MAX: usize = MESSAGE_BYTES - 1;

/// The longest text of one [`Response::Item`].
pub const ITEM_BYTES_MAX: usize = TEXT_BYTES_MAX - "ITEM ".len();

/// What a tool says. The fields are as they came: nothing but the shape is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// `MOUNT`: about to use a group.
    Mount {
        /// Always `ocfs2`.
        fstype: &'a str,
        /// The volume's UUID.
        uuid: &'a str,
        /// The cluster that the volume belongs to.
        cluster: &'a str,
        /// The device as the user typed it.
        device: &'a str,
        /// Who.
        service: &'a str,
    },
    /// `MRESULT`: what became of it.
    MountResult {
        /// Always `ocfs2`.
        fstype: &'a str,
        /// The volume's UUID.
        uuid: &'a str,
        /// A number; 0 is good.
        code: &'a str,
        /// Who.
        service: &'a str,
    },
    /// `UNMOUNT`: ends its use.
    Unmount {
        /// Always `ocfs2`.
        fstype: &'a str,
        /// The volume's UUID.
        uuid: &'a str,
        /// Who.
        service: &'a str,
    },
    /// `LISTFS`: which groups are in use.
    ListFs {
        /// Always `ocfs2`.
        fstype: &'a str,
        /// Our cluster.
        cluster: &'a str,
    },
    /// `LISTMOUNTS`: which services use a group. Reserved but never answered by the ancestor; the
    /// meaning of its two arguments is ours.
    ListMounts {
        /// Always `ocfs2`.
        fstype: &'a str,
        /// The volume's UUID.
        uuid: &'a str,
    },
    /// `LISTCLUSTERS`: our cluster's name, as a list of one.
    ListClusters,
    /// `DUMP`: the daemon's memory.
    Dump,
}

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// `STATUS`: the end of every answer.
    Status {
        /// A positive Linux errno, or 0.
        errno: i32,
        /// For humans; cut if too long.
        text: String,
    },
    /// `ITEMCOUNT`: so many items follow, then a status.
    ItemCount(u32),
    /// `ITEM`: one of them, at most [`ITEM_BYTES_MAX`] bytes; cut if longer.
    Item(String),
}

/// A text that is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Not UTF-8.
    #[error("the message is not text")]
    NotText,
    /// No such command.
    #[error("unknown message '{0}'")]
    Unknown(String),
    /// Too few arguments, or one where none belongs.
    #[error("{0} has the wrong number of arguments")]
    Arguments(&'static str),
    /// A response's number is none.
    #[error("{0} without a number")]
    Number(&'static str),
    /// More than [`TEXT_BYTES_MAX`] bytes; nothing was made.
    #[error("the message is longer than 255 bytes")]
    TooLong,
}

/// The text of a message: up to the first NUL, which the last byte always is.
fn text(message: &[u8; MESSAGE_BYTES]) -> Result<&str, BadMessage> {
    let end = message.iter().position(|byte| *byte == 0).unwrap_or(TEXT_BYTES_MAX);
    std::str::from_utf8(&message[..end.min(TEXT_BYTES_MAX)]).map_err(|_| BadMessage::NotText)
}

/// A zero-padded message. The text must fit.
fn frame(text: &str) -> Result<[u8; MESSAGE_BYTES], BadMessage> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadMessage::TooLong);
    }
    let mut message = [0; MESSAGE_BYTES];
    message[..text.len()].copy_from_slice(text.as_bytes());
    Ok(message)
}

/// Splits what follows the command into exactly N arguments.
fn arguments<'a, const N: usize>(
    name: &'static str,
    rest: Option<&'a str>,
) -> Result<[&'a str; N], BadMessage> {
    let mut parts = rest.into_iter().flat_map(|rest| rest.splitn(N, ' '));
    let mut found = [""; N];
    for slot in &mut found {
        *slot = parts.next().ok_or(BadMessage::Arguments(name))?;
    }
    Ok(found)
}

/// Checks that nothing follows the command, not even a space.
fn no_arguments<'a>(
    name: &'static str,
    rest: Option<&str>,
    request: Request<'a>,
) -> Result<Request<'a>, BadMessage> {
    if rest.is_some() { Err(BadMessage::Arguments(name)) } else { Ok(request) }
}

impl<'a> Request<'a> {
    /// Reads a message of a tool.
    ///
    /// # Errors
    /// It is not text, not a command of a tool, or has the wrong number of arguments.
    pub fn decode(message: &'a [u8; MESSAGE_BYTES]) -> Result<Self, BadMessage> {
        let text = text(message)?;
        let (command, rest) = match text.split_once(' ') {
            Some((command, rest)) => (command, Some(rest)),
            None => (text, None),
        };
        match command {
            "MOUNT" => arguments("MOUNT", rest).map(|[fstype, uuid, cluster, device, service]| {
                Self::Mount { fstype, uuid, cluster, device, service }
            }),
            "MRESULT" => arguments("MRESULT", rest).map(|[fstype, uuid, code, service]| {
                Self::MountResult { fstype, uuid, code, service }
            }),
            "UNMOUNT" => arguments("UNMOUNT", rest).map(|[fstype, uuid, service]| Self::Unmount {
                fstype,
                uuid,
                service,
            }),
            "LISTFS" => {
                arguments("LISTFS", rest).map(|[fstype, cluster]| Self::ListFs { fstype, cluster })
            }
            "LISTMOUNTS" => arguments("LISTMOUNTS", rest)
                .map(|[fstype, uuid]| Self::ListMounts { fstype, uuid }),
            "LISTCLUSTERS" => no_arguments("LISTCLUSTERS", rest, Self::ListClusters),
            "DUMP" => no_arguments("DUMP", rest, Self::Dump),
            other => Err(BadMessage::Unknown(other.chars().take(64).collect())),
        }
    }

    /// Writes a message as a tool does.
    ///
    /// # Errors
    /// [`BadMessage::TooLong`].
    pub fn encode(&self) -> Result<[u8; MESSAGE_BYTES], BadMessage> {
        frame(&self.to_string())
    }
}

impl fmt::Display for Request<'_> {
    /// The text on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { fstype, uuid, cluster, device, service } => {
                write!(f, "MOUNT {fstype} {uuid} {cluster} {device} {service}")
            }
            Self::MountResult { fstype, uuid, code, service } => {
                write!(f, "MRESULT {fstype} {uuid} {code} {service}")
            }
            Self::Unmount { fstype, uuid, service } => {
                write!(f, "UNMOUNT {fstype} {uuid} {service}")
            }
            Self::ListFs { fstype, cluster } => write!(f, "LISTFS {fstype} {cluster}"),
            Self::ListMounts { fstype, uuid } => write!(f, "LISTMOUNTS {fstype} {uuid}"),
            Self::ListClusters => f.write_str("LISTCLUSTERS"),
            Self::Dump => f.write_str("DUMP"),
        }
    }
}

impl Response {
    /// Reads a message of the daemon.
    ///
    /// # Errors
    /// It is not text, not a response, or lacks its number.
    pub fn decode(message: &[u8; MESSAGE_BYTES]) -> Result<Self, BadMessage> {
        let text = text(message)?;
        match text.split_once(' ') {
            Some(("STATUS", rest)) => {
                let [errno, text] = arguments("STATUS", Some(rest))?;
                let errno = errno.parse().map_err(|_| BadMessage::Number("STATUS"))?;
                Ok(Self::Status { errno, text: text.to_owned() })
            }
            Some(("ITEMCOUNT", rest)) => {
                rest.parse().map(Self::ItemCount).map_err(|_| BadMessage::Number("ITEMCOUNT"))
            }
            Some(("ITEM", rest)) => Ok(Self::Item(rest.to_owned())),
            Some((other, _)) => Err(BadMessage::Unknown(other.to_owned())),
            None => Err(BadMessage::Unknown(text.to_owned())),
        }
    }

    /// Writes a message as the daemon does: always possible, because what is too long is cut, at the
    /// border of a character.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let text = match self {
            Self::Status { errno, text } => format!("STATUS {errno} {text}"),
            Self::ItemCount(count) => format!("ITEMCOUNT {count}"),
            Self::Item(text) => format!("ITEM {text}"),
        };
        let mut message = [0; MESSAGE_BYTES];
        let fitting = head(&text, TEXT_BYTES_MAX).as_bytes();
        message[..fitting.len()].copy_from_slice(fitting);
        message
    }
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends with a whole
/// character.
fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Cuts a text into items that a client can put together again. NULs, which would end a message
/// early, become spaces before; see [`Response::Item`].
pub fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let chunk = head(rest, ITEM_BYTES_MAX);
        rest = &rest[chunk.len()..];
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests;
