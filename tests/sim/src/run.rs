//! One run of one schedule.

use crate::check::Violation;
use crate::options::Options;
use crate::plan;
use crate::step::Timed;
use crate::world::World;

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// The world as it was then.
    pub world: World,
    /// What was wrong, if anything.
    pub result: Result<(), Violation>,
}

/// Runs what a seed stands for.
#[must_use]
pub fn seed(seed: u64, trace: bool) -> Run {
    let options = Options::of(seed);
    let schedule = plan::schedule(&options);
    run(options, &schedule, trace)
}

/// Runs a schedule: first with all its faults, then healed.
#[must_use]
pub fn run(options: Options, schedule: &[Timed], trace: bool) -> Run {
    let mut world = World::new(options, schedule, trace);
    let end = World::last_step_at(schedule).plus_ms(500);
    let result = world.run_until(end).and_then(|()| world.settle());
    world.counts.rings = world.corosync.rings_formed;
    Run { world, result }
}
