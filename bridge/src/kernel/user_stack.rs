//! What the shim `control` stands on: drivers, a keeper that holds the line, and a thread that looks after
//! dlm_controld's memory of us.

use std::collections::BTreeSet;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use o2bridge_core::GroupId;
use o2bridge_keeper::{Keeper, SignOfLife};
use o2bridge_kmod_ctl::{O2cb, Paths};
use o2bridge_shim::control::{self, Told};
use o2bridge_shim::probe::Down;
use o2bridge_shim::{Shim, ShimError};
use slog::{Logger, info, warn};

use super::{KernelError, check_user_stack_timing, keeper_settings, note};
use crate::config::Settings;

/// The pause between two looks at dlm_controld.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// Loads the drivers, starts or adopts the keeper, and says what the shim needs. A kernel that must not be
/// written to is refused before anything is done.
pub(super) fn prepare(
    settings: &Settings,
    (down, groups): (Down, BTreeSet<GroupId>),
    told: &Told,
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
    let keeper =
        Keeper::start(keeper, SignOfLife::Work, Box::new(move |notice| note(&notices, &notice)));
    let keeper = Arc::new(
        keeper.map_err(|error| ShimError::Keeper { step: "start", source: error.into() })?,
    );
    let (told, lifeline) = (told.clone(), Arc::clone(&keeper));
    let wanted = control::Settings { paths, told, keeper: lifeline, groups, down, risk_kernel_bug };
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
    pub(super) fn start(
        shim: Arc<dyn Shim>,
        pause: Duration,
        log: Logger,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let complaint = Arc::<Mutex<Option<String>>>::default();
        let shown = Arc::clone(&complaint);
        let thread = std::thread::Builder::new().name("tender".into()).spawn(move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn what_is_amiss_is_shown_for_as_long_as_it_is() {
        let shim = Arc::new(Fake::default());
        let log = Logger::root(slog::Discard, slog::o!());
        let pause = Duration::from_millis(1);
        let mut tender = Tender::start(Arc::clone(&shim) as Arc<dyn Shim>, pause, log).unwrap();
        for expected in [Some("gone".to_owned()), None] {
            look(&shim.complaint).clone_from(&expected);
            let end = Instant::now() + Duration::from_secs(10);
            while tender.complaint() != expected {
                assert!(Instant::now() < end, "{expected:?} is not shown");
                std::thread::sleep(pause);
            }
        }
        tender.stop();
        look(&shim.complaint).replace("unheard".into());
        std::thread::sleep(10 * pause);
        assert_eq!(tender.complaint(), None, "it has ended");
    }
}
