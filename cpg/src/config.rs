//! What corosync's map (cmap) says about the cluster.
//!
//! Strings are read with the iterator only: `cmap::get` of rust-corosync 3.2.0 fails for every
//! string of 16 bytes or more. The statistics map is not touched: iterating it crashes.

use std::collections::BTreeMap;

use corosync::cmap::{self, Data};
use o2bridge_core::types::NodeId;
use rust_corosync as corosync;

use crate::event::{Connected, NodeEntry};

/// More nodes than corosync can have; an index beyond it is not believed.
const NODES_MAX: u32 = 1024;

/// The keys that matter.
const PREFIXES: [&str; 5] =
    ["totem.cluster_name", "system.qb_ipc_type", "nodelist.", "runtime.votequorum.", "config."];

/// The iterator says "no more" for a key that it cannot read, too, and goes on when it is asked again.
/// So often in a row that means what it says.
const ENDS: usize = 3;

/// One reading of the map: keys and values as text.
#[derive(Debug, Default)]
pub struct Map {
    values: BTreeMap<String, String>,
    /// Whether a key could not be read, with others behind it.
    is_torn: bool,
}

impl FromIterator<(String, String)> for Map {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self { values: pairs.into_iter().collect(), is_torn: false }
    }
}

impl Map {
    /// Reads the keys that matter. Blocks as long as corosync likes: for helper threads.
    pub(crate) fn read(handle: &cmap::Handle) -> Result<Self, corosync::CsError> {
        let mut map = Self::default();
        for prefix in PREFIXES {
            // The iterator frees its state in corosync only when it is run to its end.
            let mut items = cmap::CmapIterStart::new(handle, prefix)?.into_iter();
            let mut ends = 0;
            while ends < ENDS {
                let Some(item) = items.next() else {
                    ends += 1;
                    continue;
                };
                map.is_torn |= ends > 0;
                ends = 0;
                if let Some(value) = text(item.data()) {
                    map.values.insert(item.key_name().to_owned(), value);
                }
            }
        }
        Ok(map)
    }

    /// Whether nothing is missing: half a node list would be taken for all the nodes that there are.
    pub(crate) const fn is_whole(&self) -> bool {
        !self.is_torn
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The map as the bus reports it; `None` if votequorum does not say who we are, which is when
    /// it is not configured.
    #[must_use]
    pub fn connected(&self) -> Option<Connected> {
        let node = self.get("runtime.votequorum.this_node_id")?.parse().ok()?;
        Some(Connected {
            node: NodeId(node),
            cluster: self.get("totem.cluster_name").unwrap_or_default().to_owned(),
            nodelist: self.nodelist(),
            ipc_type: self.get("system.qb_ipc_type").unwrap_or("native").to_owned(),
        })
    }

    /// Whether corosync is rewriting its map.
    pub(crate) fn is_reloading(&self) -> bool {
        let keys = ["config.reload_in_progress", "config.totemconfig_reload_in_progress"];
        keys.iter().any(|key| self.get(key).is_some_and(|value| value != "0"))
    }

    /// The node list, in the order of its indices. Entries without a node id are left out.
    #[must_use]
    pub fn nodelist(&self) -> Vec<NodeEntry> {
        let mut nodes: BTreeMap<u32, NodeEntry> = BTreeMap::new();
        for (key, value) in &self.values {
            let Some((index, field)) = key.strip_prefix("nodelist.node.").and_then(|rest| {
                let (index, field) = rest.split_once('.')?;
                Some((index.parse::<u32>().ok().filter(|index| *index < NODES_MAX)?, field))
            }) else {
                continue;
            };
            let node = nodes.entry(index).or_insert_with(|| NodeEntry {
                id: NodeId(0),
                name: String::new(),
                addresses: Vec::new(),
            });
            match field {
                "nodeid" => node.id = NodeId(value.parse().unwrap_or(0)),
                "name" => node.name.clone_from(value),
                field if field.starts_with("ring") && field.ends_with("_addr") => {
                    // Keys come sorted, so link 0 comes before link 1.
                    node.addresses.push(value.clone());
                }
                _ => (),
            }
        }
        nodes.into_values().filter(|node| node.id != NodeId(0)).collect()
    }
}

/// A value as text. Other types are of no use here.
fn text(data: &Data) -> Option<String> {
    match data {
        Data::String(value) => Some(value.clone()),
        Data::UInt8(value) => Some(value.to_string()),
        Data::UInt32(value) => Some(value.to_string()),
        Data::UInt64(value) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn a_nodelist_with_gaps_and_junk() {
        let map = map(&[
            ("runtime.votequorum.this_node_id", "7"),
            ("nodelist.node.0.nodeid", "7"),
            ("nodelist.node.0.ring1_addr", "b"),
            ("nodelist.node.0.ring0_addr", "a"),
            ("nodelist.node.2.nodeid", "9"),
            ("nodelist.node.2.name", "nine"),
            ("nodelist.node.3.name", "without an id"),
            ("nodelist.node.99999.nodeid", "3"),
            ("nodelist.local_node_pos", "0"),
        ]);
        let connected = map.connected().unwrap();
        let entry = |id, name: &str, addresses: &[&str]| NodeEntry {
            id: NodeId(id),
            name: name.into(),
            addresses: addresses.iter().map(|&a| a.into()).collect(),
        };
        assert_eq!(connected.nodelist, [entry(7, "", &["a", "b"]), entry(9, "nine", &[])]);
        assert_eq!((connected.cluster.as_str(), connected.ipc_type.as_str()), ("", "native"));
    }

    #[test]
    fn a_reload_is_known_by_two_keys() {
        assert!(!map(&[]).is_reloading());
        assert!(!map(&[("config.reload_in_progress", "0")]).is_reloading());
        assert!(map(&[("config.reload_in_progress", "1")]).is_reloading());
        assert!(map(&[("config.totemconfig_reload_in_progress", "1")]).is_reloading());
    }

    #[test]
    fn without_votequorum_we_are_nobody() {
        assert_eq!(map(&[("totem.cluster_name", "c")]).connected(), None);
    }
}
