//! A stop while the keeper guards what no group needs. Left without a daemon it would reset this node, for nothing.
//!
//! | no group is left, and the keeper | the stop |
//! |---|---|
//! | guards nothing | goes to the core |
//! | guards something | waits for a thread that takes away what can be taken |
//! | guards nothing after that | goes to the core |
//! | guards something after that | is refused: the daemon goes on, and serves again once the manager of volumes has waited for the stop |
//!
//! To end, and to fail, would be no way out: nobody starts a daemon again that was told to stop.

use std::fmt;
use std::sync::Arc;

use o2bridge_core::Event;
use o2bridge_keeper::Keeper;
use o2bridge_shim::Shim;
use slog::{Logger, error};

/// What the keeper would reset this node for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarded {
    /// It holds the line to OCFS2.
    Line,
    /// It beats so many slots.
    Slots(usize),
}

impl Guarded {
    pub(super) fn of(keeper: &Keeper) -> Option<Self> {
        match keeper.table().len() {
            0 => keeper.line().map(|_| Self::Line),
            slots => Some(Self::Slots(slots)),
        }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line => f.write_str(
                "the keeper holds the line to OCFS2, because a volume of a user stack is mounted that is not served here, \
                 or a tool is at work on one: unmount it",
            ),
            Self::Slots(slots) => write!(
                f,
                "the keeper beats {slots} slots in regions that an earlier daemon left over: kill this process with \
                 SIGKILL and start the service again at once, because the next daemon takes them away"
            ),
        }
    }
}

/// Judges a stop.
#[derive(Clone)]
pub(super) struct Guard {
    look: Arc<dyn Fn() -> Option<Guarded> + Send + Sync>,
    shim: Arc<dyn Shim>,
    log: Logger,
}

impl Guard {
    pub(super) fn new(
        look: impl Fn() -> Option<Guarded> + Send + Sync + 'static,
        shim: Arc<dyn Shim>,
        log: Logger,
    ) -> Self {
        Self { look: Arc::new(look), shim, log }
    }

    /// Whether nothing is guarded, as far as the keeper was told.
    pub(super) fn is_free(&self) -> bool {
        (self.look)().is_none()
    }

    /// For a thread: takes away what can be taken. The stop, if it may go on.
    pub(super) fn settle(&self) -> Option<Event> {
        let amiss = self.shim.tend();
        let Some(guarded) = (self.look)() else { return Some(Event::Stop) };
        error!(self.log, "not stopping: without a daemon the keeper would reset this node after \
            keeper.daemon_back_ms; {guarded}, and stop again"; "amiss" => amiss);
        None
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("guarded", &(self.look)()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::super::tests::Fake;
    use super::*;

    /// What is guarded at the first look, the second, and so on.
    fn guard(looks: &[Option<Guarded>]) -> Guard {
        let looks = Mutex::new(VecDeque::from(looks.to_vec()));
        let look = move || looks.lock().unwrap().pop_front().expect("another look");
        Guard::new(look, Arc::<Fake>::default(), Logger::root(slog::Discard, slog::o!()))
    }

    #[test]
    fn a_stop_goes_on_once_nothing_is_guarded() {
        assert!(guard(&[None]).is_free());
        let line = Some(Guarded::Line);
        let beats = Some(Guarded::Slots(3));
        for guarded in [line, beats] {
            let left_over = guard(&[guarded, None]);
            assert!(!left_over.is_free());
            assert_eq!(left_over.settle(), Some(Event::Stop));
            let held = guard(&[guarded, guarded]);
            assert!(!held.is_free());
            assert_eq!(held.settle(), None, "the daemon goes on");
        }
    }

    #[test]
    fn it_is_said_what_to_do() {
        assert!(Guarded::Line.to_string().ends_with("unmount it"));
        assert!(Guarded::Slots(2).to_string().contains("beats 2 slots"));
    }
}
