//! Everything that is asked of the operating system, so that tests can put a kernel of their own in
//! its place.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::ModuleCause;

/// The calls. Paths are absolute.
pub(crate) trait Kernel: Send + Sync {
    /// A whole small file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// One write(2) to a file that is there. Attributes take a value in one piece.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
    /// The names of the directories in a directory, sorted.
    fn directories(&self, path: &Path) -> io::Result<Vec<String>>;
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    fn is_there(&self, path: &Path) -> bool;
    fn load(&self, module: &'static str) -> Result<(), ModuleCause>;
    fn mount(&self, kind: &'static str, target: &Path) -> io::Result<()>;
    fn unmount(&self, target: &Path) -> io::Result<()>;
}

/// The running one.
pub(crate) struct Running {
    /// The program that loads modules.
    pub(crate) modprobe: PathBuf,
}

impl Kernel for Running {
    fn read(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let written = fs::OpenOptions::new().write(true).open(path)?.write(text.as_bytes())?;
        if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn directories(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn is_there(&self, path: &Path) -> bool {
        path.exists()
    }

    fn load(&self, module: &'static str) -> Result<(), ModuleCause> {
        let mut command = Command::new(&self.modprobe);
        let command = command.arg("--").arg(module).stdin(Stdio::null());
        let output = command.output().map_err(ModuleCause::Start)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().last().unwrap_or("it says nothing").trim().to_owned();
        Err(ModuleCause::Failed(output.status.code(), line))
    }

    fn mount(&self, kind: &'static str, target: &Path) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(Some(kind), target, Some(kind), flags, None::<&str>)?)
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        Ok(umount2(target, MntFlags::empty())?)
    }
}

#[cfg(test)]
pub(crate) mod fake;
