//! A cluster with a daemon on every node.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use o2bridge::client::{Client, ClientError};
use o2bridge::status::Status;
use o2bridge_harness::{Cluster, HarnessError, Output, Proc, wait_until};

use crate::{Line, Record};

/// How long a daemon gets to be ready for its clients.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// How long one call of the operator's command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Remembers when it was asked to fence whom, and says that it did.
const AGENT: &str = r#"#!/bin/sh
while IFS='=' read -r key value; do
    [ "$key" != nodename ] || echo "$(date +%s%N) $value" >>"$(dirname "$0")/fenced"
done
"#;

/// Why a lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Of the nodes below.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// The programs are not built.
    #[error("there is no {} in or above {}: cargo build -p o2bridge --bins", program, place.display())]
    NotBuilt {
        /// Which.
        program: &'static str,
        /// Where it was looked for.
        place: PathBuf,
    },
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A daemon ended that should run.
    #[error("o2bridged of node {node} ended; its log:\n{log}")]
    DaemonEnded {
        /// Whose.
        node: u32,
        /// The end of its log.
        log: String,
    },
    /// A daemon runs, but has no settled quorate ring.
    #[error("node {node}: {error}; the log of its daemon:\n{log}")]
    NotSettled {
        /// Whose.
        node: u32,
        /// What was waited for.
        error: HarnessError,
        /// All of it.
        log: String,
    },
    /// The operator's command said no.
    #[error("node {node}: o2bridge {args} ended with {}:\n{}{}", output.code, output.stdout, output.stderr)]
    Command {
        /// Where.
        node: u32,
        /// Its arguments.
        args: String,
        /// What it said.
        output: Output,
    },
    /// The client library said no.
    #[error("node {node}: {source}")]
    Client {
        /// Where.
        node: u32,
        /// What it said.
        source: ClientError,
    },
    /// A record file holds something else.
    #[error("{0}")]
    Record(String),
}

/// How a [`Lab`] is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    cluster: o2bridge_harness::Builder,
    settings: String,
}

impl Builder {
    /// How many nodes, with node ids from 1. Default 3.
    #[must_use]
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.cluster = self.cluster.nodes(nodes);
        self
    }

    /// Changes how the nodes and their corosyncs are.
    #[must_use]
    pub fn cluster(
        mut self,
        change: impl FnOnce(o2bridge_harness::Builder) -> o2bridge_harness::Builder,
    ) -> Self {
        self.cluster = change(self.cluster);
        self
    }

    /// More of o2bridge.toml, for every node: sections other than `[shim]`, `[record]`, `[log]` and
    /// `[process]`. `{dir}` in it stands for the node's directory; `{dir}/fence-agent` is an agent
    /// that always succeeds and is remembered in [`Lab::fenced`].
    #[must_use]
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings = toml.to_owned();
        self
    }

    /// Starts the nodes, their corosyncs and their daemons, and waits until all daemons answer and,
    /// where corosync runs, agree on a quorate ring.
    ///
    /// # Errors
    /// Something is not built, not installed or not allowed, or a daemon did not come up.
    pub fn start(self) -> Result<Lab, LabError> {
        let programs = programs()?;
        let cluster = self.cluster.start()?;
        let settings = self.settings;
        let mut lab = Lab { cluster, programs, settings, daemons: BTreeMap::new() };
        let nodes: Vec<u32> = lab.cluster.nodes().iter().map(o2bridge_harness::Node::id).collect();
        for node in &nodes {
            lab.launch_daemon(*node)?;
        }
        for node in nodes {
            lab.wait_ready(node)?;
            if lab.cluster.node(node).has_corosync() {
                lab.wait_settled(node)?;
            }
        }
        Ok(lab)
    }
}

/// A cluster with a daemon on every node. Everything ends with it.
#[derive(Debug)]
pub struct Lab {
    // The daemons go before the nodes they run on.
    daemons: BTreeMap<u32, Proc>,
    cluster: Cluster,
    programs: PathBuf,
    settings: String,
}

impl Lab {
    /// Says how a lab is to be, starting from three nodes.
    #[must_use]
    pub fn builder() -> Builder {
        Builder { cluster: Cluster::builder(), settings: String::new() }
    }

    /// The nodes.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Keeps the nodes' files when the lab goes, and says where they are.
    pub fn keep(&mut self) {
        self.cluster.keep();
    }

    /// The daemon of a node, if it was started.
    pub fn daemon(&mut self, node: u32) -> Option<&mut Proc> {
        self.daemons.get_mut(&node)
    }

    /// The daemon's log so far.
    #[must_use]
    pub fn log(&self, node: u32) -> String {
        let path = self.cluster.node(node).dir().join("o2bridged.err");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// What the node's shim was told so far, over all its boots.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn records(&self, node: u32) -> Result<Vec<Record>, LabError> {
        Record::read(&self.cluster.node(node).dir().join("record.jsonl"))
    }

    /// What a running daemon remembers, debug lines included.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub fn recent(&self, node: u32) -> Result<Vec<Line>, LabError> {
        let dump = self.client(node)?.dump();
        let text = dump.map_err(|source| LabError::Client { node, source })?;
        Ok(text.lines().filter_map(Line::parse).collect())
    }

    /// Which nodes this node's `fence-agent` was asked to fence, each with the wall clock in
    /// microseconds.
    #[must_use]
    pub fn fenced(&self, node: u32) -> Vec<(i64, u32)> {
        let path = self.cluster.node(node).dir().join("fenced");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let entry = |line: &str| {
            let (at_ns, dead) = line.split_once(' ')?;
            Some((at_ns.parse::<i64>().ok()? / 1000, dead.parse().ok()?))
        };
        text.lines().filter_map(entry).collect()
    }

    /// Starts a node's daemon and waits until it answers.
    ///
    /// # Errors
    /// It did not come up.
    pub fn start_daemon(&mut self, node: u32) -> Result<(), LabError> {
        self.launch_daemon(node)?;
        self.wait_ready(node)
    }

    /// Waits until a node's daemon is connected to a quorate corosync and all daemons of its ring
    /// have spoken: until then tools are refused or wait.
    ///
    /// # Errors
    /// Not so in time; the error says what its status was.
    pub fn wait_settled(&self, node: u32) -> Result<(), LabError> {
        let what = format!("o2bridged of node {node} was to be settled in a quorate ring");
        wait_until(&what, READY_LIMIT, || {
            self.status(node).is_ok_and(|status| status.quorate && status.settled)
        })
        .map_err(|error| LabError::NotSettled { node, error, log: self.log(node) })
    }

    /// SIGKILL to a node's daemon alone.
    pub fn kill_daemon(&mut self, node: u32) {
        self.daemons.remove(&node);
    }

    /// A connection to a node's daemon, by the new door.
    ///
    /// # Errors
    /// It does not run.
    pub fn client(&self, node: u32) -> Result<Client, LabError> {
        let door = self.cluster.node(node).dir().join("run/o2bridge/io.o2bridge");
        Client::connect(&door).map_err(|source| LabError::Client { node, source })
    }

    /// What a node's daemon shows.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub fn status(&self, node: u32) -> Result<Status, LabError> {
        self.client(node)?.status().map_err(|source| LabError::Client { node, source })
    }

    /// Runs the operator's command on a node, whatever it answers.
    ///
    /// # Errors
    /// The node is off, or the command hangs.
    pub fn try_o2bridge(&self, node: u32, args: &[&str]) -> Result<Output, LabError> {
        let mut command = Command::new(self.programs.join("o2bridge"));
        command.args(args);
        Ok(self.cluster.node(node).run(&command, COMMAND_LIMIT)?)
    }

    /// Runs the operator's command on a node and gives its standard output.
    ///
    /// # Errors
    /// It ended with anything but 0.
    pub fn o2bridge(&self, node: u32, args: &[&str]) -> Result<String, LabError> {
        let output = self.try_o2bridge(node, args)?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        Err(LabError::Command { node, args: args.join(" "), output })
    }

    fn launch_daemon(&mut self, node: u32) -> Result<(), LabError> {
        let dir = self.cluster.node(node).dir();
        let config = dir.join("o2bridge.toml");
        write(&config, &self.config(node))?;
        let agent = dir.join("fence-agent");
        if !agent.exists() {
            write(&agent, AGENT)?;
            std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755))
                .map_err(|source| LabError::Io { path: agent.display().to_string(), source })?;
        }
        let mut command = Command::new(self.programs.join("o2bridged"));
        command.arg("--config").arg(&config);
        self.daemons.remove(&node);
        let proc = self.cluster.node(node).spawn("o2bridged", &command)?;
        self.daemons.insert(node, proc);
        Ok(())
    }

    /// The record file outlives a reboot of its node, as on a disk.
    fn config(&self, node: u32) -> String {
        let dir = self.cluster.node(node).dir();
        let record = dir.join("record.jsonl");
        format!(
            "[shim]\nkind = \"record\"\n[record]\npath = \"{}\"\n[log]\nlevel = \"debug\"\n\
             target = \"stderr\"\n[process]\nlock_memory = false\nrealtime_priority = 0\n\
             protect_from_oom = false\n{}",
            record.display(),
            self.settings.replace("{dir}", &dir.display().to_string())
        )
    }

    fn wait_ready(&mut self, node: u32) -> Result<(), LabError> {
        let what = format!("o2bridged of node {node} was to answer");
        let mut ended = false;
        let ready = wait_until(&what, READY_LIMIT, || {
            ended = !self.daemons.get_mut(&node).is_some_and(Proc::is_running);
            ended || self.status(node).is_ok()
        });
        if ended {
            return Err(LabError::DaemonEnded { node, log: self.log(node) });
        }
        Ok(ready?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    std::fs::write(path, text)
        .map_err(|source| LabError::Io { path: path.display().to_string(), source })
}

/// Where the programs are: beside this one, or beside the folder of a test program.
fn programs() -> Result<PathBuf, LabError> {
    let own = std::env::current_exe()
        .map_err(|source| LabError::Io { path: "current_exe".to_owned(), source })?;
    let place = own.ancestors().skip(1).find(|folder| folder.join("o2bridged").is_file());
    let Some(place) = place.map(Path::to_owned) else {
        return Err(LabError::NotBuilt { program: "o2bridged", place: own });
    };
    if place.join("o2bridge").is_file() {
        return Ok(place);
    }
    Err(LabError::NotBuilt { program: "o2bridge", place })
}
