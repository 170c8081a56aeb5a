//! Steps beside dlm_controld: volumes of user stacks, with fs/dlm for locks.

pub(super) mod fall;
pub(super) mod tools;
pub(super) mod trace;

use std::sync::Arc;
use std::time::Duration;

use super::bridge::{self, DISK};
use super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::{Corosync, Guest};
use crate::lab::{Lab, Plan};
use crate::run::Context;

/// The one kernel of the lab where DOWN is no bug.
pub(super) const SAFE_KERNEL: &str = "5.10";

/// How dlm_controld is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dlm {
    /// It asks filesystems before a lockspace starts again; the kernel is told of deaths by others.
    Asks,
    /// It asks, and fences by itself, beside our daemon that fences, too.
    Fences,
    /// fs/dlm tells OCFS2 of deaths itself: its default.
    Default,
}

impl Dlm {
    /// Whether the shim beside it is `control`.
    pub(super) fn asks(self) -> bool {
        match self {
            Self::Asks | Self::Fences => true,
            Self::Default => false,
        }
    }
}

/// The shim `control`, with peers that the lab fences, however long it takes.
pub(super) fn control() -> String {
    bridge::FENCED
        .replace("user-heartbeat", "control")
        .replace("timeout_ms = 20000", "timeout_ms = 60000")
}

/// The shim `observe`. Nobody fences here: with dlm_controld that is its own affair.
pub(super) const OBSERVE: &str = "
[shim]
kind = \"observe\"
[log]
level = \"debug\"
";

/// Our daemon's configuration beside it.
pub(super) fn config(dlm: Dlm) -> String {
    match dlm {
        Dlm::Asks | Dlm::Fences => control(),
        Dlm::Default => OBSERVE.to_owned(),
    }
}

/// Boots guests with a shared disk and a volume of a user stack on it, traces their kernels, forms corosync
/// among them and starts dlm_controld. With two guests n1 has two votes, with three all three: it goes on alone.
pub(super) fn boot(context: &Context, guests: u8, label: &str, dlm: Dlm) -> Result<Arc<Lab>> {
    let lab = formed(context, &corosync(guests), label, dlm)?;
    lab.guests().try_for_each(|guest| start(guest, dlm))?;
    lab.step("dlm_controld runs");
    Ok(lab)
}

/// [`boot`] without dlm_controld, for the members of this cluster.
pub(super) fn formed(
    context: &Context,
    cluster: &Corosync,
    label: &str,
    dlm: Dlm,
) -> Result<Arc<Lab>> {
    let guests = u8::try_from(cluster.members.len()).unwrap_or(u8::MAX);
    let lab = context.boot(&Plan::new(guests).disk("shared", 512))?;
    lab.guests().try_for_each(|guest| prepare(guest, dlm))?;
    lab.guests().try_for_each(trace::start)?;
    make_volume(lab.guest(1), DISK, label)?;
    lab.form(cluster)?;
    Ok(lab)
}

/// See [`boot`].
pub(super) fn corosync(guests: u8) -> Corosync {
    let mut settings = bridge::corosync(guests);
    if guests == 3 {
        settings.votes = vec![3, 1, 1];
    }
    settings
}

/// What an administrator of such a cluster has at boot, from the services `dlm` and `o2cb`, and from udev.
///
/// The tools take their locks through dlmfs if its module is there, else through libdlm. Where fs/dlm compares
/// the cluster's name, which is where it tells OCFS2 of deaths itself, it refuses what comes from dlmfs: that
/// names none. So there the module must not be loaded.
pub(super) fn prepare(guest: &Guest, dlm: Dlm) -> Result<()> {
    guest.ok("modprobe -a configfs dlm ocfs2 ocfs2_stack_user")?;
    guest
        .ok("mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config")?;
    guest.ok("mkdir -p /dlm /dev/misc")?;
    match dlm {
        Dlm::Asks | Dlm::Fences => {
            guest.ok("modprobe ocfs2_dlmfs && mount -t ocfs2_dlmfs ocfs2_dlmfs /dlm")?;
        }
        Dlm::Default => guest.daemon("links", LINKS)?,
    }
    let link = "for n in dlm-control dlm-monitor dlm_plock ocfs2_control; do \
                ln -sf ../$n /dev/misc/$n; done";
    guest.ok(link).map(drop)
}

/// As udev does it for lockspaces of programs.
const LINKS: &str = "bash -c 'while sleep 0.05; do for d in /dev/dlm_*; do \
                     [ -e /dev/misc/${d##*/} ] || ln -sf ../${d##*/} /dev/misc/; done; done'";

/// The lab's power switch as dlm_controld knows it; it names no action to an agent, whose default is `reboot`.
const FENCES: &str = "enable_fencing=1\npost_join_delay=3\n\ndevice lab /tmp/fence_dlm\n\
                      connect lab node=1 plug=n1\nconnect lab node=2 plug=n2\nconnect lab node=3 plug=n3\n";

/// dlm_controld's agent, which can be made to fail.
const AGENT: &str = "#!/bin/sh\n[ ! -e /run/agent-fails ] && exec /lab/bin/fence_lab\n";

/// Starts dlm_controld and waits until it answers.
pub(super) fn start(guest: &Guest, dlm: Dlm) -> Result<()> {
    launch(guest, dlm)?;
    let limit = Duration::from_secs(30);
    guest.wait_until("dlm_controld answers", limit, "dlm_tool status").map(drop)
}

/// Starts dlm_controld. What it does is in `dlm_controld.log`.
pub(super) fn launch(guest: &Guest, dlm: Dlm) -> Result<()> {
    let asks = u8::from(dlm.asks());
    let fencing = if dlm == Dlm::Fences { FENCES } else { "enable_fencing=0\n" };
    let config = format!("enable_fscontrol={asks}\nlog_debug=1\n{fencing}");
    guest.put("/etc/dlm/dlm.conf", &config)?;
    guest.put("/tmp/fence_dlm", AGENT)?;
    guest.ok("chmod +x /tmp/fence_dlm")?;
    guest.ok("mkdir -p /var/log/dlm_controld /run/dlm_controld")?;
    // As systemd starts its services: without the signal that kills who answers a client that is gone.
    let stamped = "bash -c 'trap \"\" PIPE; dlm_controld -D 2>&1 | while IFS= read -r line; do \
                   echo \"$EPOCHREALTIME $line\"; done'";
    guest.daemon("dlm_controld", stamped)
}

/// A volume of a user stack for four nodes.
pub(super) fn make_volume(guest: &Guest, device: &str, label: &str) -> Result<()> {
    let command = format!(
        "mkfs.ocfs2 -q -F -N 4 -J size=4M -L lab --cluster-stack={label} --cluster-name=lab \
         {device} </dev/null"
    );
    guest.ok_within(&command, Duration::from_secs(90)).map(drop)
}

/// `control` is for kernels where DOWN is no bug. Elsewhere the scenario `refused` shows that it is refused.
pub(super) fn fits(context: &Context, dlm: Dlm) -> Result<()> {
    let name = &context.kernel.name;
    if dlm.asks() && name != SAFE_KERNEL {
        return Err(LabError::Skip(format!("control is refused on {name}: DOWN is a bug there")));
    }
    Ok(())
}

/// Guests with dlm_controld, our daemon, and the volume mounted everywhere.
pub(super) fn mounted(context: &Context, guests: u8, label: &str, dlm: Dlm) -> Result<Arc<Lab>> {
    fits(context, dlm)?;
    let lab = boot(context, guests, label, dlm)?;
    serve(&lab, dlm)?;
    Ok(lab)
}

/// Starts our daemon and mounts, everywhere.
pub(super) fn serve(lab: &Lab, dlm: Dlm) -> Result<()> {
    let all = lab.guests().count();
    lab.guests().try_for_each(|guest| guest.start_o2bridged(&config(dlm)))?;
    if dlm.asks() {
        lab.guests().try_for_each(|guest| bridge::wait_ready(guest, all))?;
    }
    lab.step("o2bridged runs");
    for guest in lab.guests() {
        stock::mount(guest, DISK)?;
        lab.step(&format!("{} has mounted", guest.name()));
    }
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, all))?;
    lab.guests().try_for_each(is_in_use)
}

/// The daemon has seen the mount.
pub(super) fn is_in_use(guest: &Guest) -> Result<()> {
    let command = format!("o2bridge list | grep -q '{MOUNT}'");
    guest.wait_until("the mount has its service", Duration::from_secs(30), &command).map(drop)
}

/// Nobody uses anything in the kernel, and the daemon knows.
pub(super) fn is_unused(guest: &Guest) -> Result<()> {
    let gone = format!("! o2bridge list | grep -qE '{MOUNT}|ocfs2|lockspace'");
    guest.wait_until("the services are gone", Duration::from_secs(30), &gone)?;
    guest
        .wait_until("the lockspace is gone", Duration::from_secs(30), "! ls /sys/kernel/dlm/*")
        .map(drop)
}

/// Unmounts everywhere and stops the daemons.
pub(super) fn end(lab: &Lab) -> Result<()> {
    for guest in lab.guests().filter(|guest| guest.is_on()) {
        if guest.ok(&format!("mountpoint -q {MOUNT}")).is_ok() {
            stock::umount(guest)?;
        }
        is_unused(guest)?;
    }
    for guest in lab.guests().filter(|guest| guest.is_on()) {
        guest.ok("kill -TERM $(pidof o2bridged)")?;
        let gone = "! pidof o2bridged && ! pidof o2bridge-keeper";
        guest.wait_until("o2bridged and its keeper end", Duration::from_secs(40), gone)?;
        ensure!(guest.is_on(), "{} was reset at the end: {:?}", guest.name(), guest.off());
    }
    lab.step("unmounted, everything ended");
    Ok(())
}
