//! What every shim was told of one group, spelt out: a test names all lines of all nodes.
//!
//! A use of the group is written as its node and a letter: `3a` is the first use by node 3 that any
//! shim heard of, `3b` the one after it. So `attach 1a 3b` also says which boot or which mount of a
//! node was meant, and a test cannot pass with the wrong one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use o2bridge_wire::record::Line;

use crate::record::{read_lines, uses};
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
            let mut lines = read_lines(&node.dir().join("record.jsonl"))?;
            lines.retain(|line| line.group.to_string() == group);
            files.insert(node.id(), lines);
        }
        let names = Names::new(files.values().flatten());
        let spell = |lines: Vec<Line>| lines.iter().map(|line| names.spell(line)).collect();
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
    fn new<'a>(lines: impl Iterator<Item = &'a Line>) -> Self {
        let uses: BTreeSet<(u32, u64)> = lines.flat_map(|line| uses(&line.verb)).collect();
        let mut next = BTreeMap::new();
        let rank = |use_: (u32, u64)| {
            let next: &mut usize = next.entry(use_.0).or_default();
            *next += 1;
            (use_, *next - 1)
        };
        Self(uses.into_iter().map(rank).collect())
    }

    fn spell(&self, line: &Line) -> String {
        let mut text = line.verb.name().to_owned();
        for (node, incarnation) in uses(&line.verb) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_have_letters_in_their_order() {
        let lines = [
            r#""attach","group":"G","peers":{"2":"1","10":"ff"}"#,
            r#""node_down","group":"G","node":10,"incarnation":"ff""#,
            r#""resume","group":"G","peers":{"2":"1","10":"100"}"#,
            r#""detach","group":"G""#,
        ];
        let lines = lines.map(|rest| {
            let rest = rest.replace('G', &"A".repeat(32));
            format!(r#"{{"at_us":1,"boot_us":1,"verb":{rest}}}"#).parse::<Line>().unwrap()
        });
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
