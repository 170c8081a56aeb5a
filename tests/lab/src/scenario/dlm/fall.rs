//! Deaths beside dlm_controld, and what the survivors' kernels made of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::bridge::DISK;
use super::super::moment::{Moment, said};
use super::super::{bridge, seen, stock};
use super::trace::{self, DOWN, REPLAY, START, STOP, Trace};
use super::{Dlm, config, corosync, is_in_use, mounted, prepare, start};
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::Context;

/// Detection, fencing and recovery, in emulation.
pub(in crate::scenario) const LIMIT: Duration = Duration::from_secs(60);

/// Deaths that happened at the same time.
pub(in crate::scenario) struct Fall<'a> {
    pub(in crate::scenario) lab: &'a Lab,
    pub(in crate::scenario) dead: Vec<&'a Guest>,
    pub(in crate::scenario) killed: Instant,
    survivors: Vec<(&'a Guest, String)>,
}

impl<'a> Fall<'a> {
    /// Kills guests that write.
    pub(in crate::scenario) fn strike(lab: &'a Lab, dead: &[u8]) -> Result<Self> {
        let fall = Self::ahead(lab, dead)?;
        fall.dead.iter().for_each(|guest| guest.kill());
        Ok(fall)
    }

    /// Guests that write, and are to die now by what the caller does.
    pub(in crate::scenario) fn ahead(lab: &'a Lab, dead: &[u8]) -> Result<Self> {
        let mut survivors = Vec::new();
        for guest in lab.guests().filter(|guest| !dead.contains(&guest.number())) {
            trace::mark(guest)?;
            survivors.push((guest, guest.boot_id()?));
        }
        let dead: Vec<&Guest> = dead.iter().map(|number| lab.guest(*number)).collect();
        for guest in &dead {
            let _ = std::fs::remove_file(guest.share().join("load"));
            stock::start_load(guest)?;
        }
        let names: Vec<&str> = dead.iter().map(|guest| guest.name()).collect();
        lab.step(&format!("{} write", names.join(" and ")));
        Ok(Self { lab, dead, killed: Instant::now(), survivors })
    }

    pub(in crate::scenario) fn guests(&self) -> impl Iterator<Item = &'a Guest> + '_ {
        self.survivors.iter().map(|(guest, _)| *guest)
    }

    /// All survivors get at what the dead held, and nothing that was fsynced is lost.
    pub(in crate::scenario) fn recovered(&self) -> Result<Instant> {
        let mut jobs = Vec::new();
        for guest in self.guests() {
            for dead in &self.dead {
                jobs.push(stock::access(guest, dead)?);
            }
        }
        let mut last = self.killed;
        for job in jobs {
            last = last.max(stock::answered(&job, LIMIT)?);
        }
        for guest in self.guests() {
            for dead in &self.dead {
                let whole = stock::check_load(guest, dead)?;
                self.lab.step(&format!("load of {} on {}: {whole}", dead.name(), guest.name()));
            }
        }
        Ok(last)
    }

    /// When the first agent was told that this victim is off.
    pub(in crate::scenario) fn fenced(&self, dead: &Guest) -> Result<Instant> {
        let number = dead.number().to_string();
        let log = self.lab.fencing.log();
        let ours = log.iter().filter(|one| one.victim == dead.name() || one.victim == number);
        let done =
            ours.filter(|one| one.exit == 0 && one.action != "status" && one.asked >= self.killed);
        let first = done.filter_map(|one| one.answered).min();
        first.ok_or_else(|| LabError::Expect(format!("{} was not fenced", dead.name())))
    }

    /// When corosync said it to this survivor's daemon.
    fn confchg(&self, guest: &Guest) -> Result<Moment> {
        let log = guest.log("o2bridged.log");
        let killed = Moment::of(self.killed);
        let number = self.dead[0].number();
        let left = format!("left: [(Member {{ node: NodeId({number})");
        let lines = log.lines().filter(|line| line.contains(&left) && line.contains("NodeDown"));
        let moments = lines.filter_map(|line| said(line, &[]));
        let first =
            moments.filter(|at| at.since(killed).is_some()).min_by_key(|at| at.since(killed));
        first.ok_or_else(|| LabError::Expect(format!("no death in the log of {}", guest.name())))
    }

    /// In each survivor's kernel: the lockspace stopped, then for each of the dead one DOWN (in `control`
    /// after its fencing), then the start; and one of all kernels replays each journal, once.
    pub(in crate::scenario) fn order(&self, dlm: Dlm) -> Result<()> {
        self.order_on(DISK, dlm)
    }

    /// The same for a volume on this device.
    pub(in crate::scenario) fn order_on(&self, device: &str, dlm: Dlm) -> Result<()> {
        let mut replays = 0;
        for (guest, boot) in &self.survivors {
            let name = guest.name();
            ensure!(guest.is_on() && guest.boot_id()? == *boot, "{name} was reset");
            let trace = Trace::of(guest)?;
            match dlm {
                Dlm::Asks | Dlm::Fences => drop(trace.in_order([STOP, DOWN, START])?),
                Dlm::Default => drop(trace.in_order([STOP, START, DOWN])?),
            }
            for dead in &self.dead {
                let node = format!("node={}", dead.number());
                let told = trace.all(DOWN).iter().filter(|line| line.ends_with(&node)).count();
                ensure!(told == 1, "{name} was told {told} times of {node}");
                let word = format!("Begin replay journal (node {},", dead.number());
                replays += trace.all(&word).len();
                if dlm.asks() {
                    let [down] = trace.in_order([node.as_str()])?;
                    let fenced = Moment::of(self.fenced(dead)?);
                    ensure!(down.since(fenced).is_some(), "{name}: {node} before it was fenced");
                }
            }
            ensure!(trace.all(DOWN).len() == self.dead.len(), "{:?}", trace.all(DOWN));
            if dlm.asks() {
                daemon_order(guest, &self.dead, device)?;
            }
        }
        ensure!(replays == self.dead.len(), "{replays} replays of {} journals", self.dead.len());
        self.lab
            .step("each survivor: stop, DOWN, start; each journal replayed once; nobody was reset");
        Ok(())
    }

    /// The times of the survivor that replayed.
    pub(in crate::scenario) fn figures(&self, context: &Context, answered: Instant) -> Result<()> {
        context.figure("kill to access", answered - self.killed);
        for (name, time) in self.times()? {
            context.figure(name, time);
        }
        Ok(())
    }

    /// From corosync's word to the DOWN and to the replay.
    pub(in crate::scenario) fn times(&self) -> Result<Vec<(&'static str, Duration)>> {
        for guest in self.guests() {
            let trace = Trace::of(guest)?;
            let Ok([down, replay]) = trace.in_order([DOWN, REPLAY]) else { continue };
            let confchg = self.confchg(guest)?;
            let after = |at: Moment| at.since(confchg).unwrap_or_default();
            let killed = replay.since(Moment::of(self.killed)).unwrap_or_default();
            return Ok(vec![
                ("confchg to DOWN", after(down)),
                ("confchg to replay", after(replay)),
                ("kill to replay", killed),
            ]);
        }
        Err(LabError::Expect("nobody replayed after a DOWN".into()))
    }

    /// The dead come back as nodes like any other.
    pub(in crate::scenario) fn come_back(&self, dlm: Dlm) -> Result<()> {
        let all = u8::try_from(self.lab.guests().count()).unwrap_or(u8::MAX);
        for guest in &self.dead {
            guest.start()?;
            prepare(guest, dlm)?;
            trace::start(guest)?;
            guest.start_corosync(&corosync(all))?;
            let members: Vec<u8> = (1..=all).filter(|n| self.lab.guest(*n).is_on()).collect();
            guest.wait_members(&members, Duration::from_secs(40))?;
            start(guest, dlm)?;
            guest.start_o2bridged(&config(dlm))?;
        }
        for guest in &self.dead {
            if dlm.asks() {
                bridge::wait_ready(guest, usize::from(all))?;
            }
            stock::mount(guest, DISK)?;
            is_in_use(guest)?;
        }
        self.lab.guests().try_for_each(|guest| bridge::wait_ready(guest, usize::from(all)))?;
        self.lab.step("the dead are back");
        Ok(())
    }
}

/// So many deaths of n2, one after the other; shortest, middle and longest of each time.
pub(in crate::scenario) fn many(
    context: &Context,
    deaths: usize,
    label: &str,
    dlm: Dlm,
) -> Result<()> {
    let lab = mounted(context, 2, label, dlm)?;
    let mut all: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for death in 1..=deaths {
        let fall = Fall::strike(&lab, &[2])?;
        fall.recovered()?;
        fall.order(dlm)?;
        for (name, time) in fall.times()? {
            lab.step(&format!("death {death}: {name} {} ms", time.as_millis()));
            all.entry(name).or_default().push(time);
        }
        if death < deaths {
            fall.come_back(dlm)?;
        }
    }
    for (name, mut times) in all {
        times.sort();
        for (word, at) in [("least", 0), ("median", times.len() / 2), ("most", times.len() - 1)] {
            context.figure(&format!("{name}, {word} of {deaths}"), times[at]);
        }
    }
    stock::umount(lab.guest(1))
}

/// dlm_controld's own log: it stopped the lockspace, was told of each of the dead, and started after it.
fn daemon_order(guest: &Guest, dead: &[&Guest], device: &str) -> Result<()> {
    let log = guest.log("dlm_controld.log");
    let uuid = seen::uuid(guest, device)?;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&uuid)).collect();
    let last = |word: &str| lines.iter().rposition(|line| line.contains(word));
    let (stop, begin) = (last("stop_kernel"), last("start_kernel"));
    ensure!(stop < begin && stop.is_some(), "{}: stop {stop:?}, start {begin:?}", guest.name());
    for one in dead {
        let word = format!("set_fs_notified nodeid {}", one.number());
        let told = last(&word);
        ensure!(
            stop < told && told < begin,
            "{}: stop {stop:?}, {word} {told:?}, start {begin:?}",
            guest.name()
        );
    }
    Ok(())
}
