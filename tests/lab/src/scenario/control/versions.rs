//! Kernels that know different versions of the locking protocol. There is but one so far, so what the kernel
//! says of itself is replaced.

use super::super::bridge::{self, DISK};
use super::super::dlm::fall::LIMIT;
use super::super::dlm::{self, Dlm};
use super::super::ordinary::cross_over;
use super::super::seen;
use super::super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::run::Context;

/// Where a kernel says what it knows.
const KNOWS: &str = "/sys/fs/ocfs2/max_locking_protocol";

pub(super) fn run(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Asks)?;
    let lab = dlm::boot(context, 2, "cman", Dlm::Asks)?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    two.ok(&format!("echo 1.3 > /tmp/knows && mount --bind /tmp/knows {KNOWS}"))?;
    dlm::serve(&lab, Dlm::Asks)?;
    for guest in lab.guests() {
        let log = guest.log("o2bridged.log");
        let chosen = log.contains("OCFS2's locking protocol is 1.0 while anything is in use");
        ensure!(chosen, "{} has not chosen 1.0", guest.name());
    }
    cross_over(&lab)?;
    dlm::end(&lab)?;
    lab.step("of 1.0 and 1.3 both kernels ran 1.0");

    two.ok("echo 2.0 > /tmp/knows")?;
    lab.guests().try_for_each(|guest| guest.start_o2bridged(&dlm::control()))?;
    bridge::wait_ready(one, 1)?;
    stock::mount(one, DISK)?;
    let begin = format!("o2bridge begin {} {MOUNT}", seen::uuid(two, DISK)?);
    let refused = two.run(&begin, LIMIT)?;
    let why = "node 1 has OCFS2's locking protocol 1.0, and this node's kernel knows 2.0 at most";
    ensure!(refused.exit == 1 && refused.stderr.contains(why), "{begin}: {refused:?}");
    lab.step(&format!("2.0 beside 1.0: {}", refused.stderr.trim_end()));
    dlm::is_unused(two)?;
    dlm::end(&lab)
}
