//! What the shim `control` stands on: drivers, a keeper that holds the line, and a thread that looks after
//! dlm_controld's memory of us.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use o2bridge_core::GroupId;
use o2bridge_keeper::Keeper;
use o2bridge_kmod_ctl::{O2cb, Paths};
use o2bridge_shim::control::{self, Me};
use o2bridge_shim::probe::Down;
use o2bridge_shim::{Shim, ShimError};
use slog::{Logger, info, warn};

use super::{KernelError, check_user_stack_timing, keeper_settings, note};
use crate::config::Settings;

/// The pause between two looks at dlm_controld.
const PAUSE: Duration = Duration::from_secs(10);

/// Loads the drivers, starts or adopts the keeper, and says what the shim needs. A kernel that must not be
/// written to is refused before anything is done.
pub(super) fn prepare(
    settings: &Settings,
    (down, groups): (Down, BTreeSet<GroupId>),
    me: &Me,
    log: &Logger,
) -> Result<(Arc<Keeper>, control::Settings), KernelError> {
    let risk_kernel_bug = settings.control.risk_kernel_bug;
    control::check_kernel(&down, risk_kernel_bug)?;
    let paths = control::Paths::default();
    let keeper = o2bridge_keeper::Settings {
        control: Some(paths.device.clone()),
        ..keeper_settings(settings, None)
    };
    check_user_stack_timing(settings)?;
    let prepared = O2cb::new(Paths::default()).prepare_user_stack()?;
    for sentence in &prepared.done {
        info!(log, "kernel: {sentence}");
    }
    let notices = log.clone();
    let keeper = Keeper::start(keeper, Box::new(move |notice| note(&notices, &notice)));
    let keeper = Arc::new(
        keeper.map_err(|error| ShimError::Keeper { step: "start", source: error.into() })?,
    );
    let (me, lifeline) = (me.clone(), Arc::clone(&keeper));
    let wanted = control::Settings { paths, me, keeper: lifeline, groups, down, risk_kernel_bug };
    Ok((keeper, wanted))
}

/// A thread that has the shim look after what is not a verb.
#[derive(Debug)]
pub(super) struct Tender {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    complaint: Arc<Mutex<Option<String>>>,
}

impl Tender {
    pub(super) fn start(shim: Arc<dyn Shim>, log: Logger) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let complaint = Arc::<Mutex<Option<String>>>::default();
        let shown = Arc::clone(&complaint);
        let thread = std::thread::Builder::new().name("tender".into()).spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let now = shim.tend();
                let mut shown = look(&shown);
                match (&*shown, &now) {
                    (before, Some(why)) if before.as_ref() != Some(why) => warn!(log, "{why}"),
                    (Some(_), None) => info!(log, "dlm_controld knows of our volumes again"),
                    (_, _) => {}
                }
                *shown = now;
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), complaint })
    }

    pub(super) fn complaint(&self) -> Option<String> {
        look(&self.complaint).clone()
    }

    pub(super) fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn look<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For [`super::Kernel`]: a keeper that is there from the start.
pub(super) fn cell(keeper: Arc<Keeper>) -> Arc<OnceLock<Arc<Keeper>>> {
    Arc::new(OnceLock::from(keeper))
}
