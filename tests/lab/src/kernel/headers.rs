//! A kernel's headers, unpacked so that a module can be built against them anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::kernel::apt::Apt;

/// The programs among the headers may need newer libraries than this machine has.
const PARTS: [&str; 6] =
    ["linux-headers-", "linux-kbuild-", "libc6", "libelf1", "zlib1g", "libzstd1"];

/// The directory for `make -C`, downloaded if it is not there yet.
pub(crate) fn get(release: &str, suite: &str, place: &Path) -> Result<PathBuf> {
    let root = place.join("headers");
    let build = root.join(format!("usr/src/linux-headers-{release}"));
    let stamp = place.join("headers-release");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == release) {
        return Ok(build);
    }
    let mut reasons = Vec::new();
    for apt in Apt::ways(suite, place) {
        let done = apt
            .and_then(|apt| fetch(&apt, release, place, &root))
            .and_then(|()| relocate(&root, &build));
        match done {
            Ok(()) => {
                fs::write(&stamp, release).map_err(LabError::at(&stamp))?;
                return Ok(build);
            }
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(LabError::Setup(reasons.join("; ")))
}

fn fetch(apt: &Apt, release: &str, place: &Path, root: &Path) -> Result<()> {
    let is_part = |name: &str| PARTS.iter().any(|part| name.starts_with(part));
    let packages = apt.closure(&format!("linux-headers-{release}"), is_part)?;
    let _ = fs::remove_dir_all(root);
    apt.unpack(&packages, &place.join("header-debs"), root)
}

/// The packages expect to lie in /usr/src and to be used with one compiler; ours lie elsewhere,
/// and the compiler is the one that is here.
fn relocate(root: &Path, build: &Path) -> Result<()> {
    let makefile = build.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(LabError::at(&makefile))?;
    let here = format!("{}/usr/", root.display());
    fs::write(&makefile, text.replace("/usr/src/", &format!("{here}src/")))
        .map_err(LabError::at(&makefile))?;
    let variables = build.join(".kernelvariables");
    let Ok(text) = fs::read_to_string(&variables) else { return Ok(()) };
    fs::write(&variables, plain_gcc(&text)).map_err(LabError::at(&variables))
}

/// `gcc-12` becomes `gcc`.
fn plain_gcc(text: &str) -> String {
    let mut parts = text.split("gcc-");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += "gcc";
        plain += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_that_is_here() {
        assert_eq!(plain_gcc("override CC = x-gcc-12\n"), "override CC = x-gcc\n");
        assert_eq!(plain_gcc("CC = clang"), "CC = clang");
    }
}
