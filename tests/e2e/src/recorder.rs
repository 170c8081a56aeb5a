//! Makes recordings: performs the script of one on a fresh cluster and writes down what its clients
//! are told.

mod quiet;
mod spell;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use o2bridge_core::{Member, NodeId, Pid};
use o2bridge_harness::{Cluster, Node, Proc};

use crate::LabError;
use crate::recording::{Call, Deed, Line, Recording, Step, client_name};
use crate::tools::program;

/// How long everything gets that has an end.
const LIMIT: Duration = Duration::from_secs(20);
/// `config_version` of a node, and an older one.
const CONFIG_VERSION: u64 = 2;

/// Performs the script of a recording on a new cluster. Gives the new recording's text.
///
/// # Errors
/// A step failed, or it did not become quiet.
pub fn record(script: &Recording) -> Result<String, LabError> {
    let mut stage = Stage::new(script.nodes)?;
    script.script.iter().flatten().try_for_each(|line| stage.perform(line))?;
    stage.spell(script)
}

/// [`record`], repeated until some line holds each of the texts that the script wants; `None` if that
/// did not come in so many tries.
///
/// # Errors
/// As [`record`].
pub fn record_wanted(script: &Recording, tries: u32) -> Result<Option<(u32, String)>, LabError> {
    for number in 1..=tries {
        let text = record(script)?;
        let has = |want: &String| {
            text.lines().any(|line| line.contains(want.as_str()) && !line.starts_with("want "))
        };
        if script.wants.iter().all(has) {
            return Ok(Some((number, text)));
        }
    }
    Ok(None)
}

/// A cluster and its clients, the dead ones included.
struct Stage {
    // The clients go before the nodes they run on.
    clients: BTreeMap<Member, Client>,
    cluster: Cluster,
    /// With the wall clock in microseconds: what was done to nodes, and the waits.
    deeds: Vec<(u128, String)>,
    /// Where corosync should run.
    up: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
    parts: Vec<Vec<NodeId>>,
    /// How many times each corosync had ended itself when it was started.
    ends: BTreeMap<NodeId, usize>,
}

struct Client {
    proc: Proc,
    pid: Pid,
    /// How many steps it was sent.
    sent: usize,
    is_alive: bool,
}

impl Stage {
    fn new(nodes: u32) -> Result<Self, LabError> {
        Ok(Self {
            clients: BTreeMap::new(),
            cluster: Cluster::builder().nodes(nodes).corosync(false).start()?,
            deeds: Vec::new(),
            up: BTreeSet::new(),
            paused: BTreeSet::new(),
            parts: Vec::new(),
            ends: BTreeMap::new(),
        })
    }

    fn perform(&mut self, line: &Line) -> Result<(), LabError> {
        match line {
            Line::Step(step) => self.step(step),
            Line::Wait { ms } => {
                self.note(format!("wait {ms}"));
                std::thread::sleep(Duration::from_millis(*ms));
                Ok(())
            }
            Line::Quiet => {
                self.wait_quiet()?;
                self.note("quiet".to_owned());
                Ok(())
            }
            Line::Told(_) | Line::Done { .. } => Ok(()),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), LabError> {
        match step {
            Step::Corosync(node, deed) => {
                // It shows itself first, and is noted then.
                if *deed == Deed::Ends {
                    self.wait_end(*node)?;
                }
                self.note(format!("step {step}"));
                self.corosync(*node, *deed)
            }
            Step::Client(client, deed) => {
                self.note(format!("step {step}"));
                if *deed == Deed::Start { self.start(*client) } else { self.kill(*client) }
            }
            Step::Split(parts) => {
                self.note(format!("step {step}"));
                self.split(parts)
            }
            Step::Mute(from, to) => {
                self.note(format!("step {step}"));
                Ok(self.cluster.node(from.0).mute(to.0)?)
            }
            Step::Heal => {
                self.note(format!("step {step}"));
                self.parts.clear();
                Ok(self.cluster.heal()?)
            }
            // The client notes what it does.
            Step::Call(client, call) => {
                if let Call::KillNode(node) = call {
                    self.up.remove(node);
                }
                self.send(*client, step)
            }
            Step::Mcast(client, ..) | Step::Finalize(client) => self.send(*client, step),
        }
    }

    fn corosync(&mut self, id: NodeId, deed: Deed) -> Result<(), LabError> {
        let node = self.cluster.node(id.0);
        match deed {
            Deed::Start | Deed::StartOutdated => {
                let age = u64::from(deed == Deed::StartOutdated);
                node.set_config_version(CONFIG_VERSION - age);
                self.ends.insert(id, ends(node));
                node.launch_corosync()?;
                self.up.insert(id);
            }
            Deed::Ends => {
                self.up.remove(&id);
            }
            Deed::Stop => {
                self.up.remove(&id);
                node.stop_corosync()?;
            }
            Deed::Kill => {
                self.up.remove(&id);
                self.paused.remove(&id);
                node.kill_corosync();
            }
            Deed::Pause => {
                self.paused.insert(id);
                node.freeze_corosync();
            }
            Deed::Resume => {
                self.paused.remove(&id);
                node.thaw_corosync();
            }
        }
        Ok(())
    }

    /// Waits until a corosync with an older configuration met the others. It is gone some 20 ms later.
    fn wait_end(&self, id: NodeId) -> Result<(), LabError> {
        let node = self.cluster.node(id.0);
        let before = self.ends.get(&id).copied().unwrap_or(0);
        let deadline = Instant::now() + LIMIT;
        while ends(node) <= before {
            if Instant::now() >= deadline {
                return Err(unlike(format!(
                    "corosync of node {id} was to end itself, and did not"
                )));
            }
        }
        Ok(())
    }

    fn start(&mut self, client: Member) -> Result<(), LabError> {
        let name = format!("client-{}", client_name(client));
        let command = Command::new(program("witness")?);
        let proc = self.cluster.node(client.node.0).spawn(&name, &command)?;
        let pid = proc.inner_pid().ok_or_else(|| unlike(format!("{name} ended at once")))?;
        let pid = Pid(pid);
        self.clients.insert(client, Client { proc, pid, sent: 0, is_alive: true });
        Ok(())
    }

    fn kill(&mut self, client: Member) -> Result<(), LabError> {
        let client = self.living(client)?;
        client.is_alive = false;
        client.proc.kill();
        Ok(())
    }

    fn split(&mut self, parts: &[Vec<NodeId>]) -> Result<(), LabError> {
        self.parts = parts.to_vec();
        let ids = |part: &Vec<NodeId>| part.iter().map(|node| node.0).collect();
        let sides: Vec<Vec<u32>> = parts.iter().map(ids).collect();
        let sides: Vec<&[u32]> = sides.iter().map(Vec::as_slice).collect();
        Ok(self.cluster.partition(&sides)?)
    }

    fn living(&mut self, client: Member) -> Result<&mut Client, LabError> {
        let living = self.clients.get_mut(&client).filter(|client| client.is_alive);
        living.ok_or_else(|| unlike(format!("there is no client {} now", client_name(client))))
    }

    fn send(&mut self, client: Member, step: &Step) -> Result<(), LabError> {
        let to = self.living(client)?;
        to.sent += 1;
        let path = format!("standard input of client {}", client_name(client));
        let written = to.proc.write_line(&step.to_string());
        written.map_err(|source| LabError::Io { path, source })
    }

    fn note(&mut self, text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.deeds.push((now.as_micros(), text));
    }
}

/// How many times the corosync of a node ended itself.
fn ends(node: &Node) -> usize {
    let log = std::fs::read_to_string(node.dir().join("corosync.log")).unwrap_or_default();
    log.matches("Exiting").count()
}

fn unlike(what: String) -> LabError {
    LabError::Record(what)
}
