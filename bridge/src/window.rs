//! What can be seen of the daemon from outside: status, dump, and how much it logs.

use o2bridge_core::{Core, Fencing, Now, Snapshot};
use o2bridge_cpg::{BusEvent, Unsuitable};
use o2bridge_shim::probe::{self, Places, Possible};
use o2bridge_shim::{control, observe};

use crate::adapter::process::Protection;
use crate::adapter::timers::now;
use crate::adapter::volumes::VolumeDesk;
use crate::config::Settings;
use crate::door::View;
use crate::kernel::Kernel;
use crate::log::{self, LevelSwitch, Ring};
use crate::machine::Machine;
use crate::status::{self, LogLevel, Status};

/// What the daemon knows beyond its core.
#[derive(Debug)]
pub struct Facts {
    /// When it started.
    pub started_ms: u64,
    /// The shim's name and why it is this one.
    pub shim: (String, String),
    /// What the system granted.
    pub protection: Protection,
    /// The configuration in use.
    pub settings: Settings,
    /// How much is logged.
    pub level: LevelSwitch,
    /// What was logged lately.
    pub ring: Ring,
    /// What our groups take from `/dev/shm`, in bytes.
    pub shm_bytes: u64,
    /// Why corosync cannot be used although it answers.
    pub corosync: Option<Unsuitable>,
    /// What this machine allows.
    pub machine: Eye,
}

/// How old a look at the machine may be when it is shown.
const LOOK_AGE_MAX_MS: u64 = 1_000;

/// Looks at the machine. What is on a disk was read at the start.
#[derive(Debug)]
pub struct Eye {
    places: Places,
    seen: probe::Facts,
    last: Option<(Now, Machine)>,
}

impl Eye {
    /// Reads what is on a disk.
    #[must_use]
    pub fn open(places: Places) -> Self {
        Self { seen: probe::look(&places), places, last: None }
    }

    /// What was seen at the start.
    #[must_use]
    pub fn seen(&self) -> &probe::Facts {
        &self.seen
    }

    /// Why the shim that lives beside dlm_controld does not fit what runs now.
    fn complaint(&self, shim: &str) -> Option<String> {
        if shim != control::NAME && shim != observe::NAME {
            return None;
        }
        let verdicts = probe::judge(&probe::look_again(&self.places, &self.seen));
        let found = verdicts.into_iter().find(|verdict| verdict.shim == shim)?;
        (found.possible != Possible::Yes).then(|| format!("the shim {shim}: {}", found.why))
    }

    fn show(&mut self, now: Now) -> Machine {
        if let Some((at, machine)) = &self.last {
            if now.0.saturating_sub(at.0) < LOOK_AGE_MAX_MS {
                return machine.clone();
            }
        }
        let machine = Machine::new(&probe::look_again(&self.places, &self.seen));
        self.last = Some((now, machine.clone()));
        machine
    }
}

impl Facts {
    /// Takes notice of what corosync says of itself.
    pub fn note_corosync(&mut self, event: &BusEvent) {
        match event {
            BusEvent::Refused(unsuitable) => self.corosync = Some(*unsuitable),
            BusEvent::Connected(_) => self.corosync = None,
            BusEvent::Lost(_)
            | BusEvent::Quorum { .. }
            | BusEvent::Confchg { .. }
            | BusEvent::Totem { .. }
            | BusEvent::Nodelist(_)
            | BusEvent::Message { .. }
            | BusEvent::Done { .. }
            | BusEvent::Notice(_) => {}
        }
    }

    /// Whether somebody acts on what the shim is told.
    #[must_use]
    pub fn has_kernel(&self) -> bool {
        let name = self.shim.0.as_str();
        name != o2bridge_shim::record::NAME && name != o2bridge_shim::observe::NAME
    }

    /// What an operator should know before it hurts.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        warnings.extend(self.corosync.map(|unsuitable| unsuitable.to_string()));
        let fencing = &self.settings.fencing;
        let is_observer = self.shim.0 == o2bridge_shim::observe::NAME;
        if fencing.policy() == Fencing::None && !is_observer {
            warnings.push(
                "fencing.policy is \"none\": nobody makes sure that a dead node is dead, and a volume \
                 can be damaged by one that is not; set it to \"agent\" or \"ack\""
                    .into(),
            );
        }
        if fencing.self_fence_command.is_empty() && !self.has_kernel() && !is_observer {
            warnings.push(
                "fencing.self_fence_command is not set: if the cluster buries this node while it has \
                 volumes mounted, somebody must reset it by hand"
                    .into(),
            );
        }
        warnings.extend(self.protection.refused.iter().cloned());
        warnings
    }
}

/// The daemon as its doors may see it.
pub struct Window<'a> {
    /// The state.
    pub core: &'a Core,
    /// The rest.
    pub facts: &'a mut Facts,
    /// What the daemon works with.
    pub hands: Seen<'a>,
}

/// What of the daemon's hands can be seen.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// What the shim stands on.
    pub kernel: Option<&'a Kernel>,
    /// The volumes.
    pub volumes: Option<&'a VolumeDesk>,
}

impl View for Window<'_> {
    fn status(&self) -> Status {
        let snapshot = self.core.snapshot();
        let facts = status::Facts {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: now().0.saturating_sub(self.facts.started_ms) / 1_000,
            log_level: self.facts.level.get(),
            shim: self.facts.shim.0.clone(),
            shim_reason: self.facts.shim.1.clone(),
            memory_locked: self.facts.protection.memory_locked,
            shm_bytes: self.facts.shm_bytes,
            warnings: {
                let mut warnings = self.facts.warnings();
                warnings.extend(self.hands.kernel.and_then(Kernel::complaint));
                warnings.extend(self.facts.machine.complaint(&self.facts.shim.0));
                warnings
            },
            kernel: self.hands.kernel.and_then(Kernel::status),
            volumes: self.hands.volumes.map(|it| it.view(&snapshot)).unwrap_or_default(),
            views: self.hands.volumes.map(|it| it.views(&snapshot)).unwrap_or_default(),
        };
        Status::new(&snapshot, facts)
    }

    fn machine(&mut self) -> Machine {
        self.facts.machine.show(now())
    }

    fn dump(&self) -> String {
        dump(self.core, self.facts)
    }

    fn set_log_level(&mut self, level: LogLevel) {
        self.facts.level.set(level);
    }
}

/// The core's state and the recent past, for a human.
#[must_use]
pub fn dump(core: &Core, facts: &Facts) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let snapshot = core.snapshot();
    format!("o2bridged {version}, now {} ms\n{snapshot:#?}\n{}", now().0, facts.ring.text())
}

/// One line for the service manager.
#[must_use]
pub fn status_line(snapshot: &Snapshot) -> String {
    let Some(node) = snapshot.node.filter(|_| snapshot.connected) else {
        return "waiting for corosync".into();
    };
    let in_ring = snapshot.nodes.iter().filter(|node| node.in_ring).count();
    let quorate = if snapshot.quorate { "quorate" } else { "not quorate" };
    format!(
        "node {node} of cluster '{}', {quorate}, {in_ring} nodes, {} groups, fencing: {}",
        snapshot.cluster,
        snapshot.groups.len(),
        snapshot.fencing
    )
}

/// A bug of ours was found: what the core believes is contradictory, so nothing that it would say
/// about a death can be trusted. The process ends here; a new one starts from the saved state, and
/// the peers give it the grace period for that.
pub fn abort_with_dump(broken: &str, core: &Core, facts: &Facts) -> ! {
    let dump = dump(core, facts);
    log::abort(format!("o2bridged: BUG, please report with all of this: {broken}\n{dump}\n"));
}
