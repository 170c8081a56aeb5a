//! cluster.conf of the classic tools.
#![no_main]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use o2bridge_kmod_ctl::Mode;
use o2bridge_kmod_ctl::cluster_conf::{ClusterConf, parse};

fuzz_target!(|text: &str| {
    match parse(text) {
        Err(error) => {
            assert!((1..=text.lines().count()).contains(&error.line), "{error}");
            assert!(error.to_string().starts_with(&format!("line {}: ", error.line)));
        }
        Ok(conf) => {
            assert!(conf.nodes.iter().all(|node| node.number <= 254 && node.port != 0));
            let numbers: BTreeSet<_> =
                conf.nodes.iter().map(|it| (&it.cluster, it.number)).collect();
            assert_eq!(numbers.len(), conf.nodes.len(), "a number for each node of a cluster");
            let again = parse(&write(&conf)).expect("what was read can be written");
            assert_eq!(bare(again), bare(conf));
        }
    }
});

/// As the classic tools write it; what is unknown is left out.
fn write(conf: &ClusterConf) -> String {
    let mut text = String::new();
    let out = &mut text;
    for cluster in &conf.clusters {
        let mode = match cluster.mode {
            Mode::Local => "local",
            Mode::Global => "global",
        };
        write!(out, "cluster:\n\theartbeat_mode = {mode}\n\tname = {}\n", cluster.name).unwrap();
        if let Some(count) = cluster.node_count {
            writeln!(out, "\tnode_count = {count}").unwrap();
        }
        out.push('\n');
    }
    for node in &conf.nodes {
        write!(out, "node:\n\tnumber = {}\n\tname = {}\n", node.number, node.name).unwrap();
        write!(out, "\tip_address = {}\n\tip_port = {}\n", node.address, node.port).unwrap();
        write!(out, "\tcluster = {}\n\n", node.cluster).unwrap();
    }
    for heartbeat in &conf.heartbeats {
        let (region, cluster) = (&heartbeat.region, &heartbeat.cluster);
        write!(out, "heartbeat:\n\tregion = {region}\n\tcluster = {cluster}\n\n").unwrap();
    }
    text
}

/// Without the places where it stood.
fn bare(mut conf: ClusterConf) -> ClusterConf {
    conf.unknown.clear();
    conf.clusters.iter_mut().for_each(|cluster| cluster.line = 0);
    conf.nodes.iter_mut().for_each(|node| node.line = 0);
    conf.heartbeats.iter_mut().for_each(|heartbeat| heartbeat.line = 0);
    conf
}
