//! A kernel for tests: configfs with the measured rules of o2cb, and plain files for all else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Kernel;
use crate::error::ModuleCause;
use crate::o2cb::Paths;

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const ENOTEMPTY: i32 = 39;

type Files = BTreeMap<PathBuf, String>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: Files,
    pub(crate) directories: BTreeSet<PathBuf>,
    /// Every change, in order, below the root of the clusters.
    pub(crate) log: Vec<String>,
    /// Node directories that cannot be removed.
    pub(crate) busy: BTreeSet<String>,
    /// A change, as in the log, and the errno that it fails with.
    pub(crate) failures: Vec<(String, i32)>,
    /// What modules bring: files and their texts; a text is put before what is there.
    pub(crate) modules: BTreeMap<&'static str, Vec<(PathBuf, String)>>,
    written: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

fn root() -> PathBuf {
    Paths::default().configfs.join("cluster")
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl Fake {
    /// With nodemanager loaded and no cluster.
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        fake.state().directories.insert(root());
        let global = |name: &str, value: &str| (root().join(name), value.to_owned());
        fake.state().files.extend([global(".threshold", "31"), global(".mode", "local")]);
        fake
    }

    /// With a user-heartbeat driver and no cluster: its clusters have no attributes.
    pub(crate) fn user_heartbeat() -> Self {
        let fake = Self::default();
        fake.state().directories.insert(root());
        fake.state().files.insert(root().join("heartbeat_mode"), "user".into());
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What changed since the last call.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    pub(crate) fn fail(&self, change: &str, code: i32) {
        self.state().failures.push((change.to_owned(), code));
    }

    /// A region appears.
    pub(crate) fn region(&self, cluster: &str, name: &str) {
        let path = root().join(cluster).join("heartbeat").join(name);
        self.state().directories.insert(path);
    }

    pub(crate) fn no_regions(&self, cluster: &str) {
        let parent = root().join(cluster).join("heartbeat");
        self.state().directories.retain(|path| path.parent() != Some(&parent));
    }

    pub(crate) fn file(&self, path: &str, text: &str) {
        self.state().files.insert(path.into(), text.to_owned());
    }

    pub(crate) fn nodes(&self, cluster: &str) -> Vec<String> {
        self.directories(&root().join(cluster).join("node")).unwrap()
    }
}

impl State {
    fn change(&mut self, what: &str, path: &Path) -> io::Result<()> {
        let short = path.strip_prefix(root()).unwrap_or(path);
        let change = format!("{what} {}", short.display());
        if let Some(at) = self.failures.iter().position(|(failing, _)| *failing == change) {
            return errno(self.failures.remove(at).1);
        }
        self.log.push(change);
        Ok(())
    }

    fn children(&self, path: &Path) -> usize {
        self.directories.iter().filter(|it| it.parent() == Some(path)).count()
    }

    /// Makes a cluster's attributes.
    fn fill_cluster(&mut self, path: &Path) {
        let fresh = [
            ("idle_timeout_ms", "30000"),
            ("keepalive_delay_ms", "2000"),
            ("reconnect_delay_ms", "2000"),
        ];
        self.fill(path, &fresh);
        let global = |name: &str| self.get(&root().join(name)).to_owned();
        let (mode, threshold) = (global(".mode"), global(".threshold"));
        let heartbeat = [("mode", mode.as_str()), ("dead_threshold", threshold.as_str())];
        self.fill(&path.join("heartbeat"), &heartbeat);
    }

    fn fill(&mut self, path: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.files.insert(path.join(name), (*text).to_owned());
        }
    }

    fn get(&self, path: &Path) -> &str {
        self.files.get(path).map_or("", |text| text.trim())
    }

    /// Whether another node has this value already.
    fn has_other(&self, path: &Path, value: &str) -> bool {
        let nodes = path.parent().and_then(Path::parent);
        self.files.iter().any(|(other, text)| {
            other != path
                && other.file_name() == path.file_name()
                && other.parent().and_then(Path::parent) == nodes
                && self.written.contains(other)
                && text.trim() == value
        })
    }

    fn has_regions(&self, cluster: &Path) -> bool {
        self.children(&cluster.join("heartbeat")) > 0
    }

    fn write_node(&mut self, path: &Path, name: &str, value: &str) -> io::Result<()> {
        let node = path.parent().unwrap();
        let has = |state: &Self, name: &str| state.written.contains(&node.join(name));
        let ready = match name {
            "num" => has(self, "ipv4_port") && has(self, "ipv4_address"),
            "local" => has(self, "num"),
            _ => true,
        };
        match name {
            _ if !ready => return errno(EINVAL),
            "local" if self.has_other(path, "1") => return errno(EBUSY),
            "num" | "ipv4_address" if self.has_other(path, value) => return errno(EEXIST),
            _ if self.written.contains(path) => return errno(EBUSY),
            _ => (),
        }
        self.written.insert(path.into());
        self.files.insert(path.into(), value.to_owned());
        Ok(())
    }

    fn write_cluster(&mut self, path: &Path, name: &str, value: &str) -> io::Result<()> {
        let cluster = path.parent().unwrap();
        let number = |state: &Self, name: &str| state.get(&cluster.join(name)).parse::<u32>().ok();
        let new = value.parse::<u32>().ok();
        let is_wrong = match name {
            "idle_timeout_ms" => new <= number(self, "keepalive_delay_ms"),
            "keepalive_delay_ms" => new >= number(self, "idle_timeout_ms"),
            _ => false,
        };
        if is_wrong {
            return errno(EINVAL);
        }
        self.files.insert(path.into(), value.to_owned());
        Ok(())
    }
}

impl Kernel for Fake {
    fn read(&self, path: &Path) -> io::Result<String> {
        match self.state().files.get(path) {
            Some(text) => Ok(format!("{text}\n")),
            None => errno(ENOENT),
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut state = self.state();
        let value = text.trim();
        if !state.files.contains_key(path) {
            return errno(ENOENT);
        }
        state.change(&format!("write {value}"), path)?;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let parent = path.parent().unwrap().to_owned();
        let inside = path.strip_prefix(root()).map_or(0, |short| short.components().count());
        match (inside, name.as_str()) {
            (3, "mode" | "dead_threshold") => {
                // Says done, and ignores it.
                if !state.has_regions(parent.parent().unwrap()) {
                    let global = if name == "mode" { ".mode" } else { ".threshold" };
                    state.files.insert(root().join(global), value.to_owned());
                    state.files.insert(path.into(), value.to_owned());
                }
                Ok(())
            }
            (4, _) => state.write_node(path, &name, value),
            (2, _) => state.write_cluster(path, &name, value),
            _ => {
                state.files.insert(path.into(), value.to_owned());
                Ok(())
            }
        }
    }

    fn directories(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.directories.contains(path) {
            return errno(ENOENT);
        }
        let children = state.directories.iter().filter(|it| it.parent() == Some(path));
        Ok(children.map(|it| it.file_name().unwrap().to_string_lossy().into()).collect())
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let parent = path.parent().unwrap();
        if state.directories.contains(path) {
            return errno(EEXIST);
        }
        if parent == root() {
            if state.children(parent) > 0 {
                return errno(ENOSPC);
            }
            state.change("make", path)?;
            if !state.files.contains_key(&root().join("heartbeat_mode")) {
                state.fill_cluster(path);
            }
            state.directories.extend([path.join("node"), path.join("heartbeat")]);
        } else {
            state.change("make", path)?;
            if parent.ends_with("node") {
                let fresh =
                    [("num", "0"), ("ipv4_address", "0.0.0.0"), ("ipv4_port", "0"), ("local", "0")];
                state.fill(path, &fresh);
            }
        }
        state.directories.insert(path.into());
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let parent = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !state.directories.contains(path) {
            return errno(ENOENT);
        }
        if parent == root() {
            if state.children(&path.join("node")) > 0 || state.has_regions(path) {
                return errno(ENOTEMPTY);
            }
        } else if parent.ends_with("node") {
            let is_local = state.get(&path.join("local")) == "1";
            let has_regions = state.has_regions(parent.parent().unwrap());
            if state.busy.contains(name) || (is_local && has_regions) {
                return errno(EBUSY);
            }
        }
        state.change("remove", path)?;
        state.directories.retain(|it| !it.starts_with(path));
        state.files.retain(|it, _| !it.starts_with(path));
        state.written.retain(|it| !it.starts_with(path));
        Ok(())
    }

    fn is_there(&self, path: &Path) -> bool {
        let state = self.state();
        state.directories.contains(path) || state.files.contains_key(path)
    }

    fn load(&self, module: &'static str) -> Result<(), ModuleCause> {
        let mut state = self.state();
        let Some(brings) = state.modules.get(module).cloned() else {
            return Err(ModuleCause::Failed(Some(1), format!("Module {module} not found")));
        };
        state.log.push(format!("load {module}"));
        for (path, text) in brings {
            let before = state.files.get(&path).cloned().unwrap_or_default();
            state.files.insert(path, format!("{text}{before}"));
        }
        Ok(())
    }

    fn mount(&self, kind: &'static str, target: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(&format!("mount {kind}"), target)?;
        let line = format!("30 1 0:30 / {} rw shared:9 - {kind} {kind} rw\n", target.display());
        state.files.entry(Paths::default().mountinfo).or_default().push_str(&line);
        Ok(())
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.state().change("unmount", target)
    }
}
