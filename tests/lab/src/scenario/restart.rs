//! The daemon, its keeper, or corosync end while volumes are mounted and written to.

mod corosync;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{bridge, stock};
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::{Guest, Job};
use crate::lab::Lab;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "killdaemon",
        guests: 2,
        text: "o2bridged is killed 20 times under load: nothing happens; a death meanwhile arrives",
        kernels: &[],
        run: killdaemon,
    },
    Scenario {
        name: "nodaemon",
        guests: 2,
        text: "o2bridged is killed and stays away: its keeper resets the node in time",
        kernels: &[],
        run: nodaemon,
    },
    Scenario {
        name: "killkeeper",
        guests: 2,
        text: "the keeper is killed, alone and with o2bridged: replaced, and nothing else happens",
        kernels: &[],
        run: killkeeper,
    },
    Scenario {
        name: "killcorosync",
        guests: 2,
        text: "corosync is killed and back in time: nothing; it stays away: fenced, recovered once",
        kernels: &[],
        run: corosync::killed,
    },
    Scenario {
        name: "stopcorosync",
        guests: 2,
        text: "corosync is restarted in order under a mount: that is a death, fenced, recovered once",
        kernels: &[],
        run: corosync::stopped,
    },
];

/// As systemd does it with `Restart=on-failure`, only sooner; held back while there is `/run/held`.
pub(super) const RESPAWN: &str = "sh -c 'until o2bridged --config /etc/o2bridge/o2bridge.toml; \
                       do sleep 0.3; while [ -e /run/held ]; do sleep 0.1; done; done'";

/// How long a load may stand still while only daemons are restarted.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(15);

const KILLS: u32 = 20;

/// A cluster of two that writes on both nodes.
struct Writing {
    lab: Arc<Lab>,
    loads: Vec<Job>,
}

impl Writing {
    /// Daemons that come back when they fail, a volume mounted on both nodes, a load on each.
    fn start(context: &Context) -> Result<Self> {
        Self::start_on(bridge::boot(context, 2, "")?)
    }

    fn start_on(lab: Arc<Lab>) -> Result<Self> {
        for guest in lab.guests() {
            guest.put("/etc/o2bridge/o2bridge.toml", bridge::FENCED)?;
            guest.daemon("o2bridged", RESPAWN)?;
        }
        ready(&lab)?;
        lab.step("o2bridged runs, the regions stand");
        for guest in lab.guests() {
            stock::mount(guest, bridge::DISK)?;
        }
        let loads = lab.guests().map(stock::start_load).collect::<Result<_>>()?;
        lab.step("both nodes write");
        Ok(Self { lab, loads })
    }

    /// Waits until both loads have written more, and says how long that took.
    fn goes_on(&self) -> Result<Duration> {
        let started = Instant::now();
        self.lab.guests().try_for_each(|guest| writes_on(guest, STALL_LIMIT))?;
        Ok(started.elapsed())
    }

    /// Nobody was reset or fenced, and no kernel or shim has heard of a death.
    fn undisturbed(&self) -> Result<()> {
        let fenced = self.lab.fencing.log();
        ensure!(fenced.is_empty(), "fenced: {fenced:?}");
        for guest in self.lab.guests() {
            let name = guest.name();
            ensure!(guest.is_on(), "{name} went off: {:?}", guest.off());
            bridge::all_alive(guest)?;
            let log = guest.log("o2bridged.log");
            ensure!(!log.contains("the shim was told that"), "{name} told its kernel of a death");
        }
        Ok(())
    }

    /// Ends all in the ordinary way.
    fn end(self) -> Result<()> {
        for load in &self.loads {
            load.kill()?;
            load.wait(Duration::from_secs(20))?;
        }
        self.lab.guests().try_for_each(stock::umount)?;
        self.lab.guests().try_for_each(bridge::stop)?;
        self.lab.step("unmounted, nothing left in configfs");
        Ok(())
    }
}

/// Files that its load has reported.
fn written(guest: &Guest) -> usize {
    let report = fs::read_to_string(guest.share().join("load")).unwrap_or_default();
    report.lines().count()
}

/// Waits until its load has written some more.
pub(super) fn writes_on(guest: &Guest, limit: Duration) -> Result<()> {
    let (began, before) = (Instant::now(), written(guest));
    while written(guest) < before + 3 {
        if began.elapsed() > limit {
            let what = format!("{}: the load (at {before})", guest.name());
            return Err(LabError::Late { what, limit });
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until all daemons are back and their groups ready.
fn ready(lab: &Lab) -> Result<()> {
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, lab.guests().count()))
}

pub(super) fn pid(guest: &Guest, program: &str) -> Result<String> {
    guest.ok(&format!("pidof {program}"))
}

/// The heartbeat threads of its regions: another region has another thread.
fn threads(guest: &Guest) -> Result<String> {
    guest.ok("cd /sys/kernel/config/cluster/lab/heartbeat && grep . */pid")
}

/// Kills programs by SIGKILL and waits until the first of them runs again, with another pid.
pub(super) fn replace(guest: &Guest, programs: &[&str]) -> Result<Duration> {
    let (first, old) = (programs[0], pid(guest, programs[0])?);
    let killed = Instant::now();
    guest.kill_program(&programs.join(" "))?;
    let other = format!("new=$(pidof {first}) && [ \"$new\" != {old} ]");
    guest.wait_until(&format!("another {first}"), Duration::from_secs(10), &other)?;
    Ok(killed.elapsed())
}

fn killdaemon(context: &Context) -> Result<()> {
    let writing = Writing::start(context)?;
    let lab = &writing.lab;
    let identity = |guest| Ok((pid(guest, "o2bridge-keeper")?, threads(guest)?));
    let before: Vec<_> = lab.guests().map(identity).collect::<Result<_>>()?;
    let mut longest = Duration::ZERO;
    for kill in 0..KILLS {
        let is_first = kill % 2 == 0;
        replace(lab.guest(if is_first { 1 } else { 2 }), &["o2bridged"])?;
        longest = longest.max(writing.goes_on()?);
        // Every other time the next kill comes while this daemon is still on its way back.
        if !is_first {
            ready(lab)?;
        }
    }
    context.figure("longest wait for the loads after a kill", longest);
    writing.undisturbed()?;
    let after: Vec<_> = lab.guests().map(identity).collect::<Result<_>>()?;
    ensure!(before == after, "keepers and regions were {before:?} and are {after:?}");
    for guest in lab.guests() {
        let adopted = guest.log("o2bridged.log").matches(" adopted, beats 1 slots").count();
        ensure!(adopted >= 10, "{}: {adopted} adoptions of a keeper that beats", guest.name());
    }
    lab.step(&format!("{KILLS} kills: the same keepers, the same regions, no death, no reset"));

    lab.guest(1).ok("touch /run/held")?;
    lab.guest(1).kill_program("o2bridged")?;
    let killed = Instant::now();
    lab.guest(2).kill();
    thread::sleep(Duration::from_secs(5));
    lab.guest(1).ok("! pidof o2bridged && rm /run/held")?;
    let back = Instant::now();
    let took = bridge::recovered(lab, 1, 2, killed)?;
    context.figure("daemon back to first access", took - (back - killed));
    once(lab.guest(1))?;
    writes_on(lab.guest(1), STALL_LIMIT)
}

/// The kernel of a survivor has heard of one death, once.
fn once(guest: &Guest) -> Result<()> {
    let dmesg = guest.dmesg()?;
    let count = |word| dmesg.matches(word).count();
    let (evicted, replayed) = (count("has evicted node"), count("Begin replay journal"));
    ensure!((evicted, replayed) == (1, 1), "{evicted} evictions, {replayed} replays");
    let told = guest.log("o2bridged.log").matches("the shim was told that").count();
    ensure!(told == 1, "the shim was told {told} times");
    Ok(())
}

fn nodaemon(context: &Context) -> Result<()> {
    let lab = bridge::boot(context, 2, "")?;
    refuses_a_late_keeper(lab.guest(2))?;
    lab.step("a keeper that could be too late is refused, with the arithmetic");
    let writing = Writing::start_on(Arc::clone(&lab))?;
    lab.guest(2).ok("touch /run/held")?;
    let killed = Instant::now();
    lab.guest(2).kill_program("o2bridged")?;
    let reset = lab.guest(2).wait_reset(Duration::from_secs(40))?;
    context.figure("daemon killed to reset", reset - killed);
    // The defaults of keeper.daemon_back_ms and timing.grace_ms.
    let (least, grace) = (Duration::from_secs(20), Duration::from_secs(30));
    ensure!(reset - killed > least, "reset after {:?}", reset - killed);
    ensure!(reset - killed < grace, "reset after {:?}", reset - killed);
    let took = bridge::recovered(&lab, 1, 2, reset)?;
    context.figure("reset to first access", took);
    let fenced = lab.fencing.log();
    ensure!(fenced.iter().all(|fenced| fenced.asked > reset), "fenced before: {fenced:?}");
    once(lab.guest(1))?;
    writes_on(lab.guest(1), STALL_LIMIT)?;
    drop(writing);
    Ok(())
}

/// The peers wait 30 s, of which the keeper must leave a fifth. Nothing is touched by the refusal.
fn refuses_a_late_keeper(guest: &Guest) -> Result<()> {
    let config = format!("{}[keeper]\ndaemon_back_ms = 24000\n", bridge::FENCED);
    guest.put("/tmp/late.toml", &config)?;
    for check in ["", "--check-config"] {
        let command = format!("o2bridged --config /tmp/late.toml {check}");
        let output = guest.run(&command, Duration::from_secs(10))?;
        let said = format!("{}{}", output.stdout, output.stderr);
        ensure!(output.exit == 1, "`{command}`: exit {}: {said}", output.exit);
        let arithmetic = "daemon_back_ms 24000 >= grace_ms 30000 * 4/5 = 24000";
        ensure!(said.contains(arithmetic), "`{command}` says {said}");
    }
    guest.ok("! grep -q ocfs2 /proc/modules && ! pidof o2bridge-keeper").map(drop)
}

fn killkeeper(context: &Context) -> Result<()> {
    let writing = Writing::start(context)?;
    let (lab, victim) = (&writing.lab, writing.lab.guest(2));
    let before = threads(victim)?;
    for _ in 0..5 {
        replace(victim, &["o2bridge-keeper"])?;
        writing.goes_on()?;
    }
    let gap = longest_gap(&victim.log("o2bridged.log"))?;
    context.figure("longest time without a keeper", gap);
    ensure!(gap < Duration::from_secs(3), "{gap:?} without a keeper");
    ready(lab)?;
    writing.undisturbed()?;
    lab.step("5 keepers killed and replaced");

    let away = replace(victim, &["o2bridge-keeper", "o2bridged"])?;
    context.figure("keeper and daemon killed to another keeper", away);
    writing.goes_on()?;
    ready(lab)?;
    // Longer than any of the kernel's and the peers' patience with a slot that is silent now.
    thread::sleep(Duration::from_secs(65));
    writing.goes_on()?;
    writing.undisturbed()?;
    let after = threads(victim)?;
    ensure!(before == after, "regions were {before}, are {after}");
    lab.step("keeper and daemon killed at once and replaced");
    writing.end()
}

/// The longest time between two keepers, as the daemon says it; there must be five.
fn longest_gap(log: &str) -> Result<Duration> {
    let number = |line: &str| {
        let before = line.split_once(" ms without one")?.0;
        before.rsplit_once(' ')?.1.parse().ok()
    };
    let replaced = log.lines().filter(|line| line.contains(" started, beats 1 slots"));
    let gaps: Vec<u64> = replaced.filter_map(number).collect();
    ensure!(gaps.len() == 5, "keepers that began with a slot: {gaps:?}");
    Ok(Duration::from_millis(gaps.into_iter().max().unwrap_or(0)))
}
