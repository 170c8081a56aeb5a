//! Corosync's node list, from its map to the kernel's node numbers, beside a cluster.conf.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use o2bridge_cpg::{Map, NodeEntry};
use o2bridge_kmod_ctl::cluster_conf::{NodeStanza, parse};
use o2bridge_kmod_ctl::{Mode, Node, SlotMap, Wanted};

fuzz_target!(|text: &str| {
    // Behind a NUL stands the cluster.conf.
    let (map, conf) = text.split_once('\0').unwrap_or((text, ""));
    let conf = parse(conf).map(|conf| conf.nodes).unwrap_or_default();
    let pairs = map.lines().filter_map(|line| line.split_once('='));
    let map: Map = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let list = map.nodelist();
    assert!(list.len() <= 1024);
    assert!(list.iter().all(|node| node.id.0 != 0), "0 names no node");
    let Some(connected) = map.connected() else { return };
    assert_eq!(connected.nodelist, list);
    let wanted = Wanted {
        cluster: connected.cluster,
        nodes: list.iter().filter_map(node).collect(),
        local: connected.node.0,
        port: 7777,
        mode: Mode::Local,
        dead_threshold: 31,
        idle_timeout_ms: 30_000,
        keepalive_delay_ms: 2_000,
        reconnect_delay_ms: 2_000,
        slots: BTreeMap::from([(300, 30), (3, 13)]),
    };
    for problem in wanted.problems() {
        assert!(!problem.to_string().is_empty());
    }
    if wanted.problems().is_empty() {
        is_sound(&wanted, &conf.iter().collect::<Vec<_>>());
    }
});

fn node(entry: &NodeEntry) -> Option<Node> {
    let address = entry.addresses.first()?.parse().ok()?;
    Some(Node { id: entry.id.0, name: entry.name.clone(), address })
}

/// What has no problem has a number for each node, or a reason; and who goes moves nobody.
fn is_sound(wanted: &Wanted, file: &[&NodeStanza]) {
    assert!(wanted.nodes.iter().any(|node| node.id == wanted.local));
    let slots = match SlotMap::assign(wanted, file) {
        Ok(slots) => slots,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let numbers: BTreeSet<u8> = slots.iter().map(|(_, slot)| slot).collect();
    assert_eq!(numbers.len(), wanted.nodes.len(), "a number for each");
    assert!(numbers.iter().all(|slot| *slot <= 254 && slots.node(*slot).is_some()));
    for node in wanted.nodes.iter().filter(|node| !wanted.slots.contains_key(&node.id)) {
        let stanza = file.iter().find(|stanza| stanza.address == node.address);
        let number = stanza.map_or(node.id, |stanza| stanza.number.into());
        assert_eq!(slots.slot(node.id).map(u32::from), Some(number), "{node:?} {stanza:?}");
    }
    for leaver in 0..wanted.nodes.len() {
        let mut rest = wanted.clone();
        rest.nodes.remove(leaver);
        let fewer = SlotMap::assign(&rest, file).expect("fewer nodes fit as well");
        assert!(fewer.iter().all(|(node, slot)| slots.slot(node) == Some(slot)));
    }
}
