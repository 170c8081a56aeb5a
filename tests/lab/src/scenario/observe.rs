//! The shim `observe`: fs/dlm tells OCFS2 of deaths itself, and the bridge only knows.

use std::time::Duration;

use super::control::DEATHS;
use super::dlm::fall::{self, Fall};
use super::dlm::trace::{OPEN, Trace};
use super::dlm::{self, Dlm};
use super::ordinary::cross_over;
use super::seen;
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::lab::Lab;
use crate::run::{Context, Scenario};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "observe",
        guests: 2,
        text: "observe: mounts, a death and its recovery by fs/dlm, the views agree; nothing is opened",
        kernels: &[],
        run: observe,
    },
    Scenario {
        name: "observedeaths",
        guests: 2,
        text: "observe: 20 deaths, one after the other, told by fs/dlm: their times to compare with",
        kernels: &["6.12"],
        run: |context| fall::many(context, DEATHS, "pcmk", Dlm::Default),
    },
    Scenario {
        name: "silentpcmk",
        guests: 1,
        text: "observe: tools that say nothing (label pcmk) have groups by the kernel's word",
        kernels: &[],
        run: |context| dlm::tools::run(context, "pcmk", Dlm::Default),
    },
    Scenario {
        name: "silentcman",
        guests: 1,
        text: "observe: tools that say MOUNT and nothing more (label cman)",
        kernels: &[],
        run: |context| dlm::tools::run(context, "cman", Dlm::Default),
    },
    Scenario {
        name: "refused",
        guests: 1,
        text: "control where DOWN is a kernel bug, or is not known: refused with the reason, nothing written",
        kernels: &[],
        run: refused,
    },
];

fn observe(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "pcmk", Dlm::Default)?;
    cross_over(&lab)?;
    lab.guests().try_for_each(|guest| views(guest, "1,2"))?;
    never_opened(&lab)?;
    lab.step("daemons, lockspace and ring agree; nobody has opened the control device");

    let fall = Fall::strike(&lab, &[2])?;
    let answered = fall.recovered()?;
    fall.figures(context, answered)?;
    fall.order(Dlm::Default)?;
    views(lab.guest(1), "1")?;
    ensure!(lab.fencing.log().is_empty(), "somebody was fenced: {:?}", lab.fencing.log());
    never_opened(&lab)?;
    fall.come_back(Dlm::Default)?;
    lab.guests().try_for_each(|guest| views(guest, "1,2"))?;
    disagreement(&lab)?;
    never_opened(&lab)?;
    dlm::end(&lab)
}

/// Status shows these nodes in each view, and no disagreement, soon.
fn views(guest: &Guest, nodes: &str) -> Result<()> {
    let wanted = format!("o2bridge status | grep -E ' {nodes} +{nodes} +{nodes} +yes'");
    let limit = Duration::from_secs(30);
    guest.wait_until(&format!("the views show {nodes} and agree"), limit, &wanted).map(drop)
}

/// A node that mounts without its daemon is in the lockspace, and no daemon says so.
fn disagreement(lab: &Lab) -> Result<()> {
    let (one, two) = (lab.guest(1), lab.guest(2));
    two.kill_program("o2bridged")?;
    let wanted = "o2bridge status | grep -q 'NO: node 2 '";
    one.wait_until("status says that node 2 is silent", Duration::from_secs(60), wanted)?;
    // Longer than the grace period, after which other shims would have corosync end the node.
    let spared =
        "grep -q 'a node is not ended for want of its daemon' /lab/share/log/o2bridged.log";
    one.wait_until("the grace period is over", Duration::from_secs(60), spared)?;
    one.wait_members(&[1, 2], Duration::from_secs(10))?;
    lab.step("a daemon that is missing shows as a disagreement");
    two.daemon("o2bridged", "o2bridged --config /etc/o2bridge/o2bridge.toml")?;
    lab.guests().try_for_each(|guest| views(guest, "1,2"))
}

/// Nobody has opened the control device; the trace would have it.
fn never_opened(lab: &Lab) -> Result<()> {
    for guest in lab.guests().filter(|guest| guest.is_on()) {
        let opened = Trace::of(guest)?.all(OPEN).len();
        ensure!(opened == 0, "{} opened the control device {opened} times", guest.name());
    }
    Ok(())
}

/// `control` by name, on a kernel that must not be written to.
fn refused(context: &Context) -> Result<()> {
    if context.kernel.name == dlm::SAFE_KERNEL {
        return Err(LabError::Skip("DOWN is safe on this kernel".into()));
    }
    let lab = dlm::boot(context, 1, "cman", Dlm::Asks)?;
    let guest = lab.guest(1);
    let status = seen::machine(guest)?;
    ensure!(status["down"] == "bug", "DOWN is {}", status["down"]);
    let known = "DOWN is a kernel BUG then";
    refuses(guest, &dlm::control(), known)?;
    // A risk that is known is none that can be taken.
    let risked = format!("{}[control]\nrisk_kernel_bug = true\n", dlm::control());
    refuses(guest, &risked, known)?;
    lab.step("refused with its reason");

    guest.ok("rm /boot/config-*")?;
    ensure!(seen::machine(guest)?["down"] == "unknown", "known without a configuration");
    refuses(guest, &dlm::control(), "control.risk_kernel_bug = true")?;
    lab.step("refused where it is not known");
    let auto = dlm::control().replace("\"control\"", "\"observe\"");
    refuses(guest, &auto, "the kernel waits to be told of deaths, and nobody would tell it")?;
    guest.ok("grep -q ocfs2_control /proc/misc")?;
    never_opened(&lab)
}

fn refuses(guest: &Guest, config: &str, why: &str) -> Result<()> {
    guest.put("/etc/o2bridge/o2bridge.toml", config)?;
    let output = guest.run("o2bridged", Duration::from_secs(20))?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(output.exit == 1 && said.contains(why), "exit {}: {said}", output.exit);
    guest.ok("! pidof o2bridge-keeper").map(drop)
}
