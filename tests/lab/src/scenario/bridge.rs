//! Steps with o2bridge: a cluster of guests that share volumes through it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stock;
use crate::ensure;
use crate::error::Result;
use crate::guest::{Corosync, Guest};
use crate::lab::{Lab, Plan};
use crate::run::Context;

/// The first disk of every guest.
pub(super) const DISK: &str = "/dev/vda";

/// How long a region may take until it stands: the kernel wants several rounds of two seconds, and
/// emulation is slow.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(90);

/// The configuration of a node whose peers are fenced by the lab.
pub(super) const FENCED: &str = "
[fencing]
policy = \"agent\"
attempts = 2
pause_ms = 500
[[fencing.level]]
[[fencing.level.agent]]
command = \"/lab/bin/fence_lab\"
action = \"off\"
timeout_ms = 20000
any_node = true
[shim]
kind = \"user-heartbeat\"
[log]
level = \"debug\"
";

/// To be appended to a configuration: one heartbeat for all volumes.
pub(super) const GLOBAL: &str = "
[o2cb]
heartbeat_mode = \"global\"
";

/// What a kernel says of a death.
const DEATH_WORDS: [&str; 5] =
    ["has evicted node", "Begin recovery", "Begin replay journal", "very sorry", "o2quo"];
/// What a kernel does not say while all is well.
const TROUBLE_WORDS: [&str; 2] = [" ERROR: ", "] WARNING: "];

/// Boots guests with a shared disk, forms corosync among them, and makes an o2cb volume of our cluster
/// on the disk before any daemon runs. With two guests n1 has two votes: it goes on alone, n2 does not.
pub(super) fn boot(context: &Context, guests: u8, mkfs: &str) -> Result<Arc<Lab>> {
    let lab = context.boot(&Plan::new(guests).disk("shared", 512))?;
    lab.guest(1).ok("modprobe ocfs2_stack_o2cb")?;
    make_volume(lab.guest(1), DISK, mkfs)?;
    lab.form(&corosync(guests))?;
    Ok(lab)
}

/// See [`boot`].
pub(super) fn corosync(guests: u8) -> Corosync {
    let members: Vec<u8> = (1..=guests).collect();
    let mut settings = Corosync::new(&members);
    if guests == 2 {
        settings.votes = vec![2, 1];
        settings.two_node = false;
    }
    settings
}

/// An o2cb volume of the cluster `lab` for four nodes; `more` goes to mkfs.
pub(super) fn make_volume(guest: &Guest, device: &str, more: &str) -> Result<()> {
    let command = format!(
        "mkfs.ocfs2 -q -F -N 4 -J size=4M -L lab --cluster-stack=o2cb --cluster-name=lab {more} \
         {device} </dev/null"
    );
    guest.ok_within(&command, Duration::from_secs(90)).map(drop)
}

/// Starts the daemon on all guests and waits until their regions stand.
pub(super) fn start(lab: &Lab, config: &str) -> Result<()> {
    for guest in lab.guests() {
        guest.start_o2bridged(config)?;
    }
    for guest in lab.guests() {
        wait_ready(guest, lab.guests().count())?;
    }
    lab.step("o2bridged runs, the regions stand");
    Ok(())
}

/// Waits until every group of a guest is ready, with so many users; there must be at least one.
pub(super) fn wait_ready(guest: &Guest, users: usize) -> Result<()> {
    let command = format!(
        "o2bridge status --format json | python3 -c 'import json,sys; s=json.load(sys.stdin); \
         g=s[\"groups\"]; sys.exit(0 if g and all(x[\"state\"]==\"ready\" and \
         len(x[\"members\"])=={users} for x in g) else 1)'"
    );
    guest.wait_until("every group is ready", READY_LIMIT, &command).map(drop)
}

/// Ends the daemon in the ordinary way; nothing of the cluster is left in the kernel.
pub(super) fn stop(guest: &Guest) -> Result<()> {
    guest.ok("kill -TERM $(pidof o2bridged)")?;
    stopped(guest)
}

/// The daemon, told to end, does; nothing of the cluster is left in the kernel.
pub(super) fn stopped(guest: &Guest) -> Result<()> {
    let gone = "! pidof o2bridged";
    guest.wait_until("o2bridged ends", Duration::from_secs(40), gone)?;
    guest.wait_until("its keeper ends", Duration::from_secs(5), "! pidof o2bridge-keeper")?;
    let left = guest.ok("find /sys/kernel/config/cluster -mindepth 1 -type d")?;
    ensure!(left.is_empty(), "left in configfs: {left}");
    Ok(())
}

/// What a dead guest held is there for the survivor, and when it was.
pub(super) fn recovered(lab: &Lab, survivor: u8, dead: u8, killed: Instant) -> Result<Duration> {
    let (survivor, dead) = (lab.guest(survivor), lab.guest(dead));
    let answered = stock::first_access(survivor, dead, Duration::from_secs(60))?;
    let whole = stock::check_load(survivor, dead)?;
    lab.step(&format!("{} reads on; load of {}: {whole}", survivor.name(), dead.name()));
    let replays = survivor.dmesg()?.matches("Begin replay journal").count();
    ensure!(replays == 1, "{replays} replays on {}", survivor.name());
    Ok(answered - killed)
}

/// The regions of heartbeat on a guest.
pub(super) fn regions(guest: &Guest) -> Result<Vec<String>> {
    let command = "find /sys/kernel/config/cluster/lab/heartbeat -mindepth 1 -maxdepth 1 -type d \
                   -printf '%f\\n'";
    Ok(guest.ok(command)?.lines().map(str::to_owned).collect())
}

/// Its kernel has heard of no death.
pub(super) fn all_alive(guest: &Guest) -> Result<()> {
    unsaid(guest, &DEATH_WORDS)
}

/// Its kernel has heard of no death and complains of nothing.
pub(super) fn peaceful(guest: &Guest) -> Result<()> {
    all_alive(guest)?;
    unsaid(guest, &TROUBLE_WORDS)
}

fn unsaid(guest: &Guest, words: &[&str]) -> Result<()> {
    let said = guest.dmesg()?;
    let bad = said.lines().find(|line| words.iter().any(|word| line.contains(word)));
    ensure!(bad.is_none(), "the kernel of {}: {}", guest.name(), bad.unwrap_or_default());
    Ok(())
}
