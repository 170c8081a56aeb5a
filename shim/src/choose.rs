//! Which backend serves this node.

use std::fmt;
use std::path::PathBuf;

use crate::control::{self, Control};
use crate::observe::{self, Observe};
use crate::probe::{self, Down, Facts, Possible};
use crate::record::{self, Record, Sync};
use crate::user_heartbeat::{self, UserHeartbeat};
use crate::{Shim, ShimError};

/// The names that later versions will know, so that their refusal can say so.
const PLANNED: [&str; 1] = ["fsdlm"];

/// The backends of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Nobody is told.
    Record,
    /// See [`user_heartbeat`].
    UserHeartbeat,
    /// See [`control`].
    Control,
    /// See [`observe`].
    Observe,
}

/// What is needed to open the backend that was [picked](pick).
#[derive(Debug, Clone)]
pub struct Settings {
    /// The record backend's file.
    pub record_path: PathBuf,
    /// Whether the record backend syncs every line.
    pub record_sync: Sync,
    /// What the user-heartbeat backend needs; without it there is none.
    pub user_heartbeat: Option<user_heartbeat::Settings>,
    /// What the control backend needs; without it there is none.
    pub control: Option<control::Settings>,
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
    /// `auto`, but nothing fits the stack that the kernel's OCFS2 runs with.
    KernelNeedsAnother {
        /// The stack.
        stack: String,
        /// Why not, for each backend that comes into question.
        why: String,
    },
    /// The backend was named, and would do harm here or cannot be.
    Unfit {
        /// Its name.
        shim: &'static str,
        /// Why.
        why: String,
    },
    /// The backend cannot start.
    Start(ShimError),
}

impl fmt::Display for ChooseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBuilt(kind) => {
                write!(f, "the shim \"{kind}\" is not built in this version; {KINDS} are")
            }
            Self::Unknown(kind) => {
                write!(f, "there is no shim \"{kind}\"; set shim.kind to \"auto\", {KINDS}")
            }
            Self::NoSettings(kind) => write!(f, "the shim \"{kind}\" has no settings here"),
            Self::KernelNeedsAnother { stack, why } => write!(
                f,
                "this kernel's OCFS2 is loaded with the stack \"{stack}\", and no shim fits it now \
                 ({why}); shim.kind = \"record\" only writes down what would be told, and tells \
                 the kernel nothing"
            ),
            Self::Unfit { shim, why } => write!(
                f,
                "the shim \"{shim}\" is not for this machine as it is: {why} (`o2bridge status \
                 --kernel` shows what is)"
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
            | Self::KernelNeedsAnother { .. }
            | Self::Unfit { .. } => None,
        }
    }
}

/// The names of all backends, for an error.
const KINDS: &str = "\"user-heartbeat\", \"control\", \"observe\" and \"record\"";

/// Checks the name of a backend without opening anything.
///
/// # Errors
/// There is no backend of that name in this version.
pub fn check_kind(kind: &str) -> Result<(), ChooseError> {
    match kind {
        record::NAME | user_heartbeat::NAME | control::NAME | observe::NAME | "auto" => Ok(()),
        kind if PLANNED.contains(&kind) => Err(ChooseError::NotBuilt(kind.into())),
        kind => Err(ChooseError::Unknown(kind.into())),
    }
}

/// Which backend it is, and why. Opens nothing. `auto` looks, says what it found, and refuses rather
/// than guess; so does a name that would do harm here. What only lacks may still come.
///
/// # Errors
/// No backend of that name, or none that fits this machine.
pub fn pick(
    kind: &str,
    facts: &Facts,
    risk_kernel_bug: bool,
) -> Result<(Backend, String), ChooseError> {
    check_kind(kind)?;
    let named = |backend| Ok((backend, "the configuration says so".to_owned()));
    match kind {
        record::NAME => named(Backend::Record),
        user_heartbeat::NAME => named(Backend::UserHeartbeat),
        control::NAME => fit(control::NAME, &risked(facts, risk_kernel_bug))
            .and_then(|()| named(Backend::Control)),
        observe::NAME => fit(observe::NAME, facts).and_then(|()| named(Backend::Observe)),
        _ => by_look(facts),
    }
}

/// The facts as they count for who takes the risk of a kernel that is not known. A kernel that is known
/// to crash stays what it is.
fn risked(facts: &Facts, risk_kernel_bug: bool) -> Facts {
    match facts.down() {
        Down::Unknown(_) if risk_kernel_bug => Facts { fortify: Some(false), ..facts.clone() },
        Down::Unknown(_) | Down::Bug(_) | Down::Safe(_) => facts.clone(),
    }
}

fn fit(shim: &'static str, facts: &Facts) -> Result<(), ChooseError> {
    let (possible, why) = verdict(shim, facts);
    match possible {
        Possible::Yes | Possible::NotNow => Ok(()),
        Possible::Harmful | Possible::No | Possible::NotBuilt => {
            Err(ChooseError::Unfit { shim, why })
        }
    }
}

fn verdict(shim: &str, facts: &Facts) -> (Possible, String) {
    let found = probe::judge(facts).into_iter().find(|verdict| verdict.shim == shim);
    found.map_or((Possible::NotBuilt, String::new()), |found| (found.possible, found.why))
}

fn by_look(facts: &Facts) -> Result<(Backend, String), ChooseError> {
    let Some(stack) = &facts.stack else {
        let reason = "this kernel has no OCFS2 loaded that would have to be told (to have it \
                      loaded, for volumes of the stack \"o2cb\", set shim.kind = \
                      \"user-heartbeat\")";
        return Ok((Backend::Record, reason.into()));
    };
    if stack == probe::O2CB {
        let reason = "this kernel's OCFS2 runs with the stack \"o2cb\"";
        return Ok((Backend::UserHeartbeat, reason.into()));
    }
    let mut reasons = Vec::new();
    for (shim, backend) in [(control::NAME, Backend::Control), (observe::NAME, Backend::Observe)] {
        match verdict(shim, facts) {
            (Possible::Yes, why) => return Ok((backend, why)),
            (_, why) => reasons.push(format!("{shim}: {why}")),
        }
    }
    Err(ChooseError::KernelNeedsAnother { stack: stack.clone(), why: reasons.join("; ") })
}

/// Opens the backend.
///
/// # Errors
/// It has no settings, or cannot start.
pub fn choose(
    settings: &Settings,
    (backend, reason): (Backend, &str),
) -> Result<Choice, ChooseError> {
    match backend {
        Backend::Record => record(settings, reason),
        Backend::UserHeartbeat => user_heartbeat(settings, reason),
        Backend::Control => {
            let given = settings.control.as_ref();
            let given = given.ok_or(ChooseError::NoSettings(control::NAME))?;
            let shim = Control::start(given).map_err(ChooseError::Start)?;
            Ok(Choice { shim: Box::new(shim), reason: reason.into() })
        }
        Backend::Observe => Ok(Choice { shim: Box::new(Observe), reason: reason.into() }),
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

    fn settings(dir: &tempfile::TempDir) -> Settings {
        Settings {
            record_path: dir.path().join("record.jsonl"),
            record_sync: Sync::No,
            user_heartbeat: None,
            control: None,
        }
    }

    fn facts(stack: Option<&str>, recover_callbacks: Option<bool>) -> Facts {
        let modules = ["ocfs2", "ocfs2_stack_user", "dlm"].map(str::to_owned).to_vec();
        Facts {
            release: "5.10.0".into(),
            fortify: Some(true),
            modules,
            stack: stack.map(str::to_owned),
            has_dlm_controld: recover_callbacks.is_some(),
            recover_callbacks,
            ..Facts::default()
        }
    }

    fn picked(kind: &str, facts: &Facts) -> Result<Backend, ChooseError> {
        pick(kind, facts, false).map(|(backend, _)| backend)
    }

    #[test]
    fn auto_looks_at_the_stack_and_at_dlm_controld() {
        assert_eq!(picked("auto", &facts(None, None)).unwrap(), Backend::Record);
        assert_eq!(picked("auto", &facts(Some("o2cb"), None)).unwrap(), Backend::UserHeartbeat);
        let control = facts(Some("cman"), Some(false));
        assert_eq!(picked("auto", &control).unwrap(), Backend::Control);
        let observe = facts(Some("pcmk"), Some(true));
        assert_eq!(picked("auto", &observe).unwrap(), Backend::Observe);
        let error = picked("auto", &facts(Some("pcmk"), None)).unwrap_err();
        assert!(matches!(&error, ChooseError::KernelNeedsAnother { stack, .. } if stack == "pcmk"));
        assert!(error.to_string().contains("dlm_controld does not run"), "{error}");
        assert!(error.to_string().contains("shim.kind = \"record\""), "{error}");
    }

    #[test]
    fn by_name_what_lacks_may_come_and_what_harms_is_refused() {
        for kind in ["control", "observe"] {
            assert!(picked(kind, &facts(None, None)).is_ok(), "{kind}: dlm_controld may come");
        }
        for (kind, callbacks) in [("control", true), ("observe", false)] {
            let error = picked(kind, &facts(Some("pcmk"), Some(callbacks))).unwrap_err();
            assert!(matches!(&error, ChooseError::Unfit { shim, .. } if *shim == kind), "{error}");
        }
        let o2cb = Facts { is_stack_in_use: true, ..facts(Some("o2cb"), None) };
        assert!(matches!(picked("control", &o2cb), Err(ChooseError::Unfit { .. })));
        assert_eq!(picked("record", &o2cb).unwrap(), Backend::Record);
        assert_eq!(picked("user-heartbeat", &o2cb).unwrap(), Backend::UserHeartbeat);
    }

    #[test]
    fn a_risk_can_be_taken_where_nothing_is_known_and_nowhere_else() {
        let kernel = |fortify| {
            let release = "6.12.0".to_owned();
            Facts { release, fortify, ..facts(Some("cman"), Some(false)) }
        };
        let control = |fortify, risk| pick("control", &kernel(fortify), risk).is_ok();
        assert!(!control(None, false));
        assert!(control(None, true));
        assert!(!control(Some(true), true), "it is known to crash");
        assert!(control(Some(false), false));
        assert!(pick("auto", &kernel(None), true).is_err(), "auto takes no risk");
    }

    #[test]
    fn backends_need_their_settings() {
        let dir = tempfile::tempdir().unwrap();
        let open = |backend| choose(&settings(&dir), (backend, "so"));
        let choice = open(Backend::Record).unwrap();
        assert_eq!(choice.shim.name(), "record");
        assert!(choice.reason.starts_with("so; verbs go to "), "{}", choice.reason);
        assert_eq!(open(Backend::Observe).unwrap().shim.name(), "observe");
        for backend in [Backend::UserHeartbeat, Backend::Control] {
            assert!(matches!(open(backend), Err(ChooseError::NoSettings(_))), "{backend:?}");
        }
        let missing = Settings { record_path: dir.path().join("no/such"), ..settings(&dir) };
        let error = choose(&missing, (Backend::Record, "so"));
        assert!(matches!(error, Err(ChooseError::Start(_))));
    }

    /// A kernel without anything that could carry a heartbeat.
    #[test]
    fn user_heartbeat_without_a_kernel() {
        let dir = tempfile::tempdir().unwrap();
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
        let settings = Settings { user_heartbeat: Some(heartbeat), ..settings(&dir) };
        let error = choose(&settings, (Backend::UserHeartbeat, "so")).unwrap_err();
        assert!(matches!(&error, ChooseError::Start(ShimError::Unusable(_))), "{error}");
    }

    #[test]
    fn other_names_are_refused() {
        let error = picked("fsdlm", &facts(None, None)).unwrap_err();
        assert!(error.to_string().contains("not built in this version"), "{error}");
        let error = picked("recrod", &facts(None, None)).unwrap_err();
        assert!(error.to_string().contains("no shim \"recrod\""), "{error}");
    }
}
