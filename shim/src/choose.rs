//! Which backend serves this node.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::record::{self, Record, Sync};
use crate::user_heartbeat::{self, UserHeartbeat};
use crate::{Shim, ShimError};

/// The names that later versions will know, so that their refusal can say so.
const PLANNED: [&str; 2] = ["control", "fsdlm"];

/// The stack that [`user_heartbeat`] serves.
const O2CB: &str = "o2cb";

/// What the choice depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `auto`, or a backend's name.
    pub kind: String,
    /// The record backend's file.
    pub record_path: PathBuf,
    /// Whether the record backend syncs every line.
    pub record_sync: Sync,
    /// Where to look for the kernel's OCFS2: `/sys/fs/ocfs2/cluster_stack`.
    pub cluster_stack: PathBuf,
    /// What the user-heartbeat backend needs; without it there is none.
    pub user_heartbeat: Option<user_heartbeat::Settings>,
}

/// A backend, and why it is this one.
pub struct Choice {
    /// The backend.
    pub shim: Box<dyn Shim>,
    /// A sentence for the log.
    pub reason: String,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("shim", &self.shim.name())
            .field("reason", &self.reason)
            .finish()
    }
}

/// No backend can serve. Nothing was changed.
#[derive(Debug)]
pub enum ChooseError {
    /// The name is of a backend that this version lacks.
    NotBuilt(String),
    /// The name is of no backend.
    Unknown(String),
    /// The backend was chosen, and [`Settings`] say nothing of it.
    NoSettings(&'static str),
    /// `auto`, but the kernel's OCFS2 runs with this stack, and nothing here could tell it of a
    /// death.
    KernelNeedsAnother(String),
    /// The backend cannot start.
    Start(ShimError),
}

impl fmt::Display for ChooseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt(kind) => write!(
                f,
                "the shim \"{kind}\" is not built in this version; \"user-heartbeat\" and \
                 \"record\" are"
            ),
            Self::Unknown(kind) => write!(
                f,
                "there is no shim \"{kind}\"; set shim.kind to \"auto\", \"user-heartbeat\" or \
                 \"record\""
            ),
            Self::NoSettings(kind) => write!(f, "the shim \"{kind}\" has no settings here"),
            Self::KernelNeedsAnother(stack) => write!(
                f,
                "this kernel's OCFS2 is loaded with the stack \"{stack}\", and this version has no \
                 shim that could tell it of a death; to only write down what would be told, set \
                 shim.kind = \"record\""
            ),
            Self::Start(error) => write!(f, "the shim cannot start: {error}"),
        }
    }
}

impl std::error::Error for ChooseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(error) => Some(error),
            Self::NotBuilt(_)
            | Self::Unknown(_)
            | Self::NoSettings(_)
            | Self::KernelNeedsAnother(_) => None,
        }
    }
}

/// Checks the name of a backend without opening anything.
///
/// # Errors
/// There is no backend of that name in this version.
pub fn check_kind(kind: &str) -> Result<(), ChooseError> {
    match kind {
        record::NAME | user_heartbeat::NAME | "auto" => Ok(()),
        kind if PLANNED.contains(&kind) => Err(ChooseError::NotBuilt(kind.into())),
        kind => Err(ChooseError::Unknown(kind.into())),
    }
}

/// Whether [`choose`] would take the user-heartbeat backend: then the kernel has to be made ready,
/// and its settings have to be given.
#[must_use]
pub fn is_user_heartbeat(kind: &str, cluster_stack: &Path) -> bool {
    let runs_o2cb = || std::fs::read_to_string(cluster_stack).is_ok_and(|it| it.trim() == O2CB);
    kind == user_heartbeat::NAME || (kind == "auto" && runs_o2cb())
}

/// Opens the backend that the settings name. `auto` looks, says what it found, and refuses rather
/// than guess.
///
/// # Errors
/// No backend of that name, none that fits this kernel, or it cannot open its files.
pub fn choose(settings: &Settings) -> Result<Choice, ChooseError> {
    check_kind(&settings.kind)?;
    match settings.kind.as_str() {
        record::NAME => record(settings, "the configuration says so"),
        user_heartbeat::NAME => user_heartbeat(settings, "the configuration says so"),
        _ => match std::fs::read_to_string(&settings.cluster_stack) {
            Ok(stack) if stack.trim() == O2CB && settings.user_heartbeat.is_some() => {
                user_heartbeat(settings, "this kernel's OCFS2 runs with the stack \"o2cb\"")
            }
            Ok(stack) => Err(ChooseError::KernelNeedsAnother(stack.trim().into())),
            Err(_) => record(
                settings,
                "this kernel has no OCFS2 loaded that would have to be told (to have it loaded, \
                 for volumes of the stack \"o2cb\", set shim.kind = \"user-heartbeat\")",
            ),
        },
    }
}

fn user_heartbeat(settings: &Settings, reason: &str) -> Result<Choice, ChooseError> {
    let given = settings.user_heartbeat.as_ref();
    let given = given.ok_or(ChooseError::NoSettings(user_heartbeat::NAME))?;
    let (shim, carrier) = UserHeartbeat::start(given).map_err(ChooseError::Start)?;
    Ok(Choice { shim: Box::new(shim), reason: format!("{reason}; {carrier}") })
}

fn record(settings: &Settings, reason: &str) -> Result<Choice, ChooseError> {
    let shim =
        Record::open(&settings.record_path, settings.record_sync).map_err(ChooseError::Start)?;
    let reason = format!("{reason}; verbs go to {}", settings.record_path.display());
    Ok(Choice { shim: Box::new(shim), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &tempfile::TempDir, kind: &str) -> Settings {
        Settings {
            kind: kind.into(),
            record_path: dir.path().join("record.jsonl"),
            record_sync: Sync::No,
            cluster_stack: dir.path().join("cluster_stack"),
            user_heartbeat: None,
        }
    }

    /// A kernel without anything that could carry a heartbeat.
    fn with_heartbeat(dir: &tempfile::TempDir, kind: &str) -> Settings {
        let here = |name| dir.path().join(name);
        let paths = user_heartbeat::Paths {
            configfs: here("config"),
            debugfs: here("debug"),
            sys_o2cb: here("o2cb"),
            sys_ocfs2: dir.path().into(),
            dev: here("dev"),
            sys_dev_block: here("block"),
            run_dir: here("run"),
        };
        let heartbeat = user_heartbeat::Settings {
            carrier: user_heartbeat::CarrierKind::Auto,
            gates: user_heartbeat::Gates::new(&paths.configfs),
            paths,
            device: None,
            slots: user_heartbeat::Slots::default(),
            keeper: std::sync::Arc::new(|_, _| Err("no keeper is needed".into())),
        };
        Settings { user_heartbeat: Some(heartbeat), ..settings(dir, kind) }
    }

    #[test]
    fn user_heartbeat_by_name_and_by_look() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(choose(&with_heartbeat(&dir, "auto")).unwrap().shim.name(), "record");
        std::fs::write(dir.path().join("cluster_stack"), "o2cb\n").unwrap();
        for kind in ["auto", "user-heartbeat"] {
            let error = choose(&with_heartbeat(&dir, kind)).unwrap_err();
            assert!(matches!(&error, ChooseError::Start(ShimError::Unusable(_))), "{error}");
        }
        std::fs::write(dir.path().join("cluster_stack"), "pcmk\n").unwrap();
        let error = choose(&with_heartbeat(&dir, "auto")).unwrap_err();
        assert!(matches!(&error, ChooseError::KernelNeedsAnother(stack) if stack == "pcmk"));
        assert!(matches!(
            choose(&settings(&dir, "user-heartbeat")),
            Err(ChooseError::NoSettings("user-heartbeat"))
        ));
    }

    #[test]
    fn record_by_name_and_by_look() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, why) in [("record", "configuration"), ("auto", "no OCFS2 loaded")] {
            let choice = choose(&settings(&dir, kind)).unwrap();
            assert_eq!(choice.shim.name(), "record");
            assert!(choice.reason.contains(why), "{}", choice.reason);
        }
    }

    #[test]
    fn auto_refuses_a_kernel_that_waits_to_be_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cluster_stack"), "o2cb\n").unwrap();
        let error = choose(&settings(&dir, "auto")).unwrap_err();
        assert!(matches!(&error, ChooseError::KernelNeedsAnother(stack) if stack == "o2cb"));
        assert!(error.to_string().contains("shim.kind = \"record\""), "{error}");
        assert!(choose(&settings(&dir, "record")).is_ok(), "by name it may be had all the same");
    }

    #[test]
    fn other_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = choose(&settings(&dir, "fsdlm")).unwrap_err();
        assert!(error.to_string().contains("not built in this version"), "{error}");
        let error = choose(&settings(&dir, "recrod")).unwrap_err();
        assert!(error.to_string().contains("no shim \"recrod\""), "{error}");
        let mut missing = settings(&dir, "record");
        missing.record_path = dir.path().join("no/such/place");
        assert!(matches!(choose(&missing), Err(ChooseError::Start(_))));
    }
}
