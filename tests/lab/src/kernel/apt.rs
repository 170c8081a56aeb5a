//! apt, used without root and without changing the machine: packages are downloaded and unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::kernel::sources;
use crate::tool;

/// How many packages one kernel may consist of.
const PACKAGES_MAX: usize = 12;

/// One way of asking apt: options that say whose sources and lists it shall use.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The ways to get packages of a suite, to be tried in this order. The machine's own sources
    /// and lists come first, if the machine is of that suite; then private lists, fetched now.
    pub(crate) fn ways(suite: &str, place: &Path) -> impl Iterator<Item = Result<Self>> {
        let native = sources::native_suite().as_deref() == Some(suite);
        let configured =
            native.then(|| Ok(Self { options: vec!["APT::Sandbox::User=root".into()] }));
        let (suite, place) = (suite.to_owned(), place.to_owned());
        configured.into_iter().chain(std::iter::once_with(move || Self::private(&suite, &place)))
    }

    /// Private sources and lists for one suite, from the mirror that this machine is configured
    /// with. Not every source must answer: an old suite is not on all paths any more.
    fn private(suite: &str, place: &Path) -> Result<Self> {
        let apt = place.join("apt");
        for directory in ["lists/partial", "cache/archives/partial"] {
            let path = apt.join(directory);
            fs::create_dir_all(&path).map_err(LabError::at(&path))?;
        }
        // What is installed here must not count as a candidate.
        let status = apt.join("status");
        fs::write(&status, "").map_err(LabError::at(&status))?;
        let list = apt.join("sources.list");
        let text = sources::for_suite(suite)?;
        fs::write(&list, text).map_err(LabError::at(&list))?;
        let mut options = vec![
            "APT::Sandbox::User=root".to_owned(),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ];
        let places = [
            ("Etc::sourcelist", "sources.list"),
            ("State::lists", "lists"),
            ("State::status", "status"),
            ("Cache", "cache"),
        ];
        for (key, file) in places {
            options.push(format!("Dir::{key}={}", apt.join(file).display()));
        }
        let private = Self { options };
        let said = private.command("apt-get").arg("update").output();
        let said = said.map_err(LabError::io("apt-get update"))?;
        match private.show("linux-image-amd64") {
            Ok(_) => Ok(private),
            Err(_) => Err(LabError::Setup(format!(
                "no linux-image-amd64 of {suite} in this machine's package sources: {}",
                tool::last_lines(&String::from_utf8_lossy(&said.stderr), 2)
            ))),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    fn show(&self, package: &str) -> Result<String> {
        let mut command = self.command("apt-cache");
        let text = tool::text(command.args(["show", "--no-all-versions", package]))?;
        if text.contains("\nDepends:") || text.starts_with("Package:") {
            return Ok(text);
        }
        Err(LabError::Setup(format!("no package {package} in the lists")))
    }

    /// A package and all that it depends on and that `is_part` wants.
    pub(crate) fn closure(
        &self,
        package: &str,
        is_part: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let mut all = vec![package.to_owned()];
        let mut seen = BTreeSet::new();
        let mut next = 0;
        while let Some(name) = all.get(next).cloned() {
            next += 1;
            if !seen.insert(name.clone()) || all.len() > PACKAGES_MAX {
                continue;
            }
            let depends = depends(&self.show(&name)?);
            all.extend(depends.into_iter().filter(|found| is_part(found) && !seen.contains(found)));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Downloads packages into `debs` and unpacks them below `root`.
    pub(crate) fn unpack(&self, packages: &[String], debs: &Path, root: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(debs);
        for path in [debs, root] {
            fs::create_dir_all(path).map_err(LabError::at(path))?;
        }
        tool::run(self.command("apt-get").arg("download").args(packages).current_dir(debs))?;
        let found = fs::read_dir(debs).map_err(LabError::at(debs))?;
        let files: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
        for file in files {
            tool::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))?;
        }
        fs::remove_dir_all(debs).map_err(LabError::at(debs))
    }
}

/// The first alternative of each dependency that a package's record names.
fn depends(record: &str) -> Vec<String> {
    let line = record.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or("");
    line.split(',')
        .filter_map(|entry| entry.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_without_versions_and_alternatives() {
        let record =
            "Package: x\nDepends: linux-image-6.1 (= 1), kmod, a | b, c:any (>= 2)\nX: y\n";
        assert_eq!(depends(record), ["linux-image-6.1", "kmod", "a", "c"]);
        assert!(depends("Package: x\n").is_empty());
    }
}
