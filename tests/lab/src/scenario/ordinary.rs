//! Ordinary volumes, plain mounts: the main job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{bridge, stock};
use crate::ensure;
use crate::error::Result;
use crate::lab::Lab;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "ordinary",
        guests: 2,
        text: "an ordinary volume, plain mounts on two nodes, fsck, tunefs, plain umounts",
        kernels: &[],
        run: |context| ordinary(context, 2, ""),
    },
    Scenario {
        name: "death",
        guests: 2,
        text: "a node is killed while it writes; the survivor recovers and loses nothing",
        kernels: &[],
        run: |context| death(context, ""),
    },
];

fn mounted(context: &Context, guests: u8, mkfs: &str) -> Result<Arc<Lab>> {
    let lab = bridge::boot(context, guests, mkfs)?;
    bridge::start(&lab, bridge::FENCED)?;
    for guest in lab.guests() {
        let started = Instant::now();
        stock::mount(guest, bridge::DISK)?;
        lab.step(&format!("{} mounted in {} ms", guest.name(), started.elapsed().as_millis()));
    }
    Ok(lab)
}

fn ordinary(context: &Context, guests: u8, mkfs: &str) -> Result<()> {
    let lab = mounted(context, guests, mkfs)?;
    for guest in lab.guests() {
        guest.ok(&format!("echo {0} >{1}/from-{0}", guest.name(), stock::MOUNT))?;
    }
    for guest in lab.guests() {
        for other in lab.guests() {
            let text = guest.ok(&format!("cat {}/from-{}", stock::MOUNT, other.name()))?;
            ensure!(text.trim() == other.name(), "{} reads '{text}'", guest.name());
        }
    }
    lab.step("files cross over");
    for guest in lab.guests() {
        stock::umount(guest)?;
    }
    let limit = Duration::from_secs(90);
    lab.guest(1).ok_within(&format!("fsck.ocfs2 -fy {}", bridge::DISK), limit)?;
    lab.guest(1).ok_within(&format!("tunefs.ocfs2 -L other {} </dev/null", bridge::DISK), limit)?;
    lab.step("unmounted, checked, tuned");
    for guest in lab.guests() {
        bridge::stop(guest)?;
    }
    lab.step("nothing left in configfs");
    Ok(())
}

fn death(context: &Context, mkfs: &str) -> Result<()> {
    let lab = mounted(context, 2, mkfs)?;
    stock::start_load(lab.guest(2))?;
    lab.step("n2 writes");
    let killed = Instant::now();
    lab.guest(2).kill();
    let took = bridge::recovered(&lab, 1, 2, killed)?;
    context.figure("kill to first access", took);
    stock::umount(lab.guest(1))?;
    bridge::stop(lab.guest(1))?;
    lab.step("unmounted, nothing left in configfs");
    Ok(())
}
