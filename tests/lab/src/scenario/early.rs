//! Mounts that come before the region stands, when it has just gone, at READY, or before the peers' kernels know the node.

use std::time::{Duration, Instant};

use super::bridge::{self, DISK, FENCED, GLOBAL};
use super::ordinary::{cross_over, end};
use super::seen;
use super::stock::{self, MOUNT};
use crate::agent::Output;
use crate::ensure;
use crate::error::Result;
use crate::guest::{Guest, Job};
use crate::lab::{Lab, Plan};
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "early",
        guests: 2,
        text: "mounts before o2bridged starts, of a new device, or in the midst of a stop wait; none goes to the disk",
        kernels: &[],
        run: early,
    },
    Scenario {
        name: "newcomer",
        guests: 2,
        text: "a mount on a node that its peer's kernel does not know yet waits there until it does",
        kernels: &[],
        run: newcomer,
    },
    Scenario {
        name: "globalready",
        guests: 2,
        text: "with a global heartbeat, where a mount waits for nothing: one at READY succeeds",
        kernels: &[],
        run: at_ready,
    },
];

/// Everything that is not a mount.
const SOON: Duration = Duration::from_secs(20);

/// A classic mount waits for several rounds of heartbeat before it succeeds or fails.
const MOUNT_LIMIT: Duration = Duration::from_secs(90);

/// Regions that beat on anything but the RAM disk.
const ON_DISKS: &str =
    "cat /sys/kernel/config/cluster/lab/heartbeat/*/dev 2>/dev/null | grep -v ram0";

/// A device that is not there until it is made.
const MAKE_LATE: &str = "dmsetup create late --table '0 522240 linear /dev/vdb 2048'";
const LATE_DISK: &str = "/dev/mapper/late";
const LATE: &str = "/lab/late";

fn early(context: &Context) -> Result<()> {
    let lab = bridge::boot(context, 2, "")?;
    let mut jobs = Vec::new();
    for guest in lab.guests() {
        guest.ok("modprobe ocfs2_stack_o2cb")?;
        // As impatient as a machine that boots: the next try follows the last one at once.
        let tries = format!(
            "mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config; \
             until mount -t ocfs2 {DISK} {MOUNT} 2>/dev/null; do {ON_DISKS} && exit 9; sleep 0.1; done"
        );
        jobs.push((guest, guest.spawn(&tries)?));
    }
    lab.step("both nodes try to mount, again and again");
    for guest in lab.guests() {
        guest.start_o2bridged(FENCED)?;
    }
    for (guest, job) in &jobs {
        let output = job.wait(Duration::from_secs(120))?;
        ensure!(output.exit == 0, "{}: exit {}, {}", guest.name(), output.exit, output.stderr);
        beats_on_no_disk(guest)?;
        lab.step(&format!("{} mounted, its region is in memory", guest.name()));
    }
    cross_over(&lab)?;
    of_a_new_device(&lab)?;
    in_a_stop(&lab)?;
    lab.guests().try_for_each(bridge::all_alive)?;
    stock::umount(lab.guest(2))?;
    bridge::stop(lab.guest(2))
}

/// n2 uses a volume that n1 cannot see: a device of device mapper in the midst of a disk. On n1 that device is mounted
/// by who made it, before anybody has read it: n1's daemon is held until the mount waits.
fn of_a_new_device(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    lab.plug_disk("late", 256, &[1, 2])?;
    for guest in [one, two] {
        guest.wait_until("the new disk", SOON, "test -b /dev/vdb")?;
        guest.ok(&format!("modprobe dm_mod && mkdir -p {LATE}"))?;
    }
    two.ok(MAKE_LATE)?;
    bridge::make_volume(two, LATE_DISK, "")?;
    let uuid = seen::uuid(two, LATE_DISK)?;
    seen::wait_volume(two, &uuid, "state", "region")?;
    two.ok_within(
        &format!("mount -t ocfs2 {LATE_DISK} {LATE} && echo two >{LATE}/two"),
        MOUNT_LIMIT,
    )?;
    let said = format!("grep 'not seen here' /lab/share/log/o2bridged.log | grep -q {uuid}");
    one.wait_until("n1 has heard of the volume", SOON, &said)?;
    one.ok("kill -STOP $(pidof o2bridged)")?;
    let mount = one.spawn(&format!("{MAKE_LATE} && exec mount -t ocfs2 {LATE_DISK} {LATE}"))?;
    until_it_waits(one, &mount)?;
    lab.step("a mount of a device that n1's daemon has not seen waits");
    one.ok("kill -CONT $(pidof o2bridged)")?;
    let output = until_it_ends(one, &mount)?;
    ensure!(output.exit == 0, "the mount of n1: exit {}, {}", output.exit, output.stderr);
    beats_on_no_disk(one)?;
    one.ok(&format!("[ $(cat {LATE}/two) = two ] && echo one >{LATE}/one"))?;
    two.ok(&format!("[ $(cat {LATE}/one) = one ]"))?;
    lab.step("n1 has mounted it, its region is in memory");
    for guest in [one, two] {
        guest.ok_within(&format!("umount {LATE}"), MOUNT_LIMIT)?;
        // The daemon may be looking who beats on it.
        guest.wait_until("the device goes", SOON, "dmsetup remove late")?;
    }
    let gone = format!("! test -d /sys/kernel/config/cluster/lab/heartbeat/{uuid}");
    [one, two]
        .iter()
        .try_for_each(|guest| guest.wait_until("its region goes", SOON, &gone).map(drop))
}

/// n1's daemon is told to end while n2 has the volume mounted. A mount comes when n1's region is gone, and the kernel's
/// cluster is not: it has to wait for the end, and then to fail. That moment lasts some tenths of a second; Linux 5.10
/// takes up to two seconds for the region as well. So the daemon is held there until the mount waits.
fn in_a_stop(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    stock::umount(one)?;
    let (cluster, uuid) = ("/sys/kernel/config/cluster/lab", seen::uuid(one, DISK)?);
    // With a higher priority than the daemon has, and without a process for each look.
    let hold = format!(
        "daemon=$(pidof o2bridged); exec 3<> <(:); kill -TERM $daemon; \
         while [ -d {cluster}/heartbeat/{uuid} ]; do read -t 0.01 -u 3; done; \
         kill -STOP $daemon; [ -d {cluster} ]"
    );
    one.ok(&format!("chrt -f 50 bash -c '{hold}'"))?;
    let mount = one.spawn(&format!("exec mount -t ocfs2 {DISK} {MOUNT}"))?;
    until_it_waits(one, &mount)?;
    lab.step("the region of n1 is gone, its daemon is held, and a mount waits");
    one.ok("kill -CONT $(pidof o2bridged)")?;
    let output = until_it_ends(one, &mount)?;
    ensure!(output.exit != 0, "n1 has mounted, beside n2");
    bridge::stopped(one)?;
    one.ok(&format!("! mountpoint -q {MOUNT}"))?;
    two.ok(&format!("echo on >{MOUNT}/on"))?;
    lab.step(&format!("the daemon has ended, and the mount failed: {}", output.stderr.trim()));
    Ok(())
}

/// The mount waits for the tools' mutex.
fn until_it_waits(guest: &Guest, mount: &Job) -> Result<()> {
    // In semop or semtimedop.
    let waits = "grep -Eq '^(65|220) ' /proc/$(pidof mount.ocfs2)/syscall";
    let began = Instant::now();
    while guest.run(waits, SOON)?.exit != 0 {
        beats_on_no_disk(guest)?;
        ensure!(mount.ended().is_none(), "the mount has not waited: {:?}", mount.ended());
        ensure!(began.elapsed() < Duration::from_secs(10), "the mount does not come");
    }
    Ok(())
}

fn until_it_ends(guest: &Guest, mount: &Job) -> Result<Output> {
    let began = Instant::now();
    loop {
        beats_on_no_disk(guest)?;
        if let Some(output) = mount.ended() {
            return Ok(output);
        }
        ensure!(began.elapsed() < MOUNT_LIMIT, "the mount waits on");
    }
}

fn beats_on_no_disk(guest: &Guest) -> Result<()> {
    let on_disks = guest.run(ON_DISKS, SOON)?;
    ensure!(on_disks.exit != 0, "{} beats on a disk: {}", guest.name(), on_disks.stdout);
    Ok(())
}

/// n2's daemon has heard of n1, and stands still with its keeper before its kernel takes n1 for alive. Nothing
/// announces a stock mount. Their kernels hold n1 back: its own waits until it is connected to whoever it takes
/// for alive, and n2's would refuse a node that it does not. n2 mounts alone meanwhile.
fn newcomer(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2))?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    lab.form(&bridge::corosync(2))?;
    lab.guests().try_for_each(|guest| guest.start_o2bridged(FENCED))?;
    lab.plug_disk("shared", 512, &[2])?;
    two.wait_until("the disk", SOON, &format!("test -b {DISK}"))?;
    bridge::make_volume(two, DISK, "")?;
    bridge::wait_ready(two, 1)?;
    let uuid = seen::uuid(two, DISK)?;

    let stops = two.spawn(
        "until grep -q 'node uses the group now.*node: 1,' /lab/share/log/o2bridged.log; do :; done; \
         kill -STOP $(pidof o2bridge-keeper o2bridged)",
    )?;
    lab.plug_disk("shared", 512, &[1])?;
    stops.wait(SOON)?;
    let region = format!("test -d /sys/kernel/config/cluster/lab/heartbeat/{uuid}");
    one.wait_until("the region of n1", SOON, &region)?;
    let waits = one.spawn(&format!("mount -t ocfs2 {DISK} {MOUNT}"))?;
    let sleeps = "grep -q '^State:.D' /proc/$(pidof mount.ocfs2)/status";
    one.wait_until("the mount of n1 is in the kernel", SOON, sleeps)?;
    stock::mount(two, DISK)?;
    two.ok(&format!("echo here >{MOUNT}/file"))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(waits.ended().is_none(), "n1 has mounted, and n2's kernel does not know it");
    lab.step("n2 mounted alone, and n1 waits: n2's kernel does not know it");

    two.ok("kill -CONT $(pidof o2bridge-keeper o2bridged)")?;
    let output = waits.wait(Duration::from_secs(90))?;
    ensure!(output.exit == 0, "the mount of n1: exit {}, {}", output.exit, output.stderr);
    lab.step("n2 goes on, and n1 mounts");
    let text = one.ok(&format!("cat {MOUNT}/file"))?;
    ensure!(text == "here", "n1 reads '{text}'");
    cross_over(&lab)?;
    lab.guests().try_for_each(bridge::all_alive)?;
    end(&lab)
}

/// A service manager that mounts when it hears READY, once, and ends with what became of it.
const MANAGER: &str = r#"
import socket, subprocess, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("/run/manager")
while "READY=1" not in s.recv(4096).decode().splitlines():
    pass
sys.exit(subprocess.call(["mount", "-t", "ocfs2", sys.argv[1], sys.argv[2]]))
"#;

/// As fstab has it, with `_netdev`.
fn at_ready(context: &Context) -> Result<()> {
    let lab = bridge::boot(context, 2, "--global-heartbeat")?;
    let mut jobs = Vec::new();
    for guest in lab.guests() {
        guest.put("/tmp/manager.py", MANAGER)?;
        guest.put("/etc/o2bridge/o2bridge.toml", &format!("{FENCED}{GLOBAL}"))?;
        let manager = guest.spawn(&format!("exec python3 /tmp/manager.py {DISK} {MOUNT}"))?;
        guest.wait_until("the manager listens", SOON, "test -S /run/manager")?;
        let daemon =
            "env NOTIFY_SOCKET=/run/manager o2bridged --config /etc/o2bridge/o2bridge.toml";
        guest.daemon("o2bridged", daemon)?;
        jobs.push((guest, manager));
    }
    let began = Instant::now();
    for (guest, job) in &jobs {
        let output = job.wait(MOUNT_LIMIT)?;
        ensure!(output.exit == 0, "{}: exit {}, {}", guest.name(), output.exit, output.stderr);
        lab.step(&format!(
            "{} mounted at READY, {:?} after the start",
            guest.name(),
            output.at - began
        ));
    }
    cross_over(&lab)?;
    end(&lab)
}
