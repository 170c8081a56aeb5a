//! A mount that comes before the region stands.

use std::time::Duration;

use super::bridge::{self, DISK, FENCED};
use super::ordinary::{cross_over, end};
use super::stock::MOUNT;
use crate::ensure;
use crate::error::Result;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "early",
    guests: 2,
    text: "mounts tried from before o2bridged starts wait for the region; none goes to the disk",
    kernels: &[],
    run: early,
}];

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
