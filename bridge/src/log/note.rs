//! What the core notes, as sentences.

use o2bridge_core::fence::Proof;
use o2bridge_core::{BootId, GroupId, Incarnation, NodeId, Note, Now, ServiceName};
use slog::{Logger, debug, error, info, o, warn};

use super::repeat::Repeats;

/// Logs a note, unless one like it was logged just before. `now` is for the times that notes speak of.
pub fn note(log: &Logger, repeats: &Repeats, now: Now, note: &Note) {
    match repeat_key(note).map_or(Some(0), |key| repeats.ask(now, &key)) {
        Some(0) => sentence(log, now, note),
        Some(left_out) => sentence(&log.new(o!("left_out" => left_out)), now, note),
        None => debug!(log, "{note:?}"),
    }
}

/// What makes two notes alike, of those that can come again and again.
fn repeat_key(note: &Note) -> Option<String> {
    match note {
        Note::Ghost(channel, member) | Note::Garbage(channel, member, _) => {
            let kind = std::mem::discriminant(note);
            Some(format!("{kind:?} {channel} {}", member.node))
        }
        Note::FenceFailed(node, _) => Some(format!("fence {node}")),
        Note::Incompatible(node, _) => Some(format!("incompatible {node}")),
        Note::OpFailed(group, what, _) => Some(format!("{what} {group}")),
        Note::UserJoined(..)
        | Note::UserLeft(..)
        | Note::UserLost(..)
        | Note::UserBack(..)
        | Note::Condemned(..)
        | Note::Buried(..)
        | Note::GroupReady(_)
        | Note::GroupGone(_)
        | Note::Debt(..)
        | Note::DebtPaid(_)
        | Note::DebtOverdue(_)
        | Note::FenceNeeded(..)
        | Note::Fenced(..)
        | Note::Expelled(_)
        | Note::Outvoted(_)
        | Note::StopRefused(_)
        | Note::StopWaits => None,
    }
}

fn sentence(log: &Logger, now: Now, note: &Note) {
    match note {
        Note::UserJoined(group, node, use_) => {
            user(log, "node uses the group now", group, node, use_)
        }
        Note::UserLeft(group, node, use_) => {
            user(log, "node left the group cleanly", group, node, use_)
        }
        Note::UserLost(group, node, use_) => {
            warn!(log, "a user of the group is gone from the ring; its fate is not decided yet";
                "group" => %group, "node" => node.0, "use" => %use_, "state" => "lost");
        }
        Note::UserBack(group, node, use_) => {
            user(log, "the lost node is back, unharmed", group, node, use_)
        }
        Note::Condemned(group, node, use_, ring) => {
            warn!(log, "node died; the shim is told once it is fenced";
                "group" => %group, "node" => node.0, "use" => %use_, "ring" => %ring,
                "state" => "condemned");
        }
        Note::Buried(group, node, use_) => {
            warn!(log, "the shim was told that the node died";
                "group" => %group, "node" => node.0, "use" => %use_, "state" => "buried");
        }
        Note::GroupReady(group) => {
            info!(log, "group is ready"; "group" => %group, "state" => "ready");
        }
        Note::GroupGone(group) => {
            info!(log, "group is used here no more"; "group" => %group, "state" => "gone");
        }
        Note::Debt(node, until) => {
            warn!(log, "the daemon of the node is silent; if its node stays in the ring, it has so long to come back";
                "node" => node.0, "state" => "debt", "grace_ms" => until.0.saturating_sub(now.0));
        }
        Note::DebtPaid(node) => {
            info!(log, "the daemon of the node speaks";
                "node" => node.0, "state" => "speaking");
        }
        Note::DebtOverdue(node) => {
            warn!(log, "the daemon of the node did not come back; corosync is asked to end the node";
                "node" => node.0, "state" => "overdue");
        }
        Note::Ghost(channel, member) => {
            warn!(log, "corosync lists a member whose node is not in the ring; not counted";
                "node" => member.node.0, "channel" => %channel, "pid" => member.pid.0);
        }
        Note::Garbage(channel, member, count) => {
            warn!(log, "dropped a message that is not of our protocol";
                "node" => member.node.0, "channel" => %channel, "pid" => member.pid.0, "count" => count);
        }
        Note::FenceNeeded(node, boot) => {
            warn!(log, "node must be fenced before anything that depends on it goes on";
                "node" => node.0, "boot" => %boot, "state" => "fencing");
        }
        Note::FenceFailed(node, error) => {
            error!(log, "fencing failed and will be tried again; if the node is off for sure, say: \
                o2bridge fence-ack {node}"; "node" => node.0, "error" => %error);
        }
        Note::Fenced(node, boot, proof) => fenced(log, *node, *boot, *proof),
        Note::Incompatible(node, (low, high)) => {
            error!(log, "a daemon was refused: it speaks protocol {low} to {high}; upgrade the older one";
                "node" => node.0);
        }
        Note::OpFailed(group, what, error) => {
            error!(log, "{what} failed and will be tried again";
                "group" => %group, "op" => *what, "error" => %error);
        }
        Note::Outvoted(limit_ms) => {
            error!(log, "volumes were in use outside a quorate ring for too long: this node resets \
                itself, so that the others can be sure of it"; "inquorate_reset_ms" => *limit_ms);
        }
        Note::Expelled(group) => {
            error!(log, "the cluster buried this node while it used the group: it must be reset";
                "group" => %group, "state" => "expelled");
        }
        Note::StopRefused(users) => stop_refused(log, users),
        Note::StopWaits => {
            warn!(
                log,
                "not stopping yet: corosync has to carry to the others that nothing is in use here any more, \
                or they fence this node; asked to stop once more, the daemon ends all the same"
            );
        }
    }
}

fn user(log: &Logger, sentence: &str, group: &GroupId, node: &NodeId, use_: &Incarnation) {
    info!(log, "{sentence}"; "group" => %group, "node" => node.0, "use" => %use_);
}

fn fenced(log: &Logger, node: NodeId, boot: BootId, proof: Proof) {
    let proof = match proof {
        Proof::NotRequired => "the policy is none: nobody made sure",
        Proof::Agent => "the fence agent succeeded",
        Proof::Ack => "the administrator said so",
        Proof::Reboot => "it was seen in another boot",
        Proof::Testimony => "another daemon made sure",
    };
    warn!(log, "node counts as fenced: {proof}";
        "node" => node.0, "boot" => %boot, "state" => "fenced");
}

fn stop_refused(log: &Logger, users: &[(GroupId, Vec<ServiceName>)]) {
    for (group, services) in users {
        let names: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
        warn!(log, "not stopping: the group is in use; unmount first";
            "group" => %group, "service" => names.join(", "));
    }
}
