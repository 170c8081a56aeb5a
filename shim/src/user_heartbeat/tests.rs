use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use super::carrier::{Look, Standing};
use super::*;

/// A kernel that does as it is told, and says so.
#[derive(Default)]
struct Kernel {
    standing: Mutex<BTreeMap<Region, Standing>>,
    said: Mutex<Vec<String>>,
    is_global: bool,
    /// Symlinks know no incarnation.
    is_forgetful: bool,
    fails: AtomicBool,
    /// Groups with a lock domain.
    used: Mutex<BTreeSet<GroupId>>,
}

impl Kernel {
    fn say(&self, what: String) -> Result<(), ShimError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(ShimError::Unusable(what));
        }
        self.said.lock().unwrap().push(what);
        Ok(())
    }
}

impl Carrier for Arc<Kernel> {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn region(&self, group: GroupId) -> Result<Region, ShimError> {
        let own = || Region::Own(format!("r{}", group.0));
        Ok(if self.is_global { Region::Shared("r".into()) } else { own() })
    }

    fn open(&self, region: &Region, own_slot: u8, peers: &Lives) -> Result<(), ShimError> {
        if self.standing.lock().unwrap().contains_key(region) {
            return Ok(());
        }
        let life = |life: &Incarnation| (!self.is_forgetful).then_some(*life);
        let standing = peers.iter().map(|(slot, of)| (*slot, life(of))).collect();
        let slots: Vec<u8> = peers.keys().copied().collect();
        self.say(format!("open {} as {own_slot} with {slots:?}", region.name()))?;
        self.standing.lock().unwrap().insert(region.clone(), standing);
        Ok(())
    }

    fn standing(&self, region: &Region) -> Result<Standing, ShimError> {
        Ok(self.standing.lock().unwrap().get(region).cloned().unwrap_or_default())
    }

    fn up(&self, region: &Region, slot: u8, incarnation: Incarnation) -> Result<(), ShimError> {
        self.say(format!("{} {slot} up {incarnation}", region.name()))?;
        let life = (!self.is_forgetful).then_some(incarnation);
        self.standing.lock().unwrap().get_mut(region).unwrap().insert(slot, life);
        Ok(())
    }

    fn down(&self, region: &Region, slot: u8) -> Result<(), ShimError> {
        self.say(format!("{} {slot} down", region.name()))?;
        self.standing.lock().unwrap().entry(region.clone()).or_default().remove(&slot);
        Ok(())
    }

    fn unused(&self, group: GroupId) -> Result<(), ShimError> {
        let is_used = self.used.lock().unwrap().contains(&group);
        let error = || ShimError::InUse { region: group.to_string(), by: "a test".into() };
        if is_used { Err(error()) } else { Ok(()) }
    }

    fn close(&self, region: &Region) -> Result<(), ShimError> {
        self.say(format!("close {}", region.name()))?;
        self.standing.lock().unwrap().remove(region);
        Ok(())
    }

    fn sweep(&self) -> Result<(), ShimError> {
        self.say("sweep".into())
    }

    fn await_live(&self, region: &Region, slots: &BTreeSet<u8>, _: bool) -> Result<(), ShimError> {
        self.say(format!("{} sees {slots:?}", region.name()))
    }

    fn look(&self) -> Look {
        let view = |name: &str| RegionView {
            name: name.into(),
            area: None,
            up: Standing::new(),
            live: None,
        };
        let shared = self.is_global.then(|| "F00".repeat(10) + "D0");
        let left_behind = view("A0000000000000000000000000000001");
        let regions = shared.iter().map(|name| view(name)).chain([left_behind]).collect();
        Look { regions, shared, ..Look::default() }
    }
}

/// Node 100 in slot 0, we; and 101 to 103 in slots 1 to 3.
struct Node {
    dir: tempfile::TempDir,
    kernel: Arc<Kernel>,
    shim: UserHeartbeat,
}

impl Node {
    fn new(kernel: Kernel) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Arc::new(kernel);
        let shim = start(&dir, &kernel);
        Self { dir, kernel, shim }
    }

    /// The daemon is killed and comes back.
    fn restart(&mut self) {
        self.shim = start(&self.dir, &self.kernel);
    }

    #[track_caller]
    fn said(&self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut *self.kernel.said.lock().unwrap()), expected);
    }

    fn down(&self, group: GroupId, node: u32, life: u64) {
        self.shim.node_down(group, NodeId(node), Incarnation(life)).unwrap();
    }

    fn resume(&self, group: GroupId, nodes: &[(u32, u64)]) {
        self.shim.suspend(group).unwrap();
        self.shim.resume(group, &peers(nodes)).unwrap();
    }
}

fn start(dir: &tempfile::TempDir, kernel: &Arc<Kernel>) -> UserHeartbeat {
    let slots = Slots::default();
    slots.set((0..4).map(|slot| (NodeId(100 + u32::from(slot)), slot)).collect(), NodeId(100));
    UserHeartbeat::with(Box::new(Arc::clone(kernel)), dir.path(), slots).unwrap()
}

/// We, in our first incarnation, and these.
fn peers(nodes: &[(u32, u64)]) -> Peers {
    let all = nodes.iter().chain(&[(100, 1)]);
    all.map(|(node, life)| (NodeId(*node), Incarnation(*life))).collect()
}

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

#[test]
fn a_life_of_a_group() {
    let node = Node::new(Kernel::default());
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.said(&["open r1 as 0 with [1]", "r1 sees {0, 1}"]);
    node.resume(A, &[(101, 0xa), (102, 0xb), (103, 0xc)]);
    node.said(&["r1 2 up b", "r1 3 up c"]);
    node.shim.suspend(A).unwrap();
    node.down(A, 102, 0xb);
    node.down(A, 102, 0xb);
    node.said(&["r1 2 down"]);
    node.shim.resume(A, &peers(&[(101, 0xa)])).unwrap();
    node.said(&["r1 3 down"]);
    node.resume(A, &[(101, 0xf), (102, 0xd)]);
    node.said(&["r1 1 down", "r1 1 up f", "r1 2 up d"]);
    node.shim.detach(A).unwrap();
    node.shim.detach(A).unwrap();
    node.said(&["close r1", "close r1"]);
}

#[test]
fn every_verb_again_says_nothing_new() {
    let node = Node::new(Kernel::default());
    for _ in 0..2 {
        node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    }
    node.said(&["open r1 as 0 with [1]", "r1 sees {0, 1}"]);
    node.resume(A, &[(101, 0xa)]);
    node.said(&[]);
}

#[test]
fn the_death_of_a_former_life_does_not_touch_the_next() {
    for is_forgetful in [false, true] {
        let mut node = Node::new(Kernel { is_forgetful, ..Kernel::default() });
        node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
        node.down(A, 101, 0xa);
        node.resume(A, &[(101, 0xb)]);
        node.said(&["open r1 as 0 with [1]", "r1 sees {0, 1}", "r1 1 down", "r1 1 up b"]);
        // Killed before it could remember that all of this went through.
        node.restart();
        node.down(A, 101, 0xa);
        node.said(&[]);
        node.resume(A, &[(101, 0xb)]);
        node.said(&["r1 sees {0, 1}"]);
        node.down(A, 101, 0xb);
        node.said(&["r1 1 down"]);
    }
}

#[test]
fn a_failed_verb_is_made_good_by_its_repetition() {
    let node = Node::new(Kernel::default());
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.kernel.fails.store(true, Ordering::Relaxed);
    let death = (NodeId(101), Incarnation(0xa));
    assert!(node.shim.node_down(A, death.0, death.1).is_err());
    assert!(node.shim.resume(A, &peers(&[(101, 0xa), (102, 0xb)])).is_err());
    assert!(node.shim.detach(A).is_err());
    node.kernel.fails.store(false, Ordering::Relaxed);
    node.kernel.said.lock().unwrap().clear();
    node.shim.node_down(A, death.0, death.1).unwrap();
    node.resume(A, &[(102, 0xb)]);
    node.said(&["r1 1 down", "r1 2 up b", "r1 sees {0, 2}"]);
}

#[test]
fn a_full_resync_against_whatever_stands_there() {
    let mut node = Node::new(Kernel::default());
    node.shim.attach(A, &peers(&[(101, 0xa), (102, 0xb)])).unwrap();
    node.kernel.said.lock().unwrap().clear();
    // Our claims are lost, and somebody else raised 103.
    fs::remove_dir_all(node.dir.path().join("heartbeat")).unwrap();
    let region = Region::Own("r1".into());
    let stranger = (3, Some(Incarnation(0xc)));
    node.kernel.standing.lock().unwrap().get_mut(&region).unwrap().extend([stranger]);
    node.restart();
    node.down(A, 102, 0xf);
    node.said(&[]);
    node.down(A, 102, 0xb);
    node.down(A, 103, 0xc);
    node.said(&["r1 2 down", "r1 3 down"]);
    node.kernel.standing.lock().unwrap().get_mut(&region).unwrap().extend([stranger]);
    node.resume(A, &[(101, 0xa)]);
    node.said(&["r1 3 down", "r1 sees {0, 1}"]);
}

#[test]
fn a_region_that_went_is_made_again() {
    let node = Node::new(Kernel::default());
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.kernel.standing.lock().unwrap().clear();
    node.kernel.said.lock().unwrap().clear();
    node.resume(A, &[(101, 0xa)]);
    node.said(&["open r1 as 0 with [1]"]);
}

#[test]
fn in_global_mode_a_slot_is_up_for_whoever_needs_it() {
    let mut node = Node::new(Kernel { is_global: true, ..Kernel::default() });
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.shim.attach(B, &peers(&[(101, 0xb), (102, 0xc)])).unwrap();
    node.said(&["open r as 0 with [1]", "r sees {0, 1}", "r 2 up c", "r sees {0, 1, 2}"]);
    node.restart();
    node.resume(A, &[]);
    node.said(&["r sees {0}"]);
    node.resume(A, &[(101, 0xd)]);
    node.resume(B, &[(101, 0xe), (102, 0xc)]);
    node.said(&["r sees {0, 1, 2}"]);
    node.resume(B, &[(102, 0xc)]);
    node.said(&[]);
    node.shim.detach(B).unwrap();
    node.said(&["r 2 down"]);
    node.shim.detach(A).unwrap();
    node.said(&["close r"]);
}

#[test]
fn in_global_mode_a_death_is_told_once_for_all_groups() {
    let node = Node::new(Kernel { is_global: true, ..Kernel::default() });
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.shim.attach(B, &peers(&[(101, 0xb)])).unwrap();
    node.kernel.said.lock().unwrap().clear();
    node.down(B, 101, 0xb);
    node.said(&["r 1 down"]);
    node.resume(B, &[(101, 0xc)]);
    node.said(&["r 1 up c"]);
    node.down(A, 101, 0xa);
    node.resume(A, &[]);
    node.said(&[]);
}

#[test]
fn in_global_mode_a_group_that_is_mounted_keeps_its_peers() {
    let node = Node::new(Kernel { is_global: true, ..Kernel::default() });
    node.shim.attach(A, &peers(&[(101, 0xa)])).unwrap();
    node.shim.attach(B, &peers(&[(102, 0xb)])).unwrap();
    node.kernel.said.lock().unwrap().clear();
    node.kernel.used.lock().unwrap().insert(B);
    assert!(matches!(node.shim.detach(B), Err(ShimError::InUse { .. })));
    node.said(&[]);
    node.down(B, 102, 0xb);
    node.said(&["r 2 down"]);
    node.kernel.used.lock().unwrap().clear();
    node.shim.detach(B).unwrap();
    node.said(&[]);
}

#[test]
fn what_was_left_behind_is_in_view() {
    for is_global in [false, true] {
        let node = Node::new(Kernel { is_global, ..Kernel::default() });
        node.shim.attach(A, &peers(&[])).unwrap();
        let left_behind = GroupId(0xA << 124 | 1);
        assert_eq!(node.shim.view().groups, BTreeSet::from([A, left_behind]));
    }
}

#[test]
fn a_node_without_a_slot_fails_the_verb() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = Arc::new(Kernel::default());
    let slots = Slots::default();
    let shim = UserHeartbeat::with(Box::new(Arc::clone(&kernel)), dir.path(), slots.clone());
    let shim = shim.unwrap();
    let filler = std::thread::spawn({
        let slots = slots.clone();
        move || slots.set([(NodeId(100), 0), (NodeId(101), 0)].into(), NodeId(100))
    });
    let error = shim.attach(A, &peers(&[(101, 0xa)])).unwrap_err();
    filler.join().unwrap();
    assert!(matches!(error, ShimError::NoSlot(Some(NodeId(101)))), "our own slot: {error}");
    assert_eq!(*kernel.said.lock().unwrap(), [""; 0]);
    assert!(shim.claims.groups().is_empty());
    assert_eq!(slots.node(0), Some(NodeId(100)));
}

#[test]
fn verbs_fit_into_the_stack_of_a_worker() {
    let node = Node::new(Kernel::default());
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().stack_size(64 * 1024);
        let verbs = worker.spawn_scoped(scope, || {
            let all: Vec<_> = (101..104).map(|node| (node, 7)).collect();
            node.shim.attach(A, &peers(&all)).unwrap();
            node.down(A, 101, 7);
            node.resume(A, &all[1..]);
            node.shim.detach(A).unwrap();
        });
        verbs.unwrap().join().unwrap();
    });
}
