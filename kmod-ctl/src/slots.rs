//! From corosync's nodeid (u32) to the kernel's node number, the *slot* (0 to 254), and back.
//!
//! The slot of a node is, in this order: what the configuration says (`o2cb.slots`), the number in
//! cluster.conf of the node with that address, the nodeid itself if it is 254 or less. It depends
//! on nothing but the node itself, so a node that comes or goes moves nobody else.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster_conf::NodeStanza;
use crate::wanted::{Node, SLOT_MAX, Wanted};

/// Nodeid to slot and slot to nodeid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotMap {
    by_node: BTreeMap<u32, u8>,
    by_slot: BTreeMap<u8, u32>,
}

/// Where a slot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `o2cb.slots` of the configuration.
    Configuration,
    /// The number in cluster.conf.
    ClusterConf,
    /// The nodeid itself.
    NodeId,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "o2cb.slots",
            Self::ClusterConf => "cluster.conf",
            Self::NodeId => "its nodeid",
        })
    }
}

/// Why there is no map. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The nodeid is above 254, and nothing else names a slot.
    #[error(
        "node {id} ('{name}') has no slot: its nodeid is above 254; name a free slot (0 to 254) \
         for it in o2cb.slots, the same on all nodes"
    )]
    None {
        /// The nodeid.
        id: u32,
        /// Its name.
        name: String,
    },
    /// 255.
    #[error("node {id} ('{name}'): o2cb.slots says {slot}, the greatest slot is 254")]
    Range {
        /// The nodeid.
        id: u32,
        /// Its name.
        name: String,
        /// The slot.
        slot: u8,
    },
    /// Two nodes would have it.
    #[error(
        "slot {slot} would belong to node {} ('{}', by {}) and to node {} ('{}', by {}); name \
         different slots in o2cb.slots, the same on all nodes",
        .one.0, .one.1, .one.2, .other.0, .other.1, .other.2
    )]
    Twice {
        /// The slot.
        slot: u8,
        /// Nodeid, name, and why.
        one: (u32, String, Origin),
        /// Nodeid, name, and why.
        other: (u32, String, Origin),
    },
}

impl SlotMap {
    /// Makes the map by the rule of the module documentation; `file` is cluster.conf's nodes.
    ///
    /// # Errors
    /// A node has no slot, or two have one.
    pub fn assign(wanted: &Wanted, file: &[&NodeStanza]) -> Result<Self, SlotError> {
        let mut map = Self::default();
        let mut taken: BTreeMap<u8, (u32, String, Origin)> = BTreeMap::new();
        for node in &wanted.nodes {
            let (slot, origin) = slot_of(node, wanted, file)?;
            let entry = (node.id, node.name.clone(), origin);
            if let Some(one) = taken.insert(slot, entry.clone()) {
                return Err(SlotError::Twice { slot, one, other: entry });
            }
            map.keep(node.id, slot);
        }
        Ok(map)
    }

    /// The slot of a node.
    #[must_use]
    pub fn slot(&self, node: u32) -> Option<u8> {
        self.by_node.get(&node).copied()
    }

    /// The node that has a slot.
    #[must_use]
    pub fn node(&self, slot: u8) -> Option<u32> {
        self.by_slot.get(&slot).copied()
    }

    /// Nodeids and slots, by nodeid.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u8)> + '_ {
        self.by_node.iter().map(|(&node, &slot)| (node, slot))
    }

    /// Nodeids and slots, as a map.
    #[must_use]
    pub fn by_node(&self) -> &BTreeMap<u32, u8> {
        &self.by_node
    }

    /// Adds a node, unless it or the slot is there already.
    pub(crate) fn keep(&mut self, node: u32, slot: u8) {
        if self.slot(node).is_none() && self.node(slot).is_none() {
            self.by_node.insert(node, slot);
            self.by_slot.insert(slot, node);
        }
    }

    pub(crate) fn remove(&mut self, node: u32) {
        if let Some(slot) = self.by_node.remove(&node) {
            self.by_slot.remove(&slot);
        }
    }
}

fn slot_of(node: &Node, wanted: &Wanted, file: &[&NodeStanza]) -> Result<(u8, Origin), SlotError> {
    let (id, name) = (node.id, node.name.clone());
    if let Some(&slot) = wanted.slots.get(&id) {
        if slot > SLOT_MAX {
            return Err(SlotError::Range { id, name, slot });
        }
        return Ok((slot, Origin::Configuration));
    }
    if let Some(stanza) = file.iter().find(|stanza| stanza.address == node.address) {
        return Ok((stanza.number, Origin::ClusterConf));
    }
    match u8::try_from(id) {
        Ok(slot) if slot <= SLOT_MAX => Ok((slot, Origin::NodeId)),
        _ => Err(SlotError::None { id, name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_conf::tests::stanza;
    use crate::wanted::tests::wanted;

    #[test]
    fn configuration_before_file_before_nodeid() {
        let mut wanted = wanted(3);
        wanted.slots = BTreeMap::from([(1, 0), (77, 9)]);
        let (one, two) = (stanza("n1", 5, 1), stanza("n2", 6, 2));
        let map = SlotMap::assign(&wanted, &[&one, &two]).unwrap();
        assert_eq!(map.iter().collect::<Vec<_>>(), [(1, 0), (2, 6), (3, 3)]);
        assert_eq!((map.node(0), map.node(6), map.node(3)), (Some(1), Some(2), Some(3)));
        assert_eq!((map.slot(77), map.node(9), map.node(5)), (None, None, None));
    }

    #[test]
    fn a_large_nodeid_needs_a_slot() {
        let mut wanted = wanted(2);
        wanted.nodes[1].id = 255;
        let error = SlotMap::assign(&wanted, &[]).unwrap_err();
        assert_eq!(error, SlotError::None { id: 255, name: "n2".into() });
        assert!(error.to_string().contains("node 255 ('n2')"));
        assert!(error.to_string().contains("o2cb.slots"));
        wanted.slots.insert(255, 255);
        let error = SlotMap::assign(&wanted, &[]).unwrap_err();
        assert_eq!(error, SlotError::Range { id: 255, name: "n2".into(), slot: 255 });
        wanted.slots.insert(255, 254);
        assert_eq!(SlotMap::assign(&wanted, &[]).unwrap().slot(255), Some(254));
    }

    #[test]
    fn a_slot_for_two_is_refused_with_both_names() {
        let mut wanted = wanted(3);
        wanted.slots.insert(3, 2);
        let text = SlotMap::assign(&wanted, &[]).unwrap_err().to_string();
        assert!(text.contains("node 2 ('n2', by its nodeid)"), "{text}");
        assert!(text.contains("node 3 ('n3', by o2cb.slots)"), "{text}");
    }

    #[test]
    fn a_node_that_comes_moves_nobody() {
        let three = SlotMap::assign(&wanted(3), &[]).unwrap();
        let four = SlotMap::assign(&wanted(4), &[]).unwrap();
        assert!(three.iter().all(|(node, slot)| four.slot(node) == Some(slot)));
    }
}
