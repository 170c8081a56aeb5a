//! What a script does to a cluster.

use std::fmt;
use std::str::FromStr;

use o2bridge_core::{Channel, Member, NodeId};

use super::words::{Words, channel, channel_name, client, client_name, message, node, number};

/// One thing that a script does. See the module's documentation for the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To the corosync of a node.
    Corosync(NodeId, Deed),
    /// To a client as a process.
    Client(Member, Deed),
    /// A call of a client.
    Call(Member, Call),
    /// A client sends.
    Mcast(Member, Channel, Vec<u8>),
    /// A client closes all its handles without a leave, and connects again.
    Finalize(Member),
    /// The network falls into these parts.
    Split(Vec<Vec<NodeId>>),
    /// What the first node sends to the second is lost, and nothing else.
    Mute(NodeId, NodeId),
    /// The network is whole.
    Heal,
}

/// What is done to a process. Clients only start and are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It starts.
    Start,
    /// It starts with an older configuration.
    StartOutdated,
    /// It was started so and met the others: it ends.
    Ends,
    /// SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
}

/// A call whose end is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Join with a new handle.
    Join(Channel),
    /// Leave, and close the handle when the own LEAVE was told.
    Leave(Channel),
    /// Have the corosync of a node end.
    KillNode(NodeId),
}

impl Deed {
    fn parse(word: &str) -> Result<Self, String> {
        Ok(match word {
            "start" => Self::Start,
            "ends" => Self::Ends,
            "stop" => Self::Stop,
            "kill" => Self::Kill,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            _ => return Err(format!("'{word}' is no step")),
        })
    }

    fn of_node(words: &mut Words<'_>) -> Result<Self, String> {
        let deed = Self::parse(words.word()?)?;
        if deed == Self::Start && !words.is_at_end() {
            words.skip("outdated")?;
            return Ok(Self::StartOutdated);
        }
        Ok(deed)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::StartOutdated => "start outdated",
            Self::Ends => "ends",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resume => "resume",
        })
    }
}

impl Call {
    /// `join A`, `leave A` or `killnode n3`.
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, String> {
        Ok(match words.word()? {
            "join" => Self::Join(channel(words.word()?)?),
            "leave" => Self::Leave(channel(words.word()?)?),
            "killnode" => Self::KillNode(node(words.word()?)?),
            other => return Err(format!("'{other}' is no call")),
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(channel) => write!(f, "join {}", channel_name(*channel)),
            Self::Leave(channel) => write!(f, "leave {}", channel_name(*channel)),
            Self::KillNode(node) => write!(f, "killnode n{node}"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    /// Takes what follows the word `step`: `n3 kill`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words::new(text);
        let step = match words.word()? {
            "heal" => Self::Heal,
            "split" => Self::Split(parts(&mut words)?),
            "mute" => Self::Mute(node(words.word()?)?, node(words.word()?)?),
            name if name.starts_with('n') => {
                Self::Corosync(node(name)?, Deed::of_node(&mut words)?)
            }
            name => Self::of_client(client(name)?, &mut words)?,
        };
        words.end()?;
        Ok(step)
    }
}

impl Step {
    /// The nodes that it names.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Self::Corosync(node, _) => vec![*node],
            Self::Call(client, Call::KillNode(node)) => vec![client.node, *node],
            Self::Client(client, _)
            | Self::Call(client, Call::Join(_) | Call::Leave(_))
            | Self::Mcast(client, ..)
            | Self::Finalize(client) => vec![client.node],
            Self::Split(parts) => parts.concat(),
            Self::Mute(from, to) => vec![*from, *to],
            Self::Heal => Vec::new(),
        }
    }

    fn of_client(client: Member, words: &mut Words<'_>) -> Result<Self, String> {
        let mut ahead = Words::new(words.rest());
        Ok(match ahead.word()? {
            "join" | "leave" | "killnode" => Self::Call(client, Call::parse(words)?),
            "mcast" => {
                let channel = channel(words.skip("mcast")?.word()?)?;
                Self::Mcast(client, channel, message(words.word()?)?.to_vec())
            }
            "finalize" => {
                words.skip("finalize")?;
                Self::Finalize(client)
            }
            _ => match Deed::parse(words.word()?)? {
                deed @ (Deed::Start | Deed::Kill) => Self::Client(client, deed),
                deed => return Err(format!("'{deed}' is for a node's corosync")),
            },
        })
    }
}

fn parts(words: &mut Words<'_>) -> Result<Vec<Vec<NodeId>>, String> {
    let mut parts = Vec::new();
    while !words.is_at_end() {
        let ids = words.word()?.split(',').map(|id| number(id).map(NodeId));
        parts.push(ids.collect::<Result<_, _>>()?);
    }
    Ok(parts)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corosync(node, deed) => write!(f, "n{node} {deed}"),
            Self::Client(client, deed) => write!(f, "{} {deed}", client_name(*client)),
            Self::Call(client, call) => write!(f, "{} {call}", client_name(*client)),
            Self::Mcast(client, channel, bytes) => write!(
                f,
                "{} mcast {} {}",
                client_name(*client),
                channel_name(*channel),
                String::from_utf8_lossy(bytes)
            ),
            Self::Finalize(client) => write!(f, "{} finalize", client_name(*client)),
            Self::Split(parts) => {
                let part = |part: &Vec<NodeId>| {
                    part.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                };
                write!(f, "split {}", parts.iter().map(part).collect::<Vec<_>>().join(" "))
            }
            Self::Mute(from, to) => write!(f, "mute n{from} n{to}"),
            Self::Heal => f.write_str("heal"),
        }
    }
}
