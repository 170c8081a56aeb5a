//! One run of one schedule.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

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
    let whole = || world.run_until(end).and_then(|()| world.settle());
    let result = catch_unwind(AssertUnwindSafe(whole))
        .unwrap_or_else(|_| Err(Violation { checker: "panic", at: world.now, text: last_panic() }));
    world.counts.rings = world.corosync.rings_formed;
    Run { world, result }
}

/// What the last panic said, and where.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// From now on a panic, of a core or here, says nothing by itself: it is what is wrong with its run.
pub fn keep_panics() {
    set_hook(Box::new(|panic| {
        let text = panic.to_string().replace('\n', " ").replace("panicked at ", "");
        if let Ok(mut kept) = PANIC.lock() {
            *kept = text;
        }
    }));
}

fn last_panic() -> String {
    PANIC.lock().map(|text| text.clone()).unwrap_or_default()
}
