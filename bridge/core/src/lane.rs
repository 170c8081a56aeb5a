//! The shim's side of one group: which verb comes next. One effect at a time; a failed one is tried
//! again after a pause, for ever, because a death may be late but never lost.
//!
//! What comes next, first row that fits (`users`: who uses the group; `told`: whom the shim knows):
//!
//! | shim is | and | next |
//! |---|---|---|
//! | busy, or pausing after a failure | | nothing |
//! | attached | the group closes, services are saved | Save(no services) |
//! | attached | the group closes, a detach was refused and no step has failed since, gate open, a death is settled; or no deaths, and users ≠ told or not known to be told, or it may be suspended | mark it, Suspend, NodeDown, Resume, as below |
//! | attached | the group closes | Detach |
//! | not attached | the group closes, an image is saved | Save(none) |
//! | any | the group is expelled | Save(image) if it changed, else nothing |
//! | not attached | gate and attach open, locking protocol chosen, users not saved | Save(users, unfinished) |
//! | not attached | gate and attach open, locking protocol chosen | Attach(users) |
//! | any but detached | a verb failed since the last save, services not saved | Save(image) |
//! | attached, granting | gate open, users ≠ told or a death, not marked | Save(users, unfinished) |
//! | attached, granting | gate open, users ≠ told or a death | Suspend |
//! | attached, a resume failed | gate open, users = told, no deaths, locking protocol chosen if not known to be attached | Resume(users) |
//! | the same; or another verb failed but a node_down; or taken over unfinished, or while it was left | gate open, not marked | Save(users, unfinished) |
//! | the same | gate open | Suspend |
//! | attached, suspended | gate open, a death is settled | NodeDown |
//! | attached, suspended | gate open, no deaths, users not saved | Save(users, unfinished) |
//! | attached, suspended | gate open, no deaths, locking protocol chosen if not known to be attached | Resume(users) |
//! | any | the image changed | Save(image) |
//!
//! A change is marked in the state file, with the users to come, before the shim hears of it: a daemon
//! that dies in between must know that its kernel may be suspended, and whom it may know; or the
//! volume would hang, or a death be lost. A leave likewise: the successor must not keep a group for a
//! service that has gone.
//!
//! A detach is refused while the kernel still uses the group: somebody mounted in the last moment. That
//! can last, and a kernel that uses a group must hear of its dead, and of whoever else comes to use it, whether we
//! want to leave or not. Half of it may have been done: begun again, the group is told anew. What it cannot be told
//! must not keep it here: after a step that failed, it is asked again to let go.

use alloc::collections::BTreeMap;

use crate::action::{Action, Note, Verb};
use crate::effects::Effects;
use crate::event::OpError;
use crate::saved::{SavedGroup, SavedService, Users};
use crate::timer::Timer;
use crate::types::{GroupId, Incarnation, NodeId, OpId, Peers};

/// What the group wants of the shim.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) closing: bool,
    pub(crate) expelled: bool,
    /// Quorum, ring and daemons agree.
    pub(crate) gate: bool,
    /// It is known which locking protocol the kernel is to run.
    pub(crate) locking: bool,
    /// Everyone whom an attach must name is known.
    pub(crate) attach: bool,
    pub(crate) users: &'a Users,
    /// The dead; true for those that may be told.
    pub(crate) dead: &'a BTreeMap<NodeId, (Incarnation, bool)>,
    /// What should be saved, but for whom the shim knows.
    pub(crate) image: SavedGroup,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Save(Option<SavedGroup>),
    Attach(Users),
    Suspend,
    NodeDown(NodeId, Incarnation),
    Resume(Users),
    Detach,
}

impl Step {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Save(_) => "save",
            Self::Attach(_) => "attach",
            Self::Suspend => "suspend",
            Self::NodeDown(..) => "node_down",
            Self::Resume(_) => "resume",
            Self::Detach => "detach",
        }
    }
}

/// Whether the shim grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Grip {
    Detached,
    Granting,
    Suspended,
    /// A resume failed: the shim may grant.
    Unresumed,
    /// A predecessor died in the middle of a change or of a leave, or another verb failed: the shim may hear one twice.
    Unfinished,
}

impl Grip {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Granting => "granting",
            Self::Suspended => "suspended",
            Self::Unresumed => "unresumed",
            Self::Unfinished => "unfinished",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    Idle,
    Busy(OpId, Step),
    Pausing,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Failed {
    Save,
    Detach,
    /// Another verb.
    Telling,
}

impl Failed {
    const fn of(step: &Step) -> Self {
        match step {
            Step::Save(_) => Self::Save,
            Step::Detach => Self::Detach,
            Step::Attach(_) | Step::Suspend | Step::NodeDown(..) | Step::Resume(_) => Self::Telling,
        }
    }
}

/// The lane of one group.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Lane {
    group: GroupId,
    pub(crate) grip: Grip,
    /// Whom the shim may know: to be told of their deaths.
    pub(crate) told: Users,
    /// Whom the shim surely knows since it last granted: what we say to the others.
    pub(crate) known: Users,
    saved: Option<SavedGroup>,
    /// The last detach failed: the kernel may use the group on.
    is_held: bool,
    /// What failed last, until a save succeeds.
    failed: Option<Failed>,
    /// It was told to suspend, and has not surely resumed since.
    may_be_suspended: bool,
    work: Work,
}

/// The end of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok(Step),
    Failed(Step, OpError),
}

impl Lane {
    pub(crate) fn new(group: GroupId) -> Self {
        Self {
            group,
            grip: Grip::Detached,
            told: Users::new(),
            known: Users::new(),
            saved: None,
            is_held: false,
            failed: None,
            may_be_suspended: false,
            work: Work::Idle,
        }
    }

    /// Goes on where a predecessor stopped. What it had not finished is told again from the start.
    pub(crate) fn restore(group: GroupId, image: SavedGroup) -> Self {
        // Without services it was being left, and nobody knows how far that came.
        let unfinished = image.unfinished || image.services.is_empty();
        Self {
            group,
            grip: if unfinished { Grip::Unfinished } else { Grip::Granting },
            told: image.told.clone(),
            known: if unfinished { Users::new() } else { image.told.clone() },
            saved: Some(image),
            is_held: false,
            failed: None,
            may_be_suspended: unfinished,
            work: Work::Idle,
        }
    }

    /// Whether the shim and the state file hold exactly this, and nothing is under way.
    pub(crate) fn is_settled(&self, want: &Want<'_>) -> bool {
        self.grip == Grip::Granting
            && self.work == Work::Idle
            && want.dead.is_empty()
            && self.told == *want.users
            && self.saved.as_ref() == Some(&self.image(want, false))
    }

    /// The services that a successor would find.
    pub(crate) fn saved_services(&self) -> Option<&[SavedService]> {
        self.saved.as_ref().map(|saved| saved.services.as_slice())
    }

    /// Whether nothing of the group is left on this side.
    pub(crate) fn is_clear(&self) -> bool {
        self.grip == Grip::Detached && self.saved.is_none() && self.work == Work::Idle
    }

    pub(crate) const fn is_attached(&self) -> bool {
        match self.grip {
            Grip::Detached => false,
            Grip::Granting | Grip::Suspended | Grip::Unresumed | Grip::Unfinished => true,
        }
    }

    /// Whether the shim may have nothing of the group: it never granted, or a predecessor did not see it do so.
    pub(crate) fn is_unsure(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the shim has nothing of the group, and nothing is under way that would give it some.
    pub(crate) fn is_let_go(&self) -> bool {
        !self.is_attached() && !matches!(&self.work, Work::Busy(_, Step::Attach(_)))
    }

    /// Whether the group could not be left: the kernel still uses it, so it may be begun again.
    pub(crate) const fn is_held(&self) -> bool {
        self.is_held
    }

    /// What is under way or due again, for status.
    pub(crate) fn busy_with(&self) -> Option<&'static str> {
        match &self.work {
            Work::Idle => None,
            Work::Busy(_, step) => Some(step.name()),
            Work::Pausing => Some("retry"),
        }
    }

    pub(crate) fn owns(&self, op: OpId) -> bool {
        matches!(&self.work, Work::Busy(busy, _) if *busy == op)
    }

    fn image(&self, want: &Want<'_>, unfinished: bool) -> SavedGroup {
        let mut told = self.told.clone();
        if unfinished {
            // Of a node that died and is back, the death comes first.
            let alive = want.users.iter().filter(|(node, _)| !want.dead.contains_key(node));
            told.extend(alive.map(|(node, user)| (*node, *user)));
        }
        SavedGroup { told, unfinished, ..want.image.clone() }
    }

    fn next(&self, want: &Want<'_>) -> Option<Step> {
        if want.closing {
            let kept = self.saved.as_ref().is_some_and(|saved| !saved.services.is_empty());
            return match self.grip {
                Grip::Detached => self.saved.is_some().then_some(Step::Save(None)),
                Grip::Granting | Grip::Suspended | Grip::Unresumed | Grip::Unfinished if kept => {
                    self.save_if_changed(want)
                }
                Grip::Granting | Grip::Suspended | Grip::Unresumed | Grip::Unfinished => {
                    self.next_of_a_held_group(want).or(Some(Step::Detach))
                }
            };
        }
        // Whoever waits for a save must not wait for a verb that fails.
        let saves_first = self.is_attached()
            && matches!(self.failed, Some(Failed::Detach | Failed::Telling))
            && self.saved_services() != Some(want.image.services.as_slice());
        let may_tell = want.gate && !want.expelled && !saves_first;
        let verb = if may_tell { self.next_verb(want) } else { None };
        verb.or_else(|| self.save_if_changed(want))
    }

    /// What a kernel must hear although we want to leave the group.
    fn next_of_a_held_group(&self, want: &Want<'_>) -> Option<Step> {
        let is_settled = want.dead.values().any(|(_, settled)| *settled);
        // Nor may it stand still, or keep waiting whoever comes to use the group beside it.
        let knows = self.told == *want.users && self.known == *want.users;
        let is_due = is_settled || (want.dead.is_empty() && (self.may_be_suspended || !knows));
        // After another step that failed it is to be seen first whether the kernel still uses the group.
        let is_told = self.is_held && !matches!(self.failed, Some(Failed::Save | Failed::Telling));
        let must_tell = is_told && want.gate && !want.expelled && is_due;
        if must_tell { self.next_verb(want) } else { None }
    }

    fn next_verb(&self, want: &Want<'_>) -> Option<Step> {
        let ahead = || Some(Step::Save(Some(self.image(want, true))));
        let is_known = self.is_saved(want.users);
        match self.grip {
            Grip::Detached if !want.attach || !want.locking => None,
            Grip::Detached if !is_known => ahead(),
            Grip::Detached => Some(Step::Attach(want.users.clone())),
            Grip::Granting if want.dead.is_empty() && self.told == *want.users => None,
            Grip::Unresumed
                if want.dead.is_empty()
                    && self.told == *want.users
                    && (want.locking || !self.is_unsure()) =>
            {
                Some(Step::Resume(want.users.clone()))
            }
            Grip::Granting | Grip::Unresumed | Grip::Unfinished if !self.is_marked() => ahead(),
            Grip::Granting | Grip::Unresumed | Grip::Unfinished => Some(Step::Suspend),
            Grip::Suspended if want.dead.is_empty() && !is_known => ahead(),
            Grip::Suspended if want.dead.is_empty() && !want.locking && self.is_unsure() => None,
            Grip::Suspended if want.dead.is_empty() => Some(Step::Resume(want.users.clone())),
            Grip::Suspended => {
                let settled = want.dead.iter().find(|(_, (_, settled))| *settled);
                settled.map(|(node, (incarnation, _))| Step::NodeDown(*node, *incarnation))
            }
        }
    }

    /// Whether a successor would know that a change was under way.
    fn is_marked(&self) -> bool {
        self.saved.as_ref().is_some_and(|saved| saved.unfinished)
    }

    /// Whether a successor would know these users.
    fn is_saved(&self, users: &Users) -> bool {
        let knows = |saved: &SavedGroup| {
            saved.unfinished && users.iter().all(|(node, user)| saved.told.get(node) == Some(user))
        };
        self.saved.as_ref().is_some_and(knows)
    }

    /// While a change is half told the image stays what was saved ahead of it.
    fn save_if_changed(&self, want: &Want<'_>) -> Option<Step> {
        let unfinished = match self.grip {
            Grip::Detached => return None,
            Grip::Granting => false,
            Grip::Suspended => self.is_marked(),
            Grip::Unresumed | Grip::Unfinished => true,
        };
        let mut image = self.image(want, false);
        image.unfinished = unfinished;
        if let Some(saved) = self.saved.as_ref().filter(|saved| saved.unfinished && unfinished) {
            image.told.clone_from(&saved.told);
        }
        (self.saved.as_ref() != Some(&image)).then_some(Step::Save(Some(image)))
    }

    /// Starts the next step, if one can go.
    pub(crate) fn advance(&mut self, want: &Want<'_>, fx: &mut Effects<'_>) {
        if self.work != Work::Idle {
            return;
        }
        let Some(step) = self.next(want) else { return };
        let op = fx.op();
        let group = self.group;
        fx.push(match &step {
            Step::Save(image) => Action::Save { op, group, image: image.clone() },
            Step::Attach(users) => Action::Verb { op, group, verb: Verb::Attach(peers(users)) },
            Step::Suspend => Action::Verb { op, group, verb: Verb::Suspend },
            Step::NodeDown(node, incarnation) => {
                Action::Verb { op, group, verb: Verb::NodeDown(*node, *incarnation) }
            }
            Step::Resume(users) => Action::Verb { op, group, verb: Verb::Resume(peers(users)) },
            Step::Detach => Action::Verb { op, group, verb: Verb::Detach },
        });
        if let Step::Attach(users) | Step::Resume(users) = &step {
            // Whether it succeeds or not, the shim may know them from now on.
            self.told.extend(users.iter().map(|(node, user)| (*node, *user)));
        }
        self.may_be_suspended |= step == Step::Suspend;
        self.work = Work::Busy(op, step);
    }

    /// Takes the end of the step under way.
    pub(crate) fn handle_done(
        &mut self,
        result: Result<(), OpError>,
        fx: &mut Effects<'_>,
    ) -> Option<Ended> {
        let Work::Busy(_, step) = core::mem::replace(&mut self.work, Work::Idle) else {
            return None;
        };
        if let Err(error) = result {
            self.work = Work::Pausing;
            self.failed = Some(Failed::of(&step));
            match &step {
                // Half of it may have been done, or all: nobody knows whether the shim grants.
                Step::Attach(_) | Step::Suspend => self.grip = Grip::Unfinished,
                Step::Resume(_) => self.grip = Grip::Unresumed,
                Step::Detach => {
                    self.is_held = true;
                    self.grip = Grip::Unfinished;
                }
                Step::Save(_) | Step::NodeDown(..) => {}
            }
            fx.note(Note::OpFailed(self.group, step.name(), error));
            fx.arm(Timer::Lane(self.group), fx.tunables.retry_ms);
            return Some(Ended::Failed(step, error));
        }
        match &step {
            Step::Save(image) => {
                self.saved.clone_from(image);
                self.failed = None;
                // In use again: that it could once not be left means nothing any more.
                self.is_held &= image.as_ref().is_none_or(|image| image.services.is_empty());
            }
            Step::Attach(users) | Step::Resume(users) => {
                self.told.clone_from(users);
                self.known.clone_from(users);
                self.grip = Grip::Granting;
                self.may_be_suspended = false;
            }
            Step::Suspend => self.grip = Grip::Suspended,
            Step::NodeDown(node, incarnation) => {
                self.told.remove(node);
                fx.note(Note::Buried(self.group, *node, *incarnation));
            }
            Step::Detach => {
                self.told.clear();
                self.known.clear();
                self.grip = Grip::Detached;
                self.is_held = false;
                self.may_be_suspended = false;
            }
        }
        Some(Ended::Ok(step))
    }

    /// The pause after a failure is over.
    pub(crate) fn handle_timer(&mut self) {
        if self.work == Work::Pausing {
            self.work = Work::Idle;
        }
    }
}

fn peers(users: &Users) -> Peers {
    users.iter().map(|(node, user)| (*node, user.incarnation)).collect()
}

#[cfg(test)]
mod tests;
