//! The truth about the disks: who has a volume mounted, whose journal is dirty, who holds the lock.
//! Nothing of this is known to the code under test.

use std::collections::BTreeMap;

use o2bridge_core::{GroupId, Incarnation, NodeId};

/// One use of a volume by one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Who.
    pub node: NodeId,
    /// In which boot.
    pub boot: u128,
    /// Which use.
    pub incarnation: Incarnation,
}

/// How a use stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its kernel has the group attached.
    Active,
    /// It was detached.
    Ended,
    /// Its node lost power or was reset meanwhile.
    Died,
}

/// A use's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Journal {
    /// Written to since the mount.
    Dirty,
    /// Unmounted in order.
    Clean,
    /// Replayed by another node.
    Replayed,
}

/// One volume.
#[derive(Debug, Clone, Default, Hash)]
pub struct Volume {
    /// All uses there ever were.
    pub fates: BTreeMap<Owner, Fate>,
    /// Of those that mounted.
    pub journals: BTreeMap<Owner, Journal>,
    /// Who holds the one lock.
    pub lock: Option<Owner>,
    /// Who died holding it last: a kernel that was not told of that yet does not grant it.
    pub died_with_it: Option<Owner>,
    /// Who waits for it.
    pub waiting: Vec<Owner>,
}

impl Volume {
    /// The use that a node's kernel was told by number.
    #[must_use]
    pub fn find(&self, node: NodeId, incarnation: Incarnation) -> Option<(Owner, Fate)> {
        let is_it = |owner: &Owner| owner.node == node && owner.incarnation == incarnation;
        self.fates.iter().rev().find(|(owner, _)| is_it(owner)).map(|(owner, fate)| (*owner, *fate))
    }

    /// A node takes over what a dead one left: its journal, its lock.
    pub fn recover(&mut self, owner: Owner) {
        if let Some(journal @ Journal::Dirty) = self.journals.get_mut(&owner) {
            *journal = Journal::Replayed;
        }
        if self.lock == Some(owner) {
            self.died_with_it = Some(owner);
        }
        self.release(owner);
    }

    /// A mount ends in order.
    pub fn clean(&mut self, owner: Owner) {
        if let Some(journal @ Journal::Dirty) = self.journals.get_mut(&owner) {
            *journal = Journal::Clean;
        }
        self.release(owner);
    }

    /// Lets go of the lock, if it has it or waits for it.
    pub fn release(&mut self, owner: Owner) {
        self.waiting.retain(|it| *it != owner);
        if self.lock == Some(owner) {
            self.lock = None;
        }
    }

    /// The uses whose journals a mount finds dirty.
    pub fn dirty(&self) -> impl Iterator<Item = Owner> + '_ {
        self.journals.iter().filter(|(_, it)| **it == Journal::Dirty).map(|(owner, _)| *owner)
    }
}

/// All of them.
pub type Volumes = BTreeMap<GroupId, Volume>;
