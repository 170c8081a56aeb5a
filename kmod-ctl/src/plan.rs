//! From the table that was found and the one that is wanted to a list of steps. Pure.
//!
//! The table is *busy* while it has a heartbeat region. A directory is *used* when the table is
//! busy and it is complete and it is our own node's, or one of the slots in use, or nobody can say.
//!
//! | found | on bringing online | on an update |
//! |---|---|---|
//! | no cluster | all is made | refused |
//! | another cluster | refused | refused |
//! | an attribute that this kernel does not have | nothing | nothing |
//! | an attribute differs, busy | refused | a heads-up |
//! | an attribute differs, not busy | written | written |
//! | a node agrees but for its name | adopted, a heads-up | adopted, a heads-up |
//! | a node too many, used | stale: left for an update | waits |
//! | a node too many, not used | removed | removed |
//! | a node missing | added | added |
//! | a node missing, whose slot or name a used one has | waits | waits |
//! | a node missing, whose address a used one has: a machine under another slot or port | refused | refused |
//! | our own node, and it is another in the table, busy | refused | refused |
//!
//! Removals come before additions, and our own node is the last to be added: from then on others
//! can connect.

use std::collections::BTreeSet;
use std::fmt;

use crate::configfs::{Attribute, Entry, Table};
use crate::error::Difference;

/// What there shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) cluster: String,
    pub(crate) attributes: Vec<(Attribute, String)>,
    pub(crate) nodes: Vec<Entry>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    MakeCluster,
    RemoveCluster,
    /// Written only if it differs, and read back.
    Set(Attribute, String),
    AddNode(Entry),
    RemoveNode(Entry),
    /// Slot 0 looks like one that was never written.
    ConfirmZero(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeCluster => f.write_str("cluster made"),
            Self::RemoveCluster => f.write_str("cluster removed"),
            Self::Set(attribute, value) => write!(f, "{} set to {value}", attribute.path()),
            Self::AddNode(node) => write!(
                f,
                "node '{}' added: slot {}, {}:{}{}",
                node.name,
                node.slot,
                node.address,
                node.port,
                if node.is_local { ", this one" } else { "" }
            ),
            Self::RemoveNode(node) => {
                write!(f, "node '{}' removed: slot {}, {}", node.name, node.slot, node.address)
            }
            Self::ConfirmZero(node) => write!(f, "slot 0 of node '{node}' confirmed"),
        }
    }
}

/// Why a node waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is to go, and its slot is in use: its membership goes first.
    InUse,
    /// It is to go, and the kernel still has a connection to it, or says busy for another reason.
    Busy,
    /// It is to come, and this one, which is to go, has its slot, address or name.
    Behind(String),
}

/// A node that could not be added or removed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub name: String,
    /// Its slot.
    pub slot: u8,
    /// What it waits for.
    pub why: Why,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, slot, why } = self;
        match why {
            Why::InUse => write!(f, "node '{name}' stays: its slot {slot} is in use"),
            Why::Busy => write!(f, "node '{name}' (slot {slot}) stays: the kernel says busy"),
            Why::Behind(other) => {
                write!(f, "node '{name}' (slot {slot}) comes when node '{other}' is gone")
            }
        }
    }
}

/// Who may be using the nodes of a busy table.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Users<'a> {
    /// Nobody can say.
    Unknown,
    /// These slots are.
    Known(&'a BTreeSet<u8>),
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) waiting: Vec<Waiting>,
    /// Nodes too many that an update will take away.
    pub(crate) stale: Vec<Entry>,
    pub(crate) heads_up: Vec<String>,
}

/// Makes the plan, or says what contradicts.
pub(crate) fn plan(
    found: Option<&Table>,
    goal: &Goal,
    users: Users<'_>,
) -> Result<Plan, Vec<Difference>> {
    let Some(table) = found else { return Ok(from_nothing(goal)) };
    if table.cluster != goal.cluster {
        return Err(vec![difference("cluster", "name", &table.cluster, &goal.cluster)]);
    }
    let mut planner = Planner { table, goal, users, plan: Plan::default(), refused: Vec::new() };
    planner.attributes();
    planner.nodes();
    if planner.refused.is_empty() { Ok(planner.plan) } else { Err(planner.refused) }
}

/// The steps that take a table away. Our own node goes last: the others are found by it.
pub(crate) fn teardown(table: &Table) -> Vec<Step> {
    let (local, remote): (Vec<&Entry>, Vec<&Entry>) = table.nodes.iter().partition(|n| n.is_local);
    let nodes = remote.into_iter().chain(local).cloned().map(Step::RemoveNode);
    nodes.chain([Step::RemoveCluster]).collect()
}

fn difference(
    subject: &str,
    key: &'static str,
    there: impl ToString,
    wanted: impl ToString,
) -> Difference {
    let (there, wanted) = (there.to_string(), wanted.to_string());
    Difference { subject: subject.to_owned(), key, there, wanted }
}

fn from_nothing(goal: &Goal) -> Plan {
    let mut steps = vec![Step::MakeCluster];
    steps.extend(sets(&goal.attributes, None));
    steps.extend(additions(goal.nodes.iter()));
    Plan { steps, ..Plan::default() }
}

/// Our own node last.
fn additions<'a>(nodes: impl Iterator<Item = &'a Entry>) -> Vec<Step> {
    let mut nodes: Vec<Entry> = nodes.cloned().collect();
    nodes.sort_by_key(|node| (node.is_local, node.slot));
    nodes.into_iter().map(Step::AddNode).collect()
}

/// At every moment the idle timeout must be above the keepalive delay.
fn sets(wanted: &[(Attribute, String)], found: Option<&Table>) -> Vec<Step> {
    const KEEPALIVE_DEFAULT: u64 = 2000;
    let number = |list: &[(Attribute, String)], which: Attribute| {
        list.iter().find(|(attribute, _)| *attribute == which)?.1.parse::<u64>().ok()
    };
    let keepalive = found.and_then(|it| number(&it.attributes, Attribute::KeepaliveDelay));
    let idle = number(wanted, Attribute::IdleTimeout).unwrap_or(u64::MAX);
    let mut list = wanted.to_vec();
    let at = |which| wanted.iter().position(|(attribute, _)| *attribute == which);
    if idle <= keepalive.unwrap_or(KEEPALIVE_DEFAULT) {
        if let (Some(one), Some(other)) =
            (at(Attribute::IdleTimeout), at(Attribute::KeepaliveDelay))
        {
            list.swap(one, other);
        }
    }
    list.into_iter().map(|(attribute, value)| Step::Set(attribute, value)).collect()
}

struct Planner<'a> {
    table: &'a Table,
    goal: &'a Goal,
    users: Users<'a>,
    plan: Plan,
    refused: Vec<Difference>,
}

impl Planner<'_> {
    fn is_busy(&self) -> bool {
        !self.table.regions.is_empty()
    }

    fn is_used(&self, entry: &Entry) -> bool {
        if !self.is_busy() || entry.is_incomplete() {
            return false;
        }
        match self.users {
            Users::Unknown => true,
            Users::Known(slots) => entry.is_local || slots.contains(&entry.slot),
        }
    }

    fn attributes(&mut self) {
        let (table, goal) = (self.table, self.goal);
        let found = |which: Attribute| {
            let found = table.attributes.iter().find(|(attribute, _)| *attribute == which);
            found.map(|(_, value)| value.as_str())
        };
        let mut differing = goal.attributes.clone();
        differing.retain(|(attribute, value)| {
            found(*attribute).is_some_and(|found| !found.eq_ignore_ascii_case(value))
        });
        if !self.is_busy() {
            self.plan.steps.extend(sets(&differing, Some(table)));
            return;
        }
        for (attribute, value) in differing {
            let there = found(attribute).unwrap_or_default();
            let difference = difference("cluster", attribute.path(), there, value);
            match self.users {
                Users::Unknown => self.refused.push(difference),
                Users::Known(_) => self.plan.heads_up.push(format!(
                    "{difference}; it changes when the cluster goes offline and online again"
                )),
            }
        }
    }

    fn nodes(&mut self) {
        let (table, goal) = (self.table, self.goal);
        let agrees = |one: &Entry, other: &Entry| {
            let key = |it: &Entry| (it.slot, it.address, it.port, it.is_local);
            key(one) == key(other)
        };
        let (kept, extra): (Vec<&Entry>, Vec<&Entry>) = (table.nodes.iter())
            .partition(|entry| goal.nodes.iter().any(|wanted| agrees(wanted, entry)));
        let missing: Vec<&Entry> = (goal.nodes.iter())
            .filter(|wanted| !kept.iter().any(|entry| agrees(entry, wanted)))
            .collect();
        for entry in kept {
            self.keep(entry);
        }
        let (used, free): (Vec<&Entry>, Vec<&Entry>) =
            extra.into_iter().partition(|entry| self.is_used(entry));
        self.plan.steps.extend(free.into_iter().cloned().map(Step::RemoveNode));
        let mut add = Vec::new();
        for wanted in missing {
            match used.iter().find(|entry| collides(entry, wanted)) {
                None => add.push(wanted),
                Some(entry) => self.collision(entry, wanted),
            }
        }
        for entry in used {
            self.leave(entry);
        }
        self.plan.steps.extend(additions(add.into_iter()));
    }

    fn keep(&mut self, entry: &Entry) {
        let is_it = |wanted: &&Entry| wanted.address == entry.address;
        if let Some(wanted) = self.goal.nodes.iter().find(is_it).filter(|it| it.name != entry.name)
        {
            self.plan.heads_up.push(format!(
                "node '{}' is called '{}' in the kernel's table, which is left so",
                wanted.name, entry.name
            ));
        }
        if entry.slot == 0 && !entry.is_local && !self.is_busy() {
            self.plan.steps.push(Step::ConfirmZero(entry.name.clone()));
        }
    }

    /// A node too many that is used.
    fn leave(&mut self, entry: &Entry) {
        match self.users {
            Users::Unknown => self.plan.stale.push(entry.clone()),
            Users::Known(_) => {
                let (name, slot) = (entry.name.clone(), entry.slot);
                self.plan.waiting.push(Waiting { name, slot, why: Why::InUse });
            }
        }
    }

    /// A node is wanted, and one that is used is in its way.
    fn collision(&mut self, entry: &Entry, wanted: &Entry) {
        let is_same_machine = entry.address == wanted.address || entry.is_local || wanted.is_local;
        if !is_same_machine {
            let (name, slot) = (wanted.name.clone(), wanted.slot);
            let why = Why::Behind(entry.name.clone());
            self.plan.waiting.push(Waiting { name, slot, why });
            return;
        }
        let subject = format!("node '{}'", wanted.name);
        let mut refuse = |key, there: String, wanted: String| {
            if there != wanted {
                self.refused.push(difference(&subject, key, there, wanted));
            }
        };
        refuse("name", entry.name.clone(), wanted.name.clone());
        refuse("num", entry.slot.to_string(), wanted.slot.to_string());
        refuse("ipv4_address", entry.address.to_string(), wanted.address.to_string());
        refuse("ipv4_port", entry.port.to_string(), wanted.port.to_string());
        refuse("local", entry.is_local.to_string(), wanted.is_local.to_string());
    }
}

/// Whether the kernel cannot have both.
fn collides(one: &Entry, other: &Entry) -> bool {
    one.name == other.name
        || one.slot == other.slot
        || one.address == other.address
        || (one.is_local && other.is_local)
}

#[cfg(test)]
mod tests;
