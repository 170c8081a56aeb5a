//! From corosync's words to the core's.

use o2bridge_core::{Event, NodeId};
use o2bridge_cpg::BusEvent;
use slog::{Logger, error, info, warn};

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

/// Translates, and logs what is not for the core.
pub fn translate(log: &Logger, event: BusEvent) -> Option<Event> {
    Some(match event {
        BusEvent::Connected(connected) => {
            info!(log, "corosync answers"; "node" => connected.node.0,
                "cluster" => &connected.cluster, "nodes" => connected.nodelist.len());
            let nodelist = connected.nodelist.iter().map(|entry| entry.id).collect();
            Event::Connected { node: connected.node, cluster: connected.cluster, nodelist }
        }
        BusEvent::Refused(unsuitable) => {
            error!(log, "this corosync cannot be used: {unsuitable}");
            return None;
        }
        BusEvent::Lost(cause) => {
            error!(log, "corosync is lost; connecting again"; "error" => %cause);
            Event::Disconnected
        }
        BusEvent::Notice(notice) => {
            warn!(log, "{notice}");
            return None;
        }
        BusEvent::Nodelist(nodelist) => {
            let ids: Vec<NodeId> = nodelist.iter().map(|entry| entry.id).collect();
            info!(log, "corosync's node list changed"; "nodes" => list(&ids));
            Event::Nodelist(ids)
        }
        BusEvent::Quorum { quorate, ring, nodes, left } => {
            info!(log, "quorum"; "quorate" => quorate, "ring" => %ring, "nodes" => list(&nodes),
                "left" => list(&left));
            Event::Quorum { quorate, ring, nodes, left }
        }
        BusEvent::Confchg { channel, members, left, joined } => {
            Event::Confchg { channel, members, left, joined }
        }
        BusEvent::Totem { channel, ring, nodes } => Event::Totem { channel, ring, nodes },
        BusEvent::Message { channel, from, bytes } => Event::Message { channel, from, bytes },
        BusEvent::Done { op, result } => Event::Done { op, result },
    })
}
