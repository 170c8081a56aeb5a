//! The lab itself: what every other scenario takes for granted.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::ensure;
use crate::error::{LabError, Result};
use crate::fence::Switch;
use crate::guest::{Corosync, Guest, Off};
use crate::lab::Plan;
use crate::run::{AND_NEWEST, Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "boot",
        guests: 1,
        text: "a guest boots, runs commands, loads modules, is frozen, reset, started again, reset by its watchdog",
        kernels: AND_NEWEST,
        run: boot,
    },
    Scenario {
        name: "corosync",
        guests: 2,
        text: "two guests form a cluster; a cut cable parts them; one fences the other",
        kernels: AND_NEWEST,
        run: corosync,
    },
    Scenario {
        name: "three",
        guests: 3,
        text: "three guests; one is unplugged: it has no quorum, the two have, and it returns",
        kernels: &[],
        run: three,
    },
];

const SOON: Duration = Duration::from_secs(20);

fn boot(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(1).disk("shared", 64).watchdog())?;
    let guest = lab.guest(1);
    let release = guest.ok("uname -r")?;
    ensure!(release == context.kernel.release, "runs {release}, not {}", context.kernel.release);
    guest.ok("for m in ocfs2 ocfs2_stack_o2cb ocfs2_dlmfs brd loop dm_mod i6300esb; do modprobe $m || exit; done")?;
    guest.ok("test -b /dev/vda && test -b /dev/ram0 && test -c /dev/watchdog")?;
    lab.step("modules of the kernel are loaded");

    keeps_time(guest)?;

    let hangs = guest.spawn("sleep 1000")?;
    ensure!(guest.ok("echo $((6 * 7))")? == "42", "a second command beside one that hangs");
    hangs.kill()?;
    ensure!(hangs.wait(SOON)?.exit == 137, "a killed command says so");

    guest.freeze()?;
    let held = guest.spawn("true")?;
    ensure!(held.wait(Duration::from_secs(1)).is_err(), "a frozen guest answers");
    guest.thaw()?;
    held.wait(SOON)?;

    lab.plug_disk("late", 64, &[1])?;
    guest.wait_until("the new disk", SOON, "test -b /dev/vdb")?;
    lab.step("frozen, thawed, a disk plugged in");

    let before = guest.boot_id()?;
    guest.crash()?;
    ensure!(guest.off() == Some(Off::Reset), "sysrq b: {:?}", guest.off());
    guest.start()?;
    ensure!(guest.boot_id()? != before, "a new boot has a new boot id");
    guest.ok("sysctl -q kernel.panic && ! lsmod | grep -q ocfs2")?;
    lab.step("reset by itself and started again");

    guest.ok("modprobe i6300esb heartbeat=2")?;
    guest.spawn("exec 3>/dev/watchdog; sleep 1000")?;
    guest.wait_reset(SOON)?;
    ensure!(guest.off() == Some(Off::Watchdog), "watchdog not fed: {:?}", guest.off());
    lab.step("reset by its watchdog");
    Ok(())
}

/// A guest whose clock runs too fast declares its peers dead too early, and nothing can be measured.
fn keeps_time(guest: &Guest) -> Result<()> {
    let clock = || -> Result<(Instant, f64)> {
        let text = guest.ok("cut -d' ' -f1 /proc/uptime")?;
        let uptime = text.parse().map_err(|_| LabError::Expect(format!("uptime {text:?}")))?;
        Ok((Instant::now(), uptime))
    };
    let (begin, guest_begin) = clock()?;
    thread::sleep(Duration::from_secs(3));
    let (end, guest_end) = clock()?;
    let rate = (guest_end - guest_begin) / (end - begin).as_secs_f64();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let there: f64 = guest.ok("date +%s.%N")?.parse().unwrap_or(0.0);
    ensure!((there - now).abs() < 0.5, "the guest's time is {:.3} s beside ours", there - now);
    ensure!((0.8..1.2).contains(&rate), "the guest's clock goes {rate:.2} times as fast as ours");
    Ok(())
}

fn corosync(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2))?;
    lab.form(&Corosync::new(&[1, 2]))?;
    ensure!(
        lab.guest(1).run("ping -c1 -W2 n2 || busybox ping -c1 -W2 n2", SOON)?.exit == 0,
        "no ping"
    );
    lab.net.cut(1, 2);
    lab.guest(1).wait_members(&[1], SOON)?;
    lab.net.heal(1, 2);
    lab.guest(1).wait_members(&[1, 2], SOON)?;
    lab.step("parted and joined again");

    lab.fencing.set(Switch::Fails);
    let fence_input = "printf 'action=off\\nplug=n2\\n' |";
    let fence = format!("{fence_input} fence_lab");
    ensure!(lab.guest(1).run(&fence, SOON)?.exit == 1, "a switch that fails says so");
    ensure!(lab.guest(2).is_on(), "and the victim lives");
    lab.fencing.set(Switch::Hangs);
    let exit = lab.guest(1).run(&format!("{fence_input} timeout 2 fence_lab"), SOON)?.exit;
    ensure!(exit == 124, "a switch that hangs never answers; exit {exit}");
    lab.fencing.set(Switch::Works);
    lab.guest(1).ok(&fence)?;
    ensure!(lab.guest(2).off() == Some(Off::Killed), "fenced: {:?}", lab.guest(2).off());
    lab.guest(1).wait_members(&[1], SOON)?;
    lab.step("n1 has fenced n2");
    Ok(())
}

fn three(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(3))?;
    lab.form(&Corosync::new(&[1, 2, 3]))?;
    lab.net.unplug(3);
    for number in [1, 2] {
        lab.guest(number).wait_members(&[1, 2], SOON)?;
    }
    let alone = "corosync-quorumtool -s | grep -q 'Quorate: *No'";
    lab.guest(3).wait_until("no quorum alone", SOON, alone)?;
    lab.guest(1).ok("corosync-quorumtool -s | grep -q 'Quorate: *Yes'")?;
    lab.step("two have quorum, one has not");
    lab.net.plug(3);
    lab.guest(3).wait_members(&[1, 2, 3], SOON)
}
