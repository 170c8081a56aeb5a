//! Mounts that come before the region stands, or before the peers' kernels know the node.

use std::time::Duration;

use super::bridge::{self, DISK, FENCED};
use super::ordinary::{cross_over, end};
use super::seen;
use super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::lab::Plan;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "early",
        guests: 2,
        text: "mounts tried from before o2bridged starts wait for the region; none goes to the disk",
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
];

/// Everything that is not a mount.
const SOON: Duration = Duration::from_secs(20);

/// Regions that beat on anything but the RAM disk.
const ON_DISKS: &str =
    "cat /sys/kernel/config/cluster/lab/heartbeat/*/dev 2>/dev/null | grep -v ram0";

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
        let on_disks = guest.run(ON_DISKS, Duration::from_secs(10))?;
        ensure!(on_disks.exit != 0, "{} beats on a disk: {}", guest.name(), on_disks.stdout);
        lab.step(&format!("{} mounted, its region is in memory", guest.name()));
    }
    cross_over(&lab)?;
    end(&lab)
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
