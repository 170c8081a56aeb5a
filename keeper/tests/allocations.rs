//! That the keeper allocates nothing while it serves. Without a harness: this program is the test,
//! and, called with a keeper's arguments, a keeper with a counting allocator.

mod support;

use std::alloc::System;
use std::process::ExitCode;

use o2bridge_keeper::record::Status;
use o2bridge_keeper::{Area, Line, Slot, process};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use support::{Node, life, lives, ms, until};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAME: &str = "while_serving_it_allocates_nothing";

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--socket") {
        return keeper();
    }
    let is_other = |arg: String| !arg.starts_with('-') && !NAME.contains(&arg);
    if std::env::args().skip(1).any(is_other) {
        return ExitCode::SUCCESS;
    }
    let is_good = std::panic::catch_unwind(while_serving_it_allocates_nothing).is_ok();
    let (word, passed, failed) = if is_good { ("ok", 1, 0) } else { ("FAILED", 0, 1) };
    println!("test {NAME} ... {word}");
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes to its log how much memory was asked for between `ready` and the end.
fn keeper() -> ExitCode {
    let mut at_start: Option<Stats> = None;
    process::run(std::env::args_os(), || match at_start {
        None => at_start = Some(ALLOCATOR.stats()),
        Some(start) => {
            let used = ALLOCATOR.stats() - start;
            let (calls, again) = (used.allocations, used.reallocations);
            eprintln!("while serving: {calls} allocations, {again} reallocations");
        }
    })
}

fn while_serving_it_allocates_nothing() {
    let mut node = Node::in_memory();
    node.settings.program = std::env::current_exe().unwrap();
    let control = node.path("control");
    std::fs::write(&control, "T01\n").unwrap();
    node.settings.control = Some(control);
    let (keeper, _notices) = node.keeper();
    let line = Line { node: 1, major: 1, minor: 0 };
    keeper.hold(line).unwrap();
    for area in 0..16 {
        for slot in 0..=254 {
            keeper.beat(Area(area), Slot(slot), life(7)).unwrap();
        }
    }
    node.beats(15, 254, 3);
    drop(keeper);
    // Connections come and go, also such as are not understood, and one too many.
    for bytes in [b"x".as_slice(), &[0; 60]] {
        let mut dial = node.dial().unwrap();
        dial.send(bytes);
        while dial.receive().is_some() {}
    }
    let (keeper, _notices) = node.keeper();
    assert_eq!((keeper.table().len(), keeper.line()), (4080, Some(line)));
    keeper.release().unwrap();
    std::fs::write(node.path("control"), "nothing that greets").unwrap();
    assert!(keeper.hold(line).is_err());
    assert_eq!(node.dial().unwrap().receive().unwrap().status, Status::Busy);
    for slot in 0..=254 {
        keeper.down(Area(0), Slot(slot)).unwrap();
    }
    for area in 0..16 {
        keeper.clear(Area(area)).unwrap();
    }
    let pid = keeper.pid().unwrap();
    keeper.stop().unwrap();
    until("the end", ms(5000), || !lives(pid));
    let log = node.log();
    assert!(log.contains("while serving: 0 allocations, 0 reallocations"), "{log}");
}
