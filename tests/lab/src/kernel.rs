//! Stock kernels, from the machine's own package sources, without installing anything.
//!
//! A kernel is known by its version: 5.10, 6.1, 6.12, or `sid` for the newest. Packages are
//! downloaded and unpacked below the cache directory once; later runs use what is there.

mod apt;
mod headers;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::tool;
use apt::Apt;

/// Kernel names with the Debian suite that each comes from.
const SUITES: [(&str, &str); 4] =
    [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("sid", "sid")];

/// What the package of a kernel may be split into.
const PARTS: [&str; 4] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// How the lab calls it, as `6.1`.
    pub name: String,
    /// What `uname -r` says on it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    /// The unpacked package; its modules are in `lib/modules/<release>` below.
    pub root: PathBuf,
}

/// The names of all kernels that the lab knows, oldest first.
#[must_use]
pub fn names() -> Vec<&'static str> {
    SUITES.iter().map(|(name, _)| *name).collect()
}

impl Kernel {
    /// Takes a kernel from the cache directory, or downloads it into it.
    ///
    /// # Errors
    /// The name is unknown, or no package source of this machine has the kernel.
    pub fn get(name: &str, cache: &Path) -> Result<Self> {
        let suite = suite(name)?;
        let place = absolute(cache)?.join(suite);
        if let Some(kernel) = Self::unpacked(name, &place) {
            return Ok(kernel);
        }
        eprintln!("lab: kernel {name} is being downloaded (once)");
        download(suite, &place)?;
        Self::unpacked(name, &place)
            .ok_or_else(|| LabError::Setup(format!("no kernel in the packages of {suite}")))
    }

    /// The unpacked headers of this kernel, downloaded if they are not there: the directory for
    /// `make -C`.
    ///
    /// # Errors
    /// No package source has the headers of this very kernel.
    pub fn headers(&self, cache: &Path) -> Result<PathBuf> {
        let suite = suite(&self.name)?;
        headers::get(&self.release, suite, &absolute(cache)?.join(suite))
    }

    fn unpacked(name: &str, place: &Path) -> Option<Self> {
        let release = fs::read_to_string(place.join("release")).ok()?.trim().to_owned();
        let root = place.join("root");
        let image = image(&root, &release)?;
        Some(Self { name: name.to_owned(), release, image, root })
    }
}

fn suite(name: &str) -> Result<&'static str> {
    SUITES
        .iter()
        .find(|(known, suite)| *known == name || *suite == name)
        .map(|(_, suite)| *suite)
        .ok_or_else(|| LabError::Setup(format!("unknown kernel {name}; known: {:?}", names())))
}

/// apt takes relative paths as below its own directories.
fn absolute(cache: &Path) -> Result<PathBuf> {
    std::path::absolute(cache).map_err(LabError::at(cache))
}

/// Debian has moved the image from /boot into the directory of the modules.
fn image(root: &Path, release: &str) -> Option<PathBuf> {
    let places = [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
    places.iter().map(|place| root.join(place)).find(|path| path.exists())
}

/// Downloads and unpacks; the file `release` is written last and says that all is there.
fn download(suite: &str, place: &Path) -> Result<()> {
    let mut reasons = Vec::new();
    for apt in Apt::ways(suite, place) {
        match apt.and_then(|apt| fetch(&apt, place)) {
            Ok(()) => return Ok(()),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(LabError::Setup(reasons.join("; ")))
}

fn fetch(apt: &Apt, place: &Path) -> Result<()> {
    let is_part = |name: &str| PARTS.iter().any(|part| name.starts_with(part));
    let mut packages = apt.closure("linux-image-amd64", is_part)?;
    packages.retain(|name| name != "linux-image-amd64");
    let root = place.join("root");
    let _ = fs::remove_dir_all(&root);
    apt.unpack(&packages, &place.join("debs"), &root)?;
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))
            .map_err(LabError::at(&root.join("lib")))?;
    }
    let release = only_release(&root.join("lib/modules"))?;
    tool::run(Command::new("depmod").arg("-b").arg(&root).arg(&release))?;
    let stamp = place.join("release");
    fs::write(&stamp, release).map_err(LabError::at(&stamp))
}

fn only_release(modules: &Path) -> Result<String> {
    let mut found = fs::read_dir(modules).map_err(LabError::at(modules))?.flatten();
    let first = found.next().map(|entry| entry.file_name().to_string_lossy().into_owned());
    first.ok_or_else(|| LabError::Setup("the kernel's packages hold no modules".into()))
}
