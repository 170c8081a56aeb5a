//! What the kernel shall know of the cluster, and whether it can.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// The superblock has room for no more.
const CLUSTER_NAME_MAX: usize = 16;
/// Longer directories are refused by the kernel.
const NODE_NAME_MAX: usize = 64;
/// The kernel refuses 65535.
const PORT_MAX: u16 = 65_534;
/// Smaller thresholds are ignored by the kernel without a word.
const DEAD_THRESHOLD_MIN: u32 = 3;
/// The greatest slot: the kernel's node numbers end there.
pub(crate) const SLOT_MAX: u8 = 254;

/// One node of corosync's node list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its corosync nodeid; never 0.
    pub id: u32,
    /// Its name. If it is empty, that of cluster.conf is taken, else `node` and the id.
    pub name: String,
    /// Where its o2net listens.
    pub address: Ipv4Addr,
}

/// Who beats where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A region for each volume.
    Local,
    /// Regions for the cluster, used by all volumes.
    Global,
}

impl Mode {
    /// As configfs and cluster.conf spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The node table and the attributes that must be equal on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name of the cluster: 1 to 16 bytes.
    pub cluster: String,
    /// All nodes, this one too.
    pub nodes: Vec<Node>,
    /// The corosync nodeid of this node.
    pub local: u32,
    /// The TCP port of o2net, on all nodes: 1 to 65534.
    pub port: u16,
    /// Local or global heartbeat.
    pub mode: Mode,
    /// Heartbeats of two seconds that may be missed: 3 or more.
    pub dead_threshold: u32,
    /// Silence after which o2net takes a connection for dead, in milliseconds.
    pub idle_timeout_ms: u32,
    /// Silence after which o2net asks for a sign of life, in milliseconds; less than the former.
    pub keepalive_delay_ms: u32,
    /// The pause before o2net connects again, in milliseconds.
    pub reconnect_delay_ms: u32,
    /// Slots that the configuration names, by corosync nodeid. Ids that are not in `nodes` are
    /// ignored: the node may come later.
    pub slots: BTreeMap<u32, u8>,
}

/// What the kernel could not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The name does not fit the superblock or is no name.
    ClusterName(String),
    /// There are no nodes.
    NoNodes,
    /// This node is not among the nodes.
    NoLocal(u32),
    /// 0, or used twice.
    NodeId(u32),
    /// Too long, or no name for a directory.
    NodeName(u32, String),
    /// Two nodes, and what both have.
    Twice(u32, u32, String),
    /// Not the address of a node.
    Address(u32, Ipv4Addr),
    /// 0 or 65535.
    Port(u16),
    /// Below 3.
    DeadThreshold(u32),
    /// 0, or the idle timeout is not above the keepalive delay.
    Timeouts {
        /// In milliseconds.
        idle: u32,
        /// In milliseconds.
        keepalive: u32,
        /// In milliseconds.
        reconnect: u32,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterName(name) => write!(
                f,
                "cluster name '{name}': OCFS2 takes 1 to 16 letters and digits; change \
                 totem.cluster_name in corosync.conf"
            ),
            Self::NoNodes => f.write_str("corosync.conf has no nodelist; add one"),
            Self::NoLocal(id) => {
                write!(f, "this node, {id}, is not in corosync's nodelist; add it")
            }
            Self::NodeId(id) => write!(f, "nodeid {id} is 0 or used twice in corosync's nodelist"),
            Self::NodeName(id, name) => write!(
                f,
                "node {id}: '{name}' is no name for a directory of at most 64 bytes; change 'name' \
                 in corosync's nodelist"
            ),
            Self::Twice(one, other, what) => {
                write!(f, "nodes {one} and {other} both have {what}; change corosync's nodelist")
            }
            Self::Address(id, address) => {
                write!(f, "node {id}: {address} is not a node's address; o2net speaks IPv4 only")
            }
            Self::Port(port) => write!(f, "o2cb.port {port}: must be 1 to {PORT_MAX}"),
            Self::DeadThreshold(n) => {
                write!(f, "o2cb.dead_threshold {n}: must be {DEAD_THRESHOLD_MIN} or more")
            }
            Self::Timeouts { idle, keepalive, reconnect } => write!(
                f,
                "o2cb.idle_timeout_ms {idle} must be above o2cb.keepalive_delay_ms {keepalive}, \
                 and neither they nor o2cb.reconnect_delay_ms {reconnect} may be 0"
            ),
        }
    }
}

impl Wanted {
    /// Everything that the kernel could not take, or would take and ignore.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut list = Vec::new();
        if !is_cluster_name(&self.cluster) {
            list.push(Problem::ClusterName(self.cluster.clone()));
        }
        if self.nodes.is_empty() {
            list.push(Problem::NoNodes);
        } else if !self.nodes.iter().any(|node| node.id == self.local) {
            list.push(Problem::NoLocal(self.local));
        }
        if !(1..=PORT_MAX).contains(&self.port) {
            list.push(Problem::Port(self.port));
        }
        if self.dead_threshold < DEAD_THRESHOLD_MIN {
            list.push(Problem::DeadThreshold(self.dead_threshold));
        }
        let (idle, keepalive, reconnect) =
            (self.idle_timeout_ms, self.keepalive_delay_ms, self.reconnect_delay_ms);
        if idle <= keepalive || keepalive == 0 || reconnect == 0 {
            list.push(Problem::Timeouts { idle, keepalive, reconnect });
        }
        self.node_problems(&mut list);
        list
    }

    fn node_problems(&self, list: &mut Vec<Problem>) {
        for (index, node) in self.nodes.iter().enumerate() {
            let before = self.nodes.get(..index).unwrap_or_default();
            if node.id == 0 || before.iter().any(|other| other.id == node.id) {
                list.push(Problem::NodeId(node.id));
            }
            if !is_node_name(&node.name) {
                list.push(Problem::NodeName(node.id, node.name.clone()));
            }
            let address = node.address;
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
                list.push(Problem::Address(node.id, address));
            }
            for other in before {
                if other.name == node.name {
                    let what = format!("the name '{}'", node.name);
                    list.push(Problem::Twice(other.id, node.id, what));
                }
                if other.address == address {
                    let what = format!("the address {address}");
                    list.push(Problem::Twice(other.id, node.id, what));
                }
            }
        }
    }
}

/// What ocfs2-tools take for the name of an o2cb cluster.
fn is_cluster_name(name: &str) -> bool {
    (1..=CLUSTER_NAME_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_node_name(name: &str) -> bool {
    (1..=NODE_NAME_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Nodes 1 to `count` of cluster `lab`; this is node 1.
    pub(crate) fn wanted(count: u8) -> Wanted {
        let node = |id: u8| Node {
            id: id.into(),
            name: format!("n{id}"),
            address: Ipv4Addr::new(10, 0, 0, id),
        };
        Wanted {
            cluster: "lab".into(),
            nodes: (1..=count).map(node).collect(),
            local: 1,
            port: 7777,
            mode: Mode::Local,
            dead_threshold: 31,
            idle_timeout_ms: 30_000,
            keepalive_delay_ms: 2000,
            reconnect_delay_ms: 2000,
            slots: BTreeMap::new(),
        }
    }

    #[test]
    fn all_problems_are_found_at_once() {
        assert_eq!(wanted(3).problems(), []);
        let mut bad = wanted(3);
        bad.cluster = "a-cluster-of-mine".into();
        bad.local = 9;
        bad.port = 65_535;
        bad.dead_threshold = 2;
        bad.idle_timeout_ms = 2000;
        bad.nodes[1].name = "../n2".into();
        bad.nodes[2].name = "n1".into();
        bad.nodes[2].address = Ipv4Addr::new(10, 0, 0, 1);
        let timeouts = Problem::Timeouts { idle: 2000, keepalive: 2000, reconnect: 2000 };
        assert_eq!(
            bad.problems(),
            [
                Problem::ClusterName("a-cluster-of-mine".into()),
                Problem::NoLocal(9),
                Problem::Port(65_535),
                Problem::DeadThreshold(2),
                timeouts,
                Problem::NodeName(2, "../n2".into()),
                Problem::Twice(1, 3, "the name 'n1'".into()),
                Problem::Twice(1, 3, "the address 10.0.0.1".into()),
            ]
        );
    }

    #[test]
    fn ids_and_addresses_that_are_none() {
        let mut bad = wanted(2);
        bad.nodes[1].id = 1;
        bad.nodes[1].address = Ipv4Addr::UNSPECIFIED;
        bad.keepalive_delay_ms = 0;
        let found = bad.problems();
        assert!(found.contains(&Problem::NodeId(1)));
        assert!(found.contains(&Problem::Address(1, Ipv4Addr::UNSPECIFIED)));
        assert!(found.iter().any(|p| matches!(p, Problem::Timeouts { keepalive: 0, .. })));
        bad.nodes.clear();
        assert!(bad.problems().contains(&Problem::NoNodes));
    }
}
