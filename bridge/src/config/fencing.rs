//! `[fencing]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use o2bridge_core::{Fencing, NodeId};
use serde::Deserialize;

use super::Bounded;

/// Keys and values for a fence agent, as its manual names them.
pub type Options = BTreeMap<String, String>;

/// Most levels that can be configured.
const LEVELS_MAX: usize = 9;
/// Most bytes of options, so that an agent that does not read cannot block us (a pipe holds 64 KiB).
const OPTION_BYTES_MAX: usize = 16 * 1024;

/// `fencing.policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nobody: leaving a quorate ring is death.
    #[default]
    None,
    /// The administrator, with `o2bridge fence-ack`.
    Ack,
    /// The agents of the levels; the administrator still may.
    Agent,
}

/// What an agent is asked to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Switch off, and leave off.
    Off,
    /// Reset.
    #[default]
    Reboot,
}

impl Power {
    /// As the agents know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reboot => "reboot",
        }
    }
}

/// `[fencing]`. Reread on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FencingSection {
    /// Who fences.
    pub policy: Policy,
    /// Attempts per level before the next level is tried.
    pub attempts: Bounded<1, 100>,
    /// The pause between attempts, in milliseconds.
    pub pause_ms: Bounded<100, 3_600_000>,
    /// What resets this node when the others buried it: a program and its arguments.
    pub self_fence_command: Vec<String>,
    /// How long this node may use volumes outside a quorate ring before it resets itself; 0: for
    /// ever.
    pub inquorate_reset_ms: Option<Bounded<0, 3_600_000>>,
    /// The levels, tried in order.
    pub level: Vec<Level>,
    /// Options of a node for all agents; the key is the node id.
    pub nodes: BTreeMap<String, Options>,
}

impl Default for FencingSection {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            attempts: Bounded(3),
            pause_ms: Bounded(5_000),
            self_fence_command: Vec::new(),
            inquorate_reset_ms: None,
            level: Vec::new(),
            nodes: BTreeMap::new(),
        }
    }
}

/// `[[fencing.level]]`: all its agents must succeed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Run in order.
    pub agent: Vec<Agent>,
}

/// `[[fencing.level.agent]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The program, with its full path.
    pub command: PathBuf,
    /// What it is asked to do.
    #[serde(default)]
    pub action: Power,
    /// How long it may take.
    #[serde(default = "default_timeout")]
    pub timeout_ms: Bounded<100, 3_600_000>,
    /// Options for every node.
    #[serde(default)]
    pub options: Options,
    /// Options of a node for this agent; the key is the node id.
    #[serde(default)]
    pub nodes: BTreeMap<String, Options>,
    /// Whether nodes without options of their own may be fenced with this agent. Without it a node
    /// that was forgotten in the configuration is not fenced, rather than perhaps another in its place.
    #[serde(default)]
    pub any_node: bool,
}

const fn default_timeout() -> Bounded<100, 3_600_000> {
    Bounded(60_000)
}

/// One run of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencingTask {
    /// The program.
    pub command: PathBuf,
    /// Its standard input: `key=value` lines.
    pub input: String,
    /// How long it may take.
    pub timeout_ms: u64,
}

impl FencingSection {
    /// What the core is told.
    #[must_use]
    pub fn policy(&self) -> Fencing {
        match self.policy {
            Policy::None => Fencing::None,
            Policy::Ack => Fencing::Ack,
            Policy::Agent => Fencing::Agent {
                levels: u8::try_from(self.level.len()).unwrap_or(u8::MAX),
                attempts: u8::try_from(self.attempts.get()).unwrap_or(u8::MAX),
                pause_ms: self.pause_ms.get(),
            },
        }
    }

    /// What must be run to fence a node on a level (from 0); `None` if nothing there can fence it.
    #[must_use]
    pub fn tasks(&self, level: u8, node: NodeId) -> Option<Vec<FencingTask>> {
        let level = self.level.get(usize::from(level))?;
        level.agent.iter().map(|agent| self.task(agent, node)).collect()
    }

    fn task(&self, agent: &Agent, node: NodeId) -> Option<FencingTask> {
        let key = node.to_string();
        let (common, own) = (self.nodes.get(&key), agent.nodes.get(&key));
        if common.is_none() && own.is_none() && !agent.any_node {
            return None;
        }
        let mut options = agent.options.clone();
        options.extend(common.cloned().unwrap_or_default());
        options.extend(own.cloned().unwrap_or_default());
        options.insert("action".into(), agent.action.name().into());
        options.entry("nodename".into()).or_insert(key);
        let input = options.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        Some(FencingTask {
            command: agent.command.clone(),
            input,
            timeout_ms: agent.timeout_ms.get(),
        })
    }

    /// What is wrong with the section beyond single values, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        match (self.policy, self.level.len()) {
            (Policy::Agent, 0) => found.push(
                "fencing.policy is \"agent\", but there is no [[fencing.level]] with an agent"
                    .into(),
            ),
            (Policy::Agent | Policy::Ack | Policy::None, 0..=LEVELS_MAX) => {}
            (_, levels) => {
                found.push(format!(
                    "fencing.level: {levels} levels, at most {LEVELS_MAX} are possible"
                ));
            }
        }
        if let Some(command) = self.self_fence_command.first() {
            if !command.starts_with('/') {
                found
                    .push(format!("fencing.self_fence_command: \"{command}\" needs its full path"));
            }
        }
        problems_of_nodes(&mut found, "fencing.nodes", &self.nodes);
        for (index, level) in self.level.iter().enumerate() {
            let name = format!("fencing.level[{index}]");
            self.problems_of_level(&mut found, &name, level);
        }
        found
    }

    fn problems_of_level(&self, found: &mut Vec<String>, name: &str, level: &Level) {
        if level.agent.is_empty() {
            found.push(format!("{name}: no agent"));
        }
        if level.agent.len() > 1 && level.agent.iter().any(|agent| agent.action != Power::Off) {
            found.push(format!(
                "{name}: a level with several agents needs action = \"off\" in each, because a node \
                 with two power supplies that are reset one by one stays on"
            ));
        }
        for (index, agent) in level.agent.iter().enumerate() {
            let name = format!("{name}.agent[{index}]");
            if !agent.command.is_absolute() {
                let command = agent.command.display();
                found.push(format!("{name}.command: \"{command}\" needs its full path"));
            }
            problems_of_options(found, &format!("{name}.options"), &agent.options);
            problems_of_nodes(found, &format!("{name}.nodes"), &agent.nodes);
            if !agent.any_node && agent.nodes.is_empty() && self.nodes.is_empty() {
                found.push(format!(
                    "{name}: it could fence no node; add [fencing.nodes.N] for each node, or \
                     any_node = true if the agent finds a node by its id alone"
                ));
            }
        }
    }
}

fn problems_of_nodes(found: &mut Vec<String>, name: &str, nodes: &BTreeMap<String, Options>) {
    for (node, options) in nodes {
        // The written form is the key of the look-up, so "01" would never be found.
        if !node.parse::<u32>().is_ok_and(|id| id > 0 && id.to_string() == *node) {
            found.push(format!("{name}.{node}: \"{node}\" is not a node id of corosync.conf"));
        }
        problems_of_options(found, &format!("{name}.{node}"), options);
    }
}

fn problems_of_options(found: &mut Vec<String>, name: &str, options: &Options) {
    let mut bytes = 0;
    for (key, value) in options {
        bytes += key.len() + value.len() + 2;
        if key.is_empty() || key.contains(['=', '\n', '#']) || value.contains('\n') {
            found.push(format!("{name}.{key}: cannot be written as one line key=value"));
        }
        if key == "action" {
            found.push(format!("{name}.action: say it as action of the agent, not as an option"));
        }
    }
    if bytes > OPTION_BYTES_MAX {
        found.push(format!("{name}: {bytes} bytes of options, at most {OPTION_BYTES_MAX}"));
    }
}
