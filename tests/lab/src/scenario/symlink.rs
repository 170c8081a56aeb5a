//! The carrier of kernels with the user-heartbeat driver, on the test module: what the kernel is told
//! of a group without a volume, and in which order the node table changes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{bridge, module};
use crate::ensure;
use crate::error::{LabError, Result};
use crate::fence::Switch;
use crate::guest::{Corosync, Guest};
use crate::lab::{Lab, Plan};
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "symlink",
        guests: 2,
        text: "carrier symlink: up, down, deaths after fencing, resync after the daemon's SIGKILL",
        kernels: &["6.1", "6.12"],
        run: symlink,
    },
    Scenario {
        name: "nodelist",
        guests: 2,
        text: "a node's directory comes before its link, and goes after it",
        kernels: &["6.1", "6.12"],
        run: nodelist,
    },
];

const CARRIER: &str = "
[user_heartbeat]
carrier = \"symlink\"
volumes = \"none\"
";

const GROUP: &str = "A0A1A2A3A4A5A6A7A8A9AAABACADAEAF";
const CLUSTER: &str = "/sys/kernel/config/cluster/lab";
const EVENTS: &str = "/sys/kernel/debug/o2bridge_user_heartbeat/events";

/// How long an event may take that nothing holds up.
const SOON: Duration = Duration::from_secs(20);
/// So slow is fencing where nothing may be told before it is over.
const FENCING: Duration = Duration::from_secs(6);

/// A cluster whose kernels are the test module's.
struct Stage {
    lab: Arc<Lab>,
    module: PathBuf,
}

impl Stage {
    fn boot(context: &Context) -> Result<Self> {
        let module = module::build(&context.kernel)?;
        Ok(Self { lab: context.boot(&Plan::new(2))?, module })
    }

    fn guest(&self, number: u8) -> &Guest {
        self.lab.guest(number)
    }

    /// Driver, corosync and daemon; then the group is in use. n1 has the driver of 2007, n2 that of
    /// 2006. Both are left in the mode `disk`.
    fn enter(&self, number: u8, nodelist: &Corosync) -> Result<()> {
        let guest = self.guest(number);
        let copy = guest.share().join("module.ko");
        fs::copy(&self.module, &copy).map_err(LabError::at(&copy))?;
        let old = if number == 1 { "" } else { "sles10=1" };
        let insmod = format!("modprobe configfs && insmod /lab/share/module.ko {old}");
        guest.ok(&format!("grep -q ^o2bridge_ /proc/modules || {{ {insmod}; }}"))?;
        guest.start_corosync(nodelist)?;
        guest.wait_members(&nodelist.members, Duration::from_secs(30))?;
        guest.start_o2bridged(&format!("{}{CARRIER}", bridge::FENCED))?;
        self.join(number)?;
        let mode = if number == 1 { "kernel/config/cluster" } else { "o2cb" };
        let mode = guest.ok(&format!("cat /sys/{mode}/heartbeat_mode"))?;
        ensure!(mode == "user", "{}: the mode is '{mode}'", guest.name());
        guest.ok("! grep -q ^ocfs2 /proc/modules").map(drop)
    }

    fn join(&self, number: u8) -> Result<()> {
        let command = format!("o2bridge begin {GROUP} lab && o2bridge complete {GROUP} lab 0");
        self.guest(number).ok_within(&command, Duration::from_secs(60)).map(drop)
    }

    fn leave(&self, number: u8) -> Result<()> {
        self.guest(number).ok(&format!("o2bridge leave {GROUP} lab")).map(drop)
    }

    /// What the module of a guest has been told, without the region's name.
    fn events(&self, number: u8) -> Result<Vec<String>> {
        let text = self.guest(number).ok(&format!("cat {EVENTS}"))?;
        let event = |(line, wanted): (&str, usize)| {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [seq, what, GROUP, node] if seq == wanted.to_string() => {
                    Ok(format!("{what} {node}"))
                }
                _ => Err(LabError::Expect(format!("event {wanted} is '{line}'"))),
            }
        };
        text.lines().zip(1..).map(event).collect()
    }

    /// The module has been told this and nothing else.
    fn told(&self, number: u8, wanted: &[&str]) -> Result<()> {
        let events = self.events(number)?;
        ensure!(events == wanted, "n{number} was told {events:?}, not {wanted:?}");
        Ok(())
    }

    /// The same, within some time.
    fn soon(&self, number: u8, wanted: &[&str]) -> Result<()> {
        let end = Instant::now() + SOON;
        while self.events(number)?.len() < wanted.len() && Instant::now() < end {
            thread::sleep(Duration::from_millis(200));
        }
        self.told(number, wanted)
    }

    /// Until the power switch answers n1 has been told no more than this.
    fn untold_until_fenced(&self, told: &[&str], meanwhile: impl Fn() -> Result<()>) -> Result<()> {
        let before = self.lab.fencing.log().len();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let events = self.events(1)?;
            let also = meanwhile();
            if let Some(fenced) = self.lab.fencing.log().get(before) {
                ensure!(fenced.exit == 0 && fenced.by == "n1", "fenced: {fenced:?}");
                return Ok(());
            }
            ensure!(events == told, "n1 was told {events:?} before the fencing was over");
            also?;
            ensure!(Instant::now() < end, "n1 does not fence");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends the daemon of n1, which is the last user.
    fn finish(&self) -> Result<()> {
        self.leave(1)?;
        bridge::stop(self.guest(1))?;
        let bad = self.guest(1).dmesg()?;
        let bad = bad.lines().find(|line| line.contains("WARNING") || line.contains("Call Trace"));
        ensure!(bad.is_none(), "the kernel of n1: {}", bad.unwrap_or_default());
        self.lab.step("nothing left in configfs");
        Ok(())
    }
}

fn symlink(context: &Context) -> Result<()> {
    let stage = Stage::boot(context)?;
    let (lab, both) = (&stage.lab, bridge::corosync(2));
    let alone = Corosync { members: vec![1], votes: vec![2], ..both.clone() };
    stage.enter(1, &alone)?;
    stage.told(1, &["up 1"])?;
    lab.step("n1 is up in its own kernel, alone");
    reload(stage.guest(1), &both)?;
    stage.enter(2, &both)?;
    stage.soon(1, &["up 1", "up 2"])?;
    // Whoever joins has its peers up before itself: from then on its kernel takes a mount.
    stage.told(2, &["up 1", "up 2"])?;
    lab.step("n2 has joined, both know both");

    stage.leave(2)?;
    stage.soon(1, &["up 1", "up 2", "down 2"])?;
    stage.told(2, &["up 1", "up 2", "down 2", "down 1"])?;
    ensure!(lab.fencing.log().is_empty(), "a clean leave is no death");
    stage.join(2)?;
    let first = ["up 1", "up 2", "down 2", "up 2"];
    stage.soon(1, &first)?;
    lab.step("n2 has left and is back");

    stage.guest(1).kill_program("o2bridged")?;
    restarted(&stage)?;
    stage.told(1, &first)?;
    lab.step("a daemon killed and restarted: nothing to tell");

    let second = dies(&stage, &first)?;
    back(&stage, &both)?;
    let second: Vec<&str> = second.into_iter().chain(["up 2"]).collect();
    stage.soon(1, &second)?;
    lab.step("n2 is back");
    dies_unseen(context, &stage, &second)?;
    stage.finish()
}

/// The daemon comes back while all is as it was.
fn restarted(stage: &Stage) -> Result<()> {
    let (one, two) = (stage.guest(1), stage.guest(2));
    let before = stage.events(2)?;
    one.start_o2bridged(&format!("{}{CARRIER}", bridge::FENCED))?;
    bridge::wait_ready(one, 2)?;
    bridge::wait_ready(two, 2)?;
    // A resync that comes late is wrong, too.
    thread::sleep(Duration::from_secs(3));
    ensure!(stage.events(2)? == before, "n2 was told {:?}, was {before:?}", stage.events(2)?);
    Ok(())
}

/// n2 dies while all watch.
fn dies<'a>(stage: &Stage, told: &[&'a str]) -> Result<Vec<&'a str>> {
    let lab = &stage.lab;
    lab.fencing.set(Switch::Slow(FENCING));
    stage.guest(2).kill();
    stage.untold_until_fenced(told, || Ok(()))?;
    let told: Vec<&str> = told.iter().copied().chain(["down 2"]).collect();
    stage.soon(1, &told)?;
    lab.fencing.set(Switch::Works);
    lab.step("n2 is dead: told after the fencing, once");
    Ok(told)
}

fn back(stage: &Stage, nodelist: &Corosync) -> Result<()> {
    stage.guest(2).start()?;
    stage.enter(2, nodelist)?;
    stage.told(2, &["up 1", "up 2"])
}

/// n2 dies while n1 has no daemon.
fn dies_unseen(context: &Context, stage: &Stage, told: &[&str]) -> Result<()> {
    let (lab, one) = (&stage.lab, stage.guest(1));
    lab.fencing.set(Switch::Slow(FENCING));
    one.kill_program("o2bridged")?;
    stage.guest(2).kill();
    one.wait_members(&[1], Duration::from_secs(30))?;
    stage.told(1, told)?;
    one.start_o2bridged(&format!("{}{CARRIER}", bridge::FENCED))?;
    let started = Instant::now();
    stage.untold_until_fenced(told, || Ok(()))?;
    let told: Vec<&str> = told.iter().copied().chain(["down 2"]).collect();
    stage.soon(1, &told)?;
    context.figure("restart to death told", started.elapsed());
    lab.step("n2 died while n1 had no daemon: told after the fencing, once");
    Ok(())
}

fn nodelist(context: &Context) -> Result<()> {
    let stage = Stage::boot(context)?;
    let (lab, one, both) = (&stage.lab, stage.guest(1), bridge::corosync(2));
    let alone = Corosync { members: vec![1], votes: vec![2], ..both.clone() };
    stage.enter(1, &alone)?;
    let nodes = || one.ok(&format!("ls {CLUSTER}/node"));
    ensure!(nodes()? == "n1", "a table of one: {}", nodes()?);
    reload(one, &both)?;
    one.wait_until("n2 in the node table", SOON, &format!("cat {CLUSTER}/node/n2/num"))?;
    one.wait_members(&[1], SOON)?;
    stage.told(1, &["up 1"])?;
    lab.step("n2 is in the nodelist: it has a directory before it joins");

    stage.enter(2, &both)?;
    stage.soon(1, &["up 1", "up 2"])?;
    let busy = one.run(&format!("rmdir {CLUSTER}/node/n2"), SOON)?;
    ensure!(busy.stderr.contains("busy"), "rmdir of a linked node: {busy:?}");
    lab.step("n2 has joined");
    removed_when_gone(&stage, &alone, &both)?;
    let told = ["up 1", "up 2", "down 2", "up 2"];
    stage.soon(1, &told)?;
    lab.step("n2 is back");
    removed_while_linked(context, &stage, &alone, &told)?;
    stage.finish()
}

/// n2 stops in order and goes out of the nodelist, and comes back.
fn removed_when_gone(stage: &Stage, alone: &Corosync, both: &Corosync) -> Result<()> {
    let (lab, one, two) = (&stage.lab, stage.guest(1), stage.guest(2));
    stage.leave(2)?;
    bridge::stop(two)?;
    two.ok("corosync-cfgtool -H")?;
    two.wait_until("corosync ends", SOON, "! pidof corosync")?;
    one.wait_members(&[1], SOON)?;
    one.ok(&format!("test -d {CLUSTER}/node/n2"))?;
    reload(one, alone)?;
    one.wait_until("n2 gone from the node table", SOON, &format!("! test -e {CLUSTER}/node/n2"))?;
    stage.told(1, &["up 1", "up 2", "down 2"])?;
    ensure!(lab.fencing.log().is_empty(), "an orderly stop is no death");
    lab.step("n2 has left, stopped, and its directory went with its place in the nodelist");
    reload(one, both)?;
    stage.enter(2, both)
}

/// n2 goes out of the nodelist while it is a member. It falls out of the ring, and that is a death.
fn removed_while_linked(
    context: &Context,
    stage: &Stage,
    alone: &Corosync,
    told: &[&str],
) -> Result<()> {
    let (lab, one) = (&stage.lab, stage.guest(1));
    lab.fencing.set(Switch::Slow(FENCING));
    stage.guest(2).put("/etc/corosync/corosync.conf", &alone.text())?;
    reload(one, alone)?;
    let removed = Instant::now();
    let stays = format!("test -d {CLUSTER}/node/n2 && test -L {CLUSTER}/heartbeat/{GROUP}/n2");
    stage.untold_until_fenced(told, || one.ok(&stays).map(drop))?;
    let told: Vec<&str> = told.iter().copied().chain(["down 2"]).collect();
    stage.soon(1, &told)?;
    one.wait_until("n2 gone from the node table", SOON, &format!("! test -e {CLUSTER}/node/n2"))?;
    context.figure("out of the nodelist to no directory", removed.elapsed());
    let waited = "node 'n2' stays: its slot 2 is in use";
    ensure!(one.log("o2bridged.log").contains(waited), "the log does not say: {waited}");
    lab.step("n2 went out of the nodelist: fenced, down, and then its directory went");
    Ok(())
}

/// Has corosync read its configuration again, on all nodes that are members.
fn reload(guest: &Guest, settings: &Corosync) -> Result<()> {
    guest.put("/etc/corosync/corosync.conf", &settings.text())?;
    guest.ok("corosync-cfgtool -R").map(drop)
}
