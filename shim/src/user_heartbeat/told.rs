//! The peers of one group that the kernel was told of, as text: one line per node, its id, its slot,
//! its incarnation in hex.

use std::collections::BTreeMap;

use o2bridge_core::{Incarnation, NodeId};

/// A node that was told up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its number in the kernel.
    pub slot: u8,
    /// Its use of the group.
    pub incarnation: Incarnation,
}

/// The peers of one group, without us.
pub type Told = BTreeMap<NodeId, Claim>;

/// As it is kept.
#[must_use]
pub fn encode(told: &Told) -> String {
    let line =
        |(node, claim): (&NodeId, &Claim)| format!("{node} {} {}\n", claim.slot, claim.incarnation);
    told.iter().map(line).collect()
}

/// Reads what was kept; `None` for anything that [`encode`] does not make.
#[must_use]
pub fn decode(text: &str) -> Option<Told> {
    let told: Option<Told> = text.lines().map(parse).collect();
    told.filter(|told| encode(told) == text)
}

fn parse(line: &str) -> Option<(NodeId, Claim)> {
    let mut words = line.split(' ');
    let node = NodeId(words.next()?.parse().ok()?);
    let slot = words.next()?.parse().ok()?;
    let incarnation = Incarnation(u64::from_str_radix(words.next()?, 16).ok()?);
    words.next().is_none().then_some((node, Claim { slot, incarnation }))
}
