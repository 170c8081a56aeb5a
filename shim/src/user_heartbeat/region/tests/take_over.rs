//! A daemon that comes back to what an earlier one left.

use super::*;

#[test]
fn a_daemon_that_comes_back_takes_over() {
    if !semaphores_work("a_daemon_that_comes_back_takes_over") {
        return;
    }
    let mut node = Node::new();
    let carrier = node.start().unwrap();
    let regions = [60, 61].map(|test| carrier.region(group(test)).unwrap());
    node.live(&regions[0], "1 2 3");
    node.live(&regions[1], "1 2");
    carrier.open(&regions[0], 1, &lives(&[(2, 0xb), (3, 0xc)])).unwrap();
    carrier.open(&regions[1], 1, &lives(&[(2, 0xd)])).unwrap();
    carrier.down(&regions[0], 3).unwrap();
    drop(carrier);

    // The keeper lived on: nothing to do but for a region that somebody removed.
    node.keeper.take_said();
    Directory.remove(&node.cluster.join("heartbeat").join(regions[1].name())).unwrap();
    drop(node.start().unwrap());
    assert_eq!(node.keeper.take_said(), ["1 clear"]);

    // Both were killed: what beat goes on beating, but for our own slot, which is the kernel's.
    let device = node.paths.dev.join("ram0");
    FakeKeeper::on(&device).beat(Area(0), Slot(1), Generation::new(7).unwrap()).unwrap();
    node.keeper = FakeKeeper::on(&device);
    let carrier = node.start().unwrap();
    assert_eq!(node.keeper.take_said(), ["0.2=b"]);
    assert_eq!(reference::count(regions[0].name()).unwrap(), 1, "ours, still");
    carrier.close(&regions[0]).unwrap();
    carrier.close(&regions[1]).unwrap();
    drop(node.dir);
}

#[test]
fn whom_the_kernel_buried_is_not_brought_back() {
    if !semaphores_work("whom_the_kernel_buried_is_not_brought_back") {
        return;
    }
    let mut node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(62)).unwrap();
    node.live(&region, "1 2 3");
    carrier.open(&region, 1, &lives(&[(2, 0xb), (3, 0xc)])).unwrap();
    drop(carrier);

    // Daemon and keeper were away until the kernel missed node 3, which may be alive.
    node.keeper = FakeKeeper::on(&node.paths.dev.join("ram0"));
    node.live(&region, "1 2");
    match node.start() {
        Err(ShimError::Buried { region: of, slots }) => {
            assert_eq!((of.as_str(), slots), (region.name(), BTreeSet::from([3])));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken over"),
    }
    assert!(node.keeper.take_said().is_empty(), "nobody is beaten again");
    node.live(&region, "1 2 3");
    let carrier = node.start().unwrap();

    // The kernel buries it between the look and the beat.
    node.keeper.table.lock().unwrap().clear();
    let looks = std::cell::Cell::new(0);
    let live = |_: &str| {
        looks.set(looks.get() + 1);
        Some(BTreeSet::from_iter(if looks.get() == 1 { 1..=3 } else { 1..=2 }))
    };
    match carrier.areas.take_over(live) {
        Err(ShimError::Buried { slots, .. }) => assert_eq!(slots, BTreeSet::from([3])),
        other => panic!("{other:?}"),
    }
    carrier.close(&region).unwrap();
}

/// Sixteen loop devices were taken, and the RAM disk of somebody else's: the next one that looked among them only found
/// none of ours, made a second one, and had the keeper clear what it beat on the first, under living peers.
#[test]
fn the_disk_that_regions_stand_on_is_found_again() {
    if !semaphores_work("the_disk_that_regions_stand_on_is_found_again") {
        return;
    }
    let mut node = Node::new();
    fs::remove_file(node.paths.dev.join("ram0")).unwrap();
    node.keeper = FakeKeeper::on(&disk(&node.paths, "loop16"));
    Disk::prepare(&node.disk(Some("loop16")), &BTreeSet::new()).unwrap();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(64)).unwrap();
    node.live(&region, "1 2");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    drop(carrier);
    node.keeper.take_said();

    // Free, or even ours by its mark, and looked at first.
    disk(&node.paths, "ram0");
    Disk::prepare(&node.disk(Some("ram0")), &BTreeSet::new()).unwrap();
    let carrier = node.start().unwrap();
    assert_eq!(node.keeper.take_said(), [""; 0], "everybody lives");
    assert_eq!(carrier.standing(&region).unwrap().len(), 1);
    carrier.close(&region).unwrap();
}

/// Nobody knows whose it is: neither is it left out, nor is another one made.
#[test]
fn without_the_disk_that_regions_stand_on_nothing_starts() {
    let node = Node::new();
    put(&node.cluster.join("heartbeat").join(group(65).to_string()).join("dev"), "loop16\n");
    let why = node.start().map(|_| ()).unwrap_err().to_string();
    assert!(why.contains("loop16: a heartbeat region stands on it"), "{why}");
    disk(&node.paths, "loop16");
    drop(node.start().unwrap());
    assert_eq!(node.keeper.take_said(), [""; 0]);
}
