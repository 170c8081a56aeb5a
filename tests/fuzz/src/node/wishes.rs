//! What the core wants: whether it may, and what comes of it.

use o2bridge_core::proto::{self, Body};
use o2bridge_core::snapshot::{MemberStatus, ServiceStatus};
use o2bridge_core::{
    Action, Begin, Channel, Event, GroupId, NodeId, Note, Now, OpId, Reply, RequestId, SavedGroup,
    ServiceName, Verb,
};

use super::{Effect, MESSAGE_BYTES_MAX, Node};
use crate::kernel::Kernel;

impl Node<'_> {
    pub(super) fn take(&mut self, action: Action) {
        match action {
            Action::Join { op, channel } => self.effects.push((op, Effect::Join(channel))),
            Action::Depart { op, channel } => self.effects.push((op, Effect::Depart(channel))),
            Action::Verb { op, group, verb } => self.take_verb(op, group, verb),
            Action::Look { op, .. } => self.effects.push((op, Effect::Look)),
            Action::Save { op, group, image } => self.take_save(op, group, image),
            Action::KillNode { op, .. } | Action::Fence { op, .. } => {
                self.effects.push((op, Effect::Other));
            }
            Action::Mcast { channel, bytes } => self.take_message(channel, bytes),
            Action::Reply { request, reply } => self.take_reply(request, &reply),
            Action::Arm { timer, generation, at } => {
                assert!(at >= Now(self.now), "{timer:?} is set for the past");
                self.timers.insert(timer, (generation, at));
            }
            Action::RunLocking(version) => {
                let knows = self.highest.is_some_and(|highest| highest.knows(version));
                assert!(knows, "the kernel is to run {version}, and goes up to {:?}", self.highest);
                let is_run = self.kernels.values().any(Kernel::is_ours);
                assert!(!is_run || self.running == Some(version), "{version} under a mount");
                self.running = Some(version);
            }
            Action::Note(Note::Expelled(group)) => self.kernel(group).handle_expelled(),
            Action::Note(Note::GroupGone(group)) => self.kernel(group).handle_gone(),
            Action::FenceSelf { .. } | Action::Note(_) => {}
            Action::Exit => self.has_ended = true,
        }
    }

    fn take_message(&mut self, channel: Channel, bytes: Vec<u8>) {
        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{} bytes in one message", bytes.len());
        match proto::decode(&bytes) {
            Ok((_, Body::Hello(_) | Body::State(_) | Body::Refuse(_))) => {}
            other => panic!("what we say cannot be understood: {other:?}"),
        }
        self.echo.push_back((channel, bytes));
    }

    pub(super) fn kernel(&mut self, group: GroupId) -> &mut Kernel {
        self.kernels.get_mut(&group).expect("nobody uses another group here")
    }

    /// Whether a verb or a save of this group is under way.
    fn is_busy(&self, group: GroupId) -> bool {
        self.effects.iter().any(|(_, effect)| match effect {
            Effect::Verb(other, _) | Effect::Save(other, _) => *other == group,
            Effect::Join(_) | Effect::Depart(_) | Effect::Look | Effect::Other => false,
        })
    }

    fn take_save(&mut self, op: OpId, group: GroupId, image: Option<SavedGroup>) {
        assert!(!self.is_busy(group), "two effects of {group} at a time");
        self.kernel(group).may_save(image.as_ref());
        if let Some(image) = &image {
            assert!(image.told.len() <= self.users_max && image.services.len() <= self.names_max);
        }
        self.effects.push((op, Effect::Save(group, image)));
    }

    fn take_verb(&mut self, op: OpId, group: GroupId, verb: Verb) {
        assert!(!self.is_busy(group), "two effects of {group} at a time");
        assert!(self.quorate || verb == Verb::Detach, "{verb:?} while inquorate");
        let me = NodeId(self.me);
        let always = (!self.is_renumbered).then_some(me);
        self.kernel(group).hear(&verb, always);
        let snapshot = self.core.snapshot();
        let known =
            snapshot.groups.iter().find(|known| known.group == group).expect("it is in use");
        match &verb {
            Verb::Attach(peers) => {
                assert_eq!(peers.get(&me), Some(&known.incarnation));
                let is_chosen = self.highest.is_none() || snapshot.locking == "heard";
                assert!(is_chosen, "the kernel does not know what to run");
            }
            Verb::Resume(_) => {
                let is_dead = |member: &MemberStatus| member.state == "dead";
                assert!(!known.members.iter().any(is_dead), "before all are buried: {known:?}");
            }
            Verb::NodeDown(node, _) => assert_ne!(*node, me, "our own death"),
            Verb::Suspend => {}
            Verb::Detach => {
                let is_over = |service: &ServiceStatus| service.state == "leaving";
                assert!(known.services.iter().all(is_over), "under a mount: {known:?}");
            }
        }
        self.effects.push((op, Effect::Verb(group, verb)));
    }

    /// One answer each; and what it says is true.
    fn take_reply(&mut self, request: RequestId, reply: &Reply) {
        self.excused.remove(&request);
        let asked = self.asked.remove(&request);
        let asked = asked.unwrap_or_else(|| panic!("{request:?} is answered twice"));
        if *reply != Reply::Done {
            return;
        }
        let saved = |group, service: &ServiceName| {
            let saved = self.kernels.get(group).and_then(Kernel::saved);
            saved.and_then(|saved| saved.services.iter().find(|saved| saved.name == *service))
        };
        let is_true = match &asked {
            Event::Begin(Begin { group, service, .. }) => {
                let is_granting = self.kernels.get(group).is_some_and(Kernel::is_granting);
                let is_still = !self.is_busy(*group) && saved(group, service).is_some();
                self.quorate && is_granting && is_still
            }
            Event::Complete { group, service, code: 0, .. } => {
                saved(group, service).is_some_and(|saved| saved.live)
            }
            Event::Leave { group, service, .. } => saved(group, service).is_none(),
            _ => true,
        };
        assert!(is_true, "done, it is said: {asked:?} with {:?}", self.kernels);
    }
}
