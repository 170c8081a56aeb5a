//! Ordinary volumes, plain mounts: the main job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bridge::{self, DISK, FENCED, GLOBAL};
use super::seen;
use super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::{AND_NEWEST, Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "ordinary",
        guests: 2,
        text: "an ordinary volume, plain mounts on two nodes, fsck, tunefs, plain umounts",
        kernels: AND_NEWEST,
        run: |context| ordinary(context, 2, "", FENCED),
    },
    Scenario {
        name: "ordinary3",
        guests: 3,
        text: "the same on three nodes",
        kernels: &[],
        run: |context| ordinary(context, 3, "", FENCED),
    },
    Scenario {
        name: "listed",
        guests: 2,
        text: "a volume that names no cluster, as mkfs makes it by default, served because it is listed",
        kernels: &[],
        run: listed,
    },
    Scenario {
        name: "global",
        guests: 2,
        text: "the same with a global heartbeat",
        kernels: AND_NEWEST,
        run: |context| ordinary(context, 2, "--global-heartbeat", &format!("{FENCED}{GLOBAL}")),
    },
];

/// Guests that all have the volume mounted.
pub(super) fn mounted(context: &Context, guests: u8, mkfs: &str, config: &str) -> Result<Arc<Lab>> {
    let lab = bridge::boot(context, guests, mkfs)?;
    bridge::start(&lab, config)?;
    for guest in lab.guests() {
        let started = Instant::now();
        stock::mount(guest, DISK)?;
        lab.step(&format!("{} mounted in {} ms", guest.name(), started.elapsed().as_millis()));
    }
    Ok(lab)
}

/// Every guest writes a file, and every guest reads all of them.
pub(super) fn cross_over(lab: &Lab) -> Result<()> {
    for guest in lab.guests() {
        guest.ok(&format!("echo {0} >{MOUNT}/from-{0}", guest.name()))?;
    }
    for guest in lab.guests() {
        for other in lab.guests() {
            let text = guest.ok(&format!("cat {MOUNT}/from-{}", other.name()))?;
            ensure!(text.trim() == other.name(), "{} reads '{text}'", guest.name());
        }
    }
    lab.step("files cross over");
    Ok(())
}

/// Unmounts everywhere and stops the daemons: nothing is left.
pub(super) fn end(lab: &Lab) -> Result<()> {
    lab.guests().filter(|guest| is_mounted(guest)).try_for_each(stock::umount)?;
    lab.guests().try_for_each(bridge::stop)?;
    lab.step("unmounted, nothing left in configfs");
    Ok(())
}

fn is_mounted(guest: &Guest) -> bool {
    guest.ok(&format!("mountpoint -q {MOUNT}")).is_ok()
}

fn ordinary(context: &Context, guests: u8, mkfs: &str, config: &str) -> Result<()> {
    let lab = mounted(context, guests, mkfs, config)?;
    cross_over(&lab)?;
    let one = lab.guest(1);
    stock::umount(one)?;
    tools_see_the_others(one)?;
    lab.step("unmounted on n1: its fsck sees that the volume is in use elsewhere");
    lab.guests().skip(1).try_for_each(stock::umount)?;
    tools_run(one)?;
    lab.step("unmounted, checked, tuned");
    regions_stay(&lab, config.contains(GLOBAL))?;
    lab.guests().try_for_each(bridge::stop)?;
    lab.guests().try_for_each(bridge::peaceful)?;
    lab.step("nothing left in configfs, nobody was declared dead");
    Ok(())
}

/// After the last umount each region stands by our reference, under the name that its mode wants.
fn regions_stay(lab: &Lab, is_global: bool) -> Result<()> {
    let uuid = lab.guest(1).ok(&format!("tunefs.ocfs2 -Q '%U' {DISK}"))?;
    let first = bridge::regions(lab.guest(1))?;
    ensure!(first.len() == 1, "after the umount there is {first:?}");
    ensure!((first == [uuid.as_str()]) != is_global, "the region of {uuid} is {first:?}");
    for guest in lab.guests() {
        let regions = bridge::regions(guest)?;
        ensure!(regions == first, "{} has {regions:?}, not {first:?}", guest.name());
        let mode = guest.ok("cat /sys/kernel/config/cluster/lab/heartbeat/mode")?;
        ensure!((mode == "global") == is_global, "{} has the mode {mode}", guest.name());
    }
    Ok(())
}

/// The tools use the same locks as a mount, so a volume that another node has mounted is refused.
fn tools_see_the_others(guest: &Guest) -> Result<()> {
    let output = guest.run(&format!("fsck.ocfs2 -fy {DISK}"), Duration::from_secs(60))?;
    ensure!(output.exit != 0, "fsck.ocfs2 ran on a mounted volume: {}", output.stdout);
    ensure!(
        !output.stdout.contains("Pass 1"),
        "fsck.ocfs2 worked on a mounted volume: {}",
        output.stdout
    );
    Ok(())
}

fn tools_run(guest: &Guest) -> Result<()> {
    let limit = Duration::from_secs(90);
    guest.ok_within(&format!("fsck.ocfs2 -fy {DISK}"), limit)?;
    guest.ok_within(&format!("tunefs.ocfs2 -L other {DISK} </dev/null"), limit)?;
    let label = guest.ok(&format!("debugfs.ocfs2 -R stats {DISK} | grep -c 'Label: other'"))?;
    ensure!(label == "1", "tunefs.ocfs2 has changed nothing");
    Ok(())
}

/// What most volumes of old are like.
fn listed(context: &Context) -> Result<()> {
    let lab = bridge::boot(context, 2, "")?;
    let mkfs = format!("echo y | mkfs.ocfs2 -q -F -N 4 -J size=4M -L old {DISK}");
    lab.guest(1).ok_within(&mkfs, Duration::from_secs(90))?;
    let uuid = seen::uuid(lab.guest(1), DISK)?;
    let config = format!("{FENCED}[user_heartbeat]\nvolumes = [\"{uuid}\"]\n");
    bridge::start(&lab, &config)?;
    lab.guests().try_for_each(|guest| stock::mount(guest, DISK))?;
    cross_over(&lab)?;
    end(&lab)
}
