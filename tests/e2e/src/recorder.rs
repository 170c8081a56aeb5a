//! Makes recordings: performs the steps of one on a fresh cluster and writes down what its clients
//! are told.

mod spell;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use o2bridge_core::{Member, NodeId, Pid};
use o2bridge_harness::{Cluster, HarnessError, Node, Proc};

use crate::LabError;
use crate::recording::{Call, Deed, Line, Recording, Step, client_name};
use crate::tools::program;

/// How long everything gets that has an end.
const LIMIT: Duration = Duration::from_secs(20);
/// It is quiet when nobody said a word for so long, and all is as it should be.
const QUIET: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// `config_version` of a node, and an older one.
const CONFIG_VERSION: u64 = 2;

/// Performs the steps and waits of a recording on a new cluster. Gives the new recording's text.
///
/// # Errors
/// A step failed, or it did not become quiet.
pub fn record(script: &Recording) -> Result<String, LabError> {
    let mut stage = Stage::new(script.nodes)?;
    script.lines.iter().try_for_each(|line| stage.perform(line))?;
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

/// What a client's words say of its state.
#[derive(Default)]
struct View {
    connected: bool,
    ring: String,
    obeyed: usize,
    calls: usize,
    done: usize,
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
                self.note(step.to_string());
                self.corosync(*node, *deed)
            }
            Step::Client(client, deed) => {
                self.note(step.to_string());
                match deed {
                    Deed::Start => self.start(*client),
                    _ => self.living(*client).map(|client| {
                        client.is_alive = false;
                        client.proc.kill();
                    }),
                }
            }
            Step::Split(parts) => {
                self.note(step.to_string());
                self.parts.clone_from(parts);
                let ids: Vec<Vec<u32>> =
                    parts.iter().map(|part| part.iter().map(|node| node.0).collect()).collect();
                let sides: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
                Ok(self.cluster.partition(&sides)?)
            }
            Step::Mute(from, to) => {
                self.note(step.to_string());
                Ok(self.cluster.node(from.0).mute(to.0)?)
            }
            Step::Heal => {
                self.note(step.to_string());
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

    /// Waits until every ring is what it should be, every client knows that and has nothing more to
    /// do, and nobody has spoken for a while.
    fn wait_quiet(&mut self) -> Result<(), LabError> {
        for node in self.up.difference(&self.paused) {
            if !self.clients.iter().any(|(client, on)| client.node == *node && on.is_alive) {
                let ring: Vec<u32> = self.ring_of(*node).iter().map(|node| node.0).collect();
                self.cluster.wait_members(&[node.0], &ring, LIMIT)?;
            }
        }
        let deadline = Instant::now() + LIMIT;
        let (mut words, mut since) = (0, Instant::now());
        loop {
            let said: Vec<String> = self.clients.values().map(|on| on.proc.stdout()).collect();
            let now = said.iter().map(String::len).sum();
            if now != words {
                (words, since) = (now, Instant::now());
            }
            let open = self.clients.iter().find(|(client, on)| !self.is_settled(**client, on));
            if open.is_none() && since.elapsed() >= QUIET {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!("client {:?} was to settle", open.map(|(c, _)| client_name(*c)));
                let detail = said.join("---\n");
                return Err(HarnessError::TimedOut { what, limit: LIMIT, detail }.into());
            }
            std::thread::sleep(POLL);
        }
    }

    fn is_settled(&self, client: Member, on: &Client) -> bool {
        if !on.is_alive || self.paused.contains(&client.node) {
            return true;
        }
        let view = View::of(&on.proc.stdout());
        if !self.up.contains(&client.node) {
            return !view.connected;
        }
        let ring: Vec<String> = self.ring_of(client.node).iter().map(NodeId::to_string).collect();
        view.connected
            && view.ring == format!("[{}]", ring.join(" "))
            && view.obeyed == on.sent
            && view.done == view.calls
    }

    /// The nodes that should be a ring with this one.
    fn ring_of(&self, node: NodeId) -> Vec<NodeId> {
        let part = |node: &NodeId| self.parts.iter().position(|part| part.contains(node));
        let own = part(&node).unwrap_or(0);
        let answering = self.up.difference(&self.paused);
        answering.filter(|other| part(other).unwrap_or(0) == own).copied().collect()
    }
}

impl View {
    fn of(said: &str) -> Self {
        let mut view = Self::default();
        for line in said.lines() {
            let mut words = line.splitn(4, ' ').skip(1);
            match (words.next(), words.next()) {
                (Some("connected"), _) => view.connected = true,
                (Some("disconnected"), _) => view.connected = false,
                (Some("quorum"), _) => {
                    let nodes = line.split_once('[').map_or("", |(_, nodes)| nodes);
                    view.ring = format!("[{nodes}");
                }
                (Some("done"), _) => view.done += 1,
                (Some("step"), _) => {
                    view.obeyed += 1;
                    let is_call = [" join ", " leave ", " killnode "];
                    view.calls += usize::from(is_call.iter().any(|call| line.contains(call)));
                }
                (_, _) => {}
            }
        }
        view
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
