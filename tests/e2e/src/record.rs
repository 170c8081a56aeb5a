//! The record shim's file, read back.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

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
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LabError::Record(format!("{}: {error}", path.display()))),
        };
        let parse = |line| {
            Self::parse(line)
                .ok_or_else(|| LabError::Record(format!("{}: no record: {line}", path.display())))
        };
        // A line without its end is still being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let mut uses = BTreeMap::new();
        let verb = match value["verb"].as_str()? {
            "attach" => Verb::Attach(nodes(&value["peers"], &mut uses)?),
            "suspend" => Verb::Suspend,
            "node_down" => {
                let node = u32::try_from(value["node"].as_u64()?).ok()?;
                uses.insert(node, incarnation(&value["incarnation"])?);
                Verb::NodeDown(node)
            }
            "resume" => Verb::Resume(nodes(&value["peers"], &mut uses)?),
            "detach" => Verb::Detach,
            _ => return None,
        };
        Some(Self {
            at_us: value["at_us"].as_i64()?,
            boot_us: value["boot_us"].as_i64()?,
            group: value["group"].as_str()?.to_owned(),
            verb,
            uses,
        })
    }
}

fn nodes(peers: &Value, uses: &mut BTreeMap<u32, u64>) -> Option<Vec<u32>> {
    for (node, use_) in peers.as_object()? {
        uses.insert(node.parse().ok()?, incarnation(use_)?);
    }
    Some(uses.keys().copied().collect())
}

fn incarnation(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

    fn parse(rest: &str) -> Option<Verb> {
        record(rest).map(|record| record.verb)
    }

    fn record(rest: &str) -> Option<Record> {
        let line = format!("{{\"at_us\":5,\"boot_us\":6,\"group\":\"{GROUP}\",{rest}}}");
        let record = Record::parse(&line)?;
        assert_eq!((record.at_us, record.boot_us, record.group.as_str()), (5, 6, GROUP));
        Some(record)
    }

    #[test]
    fn every_verb_is_read_back() {
        let attach = "\"verb\":\"attach\",\"peers\":{\"10\":\"a\",\"2\":\"b\"}";
        assert_eq!(parse(attach), Some(Verb::Attach(vec![2, 10])));
        assert_eq!(parse("\"verb\":\"suspend\""), Some(Verb::Suspend));
        let down = "\"verb\":\"node_down\",\"node\":3,\"incarnation\":\"1f\"";
        assert_eq!(parse(down), Some(Verb::NodeDown(3)));
        assert_eq!(parse("\"verb\":\"resume\",\"peers\":{}"), Some(Verb::Resume(vec![])));
        assert_eq!(parse("\"verb\":\"detach\""), Some(Verb::Detach));
        assert_eq!(record(attach).unwrap().uses, BTreeMap::from([(2, 0xb), (10, 0xa)]));
        assert_eq!(record(down).unwrap().uses, BTreeMap::from([(3, 0x1f)]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert_eq!(parse("\"verb\":\"explode\""), None);
        assert_eq!(parse("\"verb\":\"node_down\""), None);
        assert_eq!(parse("\"verb\":\"attach\",\"peers\":{\"x\":\"a\"}"), None);
        assert_eq!(parse("\"verb\":\"node_down\",\"node\":3,\"incarnation\":\"?\""), None);
        assert!(Record::parse("").is_none());
    }
}
