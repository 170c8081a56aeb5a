use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::libc;

use super::*;
use crate::user_heartbeat::Paths;
use crate::user_heartbeat::fake::{self, Directory, FakeKeeper, put, semaphores_work};

mod take_over;
mod vanished;

/// A node with the number 1, a RAM disk for three regions, and debugfs when a test says so.
struct Node {
    dir: tempfile::TempDir,
    paths: Paths,
    cluster: PathBuf,
    keeper: Arc<FakeKeeper>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = fake::paths(dir.path());
        let cluster = fake::cluster(&paths, &[1, 2, 3]);
        fs::create_dir(&paths.dev).unwrap();
        let keeper = FakeKeeper::on(&disk(&paths, "ram0"));
        Self { dir, paths, cluster, keeper }
    }

    fn start(&self) -> Result<Started, ShimError> {
        self.start_on(Box::new(Directory))
    }

    fn start_on(&self, ground: Box<dyn Ground>) -> Result<Started, ShimError> {
        self.carrier(ground).map(Started)
    }

    fn carrier(&self, ground: Box<dyn Ground>) -> Result<VirtualRegion, ShimError> {
        let places = Places {
            configfs: self.paths.configfs.clone(),
            sys_o2cb: self.paths.sys_o2cb.clone(),
            debugfs: self.paths.debugfs.clone(),
            gates: Gates::new(&self.paths.configfs),
        };
        VirtualRegion::start(places, &self.disk(None), ground, |device, block_bytes| {
            assert_eq!((device, block_bytes), (self.keeper.device(), 512));
            Ok(Arc::clone(&self.keeper) as Arc<dyn Beats>)
        })
    }

    fn disk(&self, name: Option<&str>) -> DiskSettings {
        DiskSettings {
            device: name.map(|name| self.paths.dev.join(name)),
            dev: self.paths.dev.clone(),
            sys_dev_block: self.paths.sys_dev_block.clone(),
            run_dir: self.paths.run_dir.clone(),
            modprobe: "/bin/false".into(),
            losetup: "/bin/false".into(),
        }
    }

    /// debugfs says that these are live in this region.
    fn live(&self, region: &Region, slots: &str) {
        put(&self.paths.debugfs.join("o2hb").join(region.name()).join("livenodes"), slots);
    }

    fn global(&self) {
        put(&self.cluster.join("heartbeat/mode"), "global\n");
    }

    fn attribute(&self, region: &Region, name: &str) -> String {
        fs::read_to_string(self.cluster.join("heartbeat").join(region.name()).join(name)).unwrap()
    }
}

/// A blank one.
fn disk(paths: &Paths, name: &str) -> PathBuf {
    let device = paths.dev.join(name);
    fs::File::create(&device).unwrap().set_len(512 * (1 + 3 * 256)).unwrap();
    device
}

/// A carrier that leaves no semaphores behind.
struct Started(VirtualRegion);

impl Deref for Started {
    type Target = VirtualRegion;

    fn deref(&self) -> &VirtualRegion {
        &self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.gates.open_all();
    }
}

/// A kernel that takes a region away once a tool has come.
struct Slow {
    goes: Sender<()>,
    came: Mutex<Receiver<()>>,
}

impl Ground for Slow {
    fn make(&self, dir: &Path) -> io::Result<()> {
        Directory.make(dir)
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        self.goes.send(()).map_err(io::Error::other)?;
        self.came.lock().unwrap().recv().map_err(io::Error::other)?;
        Directory.remove(dir)
    }

    fn start(&self, dev: &Path, device: &File) -> io::Result<()> {
        Directory.start(dev, device)
    }
}

/// A group of its own for every test: the semaphores are the machine's.
fn group(test: u32) -> GroupId {
    GroupId(0xA << 124 | u128::from(std::process::id()) << 64 | u128::from(test))
}

fn lives(peers: &[(u8, u64)]) -> Lives {
    peers.iter().map(|(slot, life)| (*slot, Incarnation(*life))).collect()
}

#[test]
fn a_region_comes_and_goes() {
    if !semaphores_work("a_region_comes_and_goes") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(1)).unwrap();
    assert_eq!(region, Region::Own(group(1).to_string()));
    node.live(&region, "1 2\n");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    let attributes = ["block_bytes", "start_block", "blocks", "dev"];
    assert_eq!(
        attributes.map(|name| node.attribute(&region, name)),
        ["512\n", "1\n", "255\n", "ram0\n"]
    );
    assert_eq!(reference::count(region.name()).unwrap(), 1);
    assert_eq!(node.keeper.take_said(), ["0 clear", "0.2=b"], "beats before the kernel listens");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    assert_eq!(node.keeper.take_said(), [""; 0], "it stands");

    carrier.up(&region, 3, Incarnation(0xc)).unwrap();
    carrier.down(&region, 2).unwrap();
    let standing = carrier.standing(&region).unwrap();
    assert_eq!(standing, BTreeMap::from([(3, Some(Incarnation(0xc)))]));
    assert_eq!(node.keeper.take_said(), ["0.3=c", "0.2 down"]);
    let look = carrier.look();
    assert_eq!(
        look.regions,
        [RegionView {
            name: region.name().into(),
            area: Some(0),
            up: standing,
            live: Some(BTreeSet::from([1, 2])),
        }]
    );

    carrier.close(&region).unwrap();
    carrier.close(&region).unwrap();
    assert_eq!(node.keeper.take_said(), ["0 clear"]);
    assert!(!node.cluster.join("heartbeat").join(region.name()).exists());
    assert_eq!(reference::count(region.name()).unwrap(), 0);
    carrier.down(&region, 3).unwrap();
    assert_eq!(carrier.standing(&region).unwrap(), Standing::new());
}

/// A mount waits at the gate. An attach that fails, and the detach after it, must not let it in: it would begin a
/// heartbeat on the disk.
#[test]
fn a_closed_gate_stays_closed_when_an_attach_fails() {
    if !semaphores_work("a_closed_gate_stays_closed_when_an_attach_fails") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(5)).unwrap();
    assert!(carrier.gates.close(group(5)).unwrap());
    let is_held = || reference::try_lock(region.name()).unwrap().is_none();
    for round in 0..2 {
        // The peer is never seen, or the region is made halfway.
        node.live(&region, "1");
        if round == 1 {
            fs::create_dir(node.cluster.join("heartbeat").join(region.name())).unwrap();
            put(&node.cluster.join("heartbeat").join(region.name()).join("dev"), "");
        }
        carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap_err();
        assert!(is_held(), "after the attach, round {round}");
        carrier.close(&region).unwrap();
        assert!(is_held(), "after the detach, round {round}");
        assert_eq!(reference::count(region.name()).unwrap(), 0);
    }
    carrier.gates.open_all();
    reference::try_lock(region.name()).unwrap().expect("open").remove().unwrap();
}

/// An orderly stop, and a mount in the middle of it, which looks for the pair anew whenever that is removed.
#[test]
fn a_mount_that_comes_while_a_region_goes_is_not_let_in() {
    if !semaphores_work("a_mount_that_comes_while_a_region_goes_is_not_let_in") {
        return;
    }
    let node = Node::new();
    let ((goes, going), (come, came)) = (channel(), channel());
    let carrier = node.start_on(Box::new(Slow { goes, came: Mutex::new(came) })).unwrap();
    let region = carrier.region(group(6)).unwrap();
    node.live(&region, "1");
    carrier.open(&region, 1, &lives(&[])).unwrap();
    let is_in = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (name, is_in) = (region.name(), &is_in);
        let mount = move || {
            going.recv().unwrap();
            assert!(reference::try_lock(name).unwrap().is_none(), "it has to wait");
            come.send(()).unwrap();
            let locked = reference::lock(name).unwrap();
            is_in.store(true, Ordering::SeqCst);
            assert_eq!(locked.count().unwrap(), 0);
            locked.remove().unwrap();
        };
        let mount = scope.spawn(mount);
        carrier.close(&region).unwrap();
        let volume = BTreeSet::from([group(6)]);
        carrier.gates.open_others(&volume, &BTreeSet::new());
        assert!(reference::try_lock(name).unwrap().is_none(), "somebody has the mutex");
        assert!(carrier.gates.close(group(6)).unwrap(), "the gate is ours");
        assert!(!is_in.load(Ordering::SeqCst));
        carrier.gates.open_all();
        mount.join().unwrap();
    });
    assert!(is_in.load(Ordering::SeqCst));
}

/// Somebody else ended our use, and the region with it. A mount waits while it is made again, in vain.
#[test]
fn a_region_that_cannot_be_made_again_lets_no_mount_in() {
    if !semaphores_work("a_region_that_cannot_be_made_again_lets_no_mount_in") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(7)).unwrap();
    node.live(&region, "1 2");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    Directory.remove(&node.cluster.join("heartbeat").join(region.name())).unwrap();
    node.live(&region, "1");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap_err();
    let is_held = || reference::try_lock(region.name()).unwrap().is_none();
    assert!(is_held(), "the gate is closed");
    let (none, ours) = (BTreeSet::new(), BTreeSet::from([group(7)]));
    carrier.gates.open_others(&none, &ours);
    assert!(is_held(), "whatever the manager believes");
    node.live(&region, "1 2");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    assert!(!is_held(), "the region stands");

    // It stands, and the last one who tried did not hear so.
    carrier.gates.put_back(region.name(), reference::lock(region.name()).unwrap());
    carrier.gates.open_others(&none, &ours);
    assert!(is_held());
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    assert!(!is_held());

    carrier.gates.put_back(region.name(), reference::lock(region.name()).unwrap());
    carrier.gates.open_others(&ours, &none);
    assert!(is_held());
    carrier.gates.open_others(&none, &none);
    assert!(!is_held(), "no volume of ours any more");
    carrier.close(&region).unwrap();
}

#[test]
fn each_region_has_its_area() {
    if !semaphores_work("each_region_has_its_area") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let regions: Vec<_> = (10..14).map(|test| carrier.region(group(test)).unwrap()).collect();
    for region in &regions {
        node.live(region, "1");
    }
    for region in &regions[..3] {
        carrier.open(region, 1, &lives(&[])).unwrap();
    }
    let error = carrier.open(&regions[3], 1, &lives(&[])).unwrap_err();
    assert!(matches!(error, ShimError::NoArea { areas: 3 }), "{error}");
    assert_eq!(reference::count(regions[3].name()).unwrap(), 0);
    carrier.close(&regions[1]).unwrap();
    carrier.open(&regions[3], 1, &lives(&[])).unwrap();
    assert_eq!(node.attribute(&regions[3], "start_block"), "257\n");
    for region in [0, 2, 3] {
        carrier.close(&regions[region]).unwrap();
    }
}

#[test]
fn a_disk_heartbeat_is_left_alone() {
    if !semaphores_work("a_disk_heartbeat_is_left_alone") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(20)).unwrap();
    let dir = node.cluster.join("heartbeat").join(region.name());
    put(&dir.join("dev"), "sdb\n");
    let error = carrier.open(&region, 1, &lives(&[])).unwrap_err();
    assert!(matches!(&error, ShimError::DiskHeartbeat { device, .. } if device == "sdb"));
    carrier.close(&region).unwrap();
    assert_eq!(fs::read_to_string(dir.join("dev")).unwrap(), "sdb\n");
    assert_eq!(carrier.look().disk, BTreeMap::from([(region.name().into(), "sdb".into())]));
    assert!(carrier.look().regions.is_empty());
    reference::lock(region.name()).unwrap().remove().unwrap();
}

#[test]
fn a_region_in_use_stays_with_its_peers() {
    if !semaphores_work("a_region_in_use_stays_with_its_peers") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(30)).unwrap();
    node.live(&region, "1 2");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    let pinned = node.cluster.join("heartbeat").join(region.name()).join("pinned");
    put(&pinned, "");
    let error = carrier.close(&region).unwrap_err();
    assert_eq!(error.errno(), libc::EBUSY, "{error}");
    assert_eq!(carrier.standing(&region).unwrap().len(), 1);
    fs::remove_file(&pinned).unwrap();

    let tool = reference::lock(region.name()).unwrap();
    tool.add(1).unwrap();
    let asked = Instant::now();
    let error = carrier.close(&region).unwrap_err();
    assert_eq!(error.errno(), libc::EAGAIN, "{error}");
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for the tool");
    drop(tool);
    let error = carrier.close(&region).unwrap_err();
    assert!(error.to_string().contains("1 more than us"), "{error}");
    reference::lock(region.name()).unwrap().add(-1).unwrap();
    carrier.close(&region).unwrap();
}

#[test]
fn an_invisible_peer_fails_the_open_and_leaves_nothing() {
    if !semaphores_work("an_invisible_peer_fails_the_open_and_leaves_nothing") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(40)).unwrap();
    node.live(&region, "1 3");
    let error = carrier.open(&region, 1, &lives(&[(2, 0xb), (3, 0xc)])).unwrap_err();
    assert!(matches!(&error, ShimError::NotLive { slots, .. } if *slots == BTreeSet::from([2])));
    assert_eq!(reference::count(region.name()).unwrap(), 0);
    assert!(!node.cluster.join("heartbeat").join(region.name()).exists());
    carrier.close(&region).unwrap();
    assert!(node.keeper.table().is_empty());
}

#[test]
fn a_half_made_region_is_made_again() {
    if !semaphores_work("a_half_made_region_is_made_again") {
        return;
    }
    let node = Node::new();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(50)).unwrap();
    node.live(&region, "1");
    put(&node.cluster.join("heartbeat").join(region.name()).join("dev"), "");
    carrier.open(&region, 1, &lives(&[])).unwrap();
    assert_eq!(node.attribute(&region, "dev"), "ram0\n");
    carrier.close(&region).unwrap();
}

#[test]
fn a_region_that_goes_while_it_is_looked_at_is_gone() {
    let node = Node::new();
    let carrier = node.start().unwrap();
    let dir = node.cluster.join("heartbeat").join(group(63).to_string());
    put(&dir.join("dev"), "ram0\n");
    put(&dir.join("start_block"), "");
    assert_eq!(carrier.areas.find(&dir).unwrap(), Found::Nothing);
    put(&dir.join("start_block"), "2\n");
    assert!(matches!(carrier.areas.find(&dir), Err(ShimError::Lied { .. })));
    assert!(carrier.look().is_partial, "nobody may conclude that no node is up");
    put(&dir.join("start_block"), "");
    assert!(!carrier.look().is_partial);
}

#[test]
fn a_keeper_that_fails_fails_the_verb() {
    let node = Node::new();
    node.global();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(70)).unwrap();
    node.keeper.is_dead.store(true, Ordering::Relaxed);
    let error = carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap_err();
    assert!(matches!(error, ShimError::Keeper { .. }), "{error}");
    node.keeper.is_dead.store(false, Ordering::Relaxed);
    node.live(&region, "1 2");
    let error = carrier.open(&region, 1, &lives(&[(2, 0)])).unwrap_err();
    assert!(error.to_string().contains("incarnation 0"), "{error}");
    carrier.open(&region, 1, &lives(&[(2, 0xb)])).unwrap();
    node.keeper.is_dead.store(true, Ordering::Relaxed);
    assert!(matches!(carrier.down(&region, 2), Err(ShimError::Keeper { .. })));
}

#[test]
fn one_region_for_all_groups_in_global_mode() {
    let node = Node::new();
    node.global();
    let carrier = node.start().unwrap();
    let region = carrier.region(group(80)).unwrap();
    assert_eq!(region, carrier.region(group(81)).unwrap());
    assert_eq!(region, Region::Shared(shared_name("c")));
    assert_eq!(region.name().len(), 32);
    // FNV-1a of 128 bits, as others compute it: all nodes must come to one name, for ever.
    assert_eq!(shared_name("a"), "D228CB696F1A8CAF78912B704E4A8964");
    node.live(&region, "1");
    let disk = node.cluster.join("heartbeat/F00D");
    put(&disk.join("dev"), "sdb\n");
    let error = carrier.open(&region, 1, &lives(&[])).unwrap_err();
    assert!(matches!(&error, ShimError::DiskHeartbeat { region, .. } if region == "F00D"));
    fs::remove_dir_all(&disk).unwrap();
    carrier.open(&region, 1, &lives(&[])).unwrap();
    assert_eq!(reference::count(region.name()).unwrap(), 0, "no tool counts here");
    let domain = node.paths.debugfs.join("o2dlm").join(group(81).to_string());
    fs::create_dir_all(&domain).unwrap();
    assert!(matches!(carrier.unused(group(81)), Err(ShimError::InUse { .. })));
    carrier.unused(group(80)).unwrap();
    carrier.close(&region).unwrap();
    assert_eq!(carrier.look().regions, []);
}

#[test]
fn without_a_cluster_there_is_no_region() {
    let node = Node::new();
    fs::remove_dir_all(&node.cluster).unwrap();
    let carrier = node.start().unwrap();
    assert!(matches!(carrier.region(group(90)), Err(ShimError::NoCluster { .. })));
}
