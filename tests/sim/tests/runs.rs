//! The simulator itself: a seed decides everything, and what is printed of a failure is the failure.

use o2bridge_core::NodeId;
use o2bridge_sim::options::{Options, Policy, ShimKind};
use o2bridge_sim::plan;
use o2bridge_sim::run;
use o2bridge_sim::scenario::Scenario;
use o2bridge_sim::shrink::shrink;
use o2bridge_sim::step::Step;
use o2bridge_sim::time::Micros;

/// So many seeds, from the beginning.
const SEEDS: u64 = 60;

#[test]
fn a_seed_decides_everything() {
    for seed in 0..SEEDS {
        let (first, second) = (run::seed(seed, true), run::seed(seed, true));
        assert_eq!(first.world.trace.lines(), second.world.trace.lines(), "seed {seed}");
        assert_eq!(first.world.counts, second.world.counts, "seed {seed}");
        assert!(first.world.counts.events > 0, "seed {seed} does nothing");
    }
}

/// Watching must not change what is watched, or a trace would show another run.
#[test]
fn a_trace_changes_nothing() {
    for seed in 0..SEEDS {
        let (seen, unseen) = (run::seed(seed, true), run::seed(seed, false));
        assert_eq!(seen.world.counts, unseen.world.counts, "seed {seed}");
        assert_eq!(seen.result, unseen.result, "seed {seed}");
    }
}

#[test]
fn a_seed_printed_as_a_scenario_is_the_same_run() {
    for seed in 0..SEEDS {
        let options = Options::of(seed);
        let schedule = plan::schedule(&options);
        let text = Scenario::of(&options, &schedule).to_string();
        let read =
            Scenario::parse(&text).unwrap_or_else(|bad| panic!("seed {seed}: {bad}\n{text}"));
        assert_eq!(read.schedule, schedule, "seed {seed}");
        let (again, result) = read.run(false);
        let first = run::seed(seed, false);
        assert_eq!(again.world.counts, first.world.counts, "seed {seed}\n{text}");
        assert_eq!(result.is_ok(), first.result.is_ok(), "seed {seed}");
    }
}

/// Daemon and keeper are gone for good. Whoever has a watchdog is reset; without one the kernel takes its silence
/// for the death of all peers after a minute, and that is seen.
#[test]
fn a_kernel_that_acts_on_silence() {
    let text = "nodes 2\nshim user-heartbeat\nrestarts 0\nwatchdog 1\n2500 n1 mount A held\n\
                2600 n2 mount A held\n5000 n1 kill daemon\n5000 n1 kill keeper\n80000 n2 write A\n";
    let (run, result) = Scenario::parse(text).unwrap().run(false);
    assert_eq!((result, run.world.counts.resets), (Ok(()), 1));

    // Without fencing nobody asks who can still write, and that it acts at all is what is wrong.
    for (policy, checker) in [("agent", "buried alive"), ("none", "silence")] {
        let text = format!("{}policy {policy}\n", text.replace("watchdog 1", "watchdog 0"));
        let (run, _) = Scenario::parse(&text).unwrap().run(false);
        assert_eq!(run.result.unwrap_err().checker, checker);
    }
}

/// What is left of a failure has no step that it does not need, and no time between two of them.
#[test]
fn a_failure_is_cut_down_in_steps_and_in_time() {
    let text = "nodes 3\nshim user-heartbeat\npolicy none\nrestarts 0\nwatchdog 0\n2500 n1 mount A held\n\
                2600 n2 write A\n30000 n1 kill daemon\n30000 n1 kill keeper\n99000 n1 write A\n";
    let scenario = Scenario::parse(text).unwrap();
    let shrunk = shrink(&scenario.options, &scenario.schedule, "silence");
    let run = run::run(shrunk.options.clone(), &shrunk.schedule, false);
    assert_eq!(run.result.unwrap_err().checker, "silence");
    assert!(shrunk.schedule.len() == 4 && shrunk.options.nodes < 3, "{shrunk:?}");
    let killed_at = shrunk.schedule[1].0;
    assert!(killed_at.0 < scenario.schedule[2].0.0 / 2, "{shrunk:?}");
}

#[test]
fn what_is_no_scenario_is_refused_with_its_line() {
    for (text, line, word) in [
        ("nodes three", 1, "no number"),
        ("nodes 3\n\n1000 n1 dances", 3, "no step"),
        ("# why\nshim paper", 2, "none of record"),
        ("weather fine", 1, "neither a time nor an option"),
        ("1000 n1 mount a held", 1, "no step"),
        ("1000 mount A held", 1, "no step"),
        ("expect node_down", 1, "expected of what"),
    ] {
        let bad = Scenario::parse(text).unwrap_err();
        assert_eq!(bad.line, line, "{text}");
        assert!(bad.text.contains(word), "{text}: {bad}");
    }
}

#[test]
fn every_step_is_read_as_it_is_written() {
    let mut steps = 0;
    for seed in 0..SEEDS {
        for (_, step) in plan::schedule(&Options::of(seed)) {
            assert_eq!(step.to_string().parse::<Step>().as_ref(), Ok(&step));
            steps += 1;
        }
    }
    assert!(steps > 500, "{steps}");
}

/// An expectation that does not hold is said, or scenarios would prove nothing.
#[test]
fn a_scenario_can_fail() {
    let text = "nodes 2\n2500 n1 mount A held\nexpect mounts 2\n";
    let (run, result) = Scenario::parse(text).unwrap().run(false);
    assert_eq!(run.result, Ok(()));
    assert_eq!(result, Err("mounts is 1, not 2 to 2".to_owned()));
    let (_, result) = Scenario::parse("expect dances 1").unwrap().run(false);
    assert_eq!(result, Err("nothing counts 'dances'".to_owned()));
}

/// A panic is a failure like any other: the schedule is cut down to what it needs.
#[test]
fn a_panic_is_a_failure_that_is_cut_down() {
    let options = Options::quiet(2, 1, Policy::Agent, ShimKind::Record);
    let at = |ms, step| (Micros::of_ms(ms), step);
    let schedule =
        [at(3_000, Step::Shatter), at(3_500, Step::StopDaemon(NodeId(9))), at(4_000, Step::Heal)];
    let violation = run::run(options.clone(), &schedule, false).result.expect_err("there is no n9");
    assert_eq!(violation.checker, "panic");
    let shrunk = shrink(&options, &schedule, "panic");
    let steps: Vec<&Step> = shrunk.schedule.iter().map(|(_, step)| step).collect();
    assert_eq!(steps, [&Step::StopDaemon(NodeId(9))]);
}
