//! Where the facts are. Everything is only read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::Facts;

/// More than any kernel's configuration has, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// More than any list of modules has, in bytes.
const MODULES_BYTES_MAX: u64 = 16 << 20;

/// The modules that a shim may need.
const MODULES: [&str; 6] =
    ["ocfs2", "ocfs2_stack_o2cb", "ocfs2_stack_user", "ocfs2_dlmfs", "dlm", "brd"];

/// The abstract socket that dlm_controld takes requests on, as the kernel lists it.
const DLM_CONTROLD: &str = "@dlmc_sock";

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/boot`.
    pub boot: PathBuf,
    /// `/lib/modules`.
    pub modules: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/sys/fs/ocfs2/cluster_stack`, which tests move.
    pub cluster_stack: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            boot: "/boot".into(),
            modules: "/lib/modules".into(),
            sys: "/sys".into(),
            cluster_stack: "/sys/fs/ocfs2/cluster_stack".into(),
        }
    }
}

/// Looks at everything. What cannot be read is not known.
#[must_use]
pub fn look(places: &Places) -> Facts {
    let release = text(&places.proc.join("sys/kernel/osrelease")).unwrap_or_default();
    let (fortify, config) = configuration(places, &release).unzip();
    let modules = modules(places, &release);
    look_again(places, &Facts { release, fortify, config, modules, ..Facts::default() })
}

/// Looks again at what may have changed since, and only in the kernel's own files: no disk is read.
#[must_use]
pub fn look_again(places: &Places, before: &Facts) -> Facts {
    let ocfs2 = places.cluster_stack.parent().unwrap_or(Path::new("/sys/fs/ocfs2"));
    let configfs = places.sys.join("kernel/config");
    let active = text(&ocfs2.join("active_cluster_plugin"));
    Facts {
        stack: text(&places.cluster_stack),
        is_stack_in_use: active.is_some_and(|plugin| !plugin.is_empty()),
        has_control_device: has_line(&places.proc.join("misc"), "ocfs2_control"),
        has_dlm_controld: has_line(&places.proc.join("net/unix"), DLM_CONTROLD),
        recover_callbacks: recover_callbacks(&configfs.join("dlm")),
        has_link_driver: configfs.join("cluster/heartbeat_mode").exists()
            || places.sys.join("o2cb/heartbeat_mode").exists(),
        ..before.clone()
    }
}

fn text(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Whether a list has a line that ends with this word.
fn has_line(list: &Path, word: &str) -> bool {
    let text = text(list).unwrap_or_default();
    text.lines().any(|line| line.split_whitespace().last() == Some(word))
}

/// Whether the kernel is fortified, and where that is written. The running kernel's own word first.
fn configuration(places: &Places, release: &str) -> Option<(bool, PathBuf)> {
    let packed = places.proc.join("config.gz");
    let plain = [
        places.boot.join(format!("config-{release}")),
        places.modules.join(release).join("config"),
    ];
    let unpack = |path: &Path| read(GzDecoder::new(File::open(path).ok()?), CONFIG_BYTES_MAX);
    if let Some(found) = unpack(&packed).and_then(|text| fortify(&text)) {
        return Some((found, packed));
    }
    plain.into_iter().find_map(|path| {
        let text = read(File::open(&path).ok()?, CONFIG_BYTES_MAX)?;
        Some((fortify(&text)?, path))
    })
}

fn read(from: impl Read, bytes_max: u64) -> Option<String> {
    let mut text = String::new();
    from.take(bytes_max).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a configuration says in so many words, if it is that of a kernel with OCFS2. One that says nothing may be cut
/// off: security comes after file systems.
#[must_use]
pub fn fortify(config: &str) -> Option<bool> {
    let says = |text: &str| config.lines().any(|line| line == text);
    let is_ours = config.lines().any(|line| line.starts_with("CONFIG_OCFS2_FS="));
    let is_on = says("CONFIG_FORTIFY_SOURCE=y");
    let is_said = is_on || says("# CONFIG_FORTIFY_SOURCE is not set");
    (is_ours && is_said).then_some(is_on)
}

/// Those of [`MODULES`] that are loaded, built in, or there to be loaded.
fn modules(places: &Places, release: &str) -> Vec<String> {
    let directory = places.modules.join(release);
    let lists = ["modules.dep", "modules.builtin"].map(|name| {
        let file = File::open(directory.join(name)).ok();
        file.and_then(|file| read(file, MODULES_BYTES_MAX)).unwrap_or_default()
    });
    let is_listed = |module: &str| {
        let lines = lists.iter().flat_map(|list| list.lines());
        lines.filter_map(module_of).any(|found| found == module)
    };
    let is_loaded = |module: &str| places.sys.join("module").join(module).exists();
    let known = MODULES.iter().filter(|module| is_loaded(module) || is_listed(module));
    known.map(|module| (*module).to_owned()).collect()
}

/// `ocfs2_stack_user` of `kernel/fs/ocfs2/ocfs2_stack_user.ko.xz: kernel/...`.
#[must_use]
pub fn module_of(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let (name, _) = path.rsplit('/').next()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// What the one cluster of fs/dlm says.
fn recover_callbacks(dlm: &Path) -> Option<bool> {
    let clusters = std::fs::read_dir(dlm).ok()?.flatten();
    let mut answers = clusters.filter_map(|it| text(&it.path().join("recover_callbacks")));
    answers.next().map(|answer| answer != "0")
}
