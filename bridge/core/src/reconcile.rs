//! What follows from a new state, in the order of the decisions: who knows all users, who is lost, whom the
//! others have to fence, and then each group with its kernel. Last, what the others must hear.

use alloc::vec::Vec;

use crate::action::{Actions, Note, Refusal};
use crate::effects::Effects;
use crate::handle::{Core, Parts, Scope};
use crate::proto;
use crate::saved::User;
use crate::types::GroupId;

impl Core {
    /// Does whatever the new state asks for.
    pub(crate) fn reconcile(&mut self, scope: Scope, out: &mut Actions) {
        if scope == Scope::Nothing {
            return;
        }
        match scope {
            Scope::Nothing => {}
            Scope::Group(id) => {
                let (mut fx, mut parts) = self.effects(out);
                parts.review_locking(&mut fx);
                self.reconcile_group(id, out);
            }
            Scope::All => {
                let (mut fx, mut parts) = self.effects(out);
                parts.nodes.review_witness(&fx);
                parts.nodes.condemn(&mut fx);
                parts.release(&mut fx);
                parts.nodes.advance_fencing(&mut fx);
                parts.review_locking(&mut fx);
                let ids: Vec<GroupId> = parts.groups.keys().copied().collect();
                for id in ids {
                    self.reconcile_group(id, out);
                }
            }
        }
        let said_hello = self.say_hello(out);
        self.speak(if said_hello { Scope::All } else { scope }, out);
        self.review_outvoted(out);
        let (mut fx, parts) = self.effects(out);
        parts.nodes.review_debts(&mut fx);
    }

    fn reconcile_group(&mut self, id: GroupId, out: &mut Actions) {
        let (mut fx, parts) = self.effects(out);
        let Some(group) = parts.groups.get_mut(&id) else { return };
        if let Some((node, theirs)) = parts.nodes.incompatible() {
            if !group.lane.is_attached() {
                let ours = proto::SPEAKS;
                group.refuse_beginners(&Refusal::Incompatible { node, theirs, ours }, &mut fx);
            }
        }
        if let Some((node, theirs, ours)) = parts.nodes.locking_mismatch() {
            group.refuse_beginners(&Refusal::LockingMismatch { node, theirs, ours }, &mut fx);
        }
        if group.expelled {
            group.refuse_beginners(&Refusal::Expelled, &mut fx);
        }
        if group.reconcile(parts.nodes, &mut fx) {
            group.answer_leavers(&mut fx);
            parts.groups.remove(&id);
            parts.nodes.stale_hello = true;
            fx.note(Note::GroupGone(id));
        }
    }

    /// Says what is new of our uses, unless who we are has yet to be said.
    fn speak(&mut self, scope: Scope, out: &mut Actions) {
        if self.nodes.stale_hello {
            return;
        }
        let (mut fx, parts) = self.effects(out);
        match scope {
            Scope::Nothing => {}
            Scope::Group(id) => {
                parts.groups.get_mut(&id).into_iter().for_each(|it| it.speak(parts.nodes, &mut fx));
            }
            Scope::All => {
                parts.groups.values_mut().for_each(|it| it.speak(parts.nodes, &mut fx));
            }
        }
    }
}

impl Parts<'_> {
    fn review_locking(&mut self, fx: &mut Effects<'_>) {
        let is_attached = self.groups.values().any(|group| !group.lane.is_let_go());
        self.nodes.review_locking(!self.groups.is_empty(), is_attached, fx);
    }

    /// Nodes that were buried, and have ended what they were buried in.
    fn release(&mut self, fx: &mut Effects<'_>) {
        for (node, lost) in self.nodes.release(fx) {
            for (id, old) in &lost.uses {
                let Some(group) = self.groups.get_mut(id) else { continue };
                if lost.is_fenced() {
                    group.handle_death(node, |user| user.incarnation <= *old, true, fx);
                } else {
                    group.handle_pardon(node, User { incarnation: *old, boot: lost.boot }, fx);
                }
            }
        }
    }
}
