//! Fencing of one lost node: the gate between "a quorate ring went on without it" and "the kernels
//! may recover what it held".
//!
//! | stage \ event | policy none | another policy | our turn (policy agent) | agent ok | agent failed | pause over | ack, or another's proof | it used more than we knew | what we know is out of date |
//! |---|---|---|---|---|---|---|---|---|---|
//! | Needed  | Fenced | - | run → Running, once it may be | - | - | - | Fenced | - | - |
//! | Running | Fenced | - | - | Fenced, or Needed if out of date | Pausing, turn+1 if used up | - | Fenced | Needed | its end proves nothing |
//! | Pausing | Fenced | - | - | - | - | run → Running once it may be, or → Needed | Fenced | Needed | - |
//! | Fenced  | - | Needed, if by the policy none | - | - | - | - | refused, but for another's if by the policy none | Needed | Needed |
//!
//! A node that is seen in another boot, or says itself that it has ended all its buried uses, is lost no
//! more; if it was not fenced before it said so, it did not die in them but left. `-`: cannot happen, or
//! changes nothing. "Once it may be": if a witness knows of it, or all in the ring have spoken,
//! and not while it is in the ring itself and has yet to say in which boot. Turns pass from
//! daemon to daemon, because a fence device may be out of reach of one node only, because that daemon has fenced
//! another boot of the node and will not do it again, or because it hangs: within a grace it has not even said that
//! it knows, or within twenty more nothing came of it.

use alloc::collections::BTreeSet;

use crate::action::{Action, Note};
use crate::config::Fencing;
use crate::effects::Effects;
use crate::event::OpError;
use crate::locking::LockingProtocol;
use crate::lost::whose_turn;
use crate::node::{USES_MAX, has_room};
use crate::proto::Uses;
use crate::timer::Timer;
use crate::types::{BootId, GroupId, NodeId, OpId};

/// How many graces a daemon that knows of its turn has for all its agents: ten minutes by default. They may take
/// longer; then two daemons fence at once, and each begins with its first level again.
const TURN_GRACES: u64 = 20;

/// How it is known that a lost node writes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The policy is `none`.
    NotRequired,
    /// A fence agent of this node ended with 0.
    Agent,
    /// The administrator said so here.
    Ack,
    /// The node was seen in another boot.
    Reboot,
    /// Another daemon has one of these proofs.
    Testimony,
}

/// Where the fencing of a lost node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Needed,
    /// `is_old`: begun before we were out of quorum, so it may have been done with an earlier boot.
    Running {
        op: OpId,
        attempt: Attempt,
        is_old: bool,
    },
    Pausing {
        attempt: Attempt,
    },
    Fenced(Proof),
}

/// Which attempt of which level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    level: u8,
    number: u8,
}

/// A node that a quorate ring went on without while it used groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lost {
    pub(crate) boot: BootId,
    pub(crate) uses: Uses,
    /// What it used in another boot that somebody holds for lost: in use until this one is fenced, because of two
    /// boots nobody can say which was first.
    pub(crate) elsewhere: BTreeSet<GroupId>,
    /// Whether this is all that the node may be doing: known by a witness, or fenced in a ring in force since
    /// we have not been one.
    pub(crate) complete: bool,
    /// The locking protocol that its kernel ran, and may still run.
    pub(crate) running: Option<LockingProtocol>,
    pub(crate) turn: u32,
    /// Who has said in this ring that it knows whose turn it is.
    pub(crate) known_to: BTreeSet<NodeId>,
    /// Who is to fence it since [`Timer::Turn`] was set, and whether it has said that it knows.
    pub(crate) awaited: Option<(NodeId, bool)>,
    pub(crate) stage: Stage,
}

impl Lost {
    pub(crate) fn new(boot: BootId, uses: Uses) -> Self {
        Self {
            boot,
            uses,
            elsewhere: BTreeSet::new(),
            complete: false,
            running: None,
            turn: 0,
            known_to: BTreeSet::new(),
            awaited: None,
            stage: Stage::Needed,
        }
    }

    /// The same node, lost in another boot.
    pub(crate) fn in_boot(&self, boot: BootId) -> Self {
        let mut lost = Self::new(boot, Uses::new());
        if !self.is_fenced() {
            lost.elsewhere.clone_from(&self.elsewhere);
            lost.add_elsewhere(&self.uses);
        }
        lost
    }

    /// In another boot it used these, and is not known to be fenced since.
    pub(crate) fn add_elsewhere(&mut self, uses: &Uses) {
        for group in uses.keys() {
            if self.elsewhere.len() < USES_MAX {
                self.elsewhere.insert(*group);
            }
        }
    }

    /// Whether it may be writing to this group.
    pub(crate) fn may_use(&self, group: &GroupId) -> bool {
        let is_used = self.uses.contains_key(group) || self.elsewhere.contains(group);
        !self.is_fenced() && (is_used || self.elsewhere.len() >= USES_MAX)
    }

    pub(crate) const fn is_fenced(&self) -> bool {
        match self.stage {
            Stage::Fenced(_) => true,
            Stage::Needed | Stage::Running { .. } | Stage::Pausing { .. } => false,
        }
    }

    pub(crate) fn owns(&self, op: OpId) -> bool {
        matches!(self.stage, Stage::Running { op: running, .. } if running == op)
    }

    /// Whether others may rely on it: a policy of ours is no proof for them, nor is one from before we
    /// were out of quorum, because whoever hears it takes it for all that the node may be doing.
    pub(crate) const fn is_proven(&self) -> bool {
        match self.stage {
            Stage::Fenced(proof) => self.complete && !matches!(proof, Proof::NotRequired),
            Stage::Needed | Stage::Running { .. } | Stage::Pausing { .. } => false,
        }
    }

    /// The turn is another daemon's, which has yet to say that it knows.
    pub(crate) fn pass_turn(&mut self, turn: u32) {
        self.turn = turn;
        self.known_to.clear();
    }

    /// Awaits whoever is to fence it, unless it is us (`me`): for a grace, or longer once it has said that it knows.
    pub(crate) fn await_turn(
        &mut self,
        node: NodeId,
        (fencers, me): (&[NodeId], Option<NodeId>),
        fx: &mut Effects<'_>,
    ) {
        let is_due =
            matches!((self.stage, fx.tunables.fencing), (Stage::Needed, Fencing::Agent { .. }));
        let holder = whose_turn(fencers, self.turn).filter(|it| is_due && Some(*it) != me);
        let awaited = holder.map(|holder| (holder, self.known_to.contains(&holder)));
        if awaited != self.awaited {
            self.awaited = awaited;
            match awaited {
                Some(_) => fx.arm(Timer::Turn(node), self.patience_ms(fx.tunables.grace_ms)),
                None => fx.cancel(&Timer::Turn(node)),
            }
        }
    }

    /// How long whoever is awaited has.
    pub(crate) fn patience_ms(&self, grace_ms: u64) -> u64 {
        let is_known = self.awaited.is_some_and(|(_, is_known)| is_known);
        if is_known { grace_ms.saturating_mul(TURN_GRACES) } else { grace_ms }
    }

    /// Takes a proof; the first one stands, but another daemon's is better than that the policy asks for none. Says
    /// whether it was taken. Out of a ring in force (`in_force`) it is one of this boot, but others may have let the
    /// node in again since.
    pub(crate) fn prove(
        &mut self,
        node: NodeId,
        (proof, in_force): (Proof, bool),
        fx: &mut Effects<'_>,
    ) -> bool {
        match self.stage {
            Stage::Needed | Stage::Running { .. } | Stage::Pausing { .. } => {}
            Stage::Fenced(Proof::NotRequired) if proof == Proof::Testimony => {}
            Stage::Fenced(_) => return false,
        }
        self.stage = Stage::Fenced(proof);
        self.complete |= in_force;
        fx.cancel(&Timer::Fence(node));
        fx.note(Note::Fenced(node, self.boot, proof));
        true
    }

    /// Another daemon has a proof, and said so in the ring that is, of which we have heard that it is quorate
    /// (`is_of_now`) or not yet. Says whether that is news.
    pub(crate) fn believe(&mut self, node: NodeId, is_of_now: bool, fx: &mut Effects<'_>) -> bool {
        let is_first = self.prove(node, (Proof::Testimony, false), fx);
        let completes = is_of_now && !self.complete;
        self.complete |= is_of_now;
        is_first || completes
    }

    /// It used these groups too; of one group, the latest use counts, so that daemons that knew
    /// different ones agree. Uses that the fencing so far did not cover need it anew.
    pub(crate) fn add(&mut self, uses: &Uses) -> bool {
        let mut known = true;
        for (group, use_) in uses {
            let is_news = self.uses.get(group).is_none_or(|latest| latest < use_);
            if is_news && has_room(&self.uses, group) {
                self.uses.insert(*group, *use_);
                known = false;
            }
        }
        if !known {
            self.stage = Stage::Needed;
        }
        !known
    }

    /// We were out of quorum: the others may have let it in again, and an agent that is at work may be done with the
    /// boot before that one.
    pub(crate) const fn handle_absence(&mut self) {
        if let Stage::Running { is_old, .. } = &mut self.stage {
            *is_old = true;
        }
    }

    /// What was known of it is out of date: it may have come back elsewhere, so it is fenced anew.
    pub(crate) fn doubt(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        if self.is_fenced() {
            self.stage = Stage::Needed;
            fx.note(Note::FenceNeeded(node, self.boot));
        }
    }

    /// Starts what the policy asks for. `ours` says whether it is our turn to run agents.
    pub(crate) fn advance(&mut self, node: NodeId, ours: bool, fx: &mut Effects<'_>) {
        match (self.stage, fx.tunables.fencing) {
            (Stage::Needed | Stage::Running { .. } | Stage::Pausing { .. }, Fencing::None) => {
                self.prove(node, (Proof::NotRequired, true), fx);
            }
            // That nobody was to be fenced is no proof since somebody is.
            (Stage::Fenced(Proof::NotRequired), Fencing::Ack | Fencing::Agent { .. }) => {
                self.doubt(node, fx);
                self.advance(node, ours, fx);
            }
            (Stage::Needed, Fencing::Agent { .. }) if ours => {
                self.run(node, Attempt { level: 0, number: 1 }, fx);
            }
            (Stage::Needed, Fencing::Agent { .. } | Fencing::Ack)
            | (
                Stage::Running { .. } | Stage::Pausing { .. },
                Fencing::Agent { .. } | Fencing::Ack,
            )
            | (Stage::Fenced(_), Fencing::None | Fencing::Ack | Fencing::Agent { .. }) => {}
        }
    }

    fn run(&mut self, node: NodeId, attempt: Attempt, fx: &mut Effects<'_>) {
        let op = fx.op();
        self.stage = Stage::Running { op, attempt, is_old: false };
        fx.push(Action::Fence { op, node, level: attempt.level });
    }

    /// Takes the end of an agent. Says whether something changed that others must hear.
    pub(crate) fn handle_done(
        &mut self,
        node: NodeId,
        op: OpId,
        (result, in_force): (Result<(), OpError>, bool),
        fx: &mut Effects<'_>,
    ) -> bool {
        let (attempt, is_old) = match self.stage {
            Stage::Running { op: running, attempt, is_old } if running == op => (attempt, is_old),
            Stage::Running { .. } | Stage::Needed | Stage::Pausing { .. } | Stage::Fenced(_) => {
                return false;
            }
        };
        match result {
            Ok(()) if is_old && (in_force || self.complete) => {
                self.stage = Stage::Needed;
                fx.note(Note::FenceNeeded(node, self.boot));
                false
            }
            Ok(()) => self.prove(node, (Proof::Agent, in_force), fx),
            Err(error) => {
                fx.note(Note::FenceFailed(node, error));
                self.fail(node, attempt, fx)
            }
        }
    }

    fn fail(&mut self, node: NodeId, attempt: Attempt, fx: &mut Effects<'_>) -> bool {
        let (levels, attempts, pause_ms) = match fx.tunables.fencing {
            Fencing::Agent { levels, attempts, pause_ms } => (levels, attempts, pause_ms),
            Fencing::None | Fencing::Ack => {
                self.stage = Stage::Needed;
                return false;
            }
        };
        let (next, turn_over) = if attempt.number < attempts {
            (Attempt { level: attempt.level, number: attempt.number + 1 }, false)
        } else if attempt.level + 1 < levels {
            (Attempt { level: attempt.level + 1, number: 1 }, false)
        } else {
            (Attempt { level: 0, number: 1 }, true)
        };
        if turn_over {
            self.pass_turn(self.turn.saturating_add(1));
        }
        self.stage = Stage::Pausing { attempt: next };
        fx.arm(Timer::Fence(node), pause_ms);
        turn_over
    }

    /// The pause between attempts is over. A turn that passed to another daemon is not ours to go on.
    /// One of ours that may not begin yet goes on later where it stopped.
    pub(crate) fn handle_timer(
        &mut self,
        node: NodeId,
        (ours, is_due): (bool, bool),
        fx: &mut Effects<'_>,
    ) {
        let attempt = match self.stage {
            Stage::Pausing { attempt } => attempt,
            Stage::Needed | Stage::Running { .. } | Stage::Fenced(_) => return,
        };
        match fx.tunables.fencing {
            Fencing::Agent { .. } if ours && is_due => self.run(node, attempt, fx),
            Fencing::Agent { pause_ms, .. } if ours => {
                fx.arm(Timer::Fence(node), pause_ms.max(fx.tunables.retry_ms));
            }
            Fencing::None | Fencing::Ack | Fencing::Agent { .. } => self.stage = Stage::Needed,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.stage {
            Stage::Needed => "needed",
            Stage::Running { .. } => "running",
            Stage::Pausing { .. } => "retrying",
            Stage::Fenced(_) => "fenced",
        }
    }
}

#[cfg(test)]
mod tests;
