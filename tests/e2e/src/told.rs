//! What every shim was told of one group, spelt out: a test names all lines of all nodes.
//!
//! A use of the group is written as its node and a letter: `3a` is the first use by node 3 that any
//! shim heard of, `3b` the one after it. So `attach 1a 3b` also says which boot or which mount of a
//! node was meant, and a test cannot pass with the wrong one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Lab, LabError};

/// How long the shims get to hear what they must.
const LIMIT: Duration = Duration::from_secs(30);
/// How long nothing more may come after the last line.
const QUIET: Duration = Duration::from_millis(400);

/// The lines of every node, in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(BTreeMap<u32, Vec<String>>);

impl Told {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// More lines for each of these nodes, separated by `|`.
    pub fn add(&mut self, nodes: &[u32], lines: &str) -> &mut Self {
        let lines = lines.split('|').map(|line| line.trim().to_owned());
        for node in nodes {
            self.0.entry(*node).or_default().extend(lines.clone());
        }
        self
    }

    /// The lines of a node.
    #[must_use]
    pub fn of(&self, node: u32) -> &[String] {
        self.0.get(&node).map_or(&[], Vec::as_slice)
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(node, lines)| writeln!(f, "  {node}: {}", lines.join(" | ")))
    }
}

impl Lab {
    /// What all shims were told of a group so far.
    ///
    /// # Errors
    /// A record file holds something else.
    pub fn told(&self, group: &str) -> Result<Told, LabError> {
        let mut files = BTreeMap::new();
        for node in self.cluster().nodes() {
            let path = node.dir().join("record.jsonl");
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // A line without its end is still being written.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let parse = |line: &str| {
                serde_json::from_str(line)
                    .map_err(|error| LabError::Record(format!("{}: {error}", path.display())))
            };
            let mut lines = whole.lines().map(parse).collect::<Result<Vec<Value>, _>>()?;
            lines.retain(|line| line["group"] == group);
            files.insert(node.id(), lines);
        }
        let names = Names::new(files.values().flatten());
        let spell = |lines: Vec<Value>| lines.iter().map(|line| names.spell(line)).collect();
        let told = files.into_iter().map(|(node, lines)| (node, spell(lines)));
        Ok(Told(told.filter(|(_, lines): &(u32, Vec<String>)| !lines.is_empty()).collect()))
    }

    /// Waits until all shims were told exactly this of the group, and then a moment whether anything
    /// more comes.
    ///
    /// # Errors
    /// They were told something else, less, or more.
    pub fn expect(&self, group: &str, expected: &Told) -> Result<(), LabError> {
        let deadline = Instant::now() + LIMIT;
        let mut told = self.told(group)?;
        while told != *expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            told = self.told(group)?;
        }
        std::thread::sleep(QUIET);
        told = self.told(group)?;
        if told == *expected {
            return Ok(());
        }
        Err(LabError::Record(format!(
            "group {group}: the shims were to be told\n{expected}and were told\n{told}"
        )))
    }
}

/// The rank of each node's incarnations: daemons give out larger ones later.
struct Names(BTreeMap<(u32, u64), usize>);

impl Names {
    fn new<'a>(lines: impl Iterator<Item = &'a Value>) -> Self {
        let uses: BTreeSet<(u32, u64)> = lines.flat_map(uses).collect();
        let mut next = BTreeMap::new();
        let rank = |use_: (u32, u64)| {
            let next: &mut usize = next.entry(use_.0).or_default();
            *next += 1;
            (use_, *next - 1)
        };
        Self(uses.into_iter().map(rank).collect())
    }

    fn spell(&self, line: &Value) -> String {
        let mut text = line["verb"].as_str().unwrap_or("?").to_owned();
        for (node, incarnation) in uses(line) {
            let rank = self.0.get(&(node, incarnation)).copied().unwrap_or_default();
            text.push_str(&format!(" {node}{}", letters(rank)));
        }
        text
    }
}

/// `a` to `z`, then `ba` to `zz`, and so on.
fn letters(rank: usize) -> String {
    let more = if rank < 26 { String::new() } else { letters(rank / 26) };
    let last = u8::try_from(rank % 26).map_or('?', |rank| char::from(b'a' + rank));
    more + &last.to_string()
}

/// The uses that a line names, by node.
fn uses(line: &Value) -> BTreeMap<u32, u64> {
    let hex = |value: &Value| u64::from_str_radix(value.as_str()?, 16).ok();
    let of_peer = |(node, value): (&String, &Value)| Some((node.parse().ok()?, hex(value)?));
    let mut uses: BTreeMap<u32, u64> =
        line["peers"].as_object().into_iter().flatten().filter_map(of_peer).collect();
    let node = line["node"].as_u64().and_then(|node| u32::try_from(node).ok());
    uses.extend(node.zip(hex(&line["incarnation"])));
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_have_letters_in_their_order() {
        let lines = [
            serde_json::json!({"verb": "attach", "peers": {"10": "ff", "2": "1"}}),
            serde_json::json!({"verb": "node_down", "node": 10, "incarnation": "ff"}),
            serde_json::json!({"verb": "resume", "peers": {"2": "1", "10": "100"}}),
            serde_json::json!({"verb": "detach"}),
        ];
        let names = Names::new(lines.iter());
        let spelt: Vec<String> = lines.iter().map(|line| names.spell(line)).collect();
        assert_eq!(spelt, ["attach 2a 10a", "node_down 10a", "resume 2a 10b", "detach"]);
    }

    #[test]
    fn letters_go_on_after_z() {
        let spelt = [0, 25, 26, 27, 26 * 26 - 1, 26 * 26].map(letters);
        assert_eq!(spelt, ["a", "z", "ba", "bb", "zz", "baa"]);
    }

    #[test]
    fn an_expectation_is_spelt_like_the_lines() {
        let mut told = Told::new();
        told.add(&[1, 2], "attach 1a 2a").add(&[2], "suspend | detach");
        assert_eq!(told.of(1), ["attach 1a 2a"]);
        assert_eq!(told.of(2), ["attach 1a 2a", "suspend", "detach"]);
        assert_eq!(told.of(3), [""; 0]);
        assert_eq!(told.to_string(), "  1: attach 1a 2a\n  2: attach 1a 2a | suspend | detach\n");
    }
}
