//! The hands of the daemon: one match over everything that the core can want.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use o2bridge_core::{Action, Event, GroupId, NodeId, Now, OpError, OpId, Verb};
use o2bridge_cpg::Bus;
use o2bridge_shim::Shim;
use slog::{Logger, error, info, warn};

use crate::adapter::state::StateDir;
use crate::adapter::timers::{Timers, now};
use crate::adapter::workers::Workers;
use crate::adapter::{agent, look};
use crate::config::{FencingSection, FencingTask};
use crate::door::Doors;
use crate::log::repeat::Repeats;
use crate::log::{note, trace};

/// How long the command that resets this node may take.
const SELF_FENCE_MS: u64 = 60_000;

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
    /// The kernel.
    pub shim: Arc<dyn Shim>,
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
            Action::FenceSelf { group, incarnation } => {
                error!(self.log, "this node must be reset: the cluster goes on without it";
                    "group" => %group, "use" => %incarnation, "state" => "expelled");
                self.fence_self();
            }
            Action::Reply { request, reply } => self.doors.reply(request, &reply, now),
            Action::Arm { timer, generation, at } => self.timers.arm(timer, generation, at),
            Action::Note(told) => note::note(&self.log, &self.repeats, now, &told),
            Action::Exit => self.is_over = true,
        }
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

    fn fence_self(&self) {
        let Some((program, arguments)) = self.fencing.self_fence_command.split_first() else {
            error!(self.log, "fencing.self_fence_command is not set: reset this node by hand, now");
            return;
        };
        let mut command = Command::new(program);
        command.args(arguments);
        let log = self.log.clone();
        // Nobody else is fenced as node 0, so the command waits behind no agent's lane.
        self.fencers.push(
            NodeId(0),
            Box::new(move || {
                let outcome = agent::run(&mut command, "", SELF_FENCE_MS);
                error!(log, "the command that resets this node ended, and this node still runs";
                    "result" => ?outcome.result, "output" => outcome.output);
                None
            }),
        );
    }
}

fn run_agent(log: &Logger, node: NodeId, task: &FencingTask) -> Result<(), OpError> {
    let agent = task.command.display().to_string();
    info!(log, "fence agent starts"; "node" => node.0, "agent" => &agent);
    let outcome = agent::run(&mut Command::new(&task.command), &task.input, task.timeout_ms);
    match &outcome.result {
        Ok(()) => info!(log, "fence agent succeeded"; "node" => node.0, "agent" => &agent,
            "output" => outcome.output),
        Err(error) => warn!(log, "fence agent failed"; "node" => node.0, "agent" => &agent,
            "error" => %error, "output" => outcome.output),
    }
    outcome.result
}
