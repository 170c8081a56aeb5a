//! What could tell this machine's kernel of a death, and what would do harm: a verdict for each shim.
//!
//! [`look`] reads the facts; [`judge`] is pure. Nothing is written, opened for writing or tried: that
//! a `DOWN` is a bug of the running kernel cannot be found out by one.
//!
//! **DOWN.** A handler in the kernel's OCFS2 takes `DOWN <uuid> <node>` in one record, ends the UUID with
//! a zero *behind* its field, and measures it. A kernel with FORTIFY_SOURCE measures within the whole
//! record up to 5.10, and within the field alone since 5.11: there is no zero in that, so it stops with a
//! BUG, and leaves the mutex locked that every mount, umount and open of the device needs. Measured on
//! Debian's 6.1, 6.12 and 7.2 (BUG) and 5.10 (fine, to the replay of the journal). What is not known is
//! not safe.

mod look;

use std::fmt;
use std::path::PathBuf;

pub use look::{Places, fortify, look, look_again, module_of};

use crate::{control, observe, record, user_heartbeat};

/// The stack whose kernel side listens to heartbeats.
pub const O2CB: &str = "o2cb";

/// What is known of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Whether the kernel was built with FORTIFY_SOURCE; `None` if its configuration is not to be found.
    pub fortify: Option<bool>,
    /// Where the configuration was found.
    pub config: Option<PathBuf>,
    /// The modules that concern us and that are built in or can be loaded.
    pub modules: Vec<String>,
    /// The stack that is chosen; `None` if OCFS2 is not loaded.
    pub stack: Option<String>,
    /// Whether that stack is in use: something is mounted, or a tool holds a lockspace.
    pub is_stack_in_use: bool,
    /// Whether the kernel has `ocfs2_control`.
    pub has_control_device: bool,
    /// Whether somebody listens where dlm_controld does.
    pub has_dlm_controld: bool,
    /// Whether fs/dlm tells OCFS2 of deaths itself; `None` while fs/dlm has no cluster.
    pub recover_callbacks: Option<bool>,
    /// Whether the kernel has the driver for links in configfs.
    pub has_link_driver: bool,
}

/// What `DOWN` does to this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// It recovers the node.
    Safe(String),
    /// It is a kernel BUG.
    Bug(String),
    /// Nobody knows.
    Unknown(String),
}

/// Whether a shim can serve this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Possible {
    /// It can.
    Yes,
    /// It could, once something is there or running.
    NotNow,
    /// It would do harm.
    Harmful,
    /// Not with this kernel, or not with the stack in use.
    No,
    /// This version lacks it.
    NotBuilt,
}

/// The verdict on one shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The shim's name, as in the configuration.
    pub shim: &'static str,
    /// Whether it can serve.
    pub possible: Possible,
    /// Why.
    pub why: String,
}

impl Possible {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "possible",
            Self::NotNow => "not now",
            Self::Harmful => "harmful",
            Self::No => "impossible",
            Self::NotBuilt => "not built",
        }
    }
}

impl fmt::Display for Possible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Down {
    /// `safe`, `bug` or `unknown`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Safe(_) => "safe",
            Self::Bug(_) => "bug",
            Self::Unknown(_) => "unknown",
        }
    }

    /// How that is known.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Safe(why) | Self::Bug(why) | Self::Unknown(why) => why,
        }
    }
}

/// The last kernel whose fortified strlen measures within the whole record.
const LAST_SAFE: (u32, u32) = (5, 10);

impl Facts {
    /// What `DOWN` would do here.
    #[must_use]
    pub fn down(&self) -> Down {
        let release = &self.release;
        let Some(version) = version(release) else {
            return Down::Unknown(format!("'{release}' is no kernel version that is known here"));
        };
        let after = version > LAST_SAFE;
        match self.fortify {
            Some(false) => Down::Safe("this kernel was built without FORTIFY_SOURCE".into()),
            // Whether fortified or not.
            _ if version == LAST_SAFE => Down::Safe(format!("{release} was tried: 5.10")),
            Some(true) if after => Down::Bug(format!(
                "{release} was built with FORTIFY_SOURCE, and since 5.11 DOWN is a kernel BUG then"
            )),
            Some(true) => Down::Unknown(format!(
                "{release} is older than what was tried (5.10); kernels of its age carry changes of \
                 later ones"
            )),
            None if after => Down::Unknown(format!(
                "the configuration of {release} is neither in /proc/config.gz nor in /boot nor \
                 among its modules, and with FORTIFY_SOURCE DOWN is a kernel BUG since 5.11"
            )),
            None => {
                Down::Unknown(format!("{release} was not tried, and its configuration is lost"))
            }
        }
    }

    fn has_module(&self, name: &str) -> bool {
        self.modules.iter().any(|module| module == name)
    }

    /// A stack in use that is not for this shim.
    fn other_stack(&self, wants_o2cb: bool) -> Option<String> {
        let stack = self.stack.as_deref().filter(|_| self.is_stack_in_use)?;
        let is_other = (stack == O2CB) != wants_o2cb;
        is_other.then(|| format!("the kernel's OCFS2 is in use with the stack \"{stack}\""))
    }
}

/// `5.10` of `5.10.0-46-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A verdict for every shim that there is or will be.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Verdict> {
    let verdict = |shim, (possible, why)| Verdict { shim, possible, why };
    vec![
        verdict(user_heartbeat::NAME, on_user_heartbeat(facts)),
        verdict(control::NAME, on_control(facts)),
        verdict(observe::NAME, on_observe(facts)),
        verdict("fsdlm", (Possible::NotBuilt, "planned; it will do without dlm_controld".into())),
        verdict(record::NAME, on_record(facts)),
    ]
}

fn on_user_heartbeat(facts: &Facts) -> (Possible, String) {
    if let Some(why) = facts.other_stack(true) {
        return (Possible::No, why);
    }
    if facts.has_link_driver {
        return (Possible::Yes, "links in configfs: this kernel has the driver for them".into());
    }
    for module in ["ocfs2", "ocfs2_stack_o2cb", "ocfs2_dlmfs", "brd"] {
        if !facts.has_module(module) {
            return (Possible::No, format!("this kernel has no module {module}"));
        }
    }
    (Possible::Yes, "a heartbeat region on a RAM disk, for volumes of the stack o2cb".into())
}

/// What `control` and `observe` have in common; `None` if dlm_controld runs and nothing is amiss.
fn beside_dlm_controld(facts: &Facts) -> Option<(Possible, String)> {
    if let Some(why) = facts.other_stack(false) {
        return Some((Possible::No, why));
    }
    for module in ["ocfs2", "ocfs2_stack_user", "dlm"] {
        if !facts.has_module(module) {
            return Some((Possible::No, format!("this kernel has no module {module}")));
        }
    }
    None
}

fn on_control(facts: &Facts) -> (Possible, String) {
    if let Some(found) = beside_dlm_controld(facts) {
        return found;
    }
    match (facts.down(), facts.has_dlm_controld, facts.recover_callbacks) {
        (Down::Bug(why), ..) => (Possible::Harmful, why),
        (Down::Unknown(why), ..) => {
            let key = "control.risk_kernel_bug = true takes the risk that this kernel crashes";
            (Possible::Harmful, format!("{why}; {key}"))
        }
        (Down::Safe(_), false, _) => {
            (Possible::NotNow, "dlm_controld does not run; it needs enable_fscontrol=1".into())
        }
        (Down::Safe(_), true, Some(true)) => (
            Possible::Harmful,
            "dlm_controld runs without enable_fscontrol=1: fs/dlm tells OCFS2 of deaths itself, and \
             the control device, once opened, resets the node when it is closed"
                .into(),
        ),
        (Down::Safe(why), true, Some(false)) => {
            (Possible::Yes, format!("dlm_controld runs with enable_fscontrol=1; DOWN is safe: {why}"))
        }
        (Down::Safe(_), true, None) => (
            Possible::NotNow,
            "fs/dlm has no cluster in configfs: dlm_controld has not set it up".into(),
        ),
    }
}

fn on_observe(facts: &Facts) -> (Possible, String) {
    if let Some(found) = beside_dlm_controld(facts) {
        return found;
    }
    match (facts.has_dlm_controld, facts.recover_callbacks) {
        (false, _) => (Possible::NotNow, "dlm_controld does not run".into()),
        (true, Some(true)) => (
            Possible::Yes,
            "dlm_controld runs in its default mode: fs/dlm tells OCFS2 of deaths itself".into(),
        ),
        (true, Some(false)) => (
            Possible::Harmful,
            "dlm_controld runs with enable_fscontrol=1: the kernel waits to be told of deaths, and \
             nobody would tell it"
                .into(),
        ),
        (true, None) => (
            Possible::NotNow,
            "fs/dlm has no cluster in configfs: dlm_controld has not set it up".into(),
        ),
    }
}

fn on_record(facts: &Facts) -> (Possible, String) {
    if facts.is_stack_in_use && facts.recover_callbacks == Some(false) {
        let why = "the kernel waits to be told of deaths, and this tells it nothing";
        return (Possible::Harmful, why.into());
    }
    (Possible::Yes, "it only writes down what a kernel would be told".into())
}

#[cfg(test)]
mod tests;
