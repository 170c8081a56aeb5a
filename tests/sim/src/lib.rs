//! A cluster in one thread, under a seed: ten thousand awful nights a minute.
//!
//! The real core decides; corosync, kernels, keepers, tools, fence devices and power are models. A seed
//! decides everything: the cluster, which faults there are, when they come, how long everything takes.
//! Checkers that know the truth watch every word to a kernel and every answer to a tool.
//!
//! ```text
//!   seed ─▶ options ─▶ plan: a schedule of steps ─▶ run ─▶ world ─▶ check
//!                              ▲                     │       │
//!                     scenario (a person wrote)      │       └─▶ coverage: each move against its table
//!                              ▲                     ▼
//!                              └──── shrink ◀── a violation
//! ```
//!
//! A run has two halves. In the first, whatever the schedule says goes wrong, and nothing unsafe may
//! happen. In the second nothing more goes wrong, and everything must come to rest in bounded time.

pub mod check;
pub mod corosync;
pub mod counts;
pub mod coverage;
pub mod dice;
pub mod doors;
pub mod kernel;
pub mod machine;
pub mod mutant;
pub mod options;
pub mod plan;
pub mod protocol;
pub mod recording;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod step;
pub mod tables;
pub mod time;
pub mod trace;
pub mod volume;
pub mod world;
