//! A node that has a volume mounted is lost, and not fenced; those that are left have its group and no lockspace. So
//! there is nothing that dlm_controld would stop, and a mount by tools that ask nobody must wait for its fencing.

use std::thread;
use std::time::{Duration, Instant};

use super::super::bridge::{self, DISK};
use super::super::dlm::fall::{Fall, LIMIT};
use super::super::dlm::trace::{REPLAY, Trace};
use super::super::dlm::{self, Dlm};
use super::super::seen;
use super::super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::fence::Switch;
use crate::run::Context;

/// By then a mount that waits for nobody has succeeded.
const WAITS: Duration = Duration::from_secs(15);

pub(super) fn run(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Fences)?;
    let lab = dlm::boot(context, 3, "pcmk", Dlm::Fences)?;
    lab.guests().try_for_each(|guest| guest.start_o2bridged(&dlm::control()))?;
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 3))?;
    let (one, two, three) = (lab.guest(1), lab.guest(2), lab.guest(3));
    stock::mount(three, DISK)?;
    dlm::is_in_use(three)?;
    let uuid = seen::uuid(one, DISK)?;
    seen::wait_volume(one, &uuid, "state", "ready")?;
    lab.step("n3 has mounted, n1 and n2 could");

    lab.fencing.set(Switch::Slow(super::FENCING));
    let fall = Fall::strike(&lab, &[3])?;
    for guest in [one, two] {
        seen::wait_volume(guest, &uuid, "state", "waiting: the fencing of node 3")?;
    }
    let mount = one.spawn(&format!("mount -t ocfs2 {DISK} {MOUNT}"))?;
    thread::sleep(WAITS.saturating_sub(fall.killed.elapsed()));
    let replays = Trace::of(one)?.all(REPLAY).len();
    ensure!(mount.ended().is_none() && replays == 0, "mounted: {:?}, {replays}", mount.ended());
    lab.step("status says whom the volume waits for, and a mount waits, too");

    let output = mount.wait(LIMIT)?;
    ensure!(output.exit == 0, "the mount failed: {}", output.stderr);
    let fenced = fall.fenced(three)?;
    ensure!(output.at > fenced, "mounted before n3 was fenced");
    context.figure("of an idle node: fenced to mounted", output.at - fenced);
    let replays = Trace::of(one)?.all(REPLAY).len();
    ensure!(replays == 1, "{replays} replays of the journal of n3");
    let whole = stock::check_load(one, three)?;
    lab.step(&format!("n1 has mounted and replayed; load of n3: {whole}"));
    seen::wait_volume(two, &uuid, "state", "ready")?;
    ensure!(Instant::now() - fall.killed > super::FENCING, "fencing was not slow");
    dlm::end(&lab)
}
