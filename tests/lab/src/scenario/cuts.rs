//! The network is cut, one node against two. The one is n1: o2net's own quorum rule would prefer it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{bridge, seen, stock};
use crate::ensure;
use crate::error::Result;
use crate::fence::Switch;
use crate::guest::{Guest, Off};
use crate::lab::Lab;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "cut",
        guests: 3,
        text: "one node is cut off: it tells its kernel nothing and is fenced, two go on, it returns",
        kernels: &[],
        run: cut,
    },
    Scenario {
        name: "cutself",
        guests: 3,
        text: "as cut, with nobody to fence it: it resets itself, and the others wait for a word",
        kernels: &[],
        run: cut_self,
    },
];

/// Nobody is fenced by anybody.
const ACK: &str = "
[fencing]
policy = \"ack\"
inquorate_reset_ms = 15000
[shim]
kind = \"user-heartbeat\"
[log]
level = \"debug\"
";
const OWN_RESET: Duration = Duration::from_secs(15);

/// Long enough for the one that is cut off to lose its quorum and be tempted; far from o2net's own
/// 30 s.
const FENCING: Duration = Duration::from_secs(6);
const ACCESS_LIMIT: Duration = Duration::from_secs(90);

fn mounted(context: &Context, config: &str) -> Result<Arc<Lab>> {
    let lab = bridge::boot(context, 3, "")?;
    bridge::start(&lab, config)?;
    for guest in lab.guests() {
        stock::mount(guest, bridge::DISK)?;
    }
    lab.step("mounted on all");
    Ok(lab)
}

fn cut(context: &Context) -> Result<()> {
    let lab = mounted(context, bridge::FENCED)?;
    let (one, two, three) = (lab.guest(1), lab.guest(2), lab.guest(3));
    stock::start_load(one)?;
    let load = stock::start_load(two)?;
    lab.fencing.set(Switch::Slow(FENCING));
    lab.net.unplug(1);
    let cut = Instant::now();
    lab.step("n1 and n2 write; n1 is unplugged");

    let answered = stock::first_access(three, one, ACCESS_LIMIT)?;
    context.figure("cut to first access", answered - cut);
    ensure!(one.off() == Some(Off::Killed), "n1 was not fenced: {:?}", one.off());
    let fenced = lab.fencing.log();
    let wrong = fenced.iter().find(|request| request.by == "n1" || !is_one(&request.victim));
    ensure!(wrong.is_none(), "{wrong:?}");
    if let Some(done) = fenced.iter().find(|request| request.exit == 0).and_then(|f| f.answered) {
        context.figure("fenced to first access", answered.saturating_duration_since(done));
    }
    told_nothing(one)?;
    goes_on(two)?;
    lab.step(&format!("n2 and n3 go on; load of n1: {}", stock::check_load(three, one)?));
    seen::buried_once(&lab, 1, &[2, 3], bridge::DISK)?;

    lab.net.plug(1);
    seen::comes_back(&lab, 1, bridge::FENCED)?;
    stock::mount(one, bridge::DISK)?;
    let whole = stock::check_load(one, one)?;
    goes_on(two)?;
    load.kill()?;
    load.wait(ACCESS_LIMIT)?;
    one.ok_within(
        &format!("find {} -type f -exec cat {{}} + >/dev/null", stock::MOUNT),
        ACCESS_LIMIT,
    )?;
    lab.step(&format!("n1 is back and reads all; its load of old: {whole}"));
    seen::buried_once(&lab, 1, &[2, 3], bridge::DISK)?;
    end(&lab, &[1, 2, 3])
}

fn cut_self(context: &Context) -> Result<()> {
    let lab = mounted(context, ACK)?;
    let (one, two, three) = (lab.guest(1), lab.guest(2), lab.guest(3));
    stock::start_load(one)?;
    lab.net.unplug(1);
    let cut = Instant::now();
    lab.step("n1 writes, and is unplugged");
    let reset = one.wait_reset(OWN_RESET * 4)?;
    context.figure("cut to own reset", reset - cut);
    ensure!(reset - cut >= OWN_RESET, "n1 reset itself too early: {:?}", reset - cut);
    told_nothing(one)?;
    lab.step("n1 has reset itself");

    // Nobody has said that it is off, so nothing may happen.
    thread::sleep(FENCING);
    for guest in [two, three] {
        ensure!(
            seen::recovery(&guest.dmesg()?).is_none(),
            "{} buried without a word",
            guest.name()
        );
        let log = guest.log("o2bridged.log");
        ensure!(!log.contains("verb: NodeDown"), "{} told its kernel", guest.name());
    }
    ensure!(lab.fencing.log().is_empty(), "somebody was fenced");
    lab.step("n2 and n3 wait");

    two.ok("o2bridge fence-ack 1")?;
    let acknowledged = Instant::now();
    let answered = stock::first_access(three, one, ACCESS_LIMIT)?;
    context.figure("fence-ack to first access", answered - acknowledged);
    lab.step(&format!("n3 reads on; load of n1: {}", stock::check_load(three, one)?));
    seen::buried_once(&lab, 1, &[2, 3], bridge::DISK)?;
    end(&lab, &[2, 3])
}

fn is_one(victim: &str) -> bool {
    victim == "n1" || victim == "1"
}

/// A node that was cut off saw that it has no quorum, and its kernel heard of no death.
fn told_nothing(guest: &Guest) -> Result<()> {
    let (name, log) = (guest.name(), guest.log("o2bridged.log"));
    ensure!(log.contains("quorate: false"), "{name} never saw that it was cut off");
    ensure!(!log.contains("verb: NodeDown"), "{name} told its kernel of a death");
    let console = guest.console();
    let line = seen::recovery(&console);
    ensure!(line.is_none(), "the kernel of {name}: {line:?}");
    Ok(())
}

/// Its write load makes progress.
fn goes_on(guest: &Guest) -> Result<()> {
    let lines = guest.ok("wc -l </lab/share/load")?;
    let more = format!("[ $(wc -l </lab/share/load) -ge $(({lines} + 5)) ]");
    guest.wait_until("its load goes on", Duration::from_secs(60), &more).map(drop)
}

fn end(lab: &Lab, guests: &[u8]) -> Result<()> {
    for number in guests {
        stock::umount(lab.guest(*number))?;
    }
    for number in guests {
        bridge::stop(lab.guest(*number))?;
    }
    seen::sound(lab.guest(2), bridge::DISK)?;
    lab.step("unmounted, nothing left in configfs, fsck finds no fault");
    Ok(())
}
