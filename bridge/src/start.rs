//! From a command line to a running loop. The order matters:
//!
//! 1. the configuration, before anything is touched;
//! 2. the signals, so that none of them ends a daemon that has begun to remember; memory, priority
//!    and limits, before there are threads, because threads inherit them;
//! 3. the pid file, before anything is opened that two daemons must not share;
//! 4. the log;
//! 5. the saved state, before any tool or peer is heard: without it a death could be lost;
//! 6. the shim;
//! 7. the threads, because a death is no time to find out that there are none left;
//! 8. the doors, last: whoever gets in finds a daemon that remembers;
//! 9. READY, and then corosync, for as long as it takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mio::{Interest, Poll, Waker};
use o2bridge_core::{Config, Core, Saved};
use o2bridge_cpg::{Bus, Options};
use o2bridge_shim::{Backend, Choice, ChooseError, Shim, probe};
use signal_hook_mio::v1_0::Signals;
use slog::{Logger, info, warn};

use crate::adapter::process::{OnlyInstance, Protection, boot_id, protect};
use crate::adapter::state::StateDir;
use crate::adapter::timers::{Timers, now};
use crate::adapter::volumes::VolumeDesk;
use crate::adapter::workers::{FENCE_THREADS, Outbox, Results, VERB_THREADS, Workers};
use crate::config::{self, Settings};
use crate::door::{Doors, Places};
use crate::driver::{BUS, DOORS, Driver, SIGNALS, WAKER};
use crate::exec::Hands;
use crate::kernel::{self, Ground, Kernel};
use crate::log::Log;
use crate::log::repeat::Repeats;
use crate::manage::{self, Manage};
use crate::volumes::Serves;
use crate::window::{Eye, Facts};

/// What ends a start. Each of them names what is in the way.
type StartError = Box<dyn std::error::Error>;

/// Reads the configuration and runs the daemon to its end.
///
/// # Errors
/// It could not start, or its loop failed.
pub fn run(config_path: Option<PathBuf>) -> Result<(), StartError> {
    let settings = config::load(config_path.as_deref())?;
    let caught = Signals::new(manage::SIGNALS)?;
    let protection = protect(&settings.process);
    let only = OnlyInstance::claim(&settings.paths.run_dir)?;
    let log = Log::start(settings.log.level, settings.log.target);
    let given = Given { settings, config_path, caught, protection };
    let result = build(given, &log).and_then(|driver| driver.run().map_err(StartError::from));
    if let Err(error) = &result {
        slog::error!(log.logger, "ending"; "error" => %error);
    }
    log.finish();
    drop(only);
    result
}

/// What there is before the log.
struct Given {
    settings: Settings,
    config_path: Option<PathBuf>,
    caught: Signals,
    protection: Protection,
}

/// Checks the configuration; a sentence for the terminal.
///
/// # Errors
/// It cannot be used.
pub fn check_config(config_path: Option<&Path>) -> Result<String, StartError> {
    let settings = config::load(config_path)?;
    let facts = probe::look(&places_of(&settings));
    match picked(&settings, &facts) {
        Ok((Backend::UserHeartbeat, _)) => kernel::check_timing(&settings)?,
        Ok((Backend::Control, _)) => kernel::check_user_stack_timing(&settings)?,
        Ok((Backend::Record | Backend::Observe, _)) | Err(_) => {}
    }
    let path = config_path.unwrap_or(Path::new(config::DEFAULT_PATH));
    let found = if path.exists() { "is good" } else { "does not exist: all defaults" };
    Ok(format!("{} {found}", path.display()))
}

fn build(given: Given, log: &Log) -> Result<Driver, StartError> {
    let Given { settings, config_path, mut caught, protection } = given;
    let logger = log.logger.clone();
    let boot = boot_id(&settings.paths.boot_id)?;
    let state = StateDir::new(settings.paths.run_dir.join("state"), boot);
    let loaded = state.load(wall_us())?;
    let machine = Eye::open(places_of(&settings));
    let (choice, ground, serves) = choose(&settings, machine.seen(), &loaded.saved, &logger)?;
    let facts = Facts {
        started_ms: now().0,
        shim: (choice.shim.name().into(), choice.reason),
        protection,
        settings: settings.clone(),
        level: log.level.clone(),
        ring: log.ring.clone(),
        shm_bytes: 0,
        corosync: None,
        machine,
    };
    introduce(&logger, log, &facts, loaded.saved.groups.len());

    let poll = Poll::new()?;
    poll.registry().register(&mut caught, SIGNALS, Interest::READABLE)?;
    let tunables = settings.tunables(facts.has_kernel());
    let first_incarnation = loaded.first_incarnation;
    let locking = ground.as_ref().map(Ground::locking).unwrap_or_default();
    let config = Config { boot, first_incarnation, locking, tunables };
    let saved = loaded.saved.clone();
    let core = Core::new(config, loaded.saved);
    let shim: Arc<dyn Shim> = Arc::from(choice.shim);
    let daemon_back_ms = settings.keeper.daemon_back_ms.get();
    kernel::detach_forgotten(shim.as_ref(), &saved, daemon_back_ms, &logger);
    let stand = |ground| Kernel::start(ground, Arc::clone(&shim), &logger);
    let kernel = ground.map(stand).transpose()?;
    let given = Built { shim, kernel, serves, saved, state };
    let (hands, results) = hands(&poll, settings, given, logger.clone())?;
    let manage = Manage::new(caught, facts, config_path, logger);
    Ok(Driver::new(poll, core, hands, results, manage))
}

/// What stands before the loop.
struct Built {
    shim: Arc<dyn Shim>,
    kernel: Option<Kernel>,
    serves: Option<Serves>,
    saved: Saved,
    state: StateDir,
}

/// Threads, corosync and the doors.
fn hands(
    poll: &Poll,
    settings: Settings,
    built: Built,
    log: Logger,
) -> Result<(Hands, Results), StartError> {
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (outbox, results) = Outbox::new(Arc::clone(&waker));
    let channels_warn = usize::try_from(settings.corosync.groups_warn.get()).unwrap_or(usize::MAX);
    let options = Options { channels_warn, ..Options::default() };
    let Built { shim, kernel, serves, saved, state } = built;
    let gates = kernel.as_ref().and_then(Kernel::gates);
    let watch = |serves| {
        let given = (&saved, serves, gates);
        VolumeDesk::start(&settings, given, Arc::clone(&waker), log.clone())
    };
    let volumes = serves.map(watch).transpose()?;
    let hands = Hands {
        verbs: Workers::start("verb", VERB_THREADS, &outbox)?,
        fencers: Workers::start("fence", FENCE_THREADS, &outbox)?,
        bus: Bus::new(poll.registry(), BUS, waker, options)?,
        doors: Doors::open(poll.registry(), DOORS, places(&settings))?,
        timers: Timers::default(),
        shim,
        kernel,
        volumes,
        cluster: None,
        state,
        fencing: settings.fencing,
        mountinfo: settings.paths.mountinfo,
        log,
        repeats: Repeats::default(),
        is_over: false,
    };
    Ok((hands, results))
}

/// The first lines of the log: who we are, and what an operator should know before it hurts.
fn introduce(logger: &Logger, log: &Log, facts: &Facts, groups: usize) {
    info!(logger, "o2bridged {} starts", env!("CARGO_PKG_VERSION"); "groups" => groups);
    info!(logger, "shim {}: {}", facts.shim.0, facts.shim.1);
    for warning in log.fallback.iter().chain(&facts.warnings()) {
        warn!(logger, "{warning}");
    }
}

/// Where to look at the machine.
fn places_of(settings: &Settings) -> probe::Places {
    let cluster_stack = settings.paths.cluster_stack.clone();
    probe::Places { cluster_stack, ..probe::Places::default() }
}

fn picked(settings: &Settings, facts: &probe::Facts) -> Result<(Backend, String), ChooseError> {
    o2bridge_shim::pick(&settings.shim.kind, facts, settings.control.risk_kernel_bug)
}

/// The shim, and what it stands on.
type Chosen = (Choice, Option<Ground>, Option<Serves>);

/// The shim, for one with a kernel behind it what it stands on, and which volumes are served.
fn choose(
    settings: &Settings,
    facts: &probe::Facts,
    saved: &Saved,
    log: &Logger,
) -> Result<Chosen, StartError> {
    let (backend, reason) = picked(settings, facts)?;
    let mut wanted = o2bridge_shim::Settings {
        record_path: settings.record_path(),
        record_sync: if settings.record.fsync {
            o2bridge_shim::record::Sync::Yes
        } else {
            o2bridge_shim::record::Sync::No
        },
        user_heartbeat: None,
        control: None,
    };
    let (ground, serves) = match backend {
        Backend::Record => (None, None),
        Backend::Observe => (None, Some(Serves::UserSeen)),
        Backend::UserHeartbeat => {
            let (ground, needs) = Ground::prepare(settings, log)?;
            wanted.user_heartbeat = Some(needs);
            (Some(ground), Some(Serves::O2cb))
        }
        Backend::Control => {
            let groups = saved.groups.keys().copied().collect();
            let (ground, needs) =
                Ground::prepare_user_stack(settings, (facts.down(), groups), log)?;
            wanted.control = Some(needs);
            (Some(ground), Some(Serves::UserAhead))
        }
    };
    let choice = o2bridge_shim::choose(&wanted, (backend, &reason));
    if let (Err(error), Some(ground)) = (&choice, &ground) {
        ground.give_up(error, log);
    }
    Ok((choice?, ground, serves))
}

fn places(settings: &Settings) -> Places {
    let name = &settings.paths.old_door;
    Places {
        legacy: (!name.is_empty()).then(|| name.clone()),
        varlink: Some(settings.paths.run_dir.join("io.o2bridge")),
        ..Places::default()
    }
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
