//! The stock way, for comparison: o2cb with its own disk heartbeat, nothing of ours.

use crate::run::Scenario;

pub(super) const ALL: &[Scenario] = &[];
