//! What real corosync told its clients in a scripted run: the format, and its reader.
//!
//! Text, one entry per line; what follows a `#` at the start of a line is a comment, and a time in
//! milliseconds at a line's end (`@123`) is for people.
//!
//! ```text
//! # The first comment says what the run is about.
//! corosync 3.1.7                   the header, in this order
//! transport udpu
//! nodes 3
//! want 3a NODEDOWN                 optional: the run was repeated until some line held this text
//! ring r1 = 1.8                    the ring ids, in the order in which they were first told of
//!
//! step n3 start                    its corosync starts; ends cleanly (SIGTERM); is killed (SIGKILL);
//! step n3 stop | kill              is stopped and continued (SIGSTOP, SIGCONT)
//! step n3 pause | resume
//! step n3 start outdated           with an older configuration: when it meets the others it ends
//! step n3 ends                     itself, which is this step
//! step split 1,2 3                 the network falls into parts
//! step mute n1 n2                  whatever node 1 sends to node 2 is lost, and nothing else
//! step heal                        the network is whole again
//! step 3a start                    the first client of node 3 starts (and connects until it can);
//! step 3a kill                     dies (SIGKILL)
//! step 3a join A                   its calls stand where it made them: when corosync was there
//! step 3a leave A
//! step 3a mcast A hello            the bus sends it when the own JOIN was told
//! step 3a killnode n2
//! step 3a finalize                 closes all its handles without a leave, and connects again
//! wait 20                          the script waited so many milliseconds
//! quiet                            all that the steps so far caused has been told
//!
//! 1a connected                     corosync answers client 1a
//! 1a disconnected                  corosync is gone, or the client closed all its handles
//! 1a quorum yes r3 [1 2]
//! 1a A confchg [1a 2a] left [3a NODEDOWN] joined []
//! 1a A totem r3 [1 2]
//! 1a A message 2a hello
//! 1a done join A                   the call ended well; or `done join A error 6`, `... timeout`
//! ```
//!
//! A client is named by its node and a letter: the how-manieth process of that node it is. Groups are
//! `A` to `F` (the UUID is the digit, so they sort like this) and `control`, which sorts after them.
//!
//! The order of the lines is exact for one client and one source (a channel; quorum). Between sources
//! it is the order in which the bus handed them over: quorum, control, groups, when it had several at
//! once. Between clients, and between steps and what was told, it is that of the clock, as exact as
//! processes that share a machine are punctual.

mod step;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use o2bridge_core::{Channel, Event, Member, NodeId, OpError, Reason, RingId};

pub use step::{Call, Deed, Step};
pub use words::{channel_name, client_name};

use words::{Words, channel, client, message, number, reason, ring};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The comment at the top.
    pub about: Vec<String>,
    /// Its version.
    pub corosync: String,
    /// Totem's transport.
    pub transport: String,
    /// How many nodes corosync.conf lists, from 1.
    pub nodes: u32,
    /// Each of these texts is part of some line.
    pub wants: Vec<String>,
    /// What happened.
    pub lines: Vec<Line>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The script did something.
    Step(Step),
    /// The script waited for so long, whatever came.
    Wait {
        /// How long.
        ms: u64,
    },
    /// The script waited until nothing came any more.
    Quiet,
    /// A client was told something.
    Told(Told),
    /// A client's call ended.
    Done {
        /// Whose. The pid is the letter: 1 for `a`.
        client: Member,
        /// Which.
        call: Call,
        /// How.
        result: Result<(), OpError>,
    },
}

/// What a client was told. Pids are letters: 1 for `a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The client.
    pub client: Member,
    /// Connected (the cluster's name is not recorded), Disconnected, Quorum, Confchg, Totem or Message.
    pub event: Event,
}

/// Who speaks. What one source tells one client has an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The connection itself.
    Connection,
    /// The quorum service.
    Quorum,
    /// A group.
    Channel(Channel),
}

impl Told {
    /// Who said it.
    #[must_use]
    pub fn source(&self) -> Source {
        match &self.event {
            Event::Quorum { .. } => Source::Quorum,
            Event::Confchg { channel, .. }
            | Event::Totem { channel, .. }
            | Event::Message { channel, .. } => Source::Channel(*channel),
            _ => Source::Connection,
        }
    }
}

/// A text that is no recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecording {
    /// The line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: '{}'", self.line, self.why, self.text)
    }
}

impl std::error::Error for BadRecording {}

impl FromStr for Recording {
    type Err = BadRecording;

    fn from_str(text: &str) -> Result<Self, BadRecording> {
        let mut reader = Reader::default();
        for (index, full) in text.lines().enumerate() {
            let bad = |why| BadRecording { line: index + 1, text: full.to_owned(), why };
            reader.line(full.trim()).map_err(bad)?;
        }
        let missing = |what: &str| BadRecording {
            line: 0,
            text: String::new(),
            why: format!("the header has no line '{what}'"),
        };
        Ok(Self {
            about: reader.about,
            corosync: reader.corosync.ok_or_else(|| missing("corosync VERSION"))?,
            transport: reader.transport.ok_or_else(|| missing("transport NAME"))?,
            nodes: reader.nodes.ok_or_else(|| missing("nodes COUNT"))?,
            wants: reader.wants,
            lines: reader.lines,
        })
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    about: Vec<String>,
    corosync: Option<String>,
    transport: Option<String>,
    nodes: Option<u32>,
    wants: Vec<String>,
    rings: BTreeMap<String, RingId>,
    lines: Vec<Line>,
}

impl Reader {
    fn line(&mut self, full: &str) -> Result<(), String> {
        if let Some(comment) = full.strip_prefix('#') {
            if self.corosync.is_none() {
                self.about.push(comment.trim().to_owned());
            }
            return Ok(());
        }
        let text = without_time(full);
        let mut words = Words::new(text);
        match text.split(' ').next().unwrap_or_default() {
            "" => return Ok(()),
            "want" => {
                self.wants.push(text.trim_start_matches("want").trim().to_owned());
                return Ok(());
            }
            "step" => {
                self.lines.push(Line::Step(text.parse()?));
                return Ok(());
            }
            "corosync" => self.corosync = Some(words.skip("corosync")?.word()?.to_owned()),
            "transport" => self.transport = Some(words.skip("transport")?.word()?.to_owned()),
            "nodes" => self.nodes = Some(number(words.skip("nodes")?.word()?)?),
            "ring" => {
                let name = words.skip("ring")?.word()?.to_owned();
                self.rings.insert(name, ring(words.skip("=")?.word()?)?);
            }
            "wait" => self.lines.push(Line::Wait { ms: number(words.skip("wait")?.word()?)? }),
            "quiet" => {
                words.skip("quiet")?;
                self.lines.push(Line::Quiet);
            }
            _ => {
                let line = self.told(&mut words)?;
                self.lines.push(line);
            }
        }
        words.end()
    }

    fn told(&self, words: &mut Words<'_>) -> Result<Line, String> {
        let client = client(words.word()?)?;
        let event = match words.word()? {
            "connected" => Event::Connected {
                node: client.node,
                cluster: String::new(),
                nodelist: (1..=self.nodes.unwrap_or(0)).map(NodeId).collect(),
            },
            "disconnected" => Event::Disconnected,
            "quorum" => {
                let quorate = match words.word()? {
                    "yes" => true,
                    "no" => false,
                    other => return Err(format!("'{other}' is neither yes nor no")),
                };
                Event::Quorum { quorate, ring: self.ring(words)?, nodes: nodes(words)? }
            }
            "done" => {
                let call = Call::parse(words)?;
                return Ok(Line::Done { client, call, result: result(words)? });
            }
            name => self.of_channel(channel(name)?, words)?,
        };
        Ok(Line::Told(Told { client, event }))
    }

    fn of_channel(&self, channel: Channel, words: &mut Words<'_>) -> Result<Event, String> {
        Ok(match words.word()? {
            "confchg" => Event::Confchg {
                channel,
                members: words.list()?.into_iter().map(client).collect::<Result<_, _>>()?,
                left: with_reasons(words.skip("left")?.list()?)?,
                joined: with_reasons(words.skip("joined")?.list()?)?,
            },
            "totem" => Event::Totem { channel, ring: self.ring(words)?, nodes: nodes(words)? },
            "message" => {
                let from = client(words.word()?)?;
                Event::Message { channel, from, bytes: message(words.word()?)?.to_vec() }
            }
            other => {
                return Err(format!("a channel tells of confchg, totem, message; not '{other}'"));
            }
        })
    }

    fn ring(&self, words: &mut Words<'_>) -> Result<RingId, String> {
        let name = words.word()?;
        self.rings.get(name).copied().ok_or_else(|| format!("no line 'ring {name} = ...' before"))
    }
}

/// A line without the time at its end.
#[must_use]
pub fn without_time(line: &str) -> &str {
    match line.rsplit_once(" @") {
        Some((rest, time)) if time.parse::<f64>().is_ok() => rest,
        Some(_) | None => line,
    }
}

fn nodes(words: &mut Words<'_>) -> Result<Vec<NodeId>, String> {
    words.list()?.into_iter().map(|word| number(word).map(NodeId)).collect()
}

fn with_reasons(list: Vec<&str>) -> Result<Vec<(Member, Reason)>, String> {
    let pair = |pair: &[&str]| match pair {
        [who, why] => Ok((client(who)?, reason(why)?)),
        _ => Err("each member in 'left' and 'joined' has a reason".to_owned()),
    };
    list.chunks(2).map(pair).collect()
}

fn result(words: &mut Words<'_>) -> Result<Result<(), OpError>, String> {
    if words.is_at_end() {
        return Ok(Ok(()));
    }
    match words.word()? {
        "timeout" => Ok(Err(OpError::TimedOut)),
        "error" => Ok(Err(OpError::Corosync(number(words.word()?)?))),
        other => Err(format!("a call ends with 'timeout', 'error CODE' or nothing; not '{other}'")),
    }
}
