use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::volume::image::mkfs;
use nix::sys::stat::{Mode, makedev};
use o2bridge_core::DeviceId;

const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine of files: a sysfs, a /dev and a mount table.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(machine.path("sys/class/block")).unwrap();
        std::fs::create_dir_all(machine.path("dev")).unwrap();
        std::fs::write(machine.path("mountinfo"), "").unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plug(&self, name: &str, minor: u32, image: &Path) -> Device {
        symlink(image, self.path("dev").join(name)).unwrap();
        let entry = self.path("sys/class/block").join(name);
        std::fs::create_dir(&entry).unwrap();
        std::fs::write(entry.join("dev"), format!("8:{minor}\n")).unwrap();
        std::fs::write(entry.join("size"), "8\n").unwrap();
        let number = DeviceId(makedev(8, minor.into()));
        Device { name: name.into(), path: self.path("dev").join(name), number, sectors: 8 }
    }

    fn unplug(&self, name: &str) {
        std::fs::remove_dir_all(self.path("sys/class/block").join(name)).unwrap();
        std::fs::remove_file(self.path("dev").join(name)).unwrap();
    }

    fn mount(&self, table: &str) {
        std::fs::write(self.path("new"), table).unwrap();
        std::fs::rename(self.path("new"), self.path("mountinfo")).unwrap();
    }

    fn watch(&self) -> (Watch, Receiver<Change>) {
        watch(self.settings())
    }

    fn watch_every(&self, list_ms: u64, reread_ms: u64) -> (Watch, Receiver<Change>) {
        watch(Settings { list_ms, reread_ms, ..self.settings() })
    }

    fn settings(&self) -> Settings {
        Settings {
            sys: self.path("sys"),
            dev: self.path("dev"),
            mountinfo: self.path("mountinfo"),
            clusters: self.path("clusters"),
            lockspaces: None,
            list_ms: 20,
            reread_ms: 60,
            answer_ms: 300,
            storage_ms: 20,
            silent_ms: 100,
            beats_ms: 50,
        }
    }

    /// A disk that never answers: a pipe without a writer keeps whoever opens it.
    fn dead_disk(&self) -> PathBuf {
        let path = self.path("dead");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        path
    }
}

fn watch(settings: Settings) -> (Watch, Receiver<Change>) {
    let (sender, changes) = channel();
    let watch = Watch::start(settings, move |change| drop(sender.send(change))).unwrap();
    (watch, changes)
}

fn next(changes: &Receiver<Change>) -> Change {
    changes.recv_timeout(PATIENCE).unwrap()
}

fn names(change: Change) -> Vec<String> {
    match change {
        Change::Volumes(present) => {
            present.into_iter().map(|present| present.device.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn row(minor: u32, at: &str) -> String {
    format!("80 28 8:{minor} / {at} rw - ocfs2 /dev/x rw\n")
}

fn mount(minor: u64, at: &str, uuid: Option<&str>, path: Option<PathBuf>) -> Mount {
    let uuid = uuid.map(|uuid| uuid.parse().unwrap());
    Mount { device: DeviceId(makedev(8, minor)), mountpoint: at.into(), uuid, path }
}

#[test]
fn nothing_is_a_first_word_too() {
    let machine = Machine::new();
    let (_watch, changes) = machine.watch();
    assert_eq!(next(&changes), Change::Volumes(vec![]));
    assert_eq!(next(&changes), Change::Mounts(vec![]));
    assert!(changes.recv_timeout(Duration::from_millis(200)).is_err(), "nothing changed");
}

#[test]
fn volumes_and_mounts_come_and_go() {
    let arguments = ["-U", UUID, "--cluster-stack=o2cb", "--cluster-name=lab"];
    let Some(image) = mkfs("volumes_and_mounts_come_and_go", &arguments) else { return };
    let machine = Machine::new();
    let noise = machine.path("noise");
    std::fs::write(&noise, [7; 20_000]).unwrap();
    machine.plug("sda", 0, &noise);
    let device = machine.plug("sdb", 16, &image.path);
    machine.mount(&row(16, "/srv"));
    let (_watch, changes) = machine.watch();
    let Change::Volumes(present) = next(&changes) else { panic!("volumes come first") };
    assert_eq!(present.len(), 1);
    assert_eq!(present[0].device, device);
    assert_eq!(present[0].superblock.uuid.to_string(), UUID);
    let srv = |path| mount(16, "/srv", Some(UUID), path);
    assert_eq!(next(&changes), Change::Mounts(vec![srv(Some(device.path.clone()))]));

    machine.mount(&[row(16, "/srv"), row(99, "/other")].concat());
    let other = mount(99, "/other", None, None);
    assert_eq!(next(&changes), Change::Mounts(vec![srv(Some(device.path.clone())), other.clone()]));
    machine.unplug("sdb");
    assert_eq!(next(&changes), Change::Volumes(vec![]));
    assert_eq!(next(&changes), Change::Mounts(vec![srv(None), other.clone()]), "still mounted");
    machine.mount(&row(99, "/other"));
    assert_eq!(next(&changes), Change::Mounts(vec![other]));

    machine.plug("sdb", 16, &image.path);
    assert_eq!(names(next(&changes)), ["sdb"]);
    std::fs::write(&image.path, [0; 20_000]).unwrap();
    assert_eq!(next(&changes), Change::Volumes(vec![]), "read again: wiped");
}

/// Another node made a volume on a disk that was empty when we looked: nobody here is told by the kernel.
#[test]
fn an_order_to_reread_is_followed_at_once() {
    let arguments = ["-U", UUID, "--cluster-stack=o2cb", "--cluster-name=lab"];
    let Some(image) = mkfs("an_order_to_reread_is_followed_at_once", &arguments) else { return };
    let machine = Machine::new();
    let disk = machine.path("disk");
    std::fs::write(&disk, [0; 20_000]).unwrap();
    machine.plug("sda", 0, &disk);
    let (watch, changes) = machine.watch_every(600_000, 600_000);
    assert_eq!(next(&changes), Change::Volumes(vec![]));
    assert_eq!(next(&changes), Change::Mounts(vec![]));
    std::fs::copy(&image.path, &disk).unwrap();
    watch.order(Order::Reread);
    assert_eq!(names(next(&changes)), ["sda"]);
}

#[test]
fn a_dead_disk_holds_up_nobody_for_longer_than_its_time() {
    let name = "a_dead_disk_holds_up_nobody_for_longer_than_its_time";
    let Some(image) = mkfs(name, &["-U", UUID]) else { return };
    let machine = Machine::new();
    let dead = machine.plug("sda", 0, &machine.dead_disk());
    machine.plug("sdb", 16, &image.path);
    let (watch, changes) = machine.watch();
    assert_eq!(names(next(&changes)), ["sdb"]);
    assert_eq!(next(&changes), Change::Mounts(vec![]));

    let uuid: GroupId = UUID.parse().unwrap();
    watch.order(Order::Beats { uuid, devices: vec![dead.clone()] });
    let why = "the disk does not answer".into();
    assert_eq!(next(&changes), Change::Beats { uuid, beats: Beats::Unknown { why } });

    watch.order(Order::Guard([(uuid, Guarded { path: dead.path, offset: 0 })].into()));
    let silent = |change| match change {
        Change::Storage { health: Health::Silent { for_ms }, .. } => for_ms,
        other => panic!("{other:?}"),
    };
    let (first, second) = (silent(next(&changes)), silent(next(&changes)));
    assert!(100 <= first && first < second, "{first}, {second}");
}

/// The manager must hear of all volumes before the kernel's cluster goes online.
#[test]
fn the_first_word_is_of_more_devices_than_can_be_read_at_once() {
    let name = "the_first_word_is_of_more_devices_than_can_be_read_at_once";
    let Some(image) = mkfs(name, &["-U", UUID]) else { return };
    let machine = Machine::new();
    let slow = machine.dead_disk();
    (0..64).for_each(|minor| drop(machine.plug(&format!("sd{}", 100 + minor), minor, &slow)));
    machine.plug("sd999", 99, &image.path);
    let settings = Settings { answer_ms: 600_000, list_ms: 600_000, ..machine.settings() };
    let (_watch, changes) = watch(settings);
    assert!(changes.recv_timeout(Duration::from_millis(300)).is_err(), "not all were asked");
    // Whoever waits for a writer has one.
    let _writer = std::fs::File::options().read(true).write(true).open(&slow).unwrap();
    assert_eq!(names(next(&changes)), ["sd999"]);
}

#[test]
fn a_good_disk_behind_as_many_dead_ones_as_there_are_helpers_is_in_the_first_word() {
    let name = "a_good_disk_behind_as_many_dead_ones_as_there_are_helpers_is_in_the_first_word";
    let Some(image) = mkfs(name, &["-U", UUID]) else { return };
    let machine = Machine::new();
    let dead = machine.dead_disk();
    (0..64).for_each(|minor| drop(machine.plug(&format!("sd{}", 100 + minor), minor, &dead)));
    machine.plug("sd999", 99, &image.path);
    let (_watch, changes) = machine.watch_every(600_000, 600_000);
    assert_eq!(names(next(&changes)), ["sd999"]);
}

#[test]
fn a_volume_that_comes_does_not_wait_for_a_dead_disk_that_comes_with_it() {
    let name = "a_volume_that_comes_does_not_wait_for_a_dead_disk_that_comes_with_it";
    let Some(image) = mkfs(name, &["-U", UUID]) else { return };
    let machine = Machine::new();
    let settings = Settings { answer_ms: 600_000, ..machine.settings() };
    let (_watch, changes) = watch(settings);
    assert_eq!(next(&changes), Change::Volumes(vec![]));
    assert_eq!(next(&changes), Change::Mounts(vec![]));
    machine.plug("sda", 0, &machine.dead_disk());
    machine.plug("sdb", 16, &image.path);
    assert_eq!(names(next(&changes)), ["sdb"]);
}

#[test]
fn who_beats_is_asked_and_answered() {
    let Some(image) = mkfs("who_beats_is_asked_and_answered", &["-U", UUID]) else { return };
    let machine = Machine::new();
    let device = machine.plug("sdb", 16, &image.path);
    let (watch, changes) = machine.watch();
    assert_eq!(names(next(&changes)), ["sdb"]);
    assert_eq!(next(&changes), Change::Mounts(vec![]));
    let uuid = UUID.parse().unwrap();
    watch.order(Order::Beats { uuid, devices: vec![device.clone()] });
    assert_eq!(next(&changes), Change::Beats { uuid, beats: Beats::Quiet });

    let region = machine.path("clusters/lab/heartbeat").join(UUID);
    std::fs::create_dir_all(&region).unwrap();
    std::fs::write(region.join("dev"), "sdb\n").unwrap();
    watch.order(Order::Beats { uuid, devices: vec![device.clone()] });
    let beats = Beats::Beating { slots: vec![], here: true };
    assert_eq!(next(&changes), Change::Beats { uuid, beats });

    std::fs::remove_dir_all(machine.path("clusters")).unwrap();
    let gone = Device { path: "/no/such".into(), ..device };
    watch.order(Order::Beats { uuid, devices: vec![gone] });
    let why = "cannot open /no/such: No such file or directory (os error 2)".into();
    assert_eq!(next(&changes), Change::Beats { uuid, beats: Beats::Unknown { why } });
}

#[test]
fn storage_is_guarded_while_ordered() {
    let machine = Machine::new();
    let (watch, changes) = machine.watch();
    next(&changes);
    next(&changes);
    let path = machine.path("disk");
    std::fs::write(&path, [0; 8192]).unwrap();
    let uuid: GroupId = UUID.parse().unwrap();
    let guarded = Guarded { path: path.clone(), offset: 1024 };
    watch.order(Order::Guard([(uuid, guarded)].into()));
    assert_eq!(next(&changes), Change::Storage { uuid, health: Health::Good });
    std::fs::remove_file(&path).unwrap();
    for _ in 0..3 {
        match next(&changes) {
            Change::Storage {
                health: Health::Failing { errno: nix::libc::ENOENT, .. }, ..
            } => {}
            other => panic!("{other:?}"),
        }
    }
    watch.order(Order::Guard(BTreeMap::new()));
    while changes.recv_timeout(Duration::from_millis(300)).is_ok() {}
}

#[test]
fn dropping_ends_it() {
    let (watch, changes) = Machine::new().watch();
    next(&changes);
    drop(watch);
    while changes.recv_timeout(PATIENCE).is_ok() {}
    let ended = changes.recv_timeout(PATIENCE);
    assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
}
