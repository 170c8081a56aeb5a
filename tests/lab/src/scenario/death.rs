//! A node dies while it writes; the others go on once it is fenced, and not before.

use std::thread;
use std::time::{Duration, Instant};

use super::bridge::{self, DISK, FENCED, GLOBAL};
use super::moment::{self, Moment, said};
use super::ordinary::{cross_over, end, mounted};
use super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::{AND_NEWEST, Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "death",
        guests: 2,
        text: "a node is killed while it writes; the other recovers it and loses nothing; it returns",
        kernels: AND_NEWEST,
        run: |context| death(context, 2, 2, "", FENCED),
    },
    Scenario {
        name: "death3",
        guests: 3,
        text: "of three nodes the first is killed; one of the others replays its journal",
        kernels: &[],
        run: |context| death(context, 3, 1, "", FENCED),
    },
    Scenario {
        name: "globaldeath",
        guests: 2,
        text: "a death with a global heartbeat",
        kernels: AND_NEWEST,
        run: |context| death(context, 2, 2, "--global-heartbeat", &format!("{FENCED}{GLOBAL}")),
    },
    Scenario {
        name: "unfenced",
        guests: 2,
        text: "the kernel is told of a death only when an administrator has acknowledged it",
        kernels: &[],
        run: unfenced,
    },
];

/// Detection, fencing and recovery, in emulation.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// How long nothing may happen while nobody says that the dead is off.
const UNFENCED: Duration = Duration::from_secs(40);

/// Deaths wait for the administrator.
const ACKNOWLEDGED: &str = "
[fencing]
policy = \"ack\"
[shim]
kind = \"user-heartbeat\"
[log]
level = \"debug\"
";

const TOLD: &str = "the shim was told that the node died";
const EVICTED: &str = "has evicted node";
const REPLAY: &str = "Begin replay journal";
const MASTER: &str = "(me) is the Recovery Master";

/// A guest's death, and what the others were then.
struct Death<'a> {
    lab: &'a Lab,
    dead: &'a Guest,
    killed: Instant,
    /// With the boot ids by which a reset would be seen.
    survivors: Vec<(&'a Guest, String)>,
}

impl<'a> Death<'a> {
    /// Kills a guest that writes.
    fn strike(lab: &'a Lab, dead: u8) -> Result<Self> {
        let mut survivors = Vec::new();
        for guest in lab.guests().filter(|guest| guest.number() != dead) {
            moment::watch_kernel(guest)?;
            survivors.push((guest, guest.boot_id()?));
        }
        let dead = lab.guest(dead);
        stock::start_load(dead)?;
        lab.step(&format!("{} writes", dead.name()));
        let killed = Instant::now();
        dead.kill();
        Ok(Self { lab, dead, killed, survivors })
    }

    fn guests(&self) -> impl Iterator<Item = &'a Guest> + '_ {
        self.survivors.iter().map(|(guest, _)| *guest)
    }

    /// All survivors ask for what the dead held; when the last of them was answered.
    fn all_answered(&self) -> Result<Instant> {
        let ask = |guest| stock::access(guest, self.dead).map(|job| (guest, job));
        let jobs: Vec<_> = self.guests().map(ask).collect::<Result<_>>()?;
        let mut last = self.killed;
        for (guest, job) in jobs {
            last = last.max(stock::answered(&job, RECOVERY_LIMIT)?);
            self.lab.step(&format!("{} reads on", guest.name()));
        }
        for guest in self.guests() {
            let whole = stock::check_load(guest, self.dead)?;
            self.lab.step(&format!("load of {}, on {}: {whole}", self.dead.name(), guest.name()));
        }
        Ok(last)
    }

    /// When the first fence agent was told that the dead is off.
    fn fenced(&self) -> Result<Instant> {
        let log = self.lab.fencing.log();
        let (name, number) = (self.dead.name(), self.dead.number().to_string());
        let other = log.iter().find(|one| one.victim != name && one.victim != number);
        ensure!(other.is_none(), "fenced, too: {other:?}");
        log.iter()
            .filter(|one| one.exit == 0 && one.action != "status")
            .filter_map(|one| one.answered)
            .min()
            .ok_or_else(|| LabError::Expect(format!("{name} was not fenced")))
    }

    /// The times of the table; of the slowest survivor.
    fn figures(&self, context: &Context, answered: Instant) -> Result<()> {
        context.figure("kill to first access", answered - self.killed);
        context.figure("fenced to first access", answered - self.fenced()?);
        let left = format!("left: [(Member {{ node: NodeId({})", self.dead.number());
        let words = [left.as_str(), "NodeDown"];
        let confchg = self.first("o2bridged.log", &words)?;
        let answered = Moment::of(answered).since(confchg);
        context.figure("confchg to first access", in_order(answered, "access after confchg")?);
        let killed = Moment::of(self.killed);
        let replay = self.first("kernel.log", &[REPLAY])?.since(killed);
        context.figure("kill to replay", in_order(replay, "replay after the kill")?);
        Ok(())
    }

    /// The first time that any survivor said so.
    fn first(&self, log: &str, words: &[&str]) -> Result<Moment> {
        let killed = Moment::of(self.killed);
        let moments = self.guests().filter_map(|guest| said(&guest.log(log), words));
        let first = moments.filter(|moment| moment.since(killed).is_some());
        let first = first.min_by_key(|moment| moment.since(killed));
        first.ok_or_else(|| LabError::Expect(format!("{words:?} is in no {log} after the kill")))
    }

    /// The dead was buried once everywhere, after `allowed`; the living were not.
    fn buried_once(&self, allowed: Instant) -> Result<()> {
        let (mut replays, mut masters) = (0, 0);
        for (guest, boot) in &self.survivors {
            let name = guest.name();
            ensure!(guest.is_on() && guest.boot_id()? == *boot, "{name} was reset");
            let told = guest.log("o2bridged.log").matches(TOLD).count();
            ensure!(told == 1, "the shim of {name} was told {told} deaths");
            let said = guest.dmesg()?;
            let evicted = format!("{EVICTED} {}", self.dead.number());
            let (right, all) = (said.matches(&evicted).count(), said.matches(EVICTED).count());
            // Another node that recovers the locks may say so after the heartbeat did: a second line.
            let most = if said.contains(MASTER) { 1 } else { 2 };
            ensure!(
                right == all && (1..=most).contains(&all),
                "{name}: {right} of {all} evictions"
            );
            replays += said.matches(REPLAY).count();
            masters += said.matches(MASTER).count();
            let evicted = moment::said(&guest.log("kernel.log"), &[EVICTED]);
            let late = evicted.and_then(|at| at.since(Moment::of(allowed)));
            in_order(late, &format!("{name}: the eviction after fencing"))?;
        }
        ensure!(replays == 1, "the journal was replayed {replays} times");
        ensure!(masters == 1, "there were {masters} masters of the locks' recovery");
        self.lab.step("buried once, after fencing; no survivor was reset");
        Ok(())
    }

    /// The dead comes back as a member like any other.
    fn comes_back(&self, config: &str) -> Result<()> {
        let (lab, guest) = (self.lab, self.dead);
        let members: Vec<u8> = lab.guests().map(Guest::number).collect();
        guest.start()?;
        guest.start_corosync(&bridge::corosync(u8::try_from(members.len()).unwrap_or(u8::MAX)))?;
        for other in lab.guests() {
            other.wait_members(&members, Duration::from_secs(30))?;
        }
        guest.start_o2bridged(config)?;
        for other in lab.guests() {
            bridge::wait_ready(other, members.len())?;
        }
        stock::mount(guest, DISK)?;
        let whole = stock::check_load(guest, guest)?;
        guest.ok(&format!("grep -q x {MOUNT}/after-{}", guest.name()))?;
        lab.step(&format!("{} is back and reads: {whole}", guest.name()));
        cross_over(lab)?;
        bridge::peaceful(guest)
    }
}

fn in_order(time: Option<Duration>, what: &str) -> Result<Duration> {
    time.ok_or_else(|| LabError::Expect(format!("not in this order: {what}")))
}

fn death(context: &Context, guests: u8, dead: u8, mkfs: &str, config: &str) -> Result<()> {
    let lab = mounted(context, guests, mkfs, config)?;
    let death = Death::strike(&lab, dead)?;
    let answered = death.all_answered()?;
    death.figures(context, answered)?;
    death.comes_back(config)?;
    death.buried_once(death.fenced()?)?;
    end(&lab)
}

fn unfenced(context: &Context) -> Result<()> {
    let lab = mounted(context, 2, "", ACKNOWLEDGED)?;
    let death = Death::strike(&lab, 2)?;
    let one = lab.guest(1);
    let access = stock::access(one, death.dead)?;
    thread::sleep(UNFENCED.saturating_sub(death.killed.elapsed()));
    nothing_is_told(one)?;
    ensure!(access.ended().is_none(), "answered before the death was acknowledged");
    lab.step("for 40 s nothing was told, and the access hangs");
    let acknowledged = Instant::now();
    one.ok("o2bridge fence-ack 2")?;
    let answered = stock::answered(&access, RECOVERY_LIMIT)?;
    context.figure("fence-ack to first access", answered - acknowledged);
    let whole = stock::check_load(one, death.dead)?;
    lab.step(&format!("acknowledged, and n1 reads on; load of n2: {whole}"));
    death.buried_once(acknowledged)?;
    ensure!(lab.fencing.log().is_empty(), "somebody was fenced: {:?}", lab.fencing.log());
    stock::umount(one)?;
    bridge::stop(one)
}

/// Neither the kernel nor the shim has heard of a death, and status says what is to be done.
fn nothing_is_told(guest: &Guest) -> Result<()> {
    bridge::all_alive(guest)?;
    let log = guest.log("o2bridged.log");
    ensure!(!log.contains(TOLD), "the shim was told of the death");
    let condemned = "node died; the shim is told once it is fenced";
    ensure!(log.contains(condemned), "the daemon has not seen the death");
    let status = guest.ok("o2bridge status")?;
    ensure!(status.contains("o2bridge fence-ack 2"), "status does not say what to do: {status}");
    Ok(())
}
