//! Corosync ends on a node that has volumes mounted.
//!
//! What counts is whether a ring stood without the node. Corosync that is back before the peers have
//! formed one (token and consensus: 2.2 times the token) has missed nothing: they hear NODEDOWN of its
//! daemon, and then of a ring that the node is in. An orderly stop makes the ring without it at once,
//! however soon corosync returns: with volumes mounted that is a death, and the node is fenced.

use std::time::{Duration, Instant};

use super::{STALL_LIMIT, Writing, once, ready, writes_on};
use crate::ensure;
use crate::error::Result;
use crate::guest::{Corosync, Guest, Off};
use crate::lab::Plan;
use crate::run::Context;
use crate::scenario::bridge;

/// Corosync takes 1.8 s to start in emulation: it could miss the 2.2 s that a token of 1 s leaves.
const TOKEN_MS: u32 = 3000;

/// The peers' patience with that token: until they have another ring.
const RING_LIMIT: Duration = Duration::from_millis(6600);

fn writing(context: &Context) -> Result<Writing> {
    let lab = context.boot(&Plan::new(2).disk("shared", 512))?;
    lab.guest(1).ok("modprobe ocfs2_stack_o2cb")?;
    bridge::make_volume(lab.guest(1), bridge::DISK, "")?;
    lab.form(&Corosync { token_ms: TOKEN_MS, ..bridge::corosync(2) })?;
    Writing::start_on(lab)
}

/// Ends corosync by a signal and starts another as soon as it is gone.
fn restart(guest: &Guest, signal: &str) -> Result<()> {
    let command = format!(
        "old=$(pidof corosync) && kill -{signal} $old && while kill -0 $old; do sleep 0.02; done; \
         setsid corosync -f </dev/null >>/lab/share/log/corosync.log 2>&1 &"
    );
    guest.ok(&command).map(drop)
}

/// What the daemon of a node was told by corosync since its log was `from` bytes long.
fn heard(guest: &Guest, from: usize) -> Vec<String> {
    let log = guest.log("o2bridged.log");
    let told = |line: &&str| {
        let kinds = ["event Totem", "event Confchg"];
        kinds.iter().any(|kind| line.contains(&format!("{kind} {{ channel: Control")))
    };
    log.get(from..).unwrap_or_default().lines().filter(told).map(str::to_owned).collect()
}

/// Corosync is killed on one node and then on the other, and is back at once: nothing happens. Then
/// it is killed and stays away: the peer fences the node and recovers it.
pub(super) fn killed(context: &Context) -> Result<()> {
    let writing = writing(context)?;
    let lab = &writing.lab;
    for victim in [2, 1] {
        let (guest, peer) = (lab.guest(victim), lab.guest(3 - victim));
        let (from, began) = (peer.log("o2bridged.log").len(), Instant::now());
        restart(guest, "KILL")?;
        guest.wait_until("corosync answers", RING_LIMIT, "corosync-cfgtool -s")?;
        context.figure(&format!("corosync of n{victim} killed to its answer"), began.elapsed());
        ready(lab)?;
        let heard = heard(peer, from);
        heard.iter().for_each(|line| lab.step(line));
        let rings: Vec<_> = heard.iter().filter(|line| line.contains("event Totem")).collect();
        let without = rings.iter().find(|ring| !ring.contains("[NodeId(1), NodeId(2)]"));
        ensure!(!rings.is_empty() && without.is_none(), "rings of {}: {rings:?}", peer.name());
        writing.goes_on()?;
        writing.undisturbed()?;
    }
    lab.step("corosync was back in time: nothing happened");

    let began = Instant::now();
    lab.guest(2).kill_program("corosync")?;
    fenced_and_recovered(context, &writing, began)
}

/// An orderly restart of corosync.
pub(super) fn stopped(context: &Context) -> Result<()> {
    let writing = Writing::start(context)?;
    let from = writing.lab.guest(1).log("o2bridged.log").len();
    let began = Instant::now();
    restart(writing.lab.guest(2), "TERM")?;
    fenced_and_recovered(context, &writing, began)?;
    heard(writing.lab.guest(1), from).iter().for_each(|line| writing.lab.step(line));
    Ok(())
}

/// n2 is fenced by n1, not reset by itself, and recovered once; n1 writes on.
fn fenced_and_recovered(context: &Context, writing: &Writing, began: Instant) -> Result<()> {
    let lab = &writing.lab;
    let (off, at) = lab.guest(2).wait_off(Duration::from_secs(20))?;
    ensure!(off == Off::Killed, "n2 went off: {off:?}");
    context.figure("corosync gone to fenced", at - began);
    let took = bridge::recovered(lab, 1, 2, began)?;
    context.figure("corosync gone to first access", took);
    let log = lab.fencing.log();
    ensure!(log.len() == 1 && log[0].by == "n1" && log[0].exit == 0, "fenced: {log:?}");
    once(lab.guest(1))?;
    writes_on(lab.guest(1), STALL_LIMIT)?;
    lab.step("n2 was fenced by n1, and recovered once");
    Ok(())
}
