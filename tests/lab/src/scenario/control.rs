//! The shim `control`: OCFS2 is told of deaths through its control device, beside a dlm_controld that asks.

use super::dlm::{self, Dlm};
use super::ordinary::cross_over;
use crate::error::Result;
use crate::run::{Context, Scenario};

/// Where DOWN is no kernel bug.
const SAFE: &[&str] = &["5.10"];

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "control",
    guests: 2,
    text: "control: a user-stack volume mounted on two nodes, files, umount; nothing is left",
    kernels: SAFE,
    run: plain,
}];

fn plain(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}
