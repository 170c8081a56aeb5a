//! The node table of the kernel, as kmod-ctl's example `nodetable` fills and changes it.

use std::fs;
use std::time::Duration;

use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::lab::{Lab, Plan};
use crate::run::{Context, Scenario};

const LIMIT: Duration = Duration::from_secs(120);
const TREE: &str = "cd /sys/kernel/config/cluster && for f in $(find . -type f | sort); do \
                    echo $f=$(cat $f); done";
const MOUNT: &str = "mount -t ocfs2 /dev/vda /lab/mnt";

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "nodetable",
    guests: 2,
    text: "the node table: online, adopted, refused, nodes come and go under mounts, offline",
    kernels: &[],
    run: nodetable,
}];

/// Gives the guests the example, which is not beside the other programs.
fn hand_out(lab: &Lab) -> Result<()> {
    let me = std::env::current_exe().map_err(LabError::io("where am I?"))?;
    let program = me.with_file_name("examples").join("nodetable");
    for guest in lab.guests() {
        let copy = guest.share().join("nodetable");
        fs::copy(&program, copy).map_err(|error| {
            let build = "cargo build -p o2bridge-kmod-ctl --examples";
            LabError::Skip(format!("{}: {error}; {build}", program.display()))
        })?;
    }
    Ok(())
}

/// The example on a guest, with nodes n1 and n2 and these commands.
fn table(guest: &Guest, commands: &str) -> Result<String> {
    let nodes = "1=n1=10.7.0.1 2=n2=10.7.0.2";
    let line = format!("/lab/share/nodetable lab {} {nodes} -- {commands}", guest.number());
    let output = guest.run(&line, LIMIT)?;
    ensure!(output.exit == 0, "`{line}` ended with {}: {}", output.exit, output.stdout);
    Ok(output.stdout)
}

fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "no '{part}' in:\n{text}");
    Ok(())
}

fn nodetable(context: &Context) -> Result<()> {
    let lab = context.boot(&Plan::new(2).disk("shared", 512))?;
    hand_out(&lab)?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    bring_up(&lab, one)?;
    table(two, "prepare online")?;
    refused(&lab, one)?;
    one.ok_within(
        "mkfs.ocfs2 -q -N 4 -J size=4M --cluster-stack=o2cb --cluster-name=lab /dev/vda",
        LIMIT,
    )?;
    one.ok_within(MOUNT, LIMIT)?;
    two.ok_within(MOUNT, LIMIT)?;
    lab.step("both have mounted");
    under_mounts(&lab, one, two)?;
    one.ok_within("umount /lab/mnt", LIMIT)?;
    for guest in [one, two] {
        table(guest, "online offline")?;
        let left = guest.ok("ls /sys/kernel/config/cluster")?;
        ensure!(left.is_empty(), "{}: configfs holds {left}", guest.name());
    }
    lab.step("offline leaves configfs empty");
    zero_and_global(&lab, one)
}

fn zero_and_global(lab: &Lab, one: &Guest) -> Result<()> {
    one.put(
        "/etc/ocfs2/cluster.conf",
        "cluster:\n\tname = lab\n\nnode:\n\tname = n2\n\tnumber = 0\n\tip_address = 10.7.0.2\n\
         \tip_port = 7777\n\tcluster = lab\n",
    )?;
    has(&table(one, "prepare online")?, "node 'n2' added: slot 0")?;
    let said = table(one, "online")?;
    ensure!(!said.contains("done: "), "slot 0 is adopted: {said}");
    let n2 = "/sys/kernel/config/cluster/lab/node/n2";
    one.ok(&format!(
        "rmdir {n2} && mkdir {n2} && echo 7777 >{n2}/ipv4_port && echo 10.7.0.2 >{n2}/ipv4_address"
    ))?;
    table(one, "online")?;
    let again = one.run(&format!("echo 0 >{n2}/num"), LIMIT)?;
    ensure!(again.exit != 0, "slot 0 was not written: {}", again.stderr);
    lab.step("slot 0 is confirmed");
    has(&table(one, "online global fails online")?, "heartbeat_mode is local there")?;
    one.ok("rm /etc/ocfs2/cluster.conf")?;
    has(&table(one, "global online")?, "heartbeat/mode set to global")?;
    has(&one.ok(TREE)?, "./lab/heartbeat/mode=global")?;
    has(&table(one, "online offline")?, "heartbeat/mode set to local")?;
    ensure!(one.ok("ls /sys/kernel/config/cluster")?.is_empty(), "offline");
    Ok(())
}

fn bring_up(lab: &Lab, one: &Guest) -> Result<()> {
    // What fails leaves nothing: 10.7.0.9 is not ours.
    let line = "/lab/share/nodetable lab 1 1=n1=10.7.0.9 2=n2=10.7.0.2 -- prepare fails online";
    let said = one.ok_within(line, LIMIT)?;
    has(&said, "must be up on one of its interfaces")?;
    ensure!(one.ok("ls /sys/kernel/config/cluster")?.is_empty(), "undone");
    let said = table(one, "prepare threshold 21 online")?;
    has(&said, "heartbeat/dead_threshold set to 21")?;
    let tree = one.ok(TREE)?;
    for line in [
        "./lab/heartbeat/dead_threshold=21",
        "./lab/node/n1/local=1",
        "./lab/node/n1/num=1",
        "./lab/node/n2/ipv4_address=10.7.0.2",
        "./lab/node/n2/ipv4_port=7777",
        "./lab/node/n2/local=0",
    ] {
        has(&tree, line)?;
    }
    let said = table(one, "online")?;
    has(&said, "heartbeat/dead_threshold set to 31")?;
    let said = table(one, "prepare online")?;
    ensure!(!said.contains("done: "), "adopted, nothing written: {said}");
    lab.step("online, read back, corrected, adopted");
    Ok(())
}

fn refused(lab: &Lab, one: &Guest) -> Result<()> {
    let other = "/lab/share/nodetable other 1 1=n1=10.7.0.1 -- fails online";
    has(&one.ok(other)?, "cluster: name is lab there, other is wanted")?;
    one.put(
        "/etc/ocfs2/cluster.conf",
        "cluster:\n\tname = lab\n\nnode:\n\tname = n2\n\tnumber = 2\n\tip_address = 10.7.0.2\n\
         \tip_port = 7000\n\tcluster = lab\n",
    )?;
    has(&table(one, "fails online")?, "node 'n2': ip_port is 7000 there, 7777 is wanted")?;
    one.ok("rm /etc/ocfs2/cluster.conf")?;
    // A node that died half made, and slot 0.
    one.ok("mkdir /sys/kernel/config/cluster/lab/node/half")?;
    has(&table(one, "online")?, "node 'half' removed")?;
    let zero = "/lab/share/nodetable lab 1 1=n1=10.7.0.1 2=n2=10.7.0.2 -- online update";
    one.ok(zero)?;
    lab.step("contradictions are refused, half made nodes removed");
    Ok(())
}

fn under_mounts(lab: &Lab, one: &Guest, two: &Guest) -> Result<()> {
    let said = table(one, "online fails offline threshold 61 fails online threshold 31 online")?;
    has(&said, "heartbeat regions are active")?;
    has(&said, "heartbeat/dead_threshold is 31 there, 61 is wanted")?;
    ensure!(!said.contains("done: "), "adopted under a mount: {said}");
    for guest in [one, two] {
        let said = table(guest, "online add 3=n3=10.7.0.3 use 1 use 2 update")?;
        has(&said, "node 'n3' added: slot 3")?;
    }
    one.ok("ls /sys/kernel/config/cluster/lab/node/n3/num")?;
    one.ok_within("echo x >/lab/mnt/x; sync", LIMIT)?;
    has(&two.ok_within("cat /lab/mnt/x", LIMIT)?, "x")?;
    lab.step("a third node added on both, under mounts");

    // Somebody could be using it: online leaves it, an update takes it.
    let said = table(one, "online use 1 use 2 update")?;
    has(&said, "stale [(\"n3\", 3)]")?;
    has(&said, "node 'n3' removed")?;
    // Still a member; then no member, but connected; then gone.
    let said = table(one, "online drop 2 use 1 use 2 update free 2 update")?;
    has(&said, "node 'n2' stays: its slot 2 is in use")?;
    has(&said, "node 'n2' (slot 2) stays: the kernel says busy")?;
    has(&said, "slots {1: 1, 2: 2}")?;
    lab.step("a member stays, and a connected node too");
    let waits = one.spawn(
        "/lab/share/nodetable lab 1 1=n1=10.7.0.1 2=n2=10.7.0.2 -- online drop 2 use 1 wait >/lab/share/wait",
    )?;
    two.ok_within("umount /lab/mnt", LIMIT)?;
    let output = waits.wait(LIMIT)?;
    let said = one.ok("cat /lab/share/wait")?;
    ensure!(output.exit == 0, "it never went: {said}");
    has(&said, "done: node 'n2' removed")?;
    lab.step("it went when its connection was gone");
    // Back under another address, while we have it mounted.
    let said = one.ok("/lab/share/nodetable lab 1 1=n1=10.7.0.1 2=n2=10.7.0.22 -- online")?;
    has(&said, "node 'n2' added: slot 2, 10.7.0.22")?;
    let said = table(one, "online use 1 update")?;
    has(&said, "waiting: node 'n2' (slot 2) comes when node 'n2' is gone")?;
    has(&said, "done: node 'n2' removed")?;
    has(&said, "done: node 'n2' added: slot 2, 10.7.0.2:7777")?;
    lab.step("it came back under another address, and again");
    let output = two.run(MOUNT, LIMIT)?;
    ensure!(output.exit != 0, "n2 still has n3: tables differ, and yet it joins");
    lab.step("no mount while the tables differ");
    has(&table(two, "online update")?, "done: node 'n3' removed")?;
    two.ok_within(MOUNT, LIMIT)?;
    has(&two.ok_within("cat /lab/mnt/x", LIMIT)?, "x")?;
    two.ok_within("umount /lab/mnt", LIMIT)?;
    lab.step("and mounted again");
    Ok(())
}
