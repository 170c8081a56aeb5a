//! Two who fence: dlm_controld by its own configuration, and our daemon beside it. Each asks its own agent,
//! and a lockspace starts when both are content.

use std::thread;
use std::time::{Duration, Instant};

use super::super::dlm::fall::{Fall, LIMIT};
use super::super::dlm::trace::{DOWN, REPLAY, START, Trace};
use super::super::dlm::{self, Dlm};
use super::super::moment::Moment;
use super::super::ordinary::cross_over;
use super::super::stock;
use crate::ensure;
use crate::error::{LabError, Result};
use crate::fence::{Fenced, Switch};
use crate::lab::Lab;
use crate::run::Context;

pub(super) fn run(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Fences)?;
    lab.fencing.set(Switch::Slow(super::FENCING));
    let fall = Fall::strike(&lab, &[2])?;
    thread::sleep((super::FENCING - Duration::from_secs(2)).saturating_sub(fall.killed.elapsed()));
    super::nothing_recovered(&lab)?;
    let answered = fall.recovered()?;
    context.figure("both fence, 20 s each: kill to access", answered - fall.killed);
    fall.order(Dlm::Fences)?;
    both_fenced(context, &fall)?;
    lab.fencing.set(Switch::Works);
    fall.come_back(Dlm::Fences)?;
    agent_fails(context, &lab)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

/// Who asked for this death: our daemon, by the node's number, or dlm_controld, by its name.
fn asked(fall: &Fall<'_>, victim: &str) -> Result<Fenced> {
    let log = fall.lab.fencing.log();
    let ours = log.iter().filter(|one| one.asked >= fall.killed && one.victim == victim);
    let done: Vec<&Fenced> = ours.filter(|one| one.exit == 0).collect();
    ensure!(done.len() == 1, "fenced as {victim}: {done:?}, of {log:?}");
    Ok(done[0].clone())
}

/// Each of them asked for the death once; DOWN came after our fencing, the start after both.
fn both_fenced(context: &Context, fall: &Fall<'_>) -> Result<()> {
    let (ours, theirs) = (asked(fall, "2")?, asked(fall, "n2")?);
    ensure!(ours.action == "off" && theirs.action == "reboot", "{ours:?}, {theirs:?}");
    context.figure("kill to our agent", ours.asked - fall.killed);
    context.figure("kill to dlm_controld's agent", theirs.asked - fall.killed);
    let [down, start] = Trace::of(fall.lab.guest(1))?.in_order([DOWN, START])?;
    for (what, at, fenced) in
        [("DOWN", down, &ours), ("start", start, &ours), ("start", start, &theirs)]
    {
        let done = fenced.answered.ok_or_else(|| LabError::Expect(format!("{fenced:?}")))?;
        ensure!(at.since(Moment::of(done)).is_some(), "{what} came before {fenced:?}");
    }
    fall.lab.step("our daemon and dlm_controld fenced once each; nothing started before both had");
    Ok(())
}

/// OCFS2 has heard, and dlm_controld's agent fails: the lockspace stands until it succeeds.
fn agent_fails(context: &Context, lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    one.ok("touch /run/agent-fails")?;
    let fall = Fall::strike(lab, &[2])?;
    let access = stock::access(one, two)?;
    let told =
        "[ $(grep -c 'the shim was told that the node died' /lab/share/log/o2bridged.log) = 2 ]";
    one.wait_until("the second death is told", LIMIT, told)?;
    thread::sleep(Duration::from_secs(10));
    let trace = Trace::of(one)?;
    let (downs, starts) = (trace.all(DOWN).len(), trace.all(START).len() + trace.all(REPLAY).len());
    ensure!((downs, starts) == (1, 0), "{downs} DOWN, {starts} starts and replays");
    ensure!(access.ended().is_none(), "n1 got at what the dead node held");
    lab.step("dlm_controld's agent fails: told, and nothing starts");
    let mended = Instant::now();
    one.ok("rm /run/agent-fails")?;
    let answered = fall.recovered()?;
    context.figure("dlm_controld's agent works again to access", answered - mended);
    fall.order(Dlm::Fences)?;
    fall.come_back(Dlm::Fences)
}
