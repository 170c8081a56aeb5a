//! corosync.conf of a node.

use std::fmt::Write;
use std::path::Path;

/// What all nodes of a cluster have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) nodes: u32,
    pub(crate) token_ms: u32,
    pub(crate) token_coefficient_ms: u32,
    pub(crate) cluster_name: String,
    pub(crate) ipc_type: Option<String>,
}

/// The address of a node.
pub(crate) fn address(node: u32) -> String {
    format!("10.78.0.{node}")
}

/// Writes the file. Transport udpu forms a ring in 0.1 s (knet takes seconds); no realtime priority,
/// because several corosyncs that spin in it starve their clients on a small machine.
pub(crate) fn corosync_conf(settings: &Settings, config_version: u64, directory: &Path) -> String {
    let mut text = format!(
        "totem {{\n version: 2\n cluster_name: {}\n transport: udpu\n token: {}\n \
         token_coefficient: {}\n crypto_cipher: none\n crypto_hash: none\n config_version: \
         {config_version}\n}}\n",
        settings.cluster_name, settings.token_ms, settings.token_coefficient_ms
    );
    text.push_str("system {\n sched_rr: no\n priority: 0\n move_to_root_cgroup: no\n");
    if let Some(ipc_type) = &settings.ipc_type {
        let _ = writeln!(text, " qb_ipc_type: {ipc_type}");
    }
    let _ = write!(
        text,
        "}}\nlogging {{\n to_logfile: yes\n logfile: {}/corosync.log\n to_syslog: no\n \
         to_stderr: no\n timestamp: hires\n}}\nquorum {{\n provider: corosync_votequorum\n}}\n\
         nodelist {{\n",
        directory.display()
    );
    for node in 1..=settings.nodes {
        let _ = writeln!(
            text,
            " node {{\n  nodeid: {node}\n  name: node{node}\n  ring0_addr: {}\n }}",
            address(node)
        );
    }
    text.push_str("}\n");
    text
}
