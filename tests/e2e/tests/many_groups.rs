//! One death in one group and in 64: each survivor hears it once in each group. Prints how long it
//! took (not optimized, beside whatever else the machine does: `make bench` measures).

use std::time::Duration;

use o2bridge_e2e::{Delay, Told};

fn one_death(groups: u32) {
    let (lab, names, delay) = Delay::measure(groups).unwrap();
    println!("{}\n{}", Delay::TITLES, delay.row(groups));
    let mut told = Told::new();
    told.add(&[1], "attach 1a | suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    told.add(&[1, 2], "suspend | resume 1a 2a 3a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
    lab.expect(names.last().unwrap(), &told).unwrap();
    // Node 2 may be a little behind the measured node; more than this must not come.
    std::thread::sleep(Duration::from_secs(1));
    for group in &names {
        assert_eq!(lab.told(group).unwrap(), told, "group {group}");
    }
    for (node, lines) in [(1, 8), (2, 6), (3, 1)] {
        assert_eq!(lab.records(node).unwrap().len(), lines * names.len(), "node {node}");
    }
}

#[test]
fn one_death_in_one_group() {
    one_death(1);
}

#[test]
fn one_death_in_64_groups() {
    one_death(64);
}
