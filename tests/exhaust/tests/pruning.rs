//! What is pruned is not missed: with and without it the same worlds are seen.

use std::path::Path;

use o2bridge_exhaust::search::{Search, Tally};
use o2bridge_exhaust::start::{self, Start};
use o2bridge_sim::world::World;

const DEPTH: u8 = 3;

fn search(start: &Start, prune: bool) -> (Vec<u64>, Tally) {
    let world = start.world(false).expect("a quiet beginning");
    let mut search = Search::new(&World::choose, 0);
    search.prune = prune;
    search.run(world, start, DEPTH).expect("nothing wrong");
    (search.digests().collect(), search.tally)
}

#[test]
fn the_same_worlds_are_seen_with_and_without_it() {
    for path in start::all(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let start = Start::read(&path).unwrap();
        let (with, few) = search(&start, true);
        let (without, all) = search(&start, false);
        assert!(with == without, "{}: {} and {}", path.display(), with.len(), without.len());
        assert!(few.covered <= all.orders && few.choices < all.choices, "{few:?} {all:?}");
        assert_eq!((few.states, all.pruned), (all.states, 0));
        assert!(few.pruned > 0);
    }
}
