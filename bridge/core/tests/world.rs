//! Whole clusters under random faults: no death is lost, none is invented, and after healing
//! everyone agrees.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a test may panic")]

mod cluster;

use cluster::{Counts, World};
use o2bridge_core::Fencing;

const AGENT: Fencing = Fencing::Agent { levels: 2, attempts: 2, pause_ms: 200 };

fn run(nodes: u32, groups: usize, fencing: Fencing, seed: u64, steps: usize) -> Counts {
    let mut world = World::new(nodes, fencing, seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..steps {
            world.step(groups);
        }
        world.settle();
        world.check_rest(groups);
    }));
    if let Err(panic) = outcome {
        let from = world.trace.len().saturating_sub(if std::env::var("TRACE").is_ok() {
            usize::MAX
        } else {
            60
        });
        for line in &world.trace[from..] {
            eprintln!("{line}");
        }
        eprintln!("{nodes} nodes, {groups} groups, {fencing:?}; again: SEED={seed} TRACE=1");
        std::panic::resume_unwind(panic);
    }
    world.counts
}

fn sweep(fencing: Fencing, seeds: u64) -> Counts {
    let mut sum = Counts::default();
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    let (start, seeds) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(seeds)),
    };
    for seed in start..start + seeds {
        let counts = run(2 + (seed % 4) as u32, 1 + (seed % 3) as usize, fencing, seed, 1_500);
        sum.grants += counts.grants;
        sum.node_downs += counts.node_downs;
        sum.leaves += counts.leaves;
        sum.fences += counts.fences;
        sum.kills += counts.kills;
        sum.expulsions += counts.expulsions;
        sum.partitions += counts.partitions;
        sum.crashes += counts.crashes;
        sum.restarts += counts.restarts;
    }
    sum
}

/// With agents that really reset, nobody is buried who still writes, and nobody mounts unknown to a writer.
#[test]
fn fencing_by_agents() {
    let counts = sweep(AGENT, 300);
    println!("{counts:?}");
    assert!(counts.node_downs > 100 && counts.grants > 500 && counts.fences > 100, "{counts:?}");
}

#[test]
fn without_fencing() {
    let counts = sweep(Fencing::None, 300);
    println!("{counts:?}");
    assert!(counts.node_downs > 100 && counts.grants > 500, "{counts:?}");
    assert_eq!(counts.fences, 0, "the policy is none");
}
