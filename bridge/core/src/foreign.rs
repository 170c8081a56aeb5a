//! Daemons of versions that we do not speak: whoever uses something first keeps it, and the other is refused.
//! What they use is not known, only in which boot they are: what their node used in another one died.

use crate::action::Note;
use crate::effects::Effects;
use crate::node::{Daemon, Nodes, Peer};
use crate::proto::{self, Envelope};
use crate::types::{BootId, Member, NodeId};

impl Nodes {
    /// A daemon whose version we do not speak. Says whether that is news.
    pub(crate) fn handle_foreign(
        &mut self,
        from: Member,
        (envelope, boot): (Envelope, Option<BootId>),
        fx: &mut Effects<'_>,
    ) -> bool {
        if !envelope.in_use {
            self.refused_by.remove(&from.node);
        }
        let peer = self.peers.entry(from.node).or_insert(Peer::UNKNOWN);
        let boot = boot.or(match peer.daemon {
            Daemon::Incompatible(pid, _, boot) if pid == from.pid => boot,
            Daemon::Incompatible(..)
            | Daemon::Absent
            | Daemon::Silent
            | Daemon::Speaking(_)
            | Daemon::Ignored => None,
        });
        let known = Daemon::Incompatible(from.pid, envelope, boot);
        let is_news = peer.daemon != known;
        if is_news {
            peer.daemon = known;
            peer.foreign_use = envelope.in_use;
            // That it uses nothing is all that there is to say of this boot.
            peer.complete |= boot.is_some() && !peer.is_user();
            fx.note(Note::Incompatible(from.node, envelope.speaks));
        }
        if is_news && envelope.in_use && self.witness {
            self.stale_hello = true;
            self.forget_witness();
            self.doubts = true;
        }
        is_news
    }

    /// The node is in this boot.
    pub(crate) fn meet_foreign_boot(&mut self, node: NodeId, boot: BootId, fx: &mut Effects<'_>) {
        self.meet_other_boot(node, boot, fx);
        let peer = self.peers.entry(node).or_insert(Peer::UNKNOWN);
        if peer.boot != Some(boot) {
            let Peer { daemon, foreign_use, .. } = *peer;
            *peer = Peer { daemon, foreign_use, boot: Some(boot), ..Peer::UNKNOWN };
        }
    }

    /// Whether the node's daemon is of a version that we do not speak, and uses nothing.
    pub(crate) fn is_idle_foreign(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(
            |peer| matches!(peer.daemon, Daemon::Incompatible(_, envelope, _) if !envelope.in_use),
        )
    }

    /// A node whose daemon, of a version that we do not speak, uses something.
    pub(crate) fn foreign_user(&self) -> Option<NodeId> {
        self.peers.iter().find(|(_, peer)| peer.foreign_use).map(|(node, _)| *node)
    }

    /// A daemon will not work with us. What is in use here already goes on.
    pub(crate) fn handle_refused(&mut self, by: NodeId, envelope: Envelope) {
        self.refused_by.insert(by, envelope.speaks);
    }

    /// Why we must not begin to use a group: someone who speaks another version was first.
    pub(crate) fn incompatible(&self) -> Option<(NodeId, (u16, u16))> {
        let in_use = self.peers.iter().find_map(|(node, peer)| match peer.daemon {
            Daemon::Incompatible(_, envelope, _) if envelope.in_use => {
                Some((*node, envelope.speaks))
            }
            Daemon::Incompatible(..)
            | Daemon::Absent
            | Daemon::Silent
            | Daemon::Speaking(_)
            | Daemon::Ignored => None,
        });
        in_use.or_else(|| self.refused_by.iter().next().map(|(node, speaks)| (*node, *speaks)))
    }

    /// The version that all daemons of the ring speak: the minimum of their highest.
    pub(crate) fn protocol(&self) -> u16 {
        let theirs = self.peers.values().filter(|peer| matches!(peer.daemon, Daemon::Speaking(_)));
        theirs.map(|peer| peer.highest).fold(proto::SPEAKS.1, u16::min)
    }
}
