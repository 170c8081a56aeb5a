//! The stock tools on volumes of user stacks, which say half or nothing of what they do.

use std::time::Duration;

use super::super::bridge::DISK;
use super::super::stock::{self, MOUNT};
use super::{Dlm, boot, config, fits, is_in_use, is_unused};
use crate::ensure;
use crate::error::Result;
use crate::guest::Guest;
use crate::run::Context;

const LIMIT: Duration = Duration::from_secs(90);

/// mount, umount, fsck, tunefs and mkfs: a group for each while it lasts, and none after it.
pub(in crate::scenario) fn run(context: &Context, label: &str, dlm: Dlm) -> Result<()> {
    fits(context, dlm)?;
    let lab = boot(context, 1, label, dlm)?;
    let guest = lab.guest(1);
    guest.start_o2bridged(&config(dlm))?;
    if dlm.asks() {
        super::super::bridge::wait_ready(guest, 1)?;
    }
    for _ in 0..2 {
        stock::mount(guest, DISK)?;
        is_in_use(guest)?;
        let handed = "! o2bridge list | grep -qw ocfs2";
        guest.wait_until("the tool's service is replaced", LIMIT, handed)?;
        stock::umount(guest)?;
        is_unused(guest)?;
    }
    lab.step("mounted and unmounted twice");
    quick(guest)?;
    for (tool, command) in [
        ("fsck.ocfs2", format!("fsck.ocfs2 -fy {DISK}")),
        ("tunefs.ocfs2", format!("tunefs.ocfs2 -L other {DISK} </dev/null")),
        (
            "mkfs.ocfs2",
            format!(
                "yes | mkfs.ocfs2 -N 4 -J size=4M -L lab --cluster-stack={label} --cluster-name=lab {DISK}"
            ),
        ),
    ] {
        let before = begins(guest);
        guest.ok_within(&command, LIMIT)?;
        is_unused(guest)?;
        let seen = begins(guest).split_off(before.len());
        let expected = if label == "cman" { tool } else { "lockspace" };
        ensure!(seen.iter().any(|one| one == expected), "{tool} on {label} was seen as {seen:?}");
        lab.step(&format!("{tool} was seen as {seen:?}"));
    }
    guest.ok("kill -TERM $(pidof o2bridged)")?;
    let gone = "! pidof o2bridged && ! pidof o2bridge-keeper";
    guest.wait_until("o2bridged ends", Duration::from_secs(40), gone)?;
    ensure!(guest.is_on(), "{} was reset: {:?}", guest.name(), guest.off());
    Ok(())
}

/// A mount that is over before anybody could have looked.
fn quick(guest: &Guest) -> Result<()> {
    guest.ok_within(&format!("mount -t ocfs2 {DISK} {MOUNT} && umount {MOUNT}"), LIMIT)?;
    is_unused(guest)
}

/// The services that began so far, but for the one that stands ahead.
fn begins(guest: &Guest) -> Vec<String> {
    let log = guest.log("o2bridged.log");
    let lines = log.lines().filter(|line| line.contains("event Begin("));
    let names = lines.filter_map(|line| {
        let (_, rest) = line.split_once("service: ServiceName(\"")?;
        rest.split('"').next().map(str::to_owned)
    });
    names.filter(|name| name != "volume").collect()
}
