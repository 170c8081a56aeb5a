//! The shared disk fails on one node only. There it is under a device mapper, whose table is replaced
//! by one that answers everything with an error.
//!
//! Nothing in the kernel notices the loss by itself while nobody writes: the heartbeat goes to memory.
//! So the daemon asks the disk, and resets the node.
//!
//! Of a node that writes, measured on 6.1: OCFS2 does not go read-only. The next commit of the journal,
//! within 5 s, fails and aborts it; whoever then starts a transaction makes the kernel panic ("panic
//! forced after error"): 1.6 s after the loss with a steady writer. A writer that gives up at its first
//! error leaves a mounted volume that nothing in the kernel ends; the daemon does, after `storage_loss_ms`.
//!
//! A disk that comes back does not make such a node good again: what its kernel could not write meanwhile
//! is lost (a directory stayed unreadable there). So `report` is for those who then reset it themselves.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{bridge, seen, stock};
use crate::ensure;
use crate::error::Result;
use crate::guest::{Guest, Off};
use crate::lab::Lab;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "baddisk",
        guests: 2,
        text: "an idle node's disk fails: reported if so configured, else the node is reset",
        kernels: &[],
        run: bad_disk,
    },
    Scenario {
        name: "badload",
        guests: 2,
        text: "the disk of a node that writes fails: the node ends, the other recovers it",
        kernels: &[],
        run: bad_load,
    },
];

const DEVICE: &str = "/dev/mapper/bad";
const TABLE: &str = "\"0 $(blockdev --getsz /dev/vda) linear /dev/vda 0\"";
const LOSS: Duration = Duration::from_secs(6);
const RESET_LIMIT: Duration = Duration::from_secs(60);

fn config(on_loss: &str) -> String {
    let (fenced, loss_ms) = (bridge::FENCED, LOSS.as_millis());
    format!(
        "{fenced}[user_heartbeat]\nstorage_loss_ms = {loss_ms}\non_storage_loss = \"{on_loss}\"\n"
    )
}

fn mounted(context: &Context, config: &str) -> Result<Arc<Lab>> {
    let lab = bridge::boot(context, 2, "")?;
    let two = lab.guest(2);
    two.ok(&format!("modprobe dm_mod && dmsetup create bad --table {TABLE}"))?;
    bridge::start(&lab, config)?;
    stock::mount(lab.guest(1), bridge::DISK)?;
    stock::mount(two, DEVICE)?;
    lab.step("mounted on both, on n2 through the device mapper");
    Ok(lab)
}

/// From now on its disk fails. Nothing is flushed before.
fn fail(guest: &Guest) -> Result<Instant> {
    guest.spawn("dmsetup wipe_table --noflush --nolockfs bad")?;
    Ok(Instant::now())
}

fn heal(guest: &Guest) -> Result<()> {
    guest.ok(&format!("dmsetup load bad --table {TABLE} && dmsetup resume bad")).map(drop)
}

fn bad_disk(context: &Context) -> Result<()> {
    let lab = mounted(context, &config("report"))?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    two.ok(&format!("echo kept >{}/n2-kept && sync", stock::MOUNT))?;
    let uuid = seen::uuid(one, bridge::DISK)?;
    seen::wait_volume(two, &uuid, "storage", "good")?;

    let failed = fail(two)?;
    let said = "grep -q 'needs help.*is lost' /lab/share/log/o2bridged.log";
    two.wait_until("the report", RESET_LIMIT, said)?;
    context.figure("disk lost to report", failed.elapsed());
    seen::wait_volume(two, &uuid, "storage", "failing")?;
    thread::sleep(LOSS * 2);
    let reports = two.log("o2bridged.log").matches("needs help").count();
    ensure!(reports == 1 && two.is_on(), "{reports} reports; n2 {:?}", two.off());
    heal(two)?;
    seen::wait_volume(two, &uuid, "storage", "good")?;
    lab.step("reported once, healed, and that was seen");

    two.kill_program("o2bridged")?;
    two.start_o2bridged(&config("reset"))?;
    bridge::wait_ready(two, 2)?;
    seen::wait_volume(two, &uuid, "storage", "good")?;
    let failed = fail(two)?;
    let reset = two.wait_reset(RESET_LIMIT)?;
    context.figure("disk lost to reset", reset - failed);
    ensure!(reset - failed >= LOSS, "too early: {:?}", reset - failed);
    // The keeper's letter to the kernel; the daemon's last line may not reach its log any more.
    ensure!(two.console().contains("sysrq: Resetting"), "not by us");
    ensure!(!two.console().contains("Kernel panic"), "its kernel panicked");
    lab.step("n2 was reset");

    let answered = stock::first_access(one, two, RESET_LIMIT)?;
    context.figure("reset to first access", answered.saturating_duration_since(reset));
    let text = one.ok(&format!("cat {}/n2-kept", stock::MOUNT))?;
    ensure!(text == "kept", "n1 reads '{text}'");
    end(&lab)
}

fn bad_load(context: &Context) -> Result<()> {
    let lab = mounted(context, bridge::FENCED)?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    stock::start_load(two)?;
    two.spawn(&format!("while :; do echo x >>{}/n2-stubborn; sleep 0.2; done", stock::MOUNT))?;
    let failed = fail(two)?;
    lab.step("n2 writes, and its disk fails");
    let reset = two.wait_reset(RESET_LIMIT)?;
    context.figure("disk lost to reset", reset - failed);
    ensure!(two.off() == Some(Off::Reset), "n2 {:?}", two.off());
    let panicked = two.console().contains("Kernel panic");
    lab.step(if panicked { "its kernel panicked" } else { "n2 was reset by its daemon" });
    let answered = stock::first_access(one, two, RESET_LIMIT)?;
    context.figure("reset to first access", answered.saturating_duration_since(reset));
    lab.step(&format!("n1 reads on; load of n2: {}", stock::check_load(one, two)?));
    end(&lab)
}

fn end(lab: &Lab) -> Result<()> {
    seen::buried_once(lab, 2, &[1], bridge::DISK)?;
    stock::umount(lab.guest(1))?;
    bridge::stop(lab.guest(1))?;
    seen::sound(lab.guest(1), bridge::DISK)?;
    lab.step("recovered once, unmounted, nothing left in configfs, fsck finds no fault");
    Ok(())
}
