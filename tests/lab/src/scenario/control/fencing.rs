//! Two who fence: dlm_controld by its own configuration, and our daemon beside it. Each asks its own agent,
//! and a lockspace starts when both are content.

use std::thread;
use std::time::{Duration, Instant};

use super::super::dlm::fall::{Fall, LIMIT};
use super::super::dlm::trace::{DOWN, REPLAY, START, STOP, Trace};
use super::super::dlm::{self, Dlm};
use super::super::moment::Moment;
use super::super::ordinary::cross_over;
use super::super::stock;
use crate::ensure;
use crate::error::{LabError, Result};
use crate::fence::{Fenced, Switch};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::Context;

/// How long nothing may start while dlm_controld has not fenced.
const UNFENCED: Duration = Duration::from_secs(10);

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
    back_before_it(context, &lab)?;
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
    wait_told(one, 2)?;
    thread::sleep(UNFENCED);
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

/// dlm_controld fences nobody for a while after a join. A node that is back before that counts as fenced.
fn back_before_it(context: &Context, lab: &Lab) -> Result<()> {
    let one = lab.guest(1);
    let longer = "s/post_join_delay=3/post_join_delay=200/";
    one.ok(&format!("sed -i {longer} /etc/dlm/dlm.conf && dlm_tool reload_config"))?;
    let fall = Fall::strike(lab, &[2])?;
    wait_told(one, 3)?;
    thread::sleep(UNFENCED);
    let starts = Trace::of(one)?.all(START).len();
    ensure!(starts == 0, "started before dlm_controld was content");
    lab.step("our daemon has fenced, dlm_controld waits, and the node comes back");
    fall.come_back(Dlm::Fences)?;
    fall.recovered()?;
    let trace = Trace::of(one)?;
    let [_, _, start, _] = trace.in_order([STOP, DOWN, START, REPLAY])?;
    let (downs, replays) = (trace.all(DOWN).len(), trace.all(REPLAY).len());
    ensure!((downs, replays) == (1, 1), "{downs} DOWN, {replays} replays");
    let took = start.since(Moment::of(fall.killed)).unwrap_or_default();
    context.figure("kill to start, the node is back before dlm_controld fences it", took);
    let log = lab.fencing.log();
    let again = log.iter().find(|one| one.asked >= fall.killed && one.victim == "n2");
    ensure!(again.is_none(), "fenced when it was back: {again:?}");
    Ok(())
}

/// So many deaths were told so far.
fn wait_told(guest: &Guest, deaths: usize) -> Result<()> {
    let told = "grep -c 'the shim was told that the node died' /lab/share/log/o2bridged.log";
    let command = format!("[ $({told}) = {deaths} ]");
    guest.wait_until(&format!("death {deaths} is told"), LIMIT, &command).map(drop)
}
