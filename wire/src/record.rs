//! The record shim's line: what a kernel would have been told, and when.
//!
//! ```text
//! {"at_us":1763639000123456,"boot_us":8123456,"verb":"attach","group":"<32 hex>","peers":{"1":"65f0"}}
//! {"at_us":...,"boot_us":...,"verb":"suspend","group":"<32 hex>"}
//! {"at_us":...,"boot_us":...,"verb":"node_down","group":"<32 hex>","node":3,"incarnation":"65f2"}
//! {"at_us":...,"boot_us":...,"verb":"resume","group":"<32 hex>","peers":{"1":"65f0","2":"65f1"}}
//! {"at_us":...,"boot_us":...,"verb":"detach","group":"<32 hex>"}
//! ```
//!
//! Incarnations are hex texts, because readers of JSON round large numbers.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers, Verb};
use serde::Deserialize;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The wall clock, in microseconds.
    pub at_us: i64,
    /// `CLOCK_BOOTTIME`, in microseconds.
    pub boot_us: i64,
    /// What was told.
    pub verb: Verb,
    /// Of which group.
    pub group: GroupId,
}

/// A text that is no line: not byte for byte what [`Line`] writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no line of the record shim")]
pub struct BadLine;

impl fmt::Display for Line {
    /// The text of the line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_us, boot_us, verb, group } = self;
        let name = verb.name();
        write!(f, r#"{{"at_us":{at_us},"boot_us":{boot_us},"verb":"{name}","group":"{group}""#)?;
        match verb {
            Verb::Attach(peers) | Verb::Resume(peers) => write_peers(peers, f)?,
            Verb::NodeDown(node, incarnation) => {
                write!(f, r#","node":{node},"incarnation":"{incarnation}""#)?;
            }
            Verb::Suspend | Verb::Detach => {}
        }
        f.write_char('}')
    }
}

fn write_peers(peers: &Peers, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(r#","peers":{"#)?;
    for (index, (node, incarnation)) in peers.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, r#"{comma}"{node}":"{incarnation}""#)?;
    }
    f.write_char('}')
}

/// The fields of all verbs.
#[derive(Deserialize)]
struct Fields {
    at_us: i64,
    boot_us: i64,
    verb: String,
    group: String,
    peers: Option<BTreeMap<u32, String>>,
    node: Option<u32>,
    incarnation: Option<String>,
}

impl Fields {
    fn line(self) -> Option<Line> {
        let verb = match self.verb.as_str() {
            "attach" => Verb::Attach(peers(self.peers?)?),
            "suspend" => Verb::Suspend,
            "node_down" => Verb::NodeDown(NodeId(self.node?), incarnation(&self.incarnation?)?),
            "resume" => Verb::Resume(peers(self.peers?)?),
            "detach" => Verb::Detach,
            _ => return None,
        };
        let group = self.group.parse().ok()?;
        Some(Line { at_us: self.at_us, boot_us: self.boot_us, verb, group })
    }
}

impl std::str::FromStr for Line {
    type Err = BadLine;

    /// Reads a line without its end. No field may be missing, unknown, in another place or spelt in
    /// another way: what was read is written once more and compared.
    fn from_str(text: &str) -> Result<Self, BadLine> {
        let fields: Fields = serde_json::from_str(text).map_err(|_| BadLine)?;
        fields.line().filter(|line| line.to_string() == text).ok_or(BadLine)
    }
}

fn peers(peers: BTreeMap<u32, String>) -> Option<Peers> {
    peers.into_iter().map(|(node, text)| Some((NodeId(node), incarnation(&text)?))).collect()
}

fn incarnation(text: &str) -> Option<Incarnation> {
    u64::from_str_radix(text, 16).ok().map(Incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

    fn text(verb: &str, rest: &str) -> String {
        format!("{{\"at_us\":5,\"boot_us\":-6,\"verb\":\"{verb}\",\"group\":\"{GROUP}\"{rest}}}")
    }

    #[test]
    fn every_verb_has_one_line() {
        let peers = [(NodeId(2), Incarnation(0xB)), (NodeId(10), Incarnation(u64::MAX))];
        let peers = Peers::from(peers);
        let both = ",\"peers\":{\"2\":\"b\",\"10\":\"ffffffffffffffff\"}";
        let down = ",\"node\":3,\"incarnation\":\"1f\"";
        for (verb, rest) in [
            (Verb::Attach(peers.clone()), both),
            (Verb::Suspend, ""),
            (Verb::NodeDown(NodeId(3), Incarnation(0x1F)), down),
            (Verb::Resume(peers), both),
            (Verb::Resume(Peers::new()), ",\"peers\":{}"),
            (Verb::Detach, ""),
        ] {
            let text = text(verb.name(), rest);
            let line = Line { at_us: 5, boot_us: -6, verb, group: GROUP.parse().unwrap() };
            assert_eq!(line.to_string(), text);
            assert_eq!(text.parse(), Ok(line), "{text}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        let suspend = text("suspend", "");
        for bad in [
            String::new(),
            "{}".to_owned(),
            suspend[..suspend.len() - 1].to_owned(),
            format!("{suspend} "),
            suspend.replace(GROUP, &GROUP.to_lowercase()),
            suspend.replace(":5,", ": 5,"),
            text("explode", ""),
            text("suspend", ",\"node\":3"),
            text("suspend", ",\"x\":3"),
            text("node_down", ""),
            text("node_down", ",\"node\":3,\"incarnation\":\"?\""),
            text("node_down", ",\"node\":3,\"incarnation\":\"01\""),
            text("node_down", ",\"node\":-3,\"incarnation\":\"1\""),
            text("attach", ",\"peers\":{\"x\":\"a\"}"),
            text("attach", ",\"peers\":{\"2\":\"a\",\"1\":\"a\"}"),
            text("attach", ",\"peers\":{\"1\":\"a\",\"1\":\"a\"}"),
        ] {
            assert_eq!(bad.parse::<Line>(), Err(BadLine), "{bad}");
        }
    }
}
