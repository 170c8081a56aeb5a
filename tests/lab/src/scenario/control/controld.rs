//! dlm_controld is missing, or dies, where a volume is served through `control`.
//!
//! | dlm_controld | then |
//! |---|---|
//! | does not run | a begin is refused, with the reason; the same begin works once it runs |
//! | is killed | its peer's ends corosync there: the node is fenced, told dead and recovered, once |
//! | is killed where the peer dies | the death is fenced and never told, nothing recovers, status says why |
//! | is started again there | it ends its own node's corosync, and the node resets itself |

use std::thread;
use std::time::{Duration, Instant};

use super::super::bridge::{self, DISK};
use super::super::dlm::fall::{Fall, LIMIT};
use super::super::dlm::trace::{DOWN, OPEN, REPLAY, START, STOP, Trace};
use super::super::dlm::{self, Dlm};
use super::super::ordinary::cross_over;
use super::super::seen;
use super::super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::Context;

/// A refusal, in emulation.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How long a death that cannot be told is watched.
const UNTOLD: Duration = Duration::from_secs(15);
/// Longer than `fencing.inquorate_reset_ms`, which is 45 s.
const RESET_LIMIT: Duration = Duration::from_secs(80);

/// What log and status say.
const ABSENT: &str = "dlm_controld does not run here: ";

pub(super) fn run(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Asks)?;
    let lab = dlm::formed(context, &dlm::corosync(2), "cman", Dlm::Asks)?;
    missing(&lab)?;
    killed(context, &lab)?;
    killed_beside_the_dead(context, &lab)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

fn missing(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    dlm::start(two, Dlm::Asks)?;
    lab.guests().try_for_each(|guest| guest.start_o2bridged(&dlm::control()))?;
    let mount = format!("mount -t ocfs2 {DISK} {MOUNT}");
    let asked = Instant::now();
    let refused = one.run(&mount, LIMIT)?;
    ensure!(refused.exit != 0 && asked.elapsed() < AT_ONCE, "{:?}: {refused:?}", asked.elapsed());
    let log = one.log("o2bridged.log");
    ensure!(log.contains(ABSENT) && log.contains("attach failed"), "the log does not say why");
    let begin = format!("o2bridge begin {} {MOUNT}", seen::uuid(one, DISK)?);
    let refused = one.run(&begin, LIMIT)?;
    ensure!(refused.exit == 1 && refused.stderr.contains("attach failed"), "{begin}: {refused:?}");
    lab.step(&format!("begin without dlm_controld: {}", refused.stderr.trim_end()));
    let status = "o2bridge status | grep -q '^warning: .*dlm_controld does not run'";
    one.wait_until("status says why", LIMIT, status)?;
    let opened = Trace::of(one)?.all(OPEN).len();
    ensure!(opened == 0, "the control device was opened {opened} times");
    dlm::is_unused(one)?;
    lab.step("without dlm_controld the mount is refused, and nothing is left of it");

    dlm::start(one, Dlm::Asks)?;
    one.ok_within(&mount, LIMIT)?;
    stock::mount(two, DISK)?;
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    lab.guests().try_for_each(dlm::is_in_use)?;
    one.ok("! o2bridge status | grep -q '^warning: .*dlm_controld'")?;
    lab.step("with it the same mount works");
    Ok(())
}

fn killed(context: &Context, lab: &Lab) -> Result<()> {
    let fall = Fall::ahead(lab, &[2])?;
    lab.guest(2).kill_program("dlm_controld")?;
    let answered = fall.recovered()?;
    let fenced = fall.fenced(lab.guest(2))?;
    context.figure("dlm_controld killed to fenced", fenced - fall.killed);
    context.figure("dlm_controld killed to access", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    fall.come_back(Dlm::Asks)
}

fn killed_beside_the_dead(context: &Context, lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    let mut fall = Fall::strike(lab, &[2])?;
    one.kill_program("dlm_controld")?;
    let access = stock::access(one, two)?;
    let said = "grep -q \"the shim's node_down failed\" /lab/share/log/o2bridged.log";
    one.wait_until("the death is refused", LIMIT, said)?;
    let status = format!("o2bridge status | grep -q '^warning: {ABSENT}.*reset this node'");
    one.wait_until("status says what to do", LIMIT, &status)?;
    thread::sleep(UNTOLD);
    ensure!(access.ended().is_none(), "n1 got at what the dead node held");
    fall.fenced(two)?;
    untold(one)?;
    lab.step("the death is not told, nothing recovers, and status says what to do");

    let restarted = Instant::now();
    dlm::launch(one, Dlm::Asks)?;
    let reset = one.wait_reset(RESET_LIMIT)?;
    context.figure("dlm_controld restarted to the node's reset", reset - restarted);
    let said = one.console();
    // That of the first death: none came of the second.
    let replays = said.matches("Begin replay journal (node 2,").count();
    ensure!(replays == 1, "{replays} replays on n1");
    lab.step("another dlm_controld ends its node");

    fall.dead = vec![one, two];
    fall.come_back(Dlm::Asks)?;
    let whole = stock::check_load(one, two)?;
    lab.step(&format!("after a boot the volume is whole: {whole}"));
    Ok(())
}

/// The kernel has stopped its lockspace, and heard of no death.
fn untold(guest: &Guest) -> Result<()> {
    let trace = Trace::of(guest)?;
    ensure!(!trace.all(STOP).is_empty(), "the lockspace goes on");
    for word in [DOWN, START, REPLAY] {
        let found = trace.all(word);
        ensure!(found.is_empty(), "without dlm_controld: {found:?}");
    }
    Ok(())
}
