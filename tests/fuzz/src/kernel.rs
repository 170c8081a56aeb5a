//! What the kernel of one group has been told, and the order in which it may be told more:
//!
//! | kernel \ verb | attach | suspend | node_down | resume | detach |
//! |---|---|---|---|---|---|
//! | Detached  | → Granting | never | never | never | never |
//! | Granting  | never | → Suspended | never | never | → Detached |
//! | Suspended | never | never | of whom it knows | → Granting | → Detached |
//! | Unresumed | never | → Suspended | never | → Granting | → Detached |
//! | Unclear   | never | → Suspended | never | never | → Detached |
//!
//! A resume that failed leaves it Unresumed, a node_down as it was, and any other verb Unclear, as does an
//! earlier daemon that died in the middle. Each change is in the state file before the kernel hears of it.

use o2bridge_core::{NodeId, Peers, SavedGroup, Verb};

/// Whether the kernel grants, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grip {
    Detached,
    Granting,
    Suspended,
    Unresumed,
    Unclear,
}

/// The kernel's side of a group.
#[derive(Debug)]
pub(crate) struct Kernel {
    grip: Grip,
    /// Whom it may know: of nobody else, and of nobody twice, it may hear that it died.
    told: Peers,
    /// Attached by this daemon, which has said before what locking protocol to run.
    is_ours: bool,
    /// The others buried us: nothing but a detach is told any more.
    is_expelled: bool,
    /// What a successor would find.
    saved: Option<SavedGroup>,
}

impl Kernel {
    /// As an earlier daemon left it.
    pub(crate) fn left(saved: Option<SavedGroup>) -> Self {
        let grip = match &saved {
            None => Grip::Detached,
            // Without services it was being left.
            Some(saved) if saved.unfinished || saved.services.is_empty() => Grip::Unclear,
            Some(_) => Grip::Granting,
        };
        let told = saved.iter().flat_map(|saved| &saved.told);
        let told = told.map(|(node, user)| (*node, user.incarnation)).collect();
        Self { grip, told, is_ours: false, is_expelled: false, saved }
    }

    pub(crate) const fn is_ours(&self) -> bool {
        self.is_ours
    }

    pub(crate) fn is_granting(&self) -> bool {
        self.grip == Grip::Granting && !self.is_expelled
    }

    pub(crate) const fn saved(&self) -> Option<&SavedGroup> {
        self.saved.as_ref()
    }

    pub(crate) const fn handle_expelled(&mut self) {
        self.is_expelled = true;
    }

    /// The core has forgotten the group.
    pub(crate) fn handle_gone(&mut self) {
        assert!(self.grip == Grip::Detached && self.saved.is_none(), "forgotten: {self:?}");
        self.is_expelled = false;
    }

    /// An image is to be kept, or forgotten.
    pub(crate) fn may_save(&self, image: Option<&SavedGroup>) {
        assert!(
            image.is_some() || self.grip == Grip::Detached,
            "a kernel nobody remembers: {self:?}"
        );
    }

    pub(crate) fn handle_saved(&mut self, image: Option<SavedGroup>) {
        self.saved = image;
    }

    /// A verb begins; `me` is this node, if it has always had that number.
    pub(crate) fn hear(&mut self, verb: &Verb, me: Option<NodeId>) {
        let may_come = match (verb, self.grip) {
            (Verb::Attach(_), grip) => grip == Grip::Detached,
            (Verb::Suspend, grip) => !matches!(grip, Grip::Detached | Grip::Suspended),
            (Verb::NodeDown(node, incarnation), grip) => {
                grip == Grip::Suspended && self.told.get(node) == Some(incarnation)
            }
            (Verb::Resume(_), grip) => matches!(grip, Grip::Suspended | Grip::Unresumed),
            (Verb::Detach, grip) => grip != Grip::Detached,
        };
        assert!(may_come, "{verb:?} to {self:?}");
        assert!(!self.is_expelled || *verb == Verb::Detach, "{verb:?} to the expelled {self:?}");
        let saved = self.saved.as_ref();
        let is_marked = saved.is_some_and(|saved| saved.unfinished);
        let is_known = |(node, incarnation)| {
            let user = saved.and_then(|saved| saved.told.get(node));
            user.map(|user| &user.incarnation) == Some(incarnation)
        };
        match verb {
            Verb::Attach(peers) | Verb::Resume(peers) => {
                assert!(is_marked && peers.iter().all(is_known), "{verb:?} is not in {saved:?}");
                // Under another number it may be resumed before our own word has come back.
                let me = me.filter(|me| self.told.contains_key(me));
                assert!(me.is_none_or(|me| peers.contains_key(&me)), "{verb:?} without ourselves");
                self.told.extend(peers);
            }
            Verb::Suspend => assert!(is_marked, "{verb:?} is not in {saved:?}"),
            Verb::NodeDown(..) => {}
            Verb::Detach => {
                let services = saved.map(|saved| saved.services.as_slice());
                assert_eq!(services, Some([].as_slice()), "a leave that no successor knows");
            }
        }
    }

    /// A verb has ended.
    pub(crate) fn handle_done(&mut self, verb: &Verb, is_ok: bool) {
        self.grip = match verb {
            Verb::Attach(_) | Verb::Resume(_) if is_ok => Grip::Granting,
            Verb::Suspend if is_ok => Grip::Suspended,
            Verb::Detach if is_ok => Grip::Detached,
            Verb::NodeDown(..) => self.grip,
            Verb::Resume(_) => Grip::Unresumed,
            Verb::Attach(_) | Verb::Suspend | Verb::Detach => Grip::Unclear,
        };
        match verb {
            Verb::Attach(peers) | Verb::Resume(peers) if is_ok => {
                self.told.clone_from(peers);
                self.is_ours |= matches!(verb, Verb::Attach(_));
            }
            Verb::NodeDown(node, _) if is_ok => {
                self.told.remove(node);
            }
            Verb::Detach if is_ok => {
                self.told.clear();
                self.is_ours = false;
            }
            Verb::Attach(_)
            | Verb::Resume(_)
            | Verb::Suspend
            | Verb::NodeDown(..)
            | Verb::Detach => {}
        }
    }
}
