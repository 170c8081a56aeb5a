//! What can go wrong in the lab.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Why a step of a scenario, or the lab itself, failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine lacks something, or a tool of it failed; no guest is touched by that.
    #[error("{0}")]
    Setup(String),
    /// A system call on the host failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A guest is off, or went off while something was asked of it.
    #[error("{guest} is gone: {what}")]
    Gone {
        /// The guest's name.
        guest: String,
        /// What was asked of it.
        what: String,
    },
    /// Something took longer than it may.
    #[error("{what}: not within {} ms", .limit.as_millis())]
    Late {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A scenario's expectation is not fulfilled.
    #[error("{0}")]
    Expect(String),
    /// The scenario cannot be run here; not a failure, but said loudly.
    #[error("skipped: {0}")]
    Skip(String),
}

impl LabError {
    /// For `map_err` on a call about a file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = path.display().to_string();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` on any other call.
    pub(crate) fn io(what: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = what.to_owned();
        move |source| Self::Io { what, source }
    }
}

/// What everything in the lab gives back.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Fails the scenario, with a text as of `format!`, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if $condition {
        } else {
            return Err($crate::LabError::Expect(format!($($text)+)));
        }
    };
}
