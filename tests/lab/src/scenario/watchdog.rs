//! Daemon and keeper stopped together: the one case that only a hardware watchdog can answer.

use std::time::{Duration, Instant};

use super::bridge::{self, DISK, FENCED};
use super::stock;
use crate::ensure;
use crate::error::Result;
use crate::guest::Off;
use crate::lab::Plan;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "watchdog",
    guests: 2,
    text: "daemon and keeper are stopped together: the hardware watchdog resets the node in time",
    kernels: &[],
    run: watchdog,
}];

/// The keeper feeds the watchdog.
const WATCHED: &str = "
[keeper]
watchdog = \"/dev/watchdog0\"
";

/// The default threshold: later, the kernel would have buried its peers.
const BURIED_AFTER: Duration = Duration::from_secs(62);

fn watchdog(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2).disk("shared", 512).watchdog())?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    for guest in lab.guests() {
        guest.ok("modprobe -a i6300esb ocfs2_stack_o2cb && test -c /dev/watchdog0")?;
    }
    bridge::make_volume(one, DISK, "")?;
    lab.form(&bridge::corosync(2))?;
    bridge::start(&lab, &format!("{FENCED}{WATCHED}"))?;
    lab.guests().try_for_each(|guest| stock::mount(guest, DISK))?;
    stock::start_load(two)?;
    lab.step("n2 writes, and its keeper feeds the watchdog");

    let stopped = Instant::now();
    two.ok("kill -STOP $(pidof o2bridged) $(pidof o2bridge-keeper)")?;
    let (off, reset) = two.wait_off(BURIED_AFTER)?;
    ensure!(off == Off::Watchdog, "n2 went off by {off:?}");
    context.figure("both stopped to reset", reset - stopped);
    let took = bridge::recovered(&lab, 1, 2, reset)?;
    context.figure("reset to first access", took);
    stock::umount(one)?;
    bridge::stop(one)
}
