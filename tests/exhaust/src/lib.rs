//! Every order of what comes next in a small cluster.
//!
//! ```text
//!   start: a scenario, run in the order of time up to a moment
//!      │
//!      ○ moment 0: next are, say, four things ──▶ step, message, effect, timer, each in its lane
//!      ├─ 0 ─○─ 0 ─○─ ... ─● depth reached, or nothing left: each K-th of these is left to itself,
//!      │     ├─ 1 ─○─ ...      in the order of time, and must come to rest
//!      │     └─ 2 ─✗ a world that was seen before, with as much depth left or more: pruned
//!      ├─ 1 ─○ ...
//!      ├─ 2 ─○ ... ─!  a checker speaks: printed as the list of choices that lead there
//!      └─ 3 ─○ ...
//!      │
//!      ○ moment 1: a few choices of the time's order later, and again every order of what comes next
//!      ...
//! ```
//! The worlds, what can be chosen in them and all the checkers are the simulator's, see
//! [`o2bridge_sim::world::World::choices`]; the core is the real one. To choose something out of its
//! turn means that all the rest was slow.
pub mod search;
pub mod start;
