//! Drivers, mounts, and the choice of the stack.
//!
//! Whether something is needed is judged by what it brings, not by the list of modules: it may be
//! compiled into the kernel.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ModuleCause};
use crate::kernel::Kernel;
use crate::o2cb::Paths;

/// The stack that this program serves.
const STACK: &str = "o2cb";
/// The interface of nodemanager that is known here.
const INTERFACE: &str = "5";

/// What was done to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What was changed, for the log. Empty if all was there.
    pub done: Vec<String>,
    /// What an administrator should know.
    pub heads_up: Vec<String>,
}

/// See [`crate::O2cb::prepare`].
pub(crate) fn prepare(paths: &Paths, kernel: &dyn Kernel) -> Result<Prepared, Error> {
    let mut work = Work { paths, kernel, undo: Vec::new(), prepared: Prepared::default() };
    match work.all() {
        Ok(()) => Ok(work.prepared),
        Err(cause) => Err(work.undo(cause)),
    }
}

/// Loads the drivers of a user stack. The stack itself is chosen by whoever mounts.
pub(crate) fn prepare_user_stack(paths: &Paths, kernel: &dyn Kernel) -> Result<Prepared, Error> {
    let mut work = Work { paths, kernel, undo: Vec::new(), prepared: Prepared::default() };
    work.file_system("ocfs2")?;
    let plugins = paths.sys_fs.join("ocfs2/loaded_cluster_plugins");
    work.plugin("user", "ocfs2_stack_user", &plugins)?;
    Ok(work.prepared)
}

/// Whether the driver is one with the user heartbeat, by the file in which it takes its mode: the
/// younger ones have it in configfs, the oldest in sysfs.
pub(crate) fn has_user_heartbeat(paths: &Paths, kernel: &dyn Kernel) -> bool {
    let places = [paths.configfs.join("cluster"), paths.old_sys_o2cb.clone()];
    places.iter().any(|place| kernel.is_there(&place.join("heartbeat_mode")))
}

/// How to take a step back.
enum Undo {
    Unmount(PathBuf),
    RemoveDirectory(PathBuf),
    Restore(PathBuf, String),
}

struct Work<'a> {
    paths: &'a Paths,
    kernel: &'a dyn Kernel,
    undo: Vec<Undo>,
    prepared: Prepared,
}

impl Work<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let (paths, sys) = (self.paths, &self.paths.sys_fs);
        // Known before anything is changed, if stackglue is there already.
        self.wrong_stack()?;
        self.file_system("configfs")?;
        self.mount("configfs", &paths.configfs)?;
        self.debugfs();
        if has_user_heartbeat(paths, self.kernel) {
            return Ok(());
        }
        self.module("ocfs2_nodemanager", &paths.configfs.join("cluster"))?;
        self.check_interface(&sys.join("o2cb/interface_revision"))?;
        self.file_system("ocfs2")?;
        self.choose_stack()?;
        self.plugin(STACK, "ocfs2_stack_o2cb", &sys.join("ocfs2/loaded_cluster_plugins"))?;
        self.file_system("ocfs2_dlmfs")?;
        if !self.kernel.is_there(&paths.dlmfs) {
            let made = self.kernel.make_directory(&paths.dlmfs);
            made.map_err(|error| Error::step("make", &paths.dlmfs, error))?;
            self.undo.push(Undo::RemoveDirectory(paths.dlmfs.clone()));
        }
        self.mount("ocfs2_dlmfs", &paths.dlmfs)
    }

    fn read(&self, path: &Path) -> Result<String, Error> {
        let text = self.kernel.read(path).map_err(|error| Error::step("read", path, error))?;
        Ok(text.trim().to_owned())
    }

    fn load(&mut self, module: &'static str) -> Result<(), Error> {
        self.kernel.load(module).map_err(|cause| Error::Module { module, cause })?;
        self.prepared.done.push(format!("module {module} loaded"));
        Ok(())
    }

    /// A module that is there when a path is.
    fn module(&mut self, module: &'static str, brings: &Path) -> Result<(), Error> {
        if self.kernel.is_there(brings) {
            return Ok(());
        }
        self.load(module)?;
        if self.kernel.is_there(brings) {
            return Ok(());
        }
        Err(Error::Module { module, cause: ModuleCause::NotThere(brings.into()) })
    }

    fn has_file_system(&self, name: &str) -> Result<bool, Error> {
        let text = self.read(&self.paths.filesystems)?;
        Ok(text.lines().any(|line| line.split_whitespace().last() == Some(name)))
    }

    /// A module that is there when the file system of its name is.
    fn file_system(&mut self, name: &'static str) -> Result<(), Error> {
        if self.has_file_system(name)? {
            return Ok(());
        }
        self.load(name)?;
        if self.has_file_system(name)? {
            return Ok(());
        }
        let cause = ModuleCause::NotThere(self.paths.filesystems.clone());
        Err(Error::Module { module: name, cause })
    }

    fn plugin(&mut self, name: &str, module: &'static str, list: &Path) -> Result<(), Error> {
        let has_it = |text: &str| text.split_whitespace().any(|plugin| plugin == name);
        if has_it(&self.read(list)?) {
            return Ok(());
        }
        self.load(module)?;
        if has_it(&self.read(list)?) {
            return Ok(());
        }
        Err(Error::Module { module, cause: ModuleCause::NotThere(list.into()) })
    }

    fn is_mounted(&self, kind: &str, target: &Path) -> Result<bool, Error> {
        let text = self.read(&self.paths.mountinfo)?;
        // The last mount of a target hides the others.
        let found = text.lines().rev().find_map(|line| {
            let (place, file_system) = line.split_once(" - ")?;
            let is_it = place.split(' ').nth(4).map(Path::new) == Some(target);
            is_it.then(|| file_system.split(' ').next().unwrap_or_default())
        });
        Ok(found == Some(kind))
    }

    fn mount(&mut self, kind: &'static str, target: &Path) -> Result<(), Error> {
        if self.is_mounted(kind, target)? {
            return Ok(());
        }
        let result = self.kernel.mount(kind, target);
        result.map_err(|error| Error::step(format!("mount {kind} at"), target, error))?;
        self.undo.push(Undo::Unmount(target.into()));
        self.prepared.done.push(format!("{kind} mounted at {}", target.display()));
        Ok(())
    }

    /// Only for looking at: nothing depends on it.
    fn debugfs(&mut self) {
        let target = self.paths.debugfs.clone();
        if let Err(error) = self.mount("debugfs", &target) {
            self.prepared.heads_up.push(format!("status will show less: {error}"));
        }
    }

    fn check_interface(&self, path: &Path) -> Result<(), Error> {
        let found = self.read(path)?;
        if found == INTERFACE { Ok(()) } else { Err(Error::Interface { path: path.into(), found }) }
    }

    fn stack_path(&self) -> PathBuf {
        self.paths.sys_fs.join("ocfs2/cluster_stack")
    }

    /// The stack that is chosen, if it is not ours. An error if it is in use.
    fn wrong_stack(&self) -> Result<Option<String>, Error> {
        let path = self.stack_path();
        if !self.kernel.is_there(&path) {
            return Ok(None);
        }
        let found = self.read(&path)?;
        if found == STACK {
            return Ok(None);
        }
        let active = self.paths.sys_fs.join("ocfs2/active_cluster_plugin");
        if self.read(&active)?.is_empty() {
            Ok(Some(found))
        } else {
            Err(Error::Stack { path, found })
        }
    }

    fn choose_stack(&mut self) -> Result<(), Error> {
        const EBUSY: i32 = 16;
        let path = self.stack_path();
        let Some(found) = self.wrong_stack()? else { return Ok(()) };
        match self.kernel.write(&path, &format!("{STACK}\n")) {
            Err(error) if error.raw_os_error() == Some(EBUSY) => {
                return Err(Error::Stack { path, found });
            }
            result => result.map_err(|e| Error::step(format!("write '{STACK}' to"), &path, e))?,
        }
        self.prepared.done.push(format!("stack {STACK} chosen, it was '{found}'"));
        self.undo.push(Undo::Restore(path.clone(), found));
        let found = self.read(&path)?;
        if found == STACK {
            return Ok(());
        }
        Err(Error::Ignored { path, wanted: STACK.into(), found })
    }

    fn undo(&mut self, cause: Error) -> Error {
        let mut left = Vec::new();
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            let (step, path, result): (_, _, io::Result<()>) = match undo {
                Undo::Unmount(path) => ("unmount", path.clone(), self.kernel.unmount(&path)),
                Undo::RemoveDirectory(path) => {
                    ("remove", path.clone(), self.kernel.remove_directory(&path))
                }
                Undo::Restore(path, was) => {
                    ("restore", path.clone(), self.kernel.write(&path, &format!("{was}\n")))
                }
            };
            left.extend(result.err().map(|error| Error::step(step, &path, error)));
        }
        if left.is_empty() { cause } else { Error::Undo(Box::new(cause), left) }
    }
}

#[cfg(test)]
mod tests;
