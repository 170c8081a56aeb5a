//! What can go wrong while nodes are made and moved.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the harness could not do what a test asked. After an error of [`crate::Builder::start`]
/// nothing is left behind but the log directory that the error names.
#[derive(thiserror::Error)]
pub enum HarnessError {
    /// This user may make no namespaces here.
    #[error(
        "cannot make namespaces: {detail}\nRun as root, or allow unprivileged user namespaces: \
         sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone (Debian), \
         kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); a container needs an unmasked \
         /proc"
    )]
    NoNamespaces {
        /// What unshare(1) said.
        detail: String,
    },
    /// A program that the harness needs is not installed.
    #[error("{program} is not installed; it is in Debian's package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// The package.
        package: &'static str,
    },
    /// A command of the harness itself failed.
    #[error("{what} failed: {detail}")]
    Command {
        /// What it was to do.
        what: String,
        /// Exit status and standard error.
        detail: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// Something did not happen in its time.
    #[error("{what}: not within {limit:?}\n{detail}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The time it had.
        limit: Duration,
        /// The last state seen, and the tails of the logs that explain it.
        detail: String,
    },
    /// The node is off: [`crate::Node::crash`] was called, and no reboot.
    #[error("node {0} is powered off")]
    PoweredOff(u32),
    /// The directory for the nodes' files would be hidden inside the nodes.
    #[error(
        "{0} is hidden inside the nodes; set TMPDIR to a directory outside /run, /proc and /dev"
    )]
    HiddenDirectory(PathBuf),
}

impl std::fmt::Debug for HarnessError {
    /// The same as Display: tests unwrap, and the tails of logs are read by people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl HarnessError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
