//! Images made by the real mkfs.ocfs2, for tests.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

pub(super) struct Image {
    pub(super) path: PathBuf,
    _dir: TempDir,
}

/// Formats an image with these arguments. `None`, and a loud word, without ocfs2-tools.
pub(super) fn mkfs(test: &str, arguments: &[&str]) -> Option<Image> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.img");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut command = Command::new("mkfs.ocfs2");
    // Debian has it in a directory that an ordinary user's PATH lacks.
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command.args(["-q", "-F"]).args(arguments).arg(&path).stdin(Stdio::null());
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            crate::skipped(&format!(
                "SKIPPED {test}: mkfs.ocfs2 is not there; install ocfs2-tools"
            ));
            None
        }
        Err(error) => panic!("mkfs.ocfs2: {error}"),
        Ok(output) => {
            assert!(output.status.success(), "mkfs.ocfs2 {arguments:?}: {output:?}");
            Some(Image { path, _dir: dir })
        }
    }
}
