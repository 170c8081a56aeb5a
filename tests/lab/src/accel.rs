//! Whether this machine's KVM really runs a guest. The device may be there and a guest still never
//! get past its firmware, when the machine is a guest itself; only trying tells.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::boot;
use crate::error::{LabError, Result};
use crate::kernel::Kernel;
use crate::power::Process;

/// Far more than a boot with KVM takes.
const LIMIT: Duration = Duration::from_secs(12);

/// QEMU's `-accel`: `kvm` if it works here, else `tcg`. Tried once per boot of the machine.
///
/// # Errors
/// The guest for trying cannot be made.
pub(crate) fn choose(kernel: &Kernel, directory: &Path) -> Result<String> {
    if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok("tcg".into());
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let memory = directory.join("accelerator");
    let known = fs::read_to_string(&memory).unwrap_or_default();
    if let Some(found) = known.strip_prefix(&boot_id) {
        return Ok(found.to_owned());
    }
    let works = try_kvm(kernel, directory)?;
    let found = if works { "kvm" } else { "tcg" };
    if !works {
        eprintln!("lab: /dev/kvm is here but no guest boots with it; emulating");
    }
    fs::write(&memory, boot_id + found).map_err(LabError::at(&memory))?;
    Ok(found.into())
}

/// A guest that resets itself as soon as it runs a program.
fn try_kvm(kernel: &Kernel, directory: &Path) -> Result<bool> {
    let initramfs = boot::initramfs(kernel, directory)?;
    let mut arguments: Vec<String> =
        ["-accel", "kvm", "-cpu", "max", "-m", "256", "-display", "none", "-nodefaults"]
            .map(String::from)
            .to_vec();
    let append = ["-no-reboot", "-append", "lab.probe panic=1 quiet"].map(String::from);
    arguments.extend(append);
    for (key, path) in [("-kernel", &kernel.image), ("-initrd", &initramfs)] {
        arguments.extend([key.to_owned(), path.display().to_string()]);
    }
    let mut process = Process::start("qemu-system-x86_64", &arguments, |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    })?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = process.ended() {
            return Ok(status == "exit status: 0");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
