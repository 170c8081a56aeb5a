//! Which carrier this kernel can use. Looks, and changes nothing.

use std::fmt;
use std::path::Path;

use super::{CarrierKind, Paths, symlink, tree};
use crate::ShimError;

/// The o2cb interface that the region carrier was proven on. Another one may read slots otherwise.
const INTERFACE_REVISION: &str = "5";
/// The stack whose lock manager listens to heartbeat.
const STACK: &str = "o2cb";

/// One carrier, whether it can be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub carrier: CarrierKind,
    /// Whether it can.
    pub is_possible: bool,
    /// A sentence for the log and for status.
    pub because: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let can = if self.is_possible { "possible" } else { "not possible" };
        write!(f, "carrier {} is {can}: {}", self.carrier, self.because)
    }
}

/// Looks at the kernel. The better carrier comes first.
#[must_use]
pub fn probe(paths: &Paths) -> Vec<Finding> {
    let judged =
        [(CarrierKind::Symlink, judge_symlink(paths)), (CarrierKind::Region, judge_region(paths))];
    let finding = |(carrier, judged): (_, Result<String, String>)| match judged {
        Ok(because) => Finding { carrier, is_possible: true, because },
        Err(because) => Finding { carrier, is_possible: false, because },
    };
    judged.into_iter().map(finding).collect()
}

/// The carrier to use: the first possible one, or the one that was asked for.
pub(super) fn pick(paths: &Paths, wanted: CarrierKind) -> Result<Finding, ShimError> {
    let mut findings = probe(paths);
    findings.retain(|finding| wanted == CarrierKind::Auto || finding.carrier == wanted);
    let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let possible = findings.into_iter().find(|finding| finding.is_possible);
    possible.ok_or_else(|| ShimError::Unusable(said.join("; ")))
}

fn judge_symlink(paths: &Paths) -> Result<String, String> {
    judge_stack(paths)?;
    match symlink::Places::from(paths).can_be_user() {
        Ok(true) => Ok("the kernel has a user-heartbeat driver".into()),
        Ok(false) => {
            Err("the kernel has no user-heartbeat driver, as no mainline kernel has".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn judge_region(paths: &Paths) -> Result<String, String> {
    judge_stack(paths)?;
    let path = paths.sys_o2cb.join("interface_revision");
    match text(&path)?.as_str() {
        INTERFACE_REVISION => {}
        "" => return Err(format!("{} is missing: load ocfs2_stack_o2cb", path.display())),
        other => {
            return Err(format!("o2cb has interface {other}; only {INTERFACE_REVISION} is known"));
        }
    }
    match symlink::Places::from(paths).mode() {
        Ok(Some((path, mode))) if mode == "user" => {
            return Err(format!("{} says \"user\": the kernel reads no disks", path.display()));
        }
        Ok(_) => {}
        Err(error) => return Err(error.to_string()),
    }
    if !paths.configfs.join("cluster").is_dir() {
        return Err(format!("configfs is not mounted on {}", paths.configfs.display()));
    }
    let memory = if paths.dev.join("ram0").exists() {
        "there are RAM disks"
    } else {
        "there is no RAM disk yet: brd or a loop device over memory will do"
    };
    Ok(format!("o2cb has interface {INTERFACE_REVISION}; {memory}"))
}

fn judge_stack(paths: &Paths) -> Result<(), String> {
    let path = paths.sys_ocfs2.join("cluster_stack");
    match text(&path)?.as_str() {
        // Kernels from before there were stacks have only this one, and no such file.
        STACK | "" => Ok(()),
        other => Err(format!("{} says \"{other}\", and only o2cb listens", path.display())),
    }
}

fn text(path: &Path) -> Result<String, String> {
    tree::read(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_heartbeat::fake::{paths, put};

    #[test]
    fn a_stock_kernel_gets_the_region() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        assert!(pick(&paths, CarrierKind::Auto).is_err(), "nothing is loaded");
        put(&paths.sys_o2cb.join("interface_revision"), "5\n");
        put(&paths.sys_ocfs2.join("cluster_stack"), "o2cb\n");
        let error = pick(&paths, CarrierKind::Auto).unwrap_err();
        assert!(error.to_string().contains("configfs is not mounted"), "{error}");
        std::fs::create_dir_all(paths.configfs.join("cluster")).unwrap();
        assert_eq!(pick(&paths, CarrierKind::Auto).unwrap().carrier, CarrierKind::Region);
        let error = pick(&paths, CarrierKind::Symlink).unwrap_err();
        assert!(error.to_string().contains("no user-heartbeat driver"), "{error}");

        put(&paths.sys_o2cb.join("interface_revision"), "6\n");
        let error = pick(&paths, CarrierKind::Region).unwrap_err();
        assert!(error.to_string().contains("interface 6; only 5"), "{error}");
        put(&paths.sys_o2cb.join("interface_revision"), "5\n");
        put(&paths.sys_ocfs2.join("cluster_stack"), "pcmk\n");
        let error = pick(&paths, CarrierKind::Auto).unwrap_err();
        assert!(error.to_string().contains("says \"pcmk\""), "{error}");
    }

    #[test]
    fn a_driver_for_user_heartbeat_gets_links() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        put(&paths.sys_o2cb.join("heartbeat_mode"), "user\n");
        put(&paths.sys_o2cb.join("interface_revision"), "5\n");
        std::fs::create_dir_all(paths.configfs.join("cluster")).unwrap();
        assert_eq!(pick(&paths, CarrierKind::Auto).unwrap().carrier, CarrierKind::Symlink);
        let error = pick(&paths, CarrierKind::Region).unwrap_err();
        assert!(error.to_string().contains("reads no disks"), "{error}");

        put(&paths.sys_o2cb.join("heartbeat_mode"), "disk\n");
        assert_eq!(pick(&paths, CarrierKind::Auto).unwrap().carrier, CarrierKind::Symlink);
        put(&paths.configfs.join("cluster/heartbeat_mode"), "disk\n");
        put(&paths.configfs.join("cluster/heartbeat_available_modes"), "disk\n");
        assert_eq!(pick(&paths, CarrierKind::Auto).unwrap().carrier, CarrierKind::Region);
        put(&paths.configfs.join("cluster/heartbeat_available_modes"), "disk\nuser\n");
        assert_eq!(pick(&paths, CarrierKind::Auto).unwrap().carrier, CarrierKind::Symlink);
    }
}
