//! The kernel's node table follows corosync's nodelist.
//!
//! A thread of its own: configfs can block, names have to be looked up, and a node that is to be
//! removed may have to wait until the kernel has let go of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use o2bridge_core::NodeId;
use o2bridge_cpg::NodeEntry;
use o2bridge_kmod_ctl::{Error, Mode, Node, O2cb, SlotMap, Wanted};
use o2bridge_shim::Shim;
use o2bridge_shim::user_heartbeat::{Slots, View};
use slog::{Logger, error, info, warn};

use crate::config::{HeartbeatMode, O2cbSection};

/// The pause before what did not work, or has to wait, is tried again, and between two looks at the
/// kernel for status.
const PAUSE: Duration = Duration::from_secs(2);

/// What corosync says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// This node.
    pub me: NodeId,
    /// `totem.cluster_name`.
    pub name: String,
    /// `nodelist`.
    pub nodes: Vec<NodeEntry>,
}

/// The loop's end of the thread.
#[derive(Debug)]
pub struct NodeTable {
    orders: Option<Sender<Cluster>>,
    thread: Option<JoinHandle<()>>,
    /// The last word of corosync.
    cluster: Option<Cluster>,
    /// What the thread last saw.
    seen: Arc<Mutex<Seen>>,
}

/// What the thread shows.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// What is in the kernel.
    view: Option<View>,
    /// What keeps the table from being as corosync has it.
    complaint: Option<String>,
    /// Whether there is a table.
    is_online: bool,
}

impl NodeTable {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        o2cb: O2cb,
        section: O2cbSection,
        (shim, slots): (Arc<dyn Shim>, Slots),
        log: Logger,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let tender = Tender {
            o2cb,
            section,
            shim,
            slots,
            map: BTreeMap::new(),
            log,
            addresses: BTreeMap::new(),
            heads_up: Vec::new(),
            seen: Arc::clone(&seen),
        };
        let thread = std::thread::Builder::new()
            .name("node-table".into())
            .spawn(move || tender.run(&receiver))?;
        Ok(Self { orders: Some(sender), thread: Some(thread), cluster: None, seen })
    }

    /// What the thread last saw in the kernel.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        look(&self.seen).view.clone()
    }

    /// Whether the kernel has a table.
    #[must_use]
    pub fn is_online(&self) -> bool {
        look(&self.seen).is_online
    }

    /// What keeps the kernel's table from being as corosync has it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        look(&self.seen).complaint.clone()
    }

    /// Corosync answers.
    pub fn connected(&mut self, cluster: Cluster) {
        self.order(cluster);
    }

    /// The nodelist was changed.
    pub fn nodelist(&mut self, nodes: &[NodeEntry]) {
        if let Some(cluster) = self.cluster.clone() {
            self.order(Cluster { nodes: nodes.to_vec(), ..cluster });
        }
    }

    /// Nothing is in use any more: removes what was made, and waits for it.
    pub fn stop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            let _ = thread.join();
        }
    }

    fn order(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster.clone());
        if let Some(orders) = &self.orders {
            // Without a receiver the thread has ended, and said why.
            let _ = orders.send(cluster);
        }
    }
}

/// The thread's own.
struct Tender {
    o2cb: O2cb,
    section: O2cbSection,
    shim: Arc<dyn Shim>,
    slots: Slots,
    /// What is in `slots`.
    map: BTreeMap<NodeId, u8>,
    log: Logger,
    /// What names resolved to: one that fails later must not take its node out of the table.
    addresses: BTreeMap<String, Ipv4Addr>,
    /// What was said last, so that it is said once.
    heads_up: Vec<String>,
    seen: Arc<Mutex<Seen>>,
}

impl Tender {
    fn run(mut self, orders: &Receiver<Cluster>) {
        let mut wanted: Option<Cluster> = None;
        let mut is_done = true;
        loop {
            match orders.recv_timeout(PAUSE) {
                Ok(cluster) => {
                    wanted = Some(cluster);
                    is_done = false;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.offline(),
            }
            if !is_done {
                is_done = wanted.as_ref().is_none_or(|cluster| self.apply(cluster));
            }
            let view = self.shim.view();
            look(&self.seen).view = view;
        }
    }

    /// Whether nothing is left to do.
    fn apply(&mut self, cluster: &Cluster) -> bool {
        let (wanted, unresolved) = wanted(&self.section, cluster, &mut self.addresses);
        for node in &unresolved {
            self.complain(&format!(
                "node {node}: no IPv4 address in corosync's nodelist; o2net speaks nothing else"
            ));
        }
        match self.bring(&wanted) {
            Ok(is_done) => {
                if is_done && unresolved.is_empty() {
                    look(&self.seen).complaint = None;
                }
                is_done && unresolved.is_empty()
            }
            Err(error) => {
                self.complain(&error.to_string());
                false
            }
        }
    }

    fn bring(&mut self, wanted: &Wanted) -> Result<bool, Error> {
        if !look(&self.seen).is_online {
            let online = self.o2cb.online(wanted)?;
            look(&self.seen).is_online = true;
            self.tell(&online.done, &online.heads_up);
            self.publish(&online.slots, wanted);
        }
        let pending = self.o2cb.update(wanted, &self.in_use())?;
        self.tell(&pending.done, &pending.heads_up);
        self.publish(&pending.slots, wanted);
        for waiting in &pending.waiting {
            self.complain(&waiting.to_string());
        }
        Ok(pending.waiting.is_empty())
    }

    fn in_use(&self) -> BTreeSet<u8> {
        self.shim.view().map(|view| in_use(&view)).unwrap_or_default()
    }

    fn tell(&mut self, done: &[String], heads_up: &[String]) {
        for sentence in done {
            info!(self.log, "node table: {sentence}");
        }
        if self.heads_up != heads_up {
            for sentence in heads_up {
                warn!(self.log, "node table: {sentence}");
            }
            self.heads_up = heads_up.to_vec();
        }
    }

    fn publish(&mut self, slots: &SlotMap, wanted: &Wanted) {
        let map: BTreeMap<NodeId, u8> =
            slots.iter().map(|(node, slot)| (NodeId(node), slot)).collect();
        if map == self.map {
            return;
        }
        let slots: Vec<String> = map.iter().map(|(node, slot)| format!("{node}:{slot}")).collect();
        info!(self.log, "the kernel's node table is set"; "cluster" => &wanted.cluster,
            "slots" => slots.join(" "));
        self.slots.set(map.clone(), NodeId(wanted.local));
        self.map = map;
    }

    /// Said once, and shown until it is mended.
    fn complain(&self, sentence: &str) {
        let mut seen = look(&self.seen);
        if seen.complaint.as_deref() != Some(sentence) {
            error!(self.log, "the kernel's node table: {sentence}");
            seen.complaint = Some(sentence.to_owned());
        }
    }

    fn offline(&self) {
        match self.o2cb.offline() {
            Ok(true) => info!(self.log, "the kernel's cluster is gone"),
            Ok(false) => {}
            // All gates open when this process ends.
            Err(error) => error!(self.log,
                "something of the kernel's cluster is left: a mount on this node begins a heartbeat on the disk until \
                 o2bridged runs again, so mount nothing here that others use"; "error" => %error),
        }
    }
}

/// Entries are replaced in one step each, so a panic cannot have left them half done.
fn look(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The slots that are up in any region; all that there can be if that is not known.
fn in_use(view: &View) -> BTreeSet<u8> {
    if view.is_partial {
        return (0..=u8::MAX).collect();
    }
    view.regions.iter().flat_map(|region| region.up.keys().copied()).collect()
}

/// The table as the kernel needs it, and the nodes that have no address for it.
fn wanted(
    section: &O2cbSection,
    cluster: &Cluster,
    known: &mut BTreeMap<String, Ipv4Addr>,
) -> (Wanted, Vec<NodeId>) {
    let mut nodes = Vec::new();
    let mut unresolved = Vec::new();
    for entry in &cluster.nodes {
        match entry.addresses.first().and_then(|name| resolve(name, known)) {
            Some(address) => nodes.push(Node { id: entry.id.0, name: entry.name.clone(), address }),
            None => unresolved.push(entry.id),
        }
    }
    let milliseconds = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let wanted = Wanted {
        cluster: cluster.name.clone(),
        nodes,
        local: cluster.me.0,
        port: u16::try_from(section.port.get()).unwrap_or(u16::MAX),
        mode: match section.heartbeat_mode {
            HeartbeatMode::Local => Mode::Local,
            HeartbeatMode::Global => Mode::Global,
        },
        dead_threshold: milliseconds(section.dead_threshold.get()),
        idle_timeout_ms: milliseconds(section.idle_timeout_ms.get()),
        keepalive_delay_ms: milliseconds(section.keepalive_delay_ms.get()),
        reconnect_delay_ms: milliseconds(section.reconnect_delay_ms.get()),
        slots: section.slots(),
    };
    (wanted, unresolved)
}

fn resolve(name: &str, known: &mut BTreeMap<String, Ipv4Addr>) -> Option<Ipv4Addr> {
    let found = (name, 0).to_socket_addrs().into_iter().flatten();
    let found = found.map(|socket| socket.ip()).find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    if let Some(address) = found {
        known.insert(name.to_owned(), address);
    }
    known.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, name: &str, address: &str) -> NodeEntry {
        NodeEntry { id: NodeId(id), name: name.into(), addresses: vec![address.into()] }
    }

    #[test]
    fn a_nodelist_becomes_a_table() {
        let nodes = vec![entry(1, "one", "192.0.2.1"), entry(2, "", "192.0.2.2")];
        let cluster = Cluster { me: NodeId(2), name: "east".into(), nodes };
        let (wanted, unresolved) = wanted(&O2cbSection::default(), &cluster, &mut BTreeMap::new());
        assert_eq!((wanted.local, wanted.port, wanted.dead_threshold), (2, 7_777, 31));
        let names: Vec<&str> = wanted.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["one", ""], "kmod-ctl finds names for the nameless");
        assert_eq!(wanted.nodes[1].address, Ipv4Addr::new(192, 0, 2, 2));
        assert!(unresolved.is_empty());
    }

    #[test]
    fn whoever_may_be_up_is_in_use() {
        use o2bridge_shim::user_heartbeat::RegionView;
        let up = [(2, None), (5, None)].into();
        let region = RegionView { name: "R".into(), area: None, up, live: None };
        let mut view = View {
            carrier: "region",
            device: None,
            regions: vec![region],
            groups: BTreeSet::new(),
            disk_heartbeats: BTreeMap::new(),
            is_partial: false,
        };
        assert_eq!(in_use(&view), BTreeSet::from([2, 5]));
        view.is_partial = true;
        assert!((0..=254).all(|slot| in_use(&view).contains(&slot)));
    }

    #[test]
    fn a_name_that_resolved_once_keeps_its_address() {
        let mut known = BTreeMap::from([("gone.invalid".to_owned(), Ipv4Addr::new(192, 0, 2, 9))]);
        assert_eq!(resolve("gone.invalid", &mut known), Some(Ipv4Addr::new(192, 0, 2, 9)));
        assert_eq!(resolve("never.invalid", &mut known), None);
    }

    #[test]
    fn a_node_without_ipv4_is_named() {
        let nodes = vec![entry(1, "one", "192.0.2.1"), entry(3, "six", "2001:db8::3")];
        let cluster = Cluster { me: NodeId(1), name: "east".into(), nodes };
        let (wanted, unresolved) = wanted(&O2cbSection::default(), &cluster, &mut BTreeMap::new());
        assert_eq!((wanted.nodes.len(), unresolved), (1, vec![NodeId(3)]));
    }
}
