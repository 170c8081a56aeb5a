//! The stock way, for comparison: o2cb with its own disk heartbeat, nothing of ours.

use std::time::{Duration, Instant};

use super::stock;
use crate::ensure;
use crate::error::Result;
use crate::lab::Plan;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "classic",
    guests: 2,
    text: "stock o2cb, disk heartbeat at its default threshold: a node dies while it writes",
    kernels: &[],
    run: classic,
}];

/// The default threshold of 31 means 60 to 62 s; then recovery, in emulation.
const RECOVERY_LIMIT: Duration = Duration::from_secs(150);

fn classic(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2).disk("shared", 512))?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    for guest in lab.guests() {
        stock::start_o2cb(guest, 2)?;
    }
    stock::mkfs(one, "/dev/vda")?;
    lab.step("o2cb is up, the volume is made");
    for guest in lab.guests() {
        stock::mount(guest, "/dev/vda")?;
    }
    let threshold = one.ok("cat /sys/kernel/config/cluster/lab/heartbeat/dead_threshold")?;
    ensure!(threshold == "31", "the default threshold is {threshold} here, not 31");
    stock::start_load(two)?;
    lab.step("mounted on both, n2 writes");

    two.kill();
    let killed = Instant::now();
    lab.step("n2 is dead");
    let answered = stock::first_access(one, two, RECOVERY_LIMIT)?;
    context.figure("kill to first access", answered - killed);
    let whole = stock::check_load(one, two)?;
    lab.step(&format!("n1 goes on; load of n2: {whole}"));
    stock::umount(one)?;
    one.ok("o2cb unregister-cluster lab && test ! -e /sys/kernel/config/cluster/lab")?;
    lab.step("unmounted, nothing left in configfs");
    Ok(())
}
