//! o2bridged is killed under load, again and again; then its keeper; and at last both.

use std::time::{Duration, Instant};

use super::super::bridge;
use super::super::dlm::fall::LIMIT;
use super::super::dlm::trace::{DOWN, START, STOP, Trace};
use super::super::dlm::{self, Dlm};
use super::super::restart::{RESPAWN, STALL_LIMIT, pid, replace, writes_on};
use super::super::stock;
use crate::ensure;
use crate::error::Result;
use crate::guest::Corosync;
use crate::lab::Lab;
use crate::run::Context;

const KILLS: u32 = 20;

/// A guest whose host is busy for a second must not leave the ring here: dlm_controld ends a node that returns
/// to it, which is right, and no matter of our daemon's.
const LONG_TOKEN_MS: u32 = 3000;

pub(super) fn run(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Asks)?;
    let cluster = Corosync { token_ms: LONG_TOKEN_MS, ..dlm::corosync(2) };
    let lab = dlm::formed(context, &cluster, "cman", Dlm::Asks)?;
    lab.guests().try_for_each(|guest| dlm::start(guest, Dlm::Asks))?;
    dlm::serve(&lab, Dlm::Asks)?;
    for guest in lab.guests() {
        guest.kill_program("o2bridged")?;
        guest.daemon("o2bridged", RESPAWN)?;
    }
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    let loads = lab.guests().map(stock::start_load).collect::<Result<Vec<_>>>()?;
    lab.step("both nodes write");
    let keeper = |guest| pid(guest, "o2bridge-keeper");
    let before = lab.guests().map(keeper).collect::<Result<Vec<_>>>()?;
    let mut longest = Duration::ZERO;
    for kill in 0..KILLS {
        let is_first = kill % 2 == 0;
        replace(lab.guest(if is_first { 1 } else { 2 }), &["o2bridged"])?;
        let since = Instant::now();
        lab.guests().try_for_each(|guest| writes_on(guest, STALL_LIMIT))?;
        longest = longest.max(since.elapsed());
        if !is_first {
            lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
        }
    }
    context.figure("longest wait for the loads after a kill", longest);
    ensure!(before == lab.guests().map(keeper).collect::<Result<Vec<_>>>()?, "another keeper");
    for guest in lab.guests() {
        ensure!(guest.is_on(), "{} was reset: {:?}", guest.name(), guest.off());
        let told = Trace::of(guest)?.all(DOWN).len();
        ensure!(told == 0, "{} was told of {told} deaths", guest.name());
    }
    lab.step(&format!("{KILLS} kills: the same keepers, no death, no reset"));
    without_keeper(&lab)?;
    loads[0].kill()?;
    reset_without_keeper(context, &lab)
}

/// A daemon that took a mounted volume over, and was not asked for anything since, holds the kernel's control
/// device itself.
fn without_keeper(lab: &Lab) -> Result<()> {
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    for guest in lab.guests() {
        replace(guest, &["o2bridge-keeper"])?;
        writes_on(guest, STALL_LIMIT)?;
    }
    lab.step("the keepers are killed: others are there, no reset");
    Ok(())
}

/// The kernel promises it: the last holder of its control device is gone.
fn reset_without_keeper(context: &Context, lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    let killed = Instant::now();
    // Its kernel may be gone before it answers.
    let _ = two.run("killall -KILL o2bridged o2bridge-keeper", Duration::from_secs(10));
    let reset = two.wait_reset(Duration::from_secs(20))?;
    context.figure(
        "daemon and keeper killed to the node's reset",
        reset.saturating_duration_since(killed),
    );
    let said = two.console();
    ensure!(said.contains("Unexpected release of ocfs2_control"), "the kernel did not say why");
    let answered = stock::first_access(one, two, LIMIT)?;
    context.figure("reset to access", answered.saturating_duration_since(reset));
    let whole = stock::check_load(one, two)?;
    lab.step(&format!("n1 reads on: {whole}"));
    Trace::of(one)?.in_order([STOP, DOWN, START])?;
    Ok(())
}
