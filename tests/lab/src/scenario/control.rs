//! The shim `control`: OCFS2 is told of deaths through its control device, beside a dlm_controld that asks.

use std::thread;
use std::time::{Duration, Instant};

use super::dlm::fall::{Fall, LIMIT};
use super::dlm::trace::{self, DOWN, REPLAY, START, STOP, Trace};
use super::dlm::{self, Dlm};
use super::ordinary::cross_over;
use super::stock;
use crate::ensure;
use crate::error::Result;
use crate::fence::Switch;
use crate::lab::Lab;
use crate::run::{Context, Scenario};

/// Where DOWN is no kernel bug.
const SAFE: &[&str] = &["5.10"];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "control",
        guests: 2,
        text: "control: a user-stack volume mounted on two nodes, files, umount; nothing is left",
        kernels: SAFE,
        run: plain,
    },
    Scenario {
        name: "controldeath",
        guests: 2,
        text: "control: a node dies while it writes: stop, DOWN, notified; replayed once; it returns",
        kernels: SAFE,
        run: death,
    },
    Scenario {
        name: "controlslow",
        guests: 2,
        text: "control: fencing takes 20 s, and nothing recovers before; dlm_controld stands still for 5 s",
        kernels: SAFE,
        run: slow,
    },
    Scenario {
        name: "control3",
        guests: 3,
        text: "control: of three nodes one dies, then two at once",
        kernels: SAFE,
        run: three,
    },
];

fn plain(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

fn death(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    trace::start(lab.guest(1))?;
    let fall = Fall::strike(&lab, &[2])?;
    let answered = fall.recovered()?;
    fall.figures(context, answered)?;
    fall.order(Dlm::Asks)?;
    fall.come_back(Dlm::Asks)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

/// Longer than all else that a death takes.
const FENCING: Duration = Duration::from_secs(20);
const STANDSTILL: Duration = Duration::from_secs(5);

fn slow(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    let one = lab.guest(1);
    trace::start(one)?;
    lab.fencing.set(Switch::Slow(FENCING));
    let fall = Fall::strike(&lab, &[2])?;
    thread::sleep((FENCING - Duration::from_secs(2)).saturating_sub(fall.killed.elapsed()));
    nothing_recovered(&lab)?;
    let answered = fall.recovered()?;
    ensure!(answered - fall.killed > FENCING, "recovered before it was fenced");
    context.figure("kill to access, fencing takes 20 s", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    lab.fencing.set(Switch::Works);
    fall.come_back(Dlm::Asks)?;

    let fall = Fall::strike(&lab, &[2])?;
    one.ok("kill -STOP $(pidof dlm_controld)")?;
    let stopped = Instant::now();
    thread::sleep(STANDSTILL);
    nothing_recovered(&lab)?;
    let log = one.log("o2bridged.log");
    ensure!(log.contains("dlm_controld has not answered for"), "nobody noticed that it is stopped");
    one.ok("kill -CONT $(pidof dlm_controld)")?;
    ensure!(stopped.elapsed() < LIMIT, "the guest was too slow");
    let answered = fall.recovered()?;
    context.figure("kill to access, dlm_controld stopped 5 s", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    dlm::end(&lab)
}

/// The survivor's OCFS2 has not heard of a death, and its lockspace does not go on.
fn nothing_recovered(lab: &Lab) -> Result<()> {
    let trace = Trace::of(lab.guest(1))?;
    for word in [DOWN, START, REPLAY] {
        let found = trace.all(word);
        ensure!(found.is_empty(), "too early: {found:?}");
    }
    lab.step(&format!("nothing has recovered, {} stops", trace.all(STOP).len()));
    Ok(())
}

fn three(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 3, "cman", Dlm::Asks)?;
    lab.guests().try_for_each(trace::start)?;
    let fall = Fall::strike(&lab, &[3])?;
    let answered = fall.recovered()?;
    context.figure("of three: kill to access", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    fall.come_back(Dlm::Asks)?;
    trace::start(lab.guest(3))?;

    let fall = Fall::strike(&lab, &[2, 3])?;
    let answered = fall.recovered()?;
    context.figure("two at once: kill to access", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    stock::umount(lab.guest(1))
}
