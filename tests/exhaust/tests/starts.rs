//! Every start, to the depth that it says itself.

use std::path::Path;

use o2bridge_exhaust::search::Search;
use o2bridge_exhaust::start::{self, Start};
use o2bridge_sim::world::World;

/// Each so-many-th end is left to itself.
const SETTLE_EVERY: u64 = 200;

fn explore(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("starts/{name}.txt"));
    let start = Start::read(&path).unwrap();
    let world = start.world(false).unwrap();
    let mut search = Search::new(&World::choose, SETTLE_EVERY);
    let result = search.run(world, &start, start.depth);
    println!(
        "exhaust: {name:<20} depth {} from {} moments: {}",
        start.depth, start.moments, search.tally
    );
    if let Err(finding) = result {
        panic!("{name}: {finding}");
    }
    assert!(search.tally.settled > 10 && search.tally.pruned > 0, "{}", search.tally);
}

macro_rules! starts {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { explore($name); })*

        #[test]
        fn each_start_is_explored() {
            let files = start::all(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
            let names: Vec<_> = files.iter().map(|it| it.file_stem().unwrap()).collect();
            let mut explored = [$($name),*];
            explored.sort_unstable();
            assert_eq!(names, explored);
        }
    };
}

starts! {
    daemon_killed "daemon-killed"
    fence_late "fence-late"
    ghost "ghost"
    kernel_fails "kernel-fails"
    leave_and_join "leave-and-join"
    mount_in_ring_change "mount-in-ring-change"
    one_way "one-way"
    power_off "power-off"
    power_off_quick "power-off-quick"
    split "split"
    two_mounts "two-mounts"
    two_node_cut "two-node-cut"
    two_nodes "two-nodes"
    unmount_and_death "unmount-and-death"
}
