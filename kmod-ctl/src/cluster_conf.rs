//! `/etc/ocfs2/cluster.conf`, the node table of the classic tools. Read, never written.
//!
//! Stanzas begin at column 0 (`node:`), their lines are indented (`key = value`), and an empty line
//! ends them. Stanzas and keys that are not known are kept as [`ClusterConf::unknown`]: newer tools
//! may know them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::wanted::{Mode, SLOT_MAX};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterConf {
    /// Its clusters; the kernel runs one of them.
    pub clusters: Vec<ClusterStanza>,
    /// The nodes of all clusters.
    pub nodes: Vec<NodeStanza>,
    /// The global heartbeat regions of all clusters.
    pub heartbeats: Vec<HeartbeatStanza>,
    /// Lines that say something unknown: number from 1, and text.
    pub unknown: Vec<(usize, String)>,
}

/// `cluster:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStanza {
    /// The line that opens it, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// How many nodes the file says it has.
    pub node_count: Option<u32>,
    /// `heartbeat_mode`; local if the file does not say.
    pub mode: Mode,
}

/// `node:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStanza {
    /// The line that opens it, from 1.
    pub line: usize,
    /// Its name, by which it knows itself.
    pub name: String,
    /// Its number: 0 to 254.
    pub number: u8,
    /// Where its o2net listens.
    pub address: Ipv4Addr,
    /// The TCP port there.
    pub port: u16,
    /// The name of its cluster.
    pub cluster: String,
}

/// `heartbeat:`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatStanza {
    /// The line that opens it, from 1.
    pub line: usize,
    /// The UUID of the volume that holds the region: 32 hex digits.
    pub region: String,
    /// The name of its cluster.
    pub cluster: String,
}

/// Why the file cannot be used. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Neither a stanza nor `key = value`.
    Syntax,
    /// `key = value` under no stanza.
    Outside,
    /// The key was there already in this stanza.
    KeyTwice(String),
    /// The stanza lacks this key.
    Missing(&'static str),
    /// The value is not what the key takes, which is this.
    Value(String, &'static str),
    /// Another stanza (its line) has the same of this.
    Twice(&'static str, usize),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.fault {
            Fault::Syntax => f.write_str(
                "is neither 'stanza:' at the begin of a line nor an indented 'key = value'",
            ),
            Fault::Outside => f.write_str(
                "belongs to no stanza: an empty line ends one; put 'cluster:', 'node:' or \
                 'heartbeat:' before it, or remove the empty line",
            ),
            Fault::KeyTwice(key) => write!(f, "'{key}' is there twice in one stanza; remove one"),
            Fault::Missing(key) => write!(f, "the stanza that begins here needs '{key} = ...'"),
            Fault::Value(value, what) => write!(f, "'{value}' is not {what}"),
            Fault::Twice(what, line) => write!(
                f,
                "the stanza that begins here has the same {what} as the one at line {line}; \
                 change one of them"
            ),
        }
    }
}

impl std::error::Error for ParseError {}

impl ClusterConf {
    /// The stanza of a cluster.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&ClusterStanza> {
        self.clusters.iter().find(|cluster| cluster.name == name)
    }

    /// The nodes of a cluster.
    #[must_use]
    pub fn nodes_of(&self, cluster: &str) -> Vec<&NodeStanza> {
        self.nodes.iter().filter(|node| node.cluster == cluster).collect()
    }
}

/// Reads the text of the file.
///
/// # Errors
/// The first line that cannot be understood, or a stanza that lacks something or repeats another.
pub fn parse(text: &str) -> Result<ClusterConf, ParseError> {
    let mut conf = ClusterConf::default();
    let mut open: Option<Stanza<'_>> = None;
    for (index, raw) in text.lines().enumerate() {
        let line = index + 1;
        let trimmed = raw.trim();
        if trimmed.starts_with('#') {
            continue;
        }
        let starts_stanza = !raw.starts_with([' ', '\t']);
        if trimmed.is_empty() || starts_stanza {
            close(&mut conf, open.take())?;
        }
        if trimmed.is_empty() {
            continue;
        }
        if starts_stanza {
            let kind = trimmed.strip_suffix(':').ok_or(fault(line, Fault::Syntax))?;
            open = Some(Stanza { line, kind, keys: BTreeMap::new() });
            continue;
        }
        let (key, value) = trimmed.split_once('=').ok_or(fault(line, Fault::Syntax))?;
        let stanza = open.as_mut().ok_or(fault(line, Fault::Outside))?;
        if stanza.keys.insert(key.trim(), (line, value.trim())).is_some() {
            return Err(fault(line, Fault::KeyTwice(key.trim().to_owned())));
        }
    }
    close(&mut conf, open)?;
    check_twice(&conf)?;
    Ok(conf)
}

/// A stanza as it stands there.
struct Stanza<'a> {
    line: usize,
    kind: &'a str,
    keys: BTreeMap<&'a str, (usize, &'a str)>,
}

impl<'a> Stanza<'a> {
    fn take(&mut self, key: &'static str) -> Result<(usize, &'a str), ParseError> {
        self.keys.remove(key).ok_or(fault(self.line, Fault::Missing(key)))
    }

    fn text(&mut self, key: &'static str) -> Result<String, ParseError> {
        match self.take(key)? {
            (line, "") => Err(value(line, "", "a name")),
            (_, text) => Ok(text.to_owned()),
        }
    }

    /// A decimal number. The kernel and the tools would take a leading 0 for octal.
    fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        what: &'static str,
    ) -> Result<u32, ParseError> {
        let (line, text) = self.take(key)?;
        let is_octal = text.len() > 1 && text.starts_with('0');
        let number = text.parse().ok().filter(|number| range.contains(number) && !is_octal);
        number.ok_or_else(|| value(line, text, what))
    }
}

fn fault(line: usize, fault: Fault) -> ParseError {
    ParseError { line, fault }
}

fn value(line: usize, text: &str, what: &'static str) -> ParseError {
    fault(line, Fault::Value(text.to_owned(), what))
}

fn close(conf: &mut ClusterConf, stanza: Option<Stanza<'_>>) -> Result<(), ParseError> {
    let Some(mut stanza) = stanza else { return Ok(()) };
    match stanza.kind {
        "cluster" => conf.clusters.push(cluster(&mut stanza)?),
        "node" => conf.nodes.push(node(&mut stanza)?),
        "heartbeat" => conf.heartbeats.push(heartbeat(&mut stanza)?),
        other => conf.unknown.push((stanza.line, format!("{other}:"))),
    }
    let rest =
        stanza.keys.into_iter().map(|(key, (line, value))| (line, format!("{key} = {value}")));
    conf.unknown.extend(rest);
    Ok(())
}

fn cluster(stanza: &mut Stanza<'_>) -> Result<ClusterStanza, ParseError> {
    let node_count = match stanza.keys.contains_key("node_count") {
        true => Some(stanza.number("node_count", 0..=u32::MAX, "a number of nodes")?),
        false => None,
    };
    let mode = match stanza.keys.remove("heartbeat_mode") {
        None => Mode::Local,
        Some((_, text)) if text.eq_ignore_ascii_case("local") => Mode::Local,
        Some((_, text)) if text.eq_ignore_ascii_case("global") => Mode::Global,
        Some((line, text)) => return Err(value(line, text, "'local' or 'global'")),
    };
    Ok(ClusterStanza { line: stanza.line, name: stanza.text("name")?, node_count, mode })
}

fn node(stanza: &mut Stanza<'_>) -> Result<NodeStanza, ParseError> {
    let number = stanza.number("number", 0..=SLOT_MAX.into(), "a decimal number from 0 to 254")?;
    let port = stanza.number("ip_port", 1..=65_534, "a decimal port from 1 to 65534")?;
    let (line, text) = stanza.take("ip_address")?;
    let address = text.parse().map_err(|_| value(line, text, "an IPv4 address"))?;
    Ok(NodeStanza {
        line: stanza.line,
        name: stanza.text("name")?,
        number: u8::try_from(number).unwrap_or(SLOT_MAX),
        address,
        port: u16::try_from(port).unwrap_or(u16::MAX),
        cluster: stanza.text("cluster")?,
    })
}

fn heartbeat(stanza: &mut Stanza<'_>) -> Result<HeartbeatStanza, ParseError> {
    let (line, region) = stanza.take("region")?;
    if region.len() != 32 || !region.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(value(line, region, "a UUID of 32 hex digits without dashes"));
    }
    let cluster = stanza.text("cluster")?;
    Ok(HeartbeatStanza { line: stanza.line, region: region.to_owned(), cluster })
}

fn check_twice(conf: &ClusterConf) -> Result<(), ParseError> {
    for (index, cluster) in conf.clusters.iter().enumerate() {
        let before = conf.clusters.get(..index).unwrap_or_default();
        if let Some(other) = before.iter().find(|other| other.name == cluster.name) {
            return Err(fault(cluster.line, Fault::Twice("name", other.line)));
        }
    }
    for (index, node) in conf.nodes.iter().enumerate() {
        let before = conf.nodes.get(..index).unwrap_or_default();
        for other in before.iter().filter(|other| other.cluster == node.cluster) {
            let what = match () {
                () if other.number == node.number => "number",
                () if other.name == node.name => "name",
                () if other.address == node.address => "ip_address",
                () => continue,
            };
            return Err(fault(node.line, Fault::Twice(what, other.line)));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn stanza(name: &str, number: u8, host: u8) -> NodeStanza {
        let (address, cluster) = (Ipv4Addr::new(10, 0, 0, host), "lab".into());
        NodeStanza { line: 1, name: name.into(), number, address, port: 7777, cluster }
    }

    const GOOD: &str = "\
# made by o2cb
cluster:
\theartbeat_mode = Global
\tnode_count = 2
\tname = lab

node:
\tnumber = 0
\tname = n1.example.org
\tip_address = 10.0.0.1
\tip_port = 7777
\tcluster = lab
\t# a remark
node:
    cluster=lab
    name=n2
    number=254
    ip_address=10.0.0.2
    ip_port=7777
    colour = blue

heartbeat:
\tregion = 0123456789ABCDEF0123456789abcdef
\tcluster = lab

quota:
\tmax = 7
";

    #[test]
    fn a_good_file() {
        let conf = parse(GOOD).unwrap();
        let cluster = conf.cluster("lab").unwrap();
        assert_eq!((cluster.line, cluster.node_count, cluster.mode), (2, Some(2), Mode::Global));
        let nodes = conf.nodes_of("lab");
        assert_eq!(nodes.iter().map(|n| n.number).collect::<Vec<_>>(), [0, 254]);
        assert_eq!(nodes[0].name, "n1.example.org");
        assert_eq!((nodes[1].line, nodes[1].address), (14, Ipv4Addr::new(10, 0, 0, 2)));
        assert_eq!(conf.heartbeats[0].region, "0123456789ABCDEF0123456789abcdef");
        let unknown: Vec<(usize, &str)> =
            conf.unknown.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(unknown, [(20, "colour = blue"), (26, "quota:"), (27, "max = 7")]);
        assert!(conf.nodes_of("other").is_empty());
        assert_eq!(parse("\n\n# nothing\n").unwrap(), ClusterConf::default());
    }

    fn error_of(text: &str) -> (usize, Fault) {
        let error = parse(text).unwrap_err();
        assert!(error.to_string().starts_with(&format!("line {}: ", error.line)));
        (error.line, error.fault)
    }

    #[test]
    fn errors_name_their_line() {
        assert_eq!(error_of("cluster:\n\tname lab\n"), (2, Fault::Syntax));
        assert_eq!(error_of("cluster:\n\tname = lab\n\n\tnode_count = 1\n"), (4, Fault::Outside));
        assert_eq!(error_of("cluster\n"), (1, Fault::Syntax));
        let twice = Fault::KeyTwice("name".into());
        assert_eq!(error_of("cluster:\n name = a\n name = b\n"), (3, twice));
        assert_eq!(error_of("\ncluster:\n\tnode_count = 2\n"), (2, Fault::Missing("name")));
        let mode = Fault::Value("disk".into(), "'local' or 'global'");
        assert_eq!(error_of("cluster:\n name = a\n heartbeat_mode = disk\n"), (3, mode));
        let uuid = Fault::Value("12".into(), "a UUID of 32 hex digits without dashes");
        assert_eq!(error_of("heartbeat:\n region = 12\n cluster = a\n"), (2, uuid));
    }

    #[test]
    fn values_of_nodes_are_checked() {
        let node = |key: &str, value: &str| {
            let mut keys = vec![
                ("number", "1"),
                ("name", "n"),
                ("ip_address", "10.0.0.1"),
                ("ip_port", "7777"),
                ("cluster", "lab"),
            ];
            for pair in &mut keys {
                if pair.0 == key {
                    pair.1 = value;
                }
            }
            let lines: Vec<String> = keys.iter().map(|(k, v)| format!("\t{k} = {v}\n")).collect();
            parse(&format!("node:\n{}", lines.concat())).map_err(|error| error.line)
        };
        assert!(node("", "").is_ok());
        for (key, value, line) in [
            ("number", "255", 2),
            ("number", "010", 2),
            ("number", "-1", 2),
            ("name", "", 3),
            ("ip_address", "fe80::1", 4),
            ("ip_address", "10.0.0.256", 4),
            ("ip_port", "65535", 5),
            ("ip_port", "0", 5),
            ("cluster", "", 6),
        ] {
            assert_eq!(node(key, value), Err(line), "{key} = {value}");
        }
    }

    #[test]
    fn what_two_stanzas_share_is_refused() {
        let node = |number: u8, name: &str, host: u8, cluster: &str| {
            format!(
                "node:\n\tnumber = {number}\n\tname = {name}\n\tip_address = 10.0.0.{host}\n\
                 \tip_port = 7777\n\tcluster = {cluster}\n"
            )
        };
        let two = |second: String| parse(&(node(1, "a", 1, "x") + &second)).map_err(|e| e.fault);
        assert_eq!(two(node(1, "b", 2, "x")), Err(Fault::Twice("number", 1)));
        assert_eq!(two(node(2, "a", 2, "x")), Err(Fault::Twice("name", 1)));
        assert_eq!(two(node(2, "b", 1, "x")), Err(Fault::Twice("ip_address", 1)));
        assert!(two(node(1, "a", 1, "y")).is_ok(), "another cluster may say the same");
        let name = parse("cluster:\n\tname = x\ncluster:\n\tname = x\n").unwrap_err();
        assert_eq!((name.line, name.fault), (3, Fault::Twice("name", 1)));
    }
}
