//! The record shim's file, read back.

use std::collections::BTreeMap;
use std::path::Path;

use o2bridge_core as core;
use o2bridge_wire::record::Line;

use crate::LabError;

/// One of the five verbs, as the shim was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// With these nodes.
    Attach(Vec<u32>),
    /// The membership is about to change.
    Suspend,
    /// This node died.
    NodeDown(u32),
    /// The membership is this now.
    Resume(Vec<u32>),
    /// The end.
    Detach,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Wall clock in microseconds. All nodes of a lab share one clock.
    pub at_us: i64,
    /// `CLOCK_BOOTTIME` in microseconds.
    pub boot_us: i64,
    /// The group's UUID.
    pub group: String,
    /// What was told.
    pub verb: Verb,
    /// Which use of each node that the verb names.
    pub uses: BTreeMap<u32, u64>,
}

impl Record {
    /// Reads a whole file. One that is not there yet holds no lines.
    ///
    /// # Errors
    /// A line is not what the record shim writes.
    pub fn read(path: &Path) -> Result<Vec<Self>, LabError> {
        Ok(read_lines(path)?.into_iter().map(Self::from).collect())
    }
}

impl From<Line> for Record {
    fn from(line: Line) -> Self {
        let nodes = |peers: &core::Peers| peers.keys().map(|node| node.0).collect();
        let verb = match &line.verb {
            core::Verb::Attach(peers) => Verb::Attach(nodes(peers)),
            core::Verb::Suspend => Verb::Suspend,
            core::Verb::NodeDown(node, _) => Verb::NodeDown(node.0),
            core::Verb::Resume(peers) => Verb::Resume(nodes(peers)),
            core::Verb::Detach => Verb::Detach,
        };
        let (uses, group) = (uses(&line.verb), line.group.to_string());
        Self { at_us: line.at_us, boot_us: line.boot_us, group, verb, uses }
    }
}

/// Reads a whole file. One that is not there yet holds no lines.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<Line>, LabError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::Record(format!("{}: {error}", path.display()))),
    };
    let parse = |line: &str| {
        line.parse().map_err(|bad| LabError::Record(format!("{}: {bad}: {line}", path.display())))
    };
    // A line without its end is still being written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(parse).collect()
}

/// The uses that a verb names, by node.
pub(crate) fn uses(verb: &core::Verb) -> BTreeMap<u32, u64> {
    match verb {
        core::Verb::Attach(peers) | core::Verb::Resume(peers) => {
            peers.iter().map(|(node, incarnation)| (node.0, incarnation.0)).collect()
        }
        core::Verb::NodeDown(node, incarnation) => BTreeMap::from([(node.0, incarnation.0)]),
        core::Verb::Suspend | core::Verb::Detach => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

    fn told(verb: &str, rest: &str) -> (Verb, BTreeMap<u32, u64>) {
        let line = format!(
            "{{\"at_us\":5,\"boot_us\":6,\"verb\":\"{verb}\",\"group\":\"{GROUP}\"{rest}}}"
        );
        let record = Record::from(line.parse::<Line>().unwrap());
        assert_eq!((record.at_us, record.boot_us, record.group.as_str()), (5, 6, GROUP));
        (record.verb, record.uses)
    }

    #[test]
    fn every_verb_is_read_back() {
        let peers = ",\"peers\":{\"2\":\"b\",\"10\":\"a\"}";
        let both = BTreeMap::from([(2, 0xb), (10, 0xa)]);
        assert_eq!(told("attach", peers), (Verb::Attach(vec![2, 10]), both.clone()));
        assert_eq!(told("resume", peers), (Verb::Resume(vec![2, 10]), both));
        assert_eq!(told("suspend", ""), (Verb::Suspend, BTreeMap::new()));
        let down = ",\"node\":3,\"incarnation\":\"1f\"";
        assert_eq!(told("node_down", down), (Verb::NodeDown(3), BTreeMap::from([(3, 0x1f)])));
        assert_eq!(told("detach", ""), (Verb::Detach, BTreeMap::new()));
    }

    #[test]
    fn a_line_that_is_being_written_is_left_out_and_a_bad_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.jsonl");
        assert!(Record::read(&path).unwrap().is_empty());
        std::fs::write(&path, "{\"at").unwrap();
        assert!(Record::read(&path).unwrap().is_empty());
        std::fs::write(&path, "{}\n").unwrap();
        let error = Record::read(&path).unwrap_err();
        assert!(error.to_string().contains("record.jsonl"), "{error}");
    }
}
