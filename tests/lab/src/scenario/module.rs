//! The test module that stands in for a kernel with the user heartbeat driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::ensure;
use crate::error::{LabError, Result};
use crate::kernel::Kernel;
use crate::lab::Plan;
use crate::run::{Context, Scenario};
use crate::tool;

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "module",
    guests: 1,
    text: "the test module keeps the configfs contract of kernels with user heartbeat",
    kernels: &["6.1", "6.12"],
    run: module,
}];

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/module");
const FILE: &str = "o2bridge_user_heartbeat.ko";
/// The build's exit status for "not on this machine".
const LACKS: i32 = 3;

fn module(context: &Context) -> Result<()> {
    let module = build(&context.kernel)?;
    let lab = context.boot(&Plan::new(1))?;
    let guest = lab.guest(1);
    for path in [&module, &Path::new(SOURCE).join("check")] {
        let name = path.file_name().unwrap_or_default();
        fs::copy(path, guest.share().join(name)).map_err(LabError::at(path))?;
    }
    let check = format!("/lab/share/check /lab/share/{FILE}");
    let said = guest.ok_within(&check, Duration::from_secs(180))?;
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.starts_with("all "), "the check ended with {last:?}");
    lab.step(last);
    Ok(())
}

/// The module for a kernel. It is built anew each time: that takes two seconds.
pub(super) fn build(kernel: &Kernel) -> Result<PathBuf> {
    let place = kernel.root.parent().unwrap_or(&kernel.root);
    let cache = place.parent().unwrap_or(place);
    let headers = kernel.headers(cache).map_err(|error| LabError::Skip(error.to_string()))?;
    let out = place.join("module");
    let output = Command::new(Path::new(SOURCE).join("build"))
        .args([&headers, &out])
        .output()
        .map_err(LabError::io("module/build"))?;
    let said = tool::last_lines(&String::from_utf8_lossy(&output.stderr), 5);
    match output.status.code() {
        Some(0) => Ok(out.join(FILE)),
        Some(LACKS) => Err(LabError::Skip(said)),
        _ => Err(LabError::Expect(format!("the module does not build: {said}"))),
    }
}
