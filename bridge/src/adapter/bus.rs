//! From corosync's words to the core's.

use o2bridge_core::{Event, NodeId};
use o2bridge_cpg::{BusEvent, Notice};
use slog::{Logger, debug, error, info, o, warn};

use crate::adapter::timers::now;
use crate::log::repeat::Repeats;

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

/// Translates, and logs what is not for the core.
pub fn translate(log: &Logger, repeats: &Repeats, event: BusEvent) -> Option<Event> {
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
            complain(log, repeats, notice);
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

/// Logs a notice; one that a stopped corosync gives again and again only now and then.
fn complain(log: &Logger, repeats: &Repeats, notice: Notice) {
    let left_out = match notice {
        Notice::SlowCall { .. } | Notice::NotMade { .. } => repeats.ask(now(), &notice.to_string()),
        Notice::NotRunning(_)
        | Notice::LateCall { .. }
        | Notice::NodelistUnread(_)
        | Notice::ManyGroups { .. } => Some(0),
    };
    match left_out {
        Some(0) => warn!(log, "{notice}"),
        Some(left_out) => warn!(log.new(o!("left_out" => left_out)), "{notice}"),
        None => debug!(log, "{notice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Drain, Level, Never, OwnedKVList, Record};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl Drain for Warnings {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
            if record.level() == Level::Warning {
                self.0.lock().unwrap().push(record.msg().to_string());
            }
            Ok(())
        }
    }

    #[test]
    fn a_corosync_that_stays_stopped_is_complained_of_once() {
        let warnings = Warnings::default();
        let (log, repeats) = (Logger::root(warnings.clone().fuse(), o!()), Repeats::default());
        let limit = Duration::from_secs(10);
        let slow = Notice::SlowCall { what: "connect", limit };
        for notice in [slow, Notice::NotMade { what: "connect" }, Notice::NotRunning(2)] {
            for _ in 0..3 {
                assert_eq!(translate(&log, &repeats, BusEvent::Notice(notice)), None);
            }
        }
        let said = warnings.0.lock().unwrap();
        let times = |text: &str| said.iter().filter(|line| line.contains(text)).count();
        assert_eq!(times("did not answer"), 1, "{said:?}");
        assert_eq!(times("was not asked"), 1, "{said:?}");
        assert_eq!(
            times("does not answer (error 2)"),
            3,
            "what the bus says once is news: {said:?}"
        );
    }
}
