use std::collections::BTreeMap;

use super::*;
use crate::user_heartbeat::Paths;
use crate::user_heartbeat::fake::{self, put};

/// Regions without attributes, as the driver has them; a plain directory does the rest.
struct Plain;

impl Ground for Plain {
    fn make(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn start(&self, _: &Path, _: &fs::File) -> io::Result<()> {
        Err(Errno::EPERM.into())
    }
}

const GROUP: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);

struct Kernel {
    _dir: tempfile::TempDir,
    paths: Paths,
    region: PathBuf,
}

impl Kernel {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = fake::paths(dir.path());
        let cluster = fake::cluster(&paths, &[1, 2, 10]);
        put(&paths.sys_o2cb.join("heartbeat_mode"), "user\n");
        let region = cluster.join("heartbeat").join(GROUP.to_string());
        Self { _dir: dir, paths, region }
    }

    fn start(&self) -> Symlinks {
        Symlinks::start((&self.paths).into(), Box::new(Plain)).unwrap()
    }

    fn links(&self) -> Vec<String> {
        tree::links(&self.region).unwrap()
    }
}

fn lives(slots: &[u8]) -> Lives {
    slots.iter().map(|slot| (*slot, Incarnation(1))).collect()
}

#[test]
fn links_come_and_go() {
    let kernel = Kernel::new();
    let carrier = kernel.start();
    let region = carrier.region(GROUP).unwrap();
    carrier.open(&region, 1, &lives(&[2])).unwrap();
    carrier.open(&region, 1, &lives(&[2, 10])).unwrap();
    assert_eq!(kernel.links(), ["n1", "n2"], "peers that come later come by up");
    carrier.up(&region, 10, Incarnation(1)).unwrap();
    carrier.up(&region, 10, Incarnation(1)).unwrap();
    let target = fs::read_link(kernel.region.join("n10")).unwrap();
    assert_eq!(target, kernel.paths.configfs.join("cluster/c/node/n10"));
    carrier.down(&region, 1).unwrap();
    carrier.down(&region, 1).unwrap();
    assert_eq!(carrier.standing(&region).unwrap(), BTreeMap::from([(2, None), (10, None)]));
    assert_eq!(carrier.look().regions.len(), 1);
    carrier.close(&region).unwrap();
    carrier.close(&region).unwrap();
    assert!(!kernel.region.exists());
    assert_eq!(carrier.standing(&region).unwrap(), Standing::new());
}

#[test]
fn a_region_without_us_gets_its_peers_first() {
    let kernel = Kernel::new();
    let carrier = kernel.start();
    let region = carrier.region(GROUP).unwrap();
    // As a daemon leaves it that is killed between two links.
    fs::create_dir_all(&kernel.region).unwrap();
    carrier.up(&region, 10, Incarnation(1)).unwrap();
    carrier.open(&region, 1, &lives(&[2, 10])).unwrap();
    assert_eq!(kernel.links(), ["n1", "n10", "n2"]);
    let first = carrier.links(&region).unwrap().remove(0);
    assert!(first.1.is_local, "it is the first to go: {first:?}");
    let view = carrier.look().regions.remove(0);
    assert_eq!(view.up, BTreeMap::from([(2, None), (10, None)]), "peers");
    assert_eq!(view.live, Some(BTreeSet::from([1, 2, 10])));
}

#[test]
fn a_link_counts_by_its_target() {
    let kernel = Kernel::new();
    let carrier = kernel.start();
    let region = carrier.region(GROUP).unwrap();
    carrier.open(&region, 1, &lives(&[])).unwrap();
    // As configfs shows it: relative.
    symlink("../../../../cluster/c/node/n2", kernel.region.join("by-hand")).unwrap();
    carrier.up(&region, 2, Incarnation(1)).unwrap();
    assert_eq!(kernel.links(), ["by-hand", "n1"], "a second link would raise it twice");
    carrier.down(&region, 2).unwrap();
    assert_eq!(kernel.links(), ["n1"]);
    let error = carrier.up(&region, 3, Incarnation(1)).unwrap_err();
    assert!(error.to_string().contains("no node with the number 3"), "{error}");
}

#[test]
fn a_region_with_a_lock_domain_stays_as_it_is() {
    let kernel = Kernel::new();
    let carrier = kernel.start();
    let region = carrier.region(GROUP).unwrap();
    carrier.open(&region, 1, &lives(&[2])).unwrap();
    let domain = kernel.paths.debugfs.join("o2dlm").join(GROUP.to_string());
    fs::create_dir_all(&domain).unwrap();
    let error = carrier.close(&region).unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY as i32, "{error}");
    assert_eq!(kernel.links(), ["n1", "n2"]);
    fs::remove_dir(&domain).unwrap();

    fs::create_dir(kernel.region.join("somebody")).unwrap();
    let error = carrier.close(&region).unwrap_err();
    assert!(error.to_string().contains("a link was made in it"), "{error}");
    assert_eq!(error.errno(), Errno::ENOTEMPTY as i32);
}

#[test]
fn the_mode_in_both_of_its_places() {
    let kernel = Kernel::new();
    let places = symlink_places(&kernel);
    put(&kernel.paths.sys_o2cb.join("heartbeat_mode"), "disk\n");
    kernel.start();
    let mode = |path: &Path| fs::read_to_string(path.join("heartbeat_mode")).unwrap();
    assert_eq!(mode(&kernel.paths.sys_o2cb), "user\n");
    put(&kernel.paths.configfs.join("cluster/heartbeat_mode"), "disk\n");
    put(&kernel.paths.configfs.join("cluster/heartbeat_available_modes"), "disk\n");
    assert!(!places.can_be_user().unwrap(), "the newer place is the one that counts");
    put(&kernel.paths.configfs.join("cluster/heartbeat_available_modes"), "disk\nuser\n");
    assert!(places.can_be_user().unwrap());
    kernel.start();
    assert_eq!(mode(&kernel.paths.configfs.join("cluster")), "user\n");
    for path in places.mode_files() {
        fs::remove_file(path).unwrap();
    }
    let started = Symlinks::start(symlink_places(&kernel), Box::new(Plain));
    assert!(matches!(started, Err(ShimError::Unusable(_))));
}

fn symlink_places(kernel: &Kernel) -> Places {
    (&kernel.paths).into()
}
