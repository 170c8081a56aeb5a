//! The hands of the daemon: one match over everything that the core can want.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use o2bridge_core::{Action, Event, GroupId, NodeId, Now, OpError, OpId, Verb};
use o2bridge_cpg::{Bus, BusEvent};
use o2bridge_shim::{Shim, observe};
use slog::{Logger, error, info, warn};

use crate::adapter::nodetable::Cluster;
use crate::adapter::state::StateDir;
use crate::adapter::timers::{Timers, now};
use crate::adapter::volumes::VolumeDesk;
use crate::adapter::workers::{STACK_BYTES, Workers};
use crate::adapter::{agent, look};
use crate::config::{FencingSection, FencingTask};
use crate::door::Doors;
use crate::kernel::Kernel;
use crate::log::repeat::Repeats;
use crate::log::{note, trace};

/// How long the command that resets this node may take.
const SELF_FENCE_MS: u64 = 60_000;

/// The same where the keeper can do it as well: peers may be replaying our journal already.
const SELF_FENCE_WITH_KERNEL_MS: u64 = 5_000;
/// Why the button is pressed.
const WITHOUT_US: &str = "the cluster may go on without this node";

/// Everything that an action may need. Nothing here blocks: what could goes to the threads.
pub struct Hands {
    /// Corosync.
    pub bus: Bus,
    /// The tools.
    pub doors: Doors,
    /// The core's deadlines.
    pub timers: Timers,
    /// Threads for verbs, the state files and the mount table.
    pub verbs: Workers<GroupId>,
    /// Threads for fence agents.
    pub fencers: Workers<NodeId>,
    /// Who tells the kernel.
    pub shim: Arc<dyn Shim>,
    /// What a shim with a kernel behind it stands on.
    pub kernel: Option<Kernel>,
    /// The volumes that such a shim serves.
    pub volumes: Option<VolumeDesk>,
    /// The kernel's cluster to be, until no volume can be mounted without its region.
    pub cluster: Option<Cluster>,
    /// What survives us.
    pub state: StateDir,
    /// The fence agents; replaced on SIGHUP.
    pub fencing: FencingSection,
    /// The mount table.
    pub mountinfo: PathBuf,
    /// The log.
    pub log: Logger,
    /// What it need not say again.
    pub repeats: Repeats,
    /// Set by [`Action::Exit`].
    pub is_over: bool,
}

impl Hands {
    /// Carries out one action.
    pub fn act(&mut self, now: Now, action: Action) {
        trace::action(&self.log, &action);
        match action {
            Action::Join { op, channel } => self.bus.join(op, channel),
            Action::Depart { op, channel } => self.bus.depart(op, channel),
            Action::Mcast { channel, bytes } => self.bus.mcast(channel, bytes),
            Action::KillNode { op, node } if self.is_observer() => {
                info!(self.log, "a node is not ended for want of its daemon: we only observe";
                    "node" => node.0);
                self.fencers.push(node, Box::new(move || Some(Event::Done { op, result: Ok(()) })));
            }
            Action::KillNode { op, node } => self.bus.kill_node(op, node),
            Action::Verb { op, group, verb } => self.verb(op, group, verb),
            Action::Save { op, group, image } => {
                let (state, complain) = (self.state.clone(), self.complain());
                self.spawn(group, op, move || {
                    state.save(group, image.as_ref()).map_err(|error| {
                        complain(&format!("the state of group {group} was not saved"), &error);
                        OpError::Errno(error.raw_os_error().unwrap_or(nix::libc::EIO))
                    })
                });
            }
            Action::Look { op, group, service, device } => {
                if let Some(volumes) = self.volumes.as_mut().filter(|_| service.is_ocfs2()) {
                    volumes.tool_gone(group, now);
                }
                let mountinfo = self.mountinfo.clone();
                self.verbs.push(
                    group,
                    Box::new(move || {
                        let finding = look::look(&mountinfo, &service, device);
                        Some(Event::Looked { op, finding })
                    }),
                );
            }
            Action::Fence { op, node, level } => self.fence(op, node, level),
            Action::FenceSelf { group, incarnation } if self.is_observer() => {
                warn!(self.log, "the cluster went on without this node; what follows is \
                    dlm_controld's to decide, we only observe";
                    "group" => %group, "use" => %incarnation);
            }
            Action::FenceSelf { group, incarnation } => {
                error!(self.log, "this node must be reset: the cluster may go on without it";
                    "group" => %group, "use" => %incarnation);
                self.fence_self();
            }
            Action::Reply { request, reply } if VolumeDesk::owns(request) => {
                if let Some(volumes) = &mut self.volumes {
                    volumes.reply(request, &reply, now);
                }
            }
            Action::Reply { request, reply } => self.doors.reply(request, &reply, now),
            Action::Arm { timer, generation, at } => self.timers.arm(timer, generation, at),
            Action::Note(told) => note::note(&self.log, &self.repeats, now, &told),
            Action::RunLocking(protocol) => {
                info!(self.log, "OCFS2's locking protocol is {protocol} while anything is in use");
                self.kernel.iter().for_each(|kernel| kernel.set_locking(protocol));
            }
            Action::Exit => self.is_over = true,
        }
    }

    /// Whether others decide about nodes: then we end none, nor ourselves.
    fn is_observer(&self) -> bool {
        self.shim.name() == observe::NAME
    }

    /// What corosync says of the cluster is the kernel's node table, too.
    pub fn note_corosync(&mut self, event: &BusEvent) {
        match event {
            BusEvent::Connected(connected) => {
                self.volumes.iter_mut().for_each(|it| it.set_cluster(&connected.cluster));
                self.kernel.iter().for_each(|kernel| kernel.set_node(connected.node));
                // Not told to the kernel before no volume can be mounted without its region.
                self.cluster = Some(Cluster {
                    me: connected.node,
                    name: connected.cluster.clone(),
                    nodes: connected.nodelist.clone(),
                });
            }
            BusEvent::Nodelist(nodes) => match &mut self.cluster {
                Some(waiting) => waiting.nodes.clone_from(nodes),
                None => self.kernel.iter_mut().for_each(|kernel| kernel.nodelist(nodes)),
            },
            BusEvent::Refused(_)
            | BusEvent::Lost(_)
            | BusEvent::Quorum { .. }
            | BusEvent::Confchg { .. }
            | BusEvent::Totem { .. }
            | BusEvent::Message { .. }
            | BusEvent::Done { .. }
            | BusEvent::Notice(_) => {}
        }
    }

    /// What the volumes' manager wants of the core.
    pub fn turn_volumes(&mut self, now: Now) -> Vec<Event> {
        let Some(volumes) = &mut self.volumes else { return Vec::new() };
        let must_reset = volumes.turn(now).is_some();
        let said = volumes.take_said();
        if let Some(kernel) = self.kernel.as_mut().filter(|_| volumes.is_guarded()) {
            self.cluster.take().into_iter().for_each(|cluster| kernel.connected(cluster));
        }
        if must_reset {
            self.fence_self();
        }
        said
    }

    /// Whether what is ordered after us may mount: the kernel has its cluster, and no volume is about to be served
    /// whose mount would fail now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_online = self.kernel.as_ref().is_some_and(Kernel::is_online);
        is_online && self.volumes.as_ref().is_none_or(VolumeDesk::is_ready)
    }

    /// Whether a stop waits for what the keeper guards, although no group is left. It comes once more if it can be.
    pub fn holds_up_stop(&self) -> bool {
        // Of no group: its lane is its own.
        const NO_GROUP: GroupId = GroupId(0);
        let settle = self.kernel.as_ref().and_then(Kernel::before_stop);
        let is_held_up = settle.is_some();
        settle.into_iter().for_each(|settle| self.verbs.push(NO_GROUP, Box::new(settle)));
        is_held_up
    }

    /// For threads: says what the core's note of the failure, which has only an errno, cannot say.
    fn complain(&self) -> impl Fn(&str, &dyn Display) + Send + 'static {
        let (log, repeats) = (self.log.clone(), self.repeats.clone());
        move |what, error| {
            if repeats.ask(now(), what).is_some() {
                warn!(log, "{what}"; "error" => %error);
            }
        }
    }

    /// Runs a job in its group's lane and reports its end.
    fn spawn(
        &self,
        group: GroupId,
        op: OpId,
        job: impl FnOnce() -> Result<(), OpError> + Send + 'static,
    ) {
        self.verbs.push(group, Box::new(move || Some(Event::Done { op, result: job() })));
    }

    fn verb(&self, op: OpId, group: GroupId, verb: Verb) {
        let (shim, complain) = (Arc::clone(&self.shim), self.complain());
        self.spawn(group, op, move || {
            let result = match &verb {
                Verb::Attach(peers) => shim.attach(group, peers),
                Verb::Suspend => shim.suspend(group),
                Verb::NodeDown(node, incarnation) => shim.node_down(group, *node, *incarnation),
                Verb::Resume(peers) => shim.resume(group, peers),
                Verb::Detach => shim.detach(group),
            };
            result.map_err(|error| {
                complain(&format!("the shim's {} failed in group {group}", verb.name()), &error);
                OpError::Errno(error.errno())
            })
        });
    }

    /// Runs the agents of a level, each only after the one before succeeded.
    fn fence(&self, op: OpId, node: NodeId, level: u8) {
        let (tasks, log) = (self.fencing.tasks(level, node), self.log.clone());
        self.fencers.push(
            node,
            Box::new(move || {
                let result = match &tasks {
                    None => Err(OpError::Unconfigured),
                    Some(tasks) => tasks.iter().try_for_each(|task| run_agent(&log, node, task)),
                };
                Some(Event::Done { op, result })
            }),
        );
    }

    /// The configured command first; where there is a keeper, its reset if that command fails, does not
    /// end, cannot even start because its disk hangs, or is not there.
    fn fence_self(&self) {
        let command = self.fencing.self_fence_command.clone();
        if command.is_empty() && self.kernel.is_none() {
            error!(self.log, "fencing.self_fence_command is not set: reset this node by hand, now");
            return;
        }
        let limit_ms =
            if self.kernel.is_some() { SELF_FENCE_WITH_KERNEL_MS } else { SELF_FENCE_MS };
        let (running, ended) = channel();
        if let Some((program, arguments)) = command.split_first() {
            let (mut command, log) = (Command::new(program), self.log.clone());
            command.args(arguments);
            // Nobody else is fenced as node 0, so this waits behind no agent's lane.
            let me = NodeId(0);
            let job = move || {
                let _running: Sender<()> = running;
                let outcome = agent::run(me, command, String::new(), limit_ms);
                error!(log, "the command that resets this node ended, and this node still runs";
                    "result" => ?outcome.result, "output" => outcome.output);
                None
            };
            self.fencers.push(me, Box::new(job));
        } else {
            drop(running);
        }
        if let Some(kernel) = &self.kernel {
            let press = kernel.reset_button();
            if press_after(ended, Duration::from_millis(limit_ms), press).is_err() {
                kernel.reset_button()(WITHOUT_US);
            }
        }
    }
}

/// What the log still needs to say why.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Presses the button when the command has ended, or had time enough. On a thread of its own: those
/// for agents may all be waiting for one.
fn press_after(
    ended: Receiver<()>,
    limit: Duration,
    press: impl Fn(&str) + Send + 'static,
) -> std::io::Result<()> {
    let wait = move || {
        let _ = ended.recv_timeout(limit);
        std::thread::sleep(LAST_WORDS);
        press(WITHOUT_US);
    };
    let thread = std::thread::Builder::new().name("reset".into()).stack_size(STACK_BYTES);
    thread.spawn(wait).map(|_| ())
}

fn run_agent(log: &Logger, node: NodeId, task: &FencingTask) -> Result<(), OpError> {
    let agent = task.command.display().to_string();
    info!(log, "fence agent starts"; "node" => node.0, "agent" => &agent);
    let command = Command::new(&task.command);
    let outcome = agent::run(node, command, task.input.clone(), task.timeout_ms);
    match &outcome.result {
        Ok(()) => info!(log, "fence agent succeeded"; "node" => node.0, "agent" => &agent,
            "output" => outcome.output),
        Err(error) => warn!(log, "fence agent failed"; "node" => node.0, "agent" => &agent,
            "error" => %error, "output" => outcome.output),
    }
    outcome.result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_is_pressed_when_the_command_ended_or_hangs() {
        let pressed = |ended, limit_ms| {
            let (said, heard) = channel();
            let press = move |why: &str| said.send(why.to_owned()).unwrap_or_default();
            press_after(ended, Duration::from_millis(limit_ms), press).unwrap();
            heard.recv_timeout(Duration::from_secs(10)).unwrap()
        };
        let (running, ended) = channel();
        drop(running);
        assert_eq!(pressed(ended, 60_000), WITHOUT_US);
        let (running, ended) = channel();
        assert_eq!(pressed(ended, 10), WITHOUT_US);
        drop(running);
    }
}
