//! Steps with the stock OCFS2 tools.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::guest::{Guest, Job};
use crate::net;

/// Where scenarios mount their first volume.
pub(super) const MOUNT: &str = "/lab/mnt";
/// The classic stack lets the first mount wait for several rounds of heartbeat.
const MOUNT_LIMIT: Duration = Duration::from_secs(90);

/// A cluster.conf for guests 1 to `guests`, whose numbers are the slots.
pub(super) fn cluster_conf(guests: u8) -> String {
    let mut text =
        format!("cluster:\n\tname = lab\n\tnode_count = {guests}\n\theartbeat_mode = local\n");
    for number in 1..=guests {
        let address = net::address(number);
        let _ = write!(
            text,
            "\nnode:\n\tname = n{number}\n\tnumber = {number}\n\tip_address = {address}\n\
             \tip_port = 7777\n\tcluster = lab\n"
        );
    }
    text
}

/// Brings the classic stack up on a guest, as an administrator without our daemon does.
pub(super) fn start_o2cb(guest: &Guest, guests: u8) -> Result<()> {
    guest.put("/etc/ocfs2/cluster.conf", &cluster_conf(guests))?;
    guest.ok("modprobe -a configfs ocfs2_nodemanager ocfs2_stack_o2cb ocfs2_dlmfs ocfs2")?;
    guest
        .ok("mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config")?;
    guest.ok("mkdir -p /dlm && mount -t ocfs2_dlmfs ocfs2_dlmfs /dlm")?;
    guest.ok("echo o2cb >/sys/fs/ocfs2/cluster_stack")?;
    guest.ok("o2cb register-cluster lab").map(drop)
}

/// An ordinary volume for four nodes.
pub(super) fn mkfs(guest: &Guest, device: &str) -> Result<()> {
    let command = format!("mkfs.ocfs2 -q -N 4 -J size=4M -L lab {device}");
    guest.ok_within(&command, MOUNT_LIMIT).map(drop)
}

/// A plain mount on [`MOUNT`].
pub(super) fn mount(guest: &Guest, device: &str) -> Result<()> {
    guest.ok_within(&format!("mount -t ocfs2 {device} {MOUNT}"), MOUNT_LIMIT).map(drop)
}

/// A plain umount of [`MOUNT`].
pub(super) fn umount(guest: &Guest) -> Result<()> {
    guest.ok_within(&format!("umount {MOUNT}"), MOUNT_LIMIT).map(drop)
}

/// Starts `lab-load` on the volume; its report survives the guest.
pub(super) fn start_load(guest: &Guest) -> Result<Job> {
    let name = guest.name().to_owned();
    let job = guest.spawn(&format!("exec lab-load {MOUNT} {name} /lab/share/load"))?;
    let some = "[ $(wc -l </lab/share/load) -ge 5 ]";
    guest.wait_until("the write load", Duration::from_secs(60), some)?;
    Ok(job)
}

/// Files as another node's death leaves them: locked by the dead. Reading them and making a new one
/// both need that node's locks, so the job ends only after the recovery.
pub(super) fn access(guest: &Guest, dead: &Guest) -> Result<Job> {
    let name = dead.name();
    guest.spawn(&format!(
        "ls -l {MOUNT}/{name}-* >/dev/null && cat {MOUNT}/{name}-* >/dev/null && \
         echo x >{MOUNT}/after-{name}"
    ))
}

/// Gives back when [`access`] was answered.
pub(super) fn first_access(guest: &Guest, dead: &Guest, limit: Duration) -> Result<Instant> {
    answered(&access(guest, dead)?, limit)
}

/// Waits for the end of [`access`]; when that was.
pub(super) fn answered(access: &Job, limit: Duration) -> Result<Instant> {
    let output = access.wait(limit)?;
    crate::ensure!(output.exit == 0, "the access failed: {}", output.stderr);
    Ok(output.at)
}

/// Whether every file that a dead guest had fsynced is there and whole, seen by a survivor.
pub(super) fn check_load(guest: &Guest, dead: &Guest) -> Result<String> {
    let report = std::fs::read_to_string(dead.share().join("load")).unwrap_or_default();
    guest.put("/tmp/load-of-the-dead", &report)?;
    let name = dead.name();
    let command = format!("lab-load check {MOUNT} {name} /tmp/load-of-the-dead");
    guest.ok_within(&command, Duration::from_secs(60))
}
