//! Why a verb failed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A verb failed: the kernel is not known to have been told. The caller repeats the verb.
#[derive(Debug)]
pub enum ShimError {
    /// The operating system refused a step on this file.
    File {
        /// What was tried: `open`, `write`, `sync` ...
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ShimError {
    pub(crate) fn file(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { step, path: path.into(), source }
    }

    /// The errno behind the error; `EIO` (5) if there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        const EIO: i32 = 5;
        match self {
            Self::File { source, .. } => source.raw_os_error().unwrap_or(EIO),
        }
    }
}

impl fmt::Display for ShimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { step, path, source } => {
                write!(f, "cannot {step} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for ShimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
        }
    }
}
