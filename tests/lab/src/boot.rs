//! What a guest boots: an initial RAM disk with just enough drivers to reach the host's files.
//!
//! The guest's root is the host's, read-only, under an overlay in the guest's memory; so whatever is
//! installed on the host can be run in the guest. `boot/stage1.sh` builds that, `boot/stage2.sh`
//! makes a node of it.

mod cpio;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::kernel::Kernel;
use crate::tool;
use cpio::Archive;

const STAGE1: &str = include_str!("boot/stage1.sh");
/// Run in the new root; the lab puts it into each guest's shared directory.
pub(crate) const STAGE2: &str = include_str!("boot/stage2.sh");
/// What is needed to reach the root; the guest loads all others by itself.
const MODULES: [&str; 6] =
    ["virtio_pci", "virtio_console", "virtio_net", "9pnet_virtio", "9p", "overlay"];

/// The initial RAM disk for a kernel, made anew in `directory`: it costs little and is never stale.
///
/// # Errors
/// No static busybox on this machine, or a module is missing.
pub(crate) fn initramfs(kernel: &Kernel, directory: &Path) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for name in ["bin", "dev", "proc", "sys", "modules", "lower", "upper", "new", "share"] {
        archive.directory(name);
    }
    archive.file("bin/busybox", 0o755, &busybox()?);
    archive.file("init", 0o755, STAGE1.as_bytes());
    let mut order = String::new();
    for path in modules(kernel)? {
        let name = name_of(&path);
        archive.file(&format!("modules/{name}"), 0o644, &plain(&path)?);
        order += &format!("{name}\n");
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    let path = directory.join(format!("initramfs-{}", kernel.name));
    fs::write(&path, archive.finish()).map_err(LabError::at(&path))?;
    Ok(path)
}

fn busybox() -> Result<Vec<u8>> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let found = places.iter().find_map(|path| fs::read(path).ok());
    found.ok_or_else(|| LabError::Setup("no busybox here; install busybox-static".into()))
}

/// The files of [`MODULES`] and of what they need, in the order of loading.
fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("modprobe");
    command.args(["--show-depends", "--ignore-install", "-a", "-d"]).arg(&kernel.root);
    let text = tool::text(command.args(["-S", &kernel.release]).args(MODULES))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
        let path = PathBuf::from(line.split_whitespace().next().unwrap_or_default());
        if !files.contains(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().to_owned() + ".ko"
}

/// A module without its compression, which busybox does not know.
fn plain(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|name| name.to_str()) {
        Some("xz") => tool::run(Command::new("xz").arg("-dc").arg(path)),
        Some("zst") => tool::run(Command::new("zstd").arg("-dcq").arg(path)),
        Some("gz") => tool::run(Command::new("gzip").arg("-dc").arg(path)),
        _ => fs::read(path).map_err(LabError::at(path)),
    }
}
