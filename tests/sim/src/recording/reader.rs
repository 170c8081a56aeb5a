//! From text to a [`Recording`].

use std::collections::BTreeMap;
use std::str::FromStr;

use o2bridge_core::{Channel, Event, Member, NodeId, OpError, Reason, RingId};

use super::words::{Words, channel, client, message, number, reason, ring};
use super::{BadRecording, Call, Line, Recording, Source, Step, Told};

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
            script: reader.script,
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
    script: Vec<Vec<Line>>,
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
                let step = self.step(text.trim_start_matches("step "))?;
                self.lines.push(Line::Step(step));
                return Ok(());
            }
            "script" => {
                let parts = text.trim_start_matches("script ").split(';');
                let script = parts.map(|part| self.script_part(part.trim()));
                self.script.push(script.collect::<Result<_, _>>()?);
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

    fn script_part(&self, text: &str) -> Result<Line, String> {
        match text.split_once(' ') {
            None if text == "quiet" => Ok(Line::Quiet),
            Some(("wait", ms)) => Ok(Line::Wait { ms: number(ms)? }),
            Some(_) | None => Ok(Line::Step(self.step(text)?)),
        }
    }

    fn step(&self, text: &str) -> Result<Step, String> {
        let step: Step = text.parse()?;
        let nodes = 1..=self.nodes.unwrap_or(0);
        match step.nodes().into_iter().find(|node| !nodes.contains(&node.0)) {
            Some(node) => Err(format!("there is no node {node}")),
            None => Ok(step),
        }
    }

    fn told(&self, words: &mut Words<'_>) -> Result<Line, String> {
        let client = client(words.word()?)?;
        let (source, event) = match words.word()? {
            "connected" => (Source::Connection, self.connected(client)),
            "disconnected" => (Source::Connection, Event::Disconnected),
            "quorum" => (Source::Quorum, self.quorum(words)?),
            "done" => {
                let call = Call::parse(words)?;
                return Ok(Line::Done { client, call, result: result(words)? });
            }
            name => {
                let channel = channel(name)?;
                (Source::Channel(channel), self.of_channel(channel, words)?)
            }
        };
        Ok(Line::Told(Told { client, source, event }))
    }

    fn connected(&self, client: Member) -> Event {
        let nodelist = (1..=self.nodes.unwrap_or(0)).map(NodeId).collect();
        Event::Connected { node: client.node, cluster: String::new(), nodelist }
    }

    fn quorum(&self, words: &mut Words<'_>) -> Result<Event, String> {
        let quorate = match words.word()? {
            "yes" => true,
            "no" => false,
            other => return Err(format!("'{other}' is neither yes nor no")),
        };
        let (ring, in_ring) = (self.ring(words)?, nodes(words)?);
        Ok(Event::Quorum { quorate, ring, nodes: in_ring, left: nodes(words.skip("left")?)? })
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
fn without_time(line: &str) -> &str {
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
