//! What this machine allows, as `o2bridge status --kernel --format json` prints it and the new door
//! sends it.

use o2bridge_shim::probe::{self, Facts};
use serde::{Deserialize, Serialize};

/// The machine, and a verdict for each shim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `uname -r`.
    pub release: String,
    /// Whether the kernel was built with FORTIFY_SOURCE; `None` if that is not known.
    pub fortify: Option<bool>,
    /// Where its configuration was found.
    pub config: Option<String>,
    /// What `DOWN`, written to the kernel's control device, does: `safe`, `bug` or `unknown`.
    pub down: String,
    /// How that is known.
    pub down_reason: String,
    /// The stack that the kernel's OCFS2 has chosen; `None` if it is not loaded.
    pub stack: Option<String>,
    /// Whether that stack is in use.
    pub stack_in_use: bool,
    /// Whether there is a control device.
    pub control_device: bool,
    /// Whether dlm_controld runs.
    pub dlm_controld: bool,
    /// Whether fs/dlm tells OCFS2 of deaths itself; `None` while it has no cluster.
    pub recover_callbacks: Option<bool>,
    /// One line for each shim.
    pub shims: Vec<Verdict>,
}

/// Whether a shim can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name, as in the configuration.
    pub shim: String,
    /// `possible`, `not now`, `harmful`, `impossible` or `not built`.
    pub verdict: String,
    /// Why.
    pub reason: String,
}

impl Machine {
    /// Puts it in words.
    #[must_use]
    pub fn new(facts: &Facts) -> Self {
        let down = facts.down();
        let shims = probe::judge(facts).into_iter().map(|one| Verdict {
            shim: one.shim.into(),
            verdict: one.possible.to_string(),
            reason: one.why,
        });
        Self {
            release: facts.release.clone(),
            fortify: facts.fortify,
            config: facts.config.as_ref().map(|path| path.display().to_string()),
            down: down.as_str().into(),
            down_reason: down.why().into(),
            stack: facts.stack.clone(),
            stack_in_use: facts.is_stack_in_use,
            control_device: facts.has_control_device,
            dlm_controld: facts.has_dlm_controld,
            recover_callbacks: facts.recover_callbacks,
            shims: shims.collect(),
        }
    }

    /// The machine that this program runs on.
    #[must_use]
    pub fn here() -> Self {
        Self::new(&probe::look(&probe::Places::default()))
    }
}
