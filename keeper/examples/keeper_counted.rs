//! The keeper with a counting allocator: writes to its log how much memory was asked for between
//! `ready` and the end. For the test that it is none.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let mut at_start: Option<Stats> = None;
    o2bridge_keeper::process::run(std::env::args_os(), || match at_start {
        None => at_start = Some(ALLOCATOR.stats()),
        Some(start) => {
            let used = ALLOCATOR.stats() - start;
            let (calls, again) = (used.allocations, used.reallocations);
            eprintln!("while serving: {calls} allocations, {again} reallocations");
        }
    })
}
