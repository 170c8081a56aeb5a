//! A volume that names another cluster. Nobody compares the names here, so it mounts, and its users die like others.

use super::super::bridge;
use super::super::dlm::fall::Fall;
use super::super::dlm::{self, Dlm};
use super::super::seen;
use super::super::stock;
use crate::ensure;
use crate::error::Result;
use crate::run::Context;

const OTHER: &str = "/dev/vdb";

pub(super) fn run(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Asks)?;
    let lab = dlm::boot(context, 2, "pcmk", Dlm::Asks)?;
    let one = lab.guest(1);
    lab.plug_disk("other", 512, &[1, 2])?;
    for guest in lab.guests() {
        guest.wait_until("the second disk", bridge::READY_LIMIT, &format!("test -b {OTHER}"))?;
    }
    let mkfs = format!(
        "mkfs.ocfs2 -q -F -N 4 -J size=4M --cluster-stack=pcmk --cluster-name=other {OTHER} </dev/null"
    );
    one.ok_within(&mkfs, bridge::READY_LIMIT)?;
    let uuid = seen::uuid(one, OTHER)?;
    for guest in lab.guests() {
        guest.start_o2bridged(&dlm::control())?;
        seen::wait_volume(guest, &uuid, "state", "another cluster")?;
    }
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    lab.step("our volume has its group, the other one is left alone");

    for guest in lab.guests() {
        stock::mount(guest, OTHER)?;
        dlm::is_in_use(guest)?;
        seen::wait_volume(guest, &uuid, "warning", "it names the cluster 'other'")?;
        let log = guest.log("o2bridged.log");
        ensure!(log.contains("a volume needs help"), "{} has not said so", guest.name());
    }
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    lab.step("it is mounted on both, and followed");

    let fall = Fall::strike(&lab, &[2])?;
    fall.recovered()?;
    fall.order_on(OTHER, Dlm::Asks)?;
    dlm::end(&lab)
}
