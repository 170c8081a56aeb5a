//! Every event that the core takes and every action that it asks for, at debug level: with the ring
//! of recent lines, the story of a bad night can be read after it.

use o2bridge_core::{Action, Event};
use slog::{Logger, debug};

/// Logs an event before the core takes it. `woke_us` is when the poll said that there was something to
/// read, on the clock of the record shim's `boot_us`: the difference is our part of a death's delay.
pub fn event(log: &Logger, woke_us: u64, event: &Event) {
    match event {
        Event::Message { channel, from, bytes } => {
            // The bytes are of no use to a reader, and many.
            debug!(log, "event message"; "node" => from.node.0, "channel" => %channel,
                "bytes" => bytes.len());
        }
        Event::Confchg { channel, .. } | Event::Totem { channel, .. } => {
            debug!(log, "event {event:?}"; "channel" => %channel, "woke_us" => woke_us);
        }
        Event::Done { op, .. } | Event::Looked { op, .. } => {
            debug!(log, "event {event:?}"; "op" => op.0);
        }
        Event::Complete { group, service, .. } | Event::Leave { group, service, .. } => {
            debug!(log, "event {event:?}"; "group" => %group, "service" => %service);
        }
        Event::Begin(begin) => {
            debug!(log, "event {event:?}"; "group" => %begin.group, "service" => %begin.service);
        }
        Event::FenceAck { node, .. } => debug!(log, "event {event:?}"; "node" => node.0),
        Event::Connected { .. }
        | Event::Nodelist(_)
        | Event::Disconnected
        | Event::Quorum { .. }
        | Event::ClientGone { .. }
        | Event::Stalled
        | Event::Timer { .. }
        | Event::Stop
        | Event::Reconfigure(_) => debug!(log, "event {event:?}"),
    }
}

/// Logs an action before it is carried out.
pub fn action(log: &Logger, action: &Action) {
    match action {
        Action::Mcast { channel, bytes } => {
            debug!(log, "action mcast"; "channel" => %channel, "bytes" => bytes.len());
        }
        Action::Join { op, channel } | Action::Depart { op, channel } => {
            debug!(log, "action {action:?}"; "op" => op.0, "channel" => %channel);
        }
        Action::Save { op, group, image } => {
            let told = image.as_ref().map(|image| image.told.len());
            let unfinished = image.as_ref().is_some_and(|image| image.unfinished);
            debug!(log, "action save"; "op" => op.0, "group" => %group, "told" => ?told,
                "unfinished" => unfinished);
        }
        Action::Verb { op, group, .. } => {
            debug!(log, "action {action:?}"; "op" => op.0, "group" => %group);
        }
        Action::Look { op, group, service, .. } => {
            debug!(log, "action {action:?}"; "op" => op.0, "group" => %group, "service" => %service);
        }
        Action::KillNode { op, node } | Action::Fence { op, node, .. } => {
            debug!(log, "action {action:?}"; "op" => op.0, "node" => node.0);
        }
        Action::FenceSelf { group, .. } => debug!(log, "action {action:?}"; "group" => %group),
        Action::Reply { .. } | Action::Arm { .. } | Action::RunLocking(_) | Action::Exit => {
            debug!(log, "action {action:?}");
        }
        // A note is logged as the sentence that it is.
        Action::Note(_) => {}
    }
}
