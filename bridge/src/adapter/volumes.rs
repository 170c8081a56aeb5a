//! The volumes' manager with what it sees and whom it orders: the watch's thread.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use mio::Waker;
use o2bridge_core::{Event, GroupId, Now, Reply, RequestId, Saved, Snapshot};
use o2bridge_kmod_ctl::Mode;
use o2bridge_shim::user_heartbeat::Gates;
use o2bridge_shim::volume::lockspaces::Places;
use o2bridge_shim::volume::{self, Change, Order, Watch};
use slog::{Logger, error, info};

use crate::adapter::gatekeeper::Gatekeeper;
use crate::adapter::timers::now;
use crate::config::{self, HeartbeatMode, StorageLoss, UserHeartbeatSection, VolumesWord};
use crate::views::{Views, views};
use crate::volumes::{Decision, OnLoss, Policy, Serves, StopAnswer, VolumeView, Volumes, Which};

/// The pause before a gate that a tool held is tried again.
const GATE_RETRY_MS: u64 = 200;

/// The volumes, put together.
#[derive(Debug)]
pub struct VolumeDesk {
    manager: Volumes,
    watch: Watch,
    changes: Receiver<Change>,
    mode: Mode,
    serves: Serves,
    /// For the stack o2cb.
    gates: Option<Gates>,
    /// Whether the kernel had a cluster when we started, so that there is nothing to wait with.
    is_too_late: bool,
    /// Closes the gates of volumes that only other nodes know.
    gatekeeper: Option<Gatekeeper>,
    /// The volumes whose gates were closed.
    closed: BTreeSet<GroupId>,
    /// When a gate that a tool held is tried again.
    retry_at: Option<Now>,
    /// What other nodes use.
    used_elsewhere: BTreeSet<GroupId>,
    /// What the manager said since the loop last asked.
    said: Vec<Event>,
    log: Logger,
}

impl VolumeDesk {
    /// Starts the watch, and takes over the services of an earlier daemon.
    ///
    /// # Errors
    /// There are no more descriptors or threads.
    pub fn start(
        settings: &config::Settings,
        (saved, serves, gates): (&Saved, Serves, Option<Gates>),
        waker: Arc<Waker>,
        log: Logger,
    ) -> std::io::Result<Self> {
        let (sender, changes) = channel();
        let where_to_look = volume::Settings {
            mountinfo: settings.paths.mountinfo.clone(),
            lockspaces: match serves {
                Serves::O2cb => None,
                Serves::UserAhead | Serves::UserSeen => Some(Places::default()),
            },
            ..volume::Settings::default()
        };
        let bell = Arc::clone(&waker);
        let keep = |gates: Gates| Gatekeeper::start(gates, bell, log.clone());
        let gatekeeper = gates.clone().map(keep).transpose()?;
        let watch = Watch::start(where_to_look, move |change| {
            // Without a receiver the loop has ended; a waker that cannot be set is set already.
            let _ = sender.send(change);
            let _ = waker.wake();
        })?;
        let manager = Volumes::new(policy(serves, &settings.user_heartbeat));
        let mode = match settings.o2cb.heartbeat_mode {
            HeartbeatMode::Local => Mode::Local,
            HeartbeatMode::Global => Mode::Global,
        };
        let mut desk = Self {
            manager,
            watch,
            changes,
            mode,
            serves,
            is_too_late: gates.as_ref().is_some_and(Gates::is_too_late),
            gates,
            gatekeeper,
            closed: BTreeSet::new(),
            retry_at: None,
            used_elsewhere: BTreeSet::new(),
            said: Vec::new(),
            log,
        };
        desk.manager.inherit(saved, now(), &mut desk.said);
        Ok(desk)
    }

    /// Corosync answers.
    pub fn set_cluster(&mut self, name: &str) {
        self.manager.set_cluster(name, self.mode, now(), &mut self.said);
    }

    /// Other nodes use these groups. One that is new may be a volume that was made there, and that we take for an
    /// empty disk: its gate has to be closed before anybody mounts it here.
    pub fn peers_use(&mut self, groups: BTreeSet<GroupId>) {
        if groups == self.used_elsewhere {
            return;
        }
        // Its gates are turned when we are.
        self.retry_at = Some(Now(0));
        if !groups.is_subset(&self.used_elsewhere) {
            self.watch.order(Order::Reread);
        }
        self.used_elsewhere = groups;
    }

    /// Whether the answer to this request is for us.
    #[must_use]
    pub fn owns(request: RequestId) -> bool {
        Volumes::owns(request)
    }

    /// The core answered.
    pub fn reply(&mut self, request: RequestId, reply: &Reply, now: Now) {
        self.manager.reply(request, reply, now, &mut self.said);
    }

    /// A tool that began a mount is gone without a word.
    pub fn tool_gone(&mut self, group: GroupId, now: Now) {
        self.manager.tool_gone(group, now, &mut self.said);
    }

    /// Who uses each volume of a user stack, in three views.
    #[must_use]
    pub fn views(&self, snapshot: &Snapshot) -> Vec<Views> {
        match self.serves {
            Serves::O2cb => Vec::new(),
            Serves::UserAhead => views(snapshot, self.manager.lockspaces(), true),
            Serves::UserSeen => views(snapshot, self.manager.lockspaces(), false),
        }
    }

    /// Takes in what the watch saw and what is due. A sentence says why this node must be reset.
    pub fn turn(&mut self, now: Now) -> Option<String> {
        while let Ok(change) = self.changes.try_recv() {
            self.manager.change(change, now, &mut self.said);
        }
        let mut reset = None;
        while let Some(decision) = self.manager.tick(now, &mut self.said) {
            match decision {
                Decision::Reset { uuid, why } => {
                    error!(self.log, "this node must be reset: {why}"; "group" => %uuid);
                    reset = Some(why);
                }
                Decision::Report { uuid, why } => {
                    error!(self.log, "a volume needs help: {why}"; "group" => %uuid);
                }
            }
        }
        for order in self.manager.orders() {
            self.watch.order(order);
        }
        self.turn_gates(now);
        reset
    }

    /// Closes the gates of volumes whose regions do not stand yet, and of those that only others know; opens those of all
    /// others.
    fn turn_gates(&mut self, now: Now) {
        self.retry_at = None;
        let (Some(gates), Some(gatekeeper)) = (&self.gates, &mut self.gatekeeper) else { return };
        let unseen = self.manager.unseen(&self.used_elsewhere);
        gatekeeper.order(&unseen);
        // As long as nobody knows whose the volumes are, what is closed stays so: what an earlier daemon left over may
        // have gone just now.
        let Some(unready) = self.manager.unready() else { return };
        // Also one that was put back by an attach that failed after its volume went.
        let to_keep_closed = self.manager.to_keep_closed().into_iter().chain(unseen).collect();
        gates.open_others(&to_keep_closed, &self.manager.ours());
        self.closed.retain(|volume| unready.contains(volume));
        let to_close = self.manager.to_close();
        for &volume in &to_close {
            match gates.close(volume) {
                Ok(true) => drop(self.closed.insert(volume)),
                Ok(false) => {}
                Err(error) => {
                    // Without the tools' semaphores nobody can be kept out; attach will fail as well.
                    if self.closed.insert(volume) {
                        error!(self.log, "mounts cannot be held back: {error}"; "group" => %volume);
                    }
                }
            }
        }
        let is_done = to_close.is_subset(&self.closed);
        self.retry_at = (!is_done).then(|| now.after(GATE_RETRY_MS));
    }

    /// Whether it is known which volumes are ours, and nobody can mount one before its region stands.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.is_too_late || self.manager.unready().is_some_and(|unready| unready == self.closed)
    }

    /// What the manager wants of the core.
    pub fn take_said(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.said)
    }

    /// When [`Self::turn`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        self.manager.deadline().into_iter().chain(self.retry_at).min()
    }

    /// The daemon shall end.
    pub fn stop(&mut self, snapshot: &Snapshot, now: Now) {
        match self.manager.stop(snapshot, now, &mut self.said) {
            StopAnswer::Refused => {}
            StopAnswer::Leaving | StopAnswer::Going => {
                info!(self.log, "no volume is in use: their regions go first");
            }
        }
    }

    /// Whether what is ordered after us may mount.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.manager.is_ready()
    }

    /// For status.
    #[must_use]
    pub fn view(&self, snapshot: &Snapshot) -> Vec<VolumeView> {
        self.manager.view(snapshot)
    }
}

fn policy(serves: Serves, section: &UserHeartbeatSection) -> Policy {
    let which = match &section.volumes {
        _ if serves != Serves::O2cb => Which::Auto,
        config::Volumes::Word(VolumesWord::Auto) => Which::Auto,
        config::Volumes::Word(VolumesWord::None) => Which::None,
        config::Volumes::List(list) => {
            let uuids = list.iter().filter_map(|uuid| uuid.parse::<GroupId>().ok());
            Which::Listed(uuids.collect::<BTreeSet<_>>())
        }
    };
    let on_storage_loss = match section.on_storage_loss {
        StorageLoss::Reset => OnLoss::Reset,
        StorageLoss::Report => OnLoss::Report,
    };
    Policy { serves, which, storage_loss_ms: section.storage_loss_ms.get(), on_storage_loss }
}
