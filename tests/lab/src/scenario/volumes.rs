//! Several volumes, and those that are not ours.

use std::time::{Duration, Instant};

use super::{bridge, seen, stock};
use crate::ensure;
use crate::error::Result;
use crate::fence::Switch;
use crate::guest::Guest;
use crate::lab::{Lab, Plan};
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "two",
        guests: 3,
        text: "two volumes and one of another cluster; a node leaves while another dies; a late volume",
        kernels: &[],
        run: two_volumes,
    },
    Scenario {
        name: "kept",
        guests: 2,
        text: "a volume with a classic disk heartbeat is left alone, and served once that has ended",
        kernels: &[],
        run: kept,
    },
];

const SECOND: &str = "/lab/second";
const LIMIT: Duration = Duration::from_secs(90);

fn mount(guest: &Guest, device: &str, on: &str) -> Result<()> {
    let command = format!("mkdir -p {on} && mount -t ocfs2 {device} {on}");
    guest.ok_within(&command, LIMIT).map(drop)
}

fn umount(guest: &Guest, on: &str) -> Result<()> {
    guest.ok_within(&format!("umount {on}"), LIMIT).map(drop)
}

fn two_volumes(context: &Context) -> Result<()> {
    let plan = Plan::new(3).disk("first", 256).disk("second", 256).disk("other", 256);
    let lab = context.boot(&plan)?;
    let (one, two, three) = (lab.guest(1), lab.guest(2), lab.guest(3));
    one.ok("modprobe ocfs2_stack_o2cb")?;
    bridge::make_volume(one, "/dev/vda", "")?;
    bridge::make_volume(one, "/dev/vdb", "")?;
    bridge::make_volume(one, "/dev/vdc", "--cluster-name=other")?;
    let first = seen::uuid(one, "/dev/vda")?;
    let second = seen::uuid(one, "/dev/vdb")?;
    let other = seen::uuid(one, "/dev/vdc")?;
    lab.form(&bridge::corosync(3))?;
    bridge::start(&lab, bridge::FENCED)?;
    for guest in lab.guests() {
        has_regions(guest, &[&first, &second])?;
        seen::wait_volume(guest, &other, "state", "another cluster")?;
        stock::mount(guest, "/dev/vda")?;
        mount(guest, "/dev/vdb", SECOND)?;
    }
    lab.step("two volumes are mounted on all, that of another cluster is left alone");

    umount(three, SECOND)?;
    lab.step("n3 has unmounted the second volume");
    die_and_leave(context, &lab)?;
    // Both volumes needed n2's recovery, each once, and nobody took n3 for dead.
    seen::buried_once(&lab, 2, &[1], "/dev/vdb")?;
    let replays = |guest: &Guest| Ok(guest.dmesg()?.matches("Begin replay journal").count());
    let (by_one, by_three): (usize, usize) = (replays(one)?, replays(three)?);
    ensure!(by_one + by_three == 2, "{by_one} replays on n1, {by_three} on n3");
    nobody_else_died(&lab)?;
    let load = std::fs::read_to_string(two.share().join("second")).unwrap_or_default();
    one.put("/tmp/second", &load)?;
    one.ok_within(&format!("lab-load check {SECOND} n2 /tmp/second"), LIMIT)?;
    let whole = stock::check_load(one, two)?;
    lab.step(&format!("both volumes are recovered; {whole}"));

    lab.plug_disk("late", 256, &[1, 3])?;
    let late = late_volume(&lab)?;
    for guest in [one, three] {
        has_regions(guest, &[&first, &second, &late])?;
        ensure!(seen::volume(guest, &other, "state")? == "another cluster", "taken over");
    }
    umount(three, "/lab/late")?;
    bridge::stop(three)?;
    for on in ["/lab/late", SECOND, stock::MOUNT] {
        one.ok_within(&format!("touch {on}/alone && umount {on}"), LIMIT)?;
    }
    nobody_else_died_on(one)?;
    bridge::stop(one)?;
    lab.step("n3 has left, n1 went on; nothing left in configfs");
    Ok(())
}

/// n2 dies with both volumes in use; while it is being fenced, n3 leaves the first.
fn die_and_leave(context: &Context, lab: &Lab) -> Result<()> {
    let (one, two, three) = (lab.guest(1), lab.guest(2), lab.guest(3));
    stock::start_load(two)?;
    two.spawn(&format!("exec lab-load {SECOND} n2 /lab/share/second"))?;
    let some = "[ $(wc -l </lab/share/second) -ge 5 ]";
    two.wait_until("the second write load", Duration::from_secs(60), some)?;
    lab.fencing.set(Switch::Slow(Duration::from_secs(5)));
    let killed = Instant::now();
    two.kill();
    one.wait_members(&[1, 3], Duration::from_secs(20))?;
    let leaving = three.spawn(&format!("umount {}", stock::MOUNT))?;
    lab.step("n2 is dead and not fenced yet; n3 unmounts the first volume");
    let first = stock::first_access(one, two, LIMIT)?;
    context.figure("kill to first access", first - killed);
    let left = leaving.wait(LIMIT)?;
    ensure!(left.exit == 0, "n3 cannot unmount: {}", left.stderr);
    one.ok_within(&format!("cat {SECOND}/n2-* >/dev/null && touch {SECOND}/after"), LIMIT)?;
    Ok(())
}

/// The only one that any kernel buried is n2.
fn nobody_else_died(lab: &Lab) -> Result<()> {
    nobody_else_died_on(lab.guest(1))?;
    nobody_else_died_on(lab.guest(3))
}

fn nobody_else_died_on(guest: &Guest) -> Result<()> {
    let dmesg = guest.dmesg()?;
    let mut buried = dmesg.lines().filter(|line| line.contains("has evicted node"));
    let wrong = buried.find(|line| !line.contains("evicted node 2 "));
    ensure!(wrong.is_none(), "on {}: {wrong:?}", guest.name());
    Ok(())
}

/// A volume is made on a new disk while the daemons run. Its region comes by itself.
fn late_volume(lab: &Lab) -> Result<String> {
    let (one, three) = (lab.guest(1), lab.guest(3));
    for guest in [one, three] {
        guest.wait_until("the new disk", Duration::from_secs(20), "test -b /dev/vdd")?;
    }
    bridge::make_volume(one, "/dev/vdd", "")?;
    let uuid = seen::uuid(one, "/dev/vdd")?;
    for guest in [one, three] {
        seen::wait_volume(guest, &uuid, "state", "region")?;
    }
    for guest in [one, three] {
        mount(guest, "/dev/vdd", "/lab/late")?;
    }
    one.ok("echo late >/lab/late/file")?;
    let text = three.ok("cat /lab/late/file")?;
    ensure!(text == "late", "n3 reads '{text}'");
    lab.step("a late volume got its region and is mounted");
    Ok(uuid)
}

/// The regions in its kernel are exactly these, all on the RAM disk.
fn has_regions(guest: &Guest, uuids: &[&str]) -> Result<()> {
    let found = guest.ok(
        "cd /sys/kernel/config/cluster/lab/heartbeat && for r in */; do echo ${r%/} $(cat $r/dev); done",
    )?;
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    let mut wanted: Vec<String> = uuids.iter().map(|uuid| format!("{uuid} ram0")).collect();
    wanted.sort_unstable();
    ensure!(found == wanted, "regions of {}: {found:?}, not {wanted:?}", guest.name());
    Ok(())
}

fn kept(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2).disk("shared", 512))?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    stock::start_o2cb(one, 2)?;
    bridge::make_volume(one, bridge::DISK, "")?;
    let uuid = seen::uuid(one, bridge::DISK)?;
    stock::mount(one, bridge::DISK)?;
    lab.step("mounted on n1 with the classic heartbeat");
    lab.form(&bridge::corosync(2))?;
    for guest in lab.guests() {
        guest.start_o2bridged(bridge::FENCED)?;
    }
    for guest in lab.guests() {
        seen::wait_volume(guest, &uuid, "state", "disk heartbeat")?;
    }
    // Time for several more looks; during one, status says so.
    std::thread::sleep(Duration::from_secs(25));
    for guest in lab.guests() {
        seen::wait_volume(guest, &uuid, "state", "disk heartbeat")?;
        let groups = seen::status(guest)?["groups"].as_array().map_or(0, Vec::len);
        ensure!(groups == 0, "{} has taken the volume", guest.name());
        let log = guest.log("o2bridged.log");
        ensure!(!log.contains("event Begin"), "{} has begun the volume", guest.name());
    }
    let on = format!("cat /sys/kernel/config/cluster/lab/heartbeat/{uuid}/dev");
    ensure!(one.ok(&on)? == "vda", "the classic region is on {}", one.ok(&on)?);
    ensure!(two.run(&on, LIMIT)?.exit != 0, "n2 has a region");
    one.ok(&format!("echo here >{}/file", stock::MOUNT))?;
    lab.step("left alone on both");

    stock::umount(one)?;
    for guest in lab.guests() {
        bridge::wait_ready(guest, 2)?;
        has_regions(guest, &[&uuid])?;
        stock::mount(guest, bridge::DISK)?;
    }
    let text = two.ok(&format!("cat {}/file", stock::MOUNT))?;
    ensure!(text == "here", "n2 reads '{text}'");
    for guest in lab.guests() {
        stock::umount(guest)?;
    }
    bridge::stop(two)?;
    lab.step("the classic heartbeat ended, ours took over");
    Ok(())
}
