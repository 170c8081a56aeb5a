//! The daemon's configuration.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use o2bridge::config::{ConfigError, Settings, parse};
use o2bridge_core::{Fencing, NodeId};

/// Levels of agents, and bytes that are written to one at most: options of three places, 16 KiB each.
const LEVELS_MAX: u8 = 9;
const INPUT_BYTES_MAX: usize = 3 * 16 * 1024 + 64;

fuzz_target!(|text: &str| {
    match parse(Path::new("o2bridge.toml"), text) {
        Err(error) => is_helpful(&error, text),
        Ok(settings) => is_sound(&settings),
    }
});

fn is_helpful(error: &ConfigError, text: &str) {
    let said = error.to_string();
    assert!(said.starts_with("o2bridge.toml"), "{said}");
    match error {
        ConfigError::Parse { message, .. } => {
            let line = message.strip_prefix("line ").and_then(|rest| rest.split(':').next());
            let line: usize = line.and_then(|line| line.parse().ok()).expect("it names a line");
            assert!((1..=1 + text.matches('\n').count()).contains(&line), "{said}");
        }
        ConfigError::Problems { problems, .. } => {
            assert!(!problems.is_empty() && problems.iter().all(|problem| !problem.is_empty()));
        }
        ConfigError::Read { .. } => panic!("nothing was read: {said}"),
    }
}

fn is_sound(settings: &Settings) {
    assert!(settings.needs_restart(settings).is_empty());
    assert!(settings.record_path().is_absolute());
    for has_kernel in [false, true] {
        let tunables = settings.tunables(has_kernel);
        assert!(tunables.grace_ms >= 100 && tunables.retry_ms >= 10);
        if let Fencing::Agent { levels, attempts, .. } = tunables.fencing {
            assert!((1..=LEVELS_MAX).contains(&levels) && attempts > 0);
        }
    }
    let slots = settings.o2cb.slots();
    assert_eq!(slots.len(), settings.o2cb.slots.len(), "every node of o2cb.slots is one");
    assert_eq!(slots.values().collect::<BTreeSet<_>>().len(), slots.len());
    let nodes = settings.fencing.nodes.keys().filter_map(|node| node.parse().ok());
    for node in nodes.take(16).chain([1]) {
        (0..LEVELS_MAX).for_each(|level| tasks_are_sound(settings, level, NodeId(node)));
    }
}

/// An agent is told whom to fence and how, once, whatever the options are.
fn tasks_are_sound(settings: &Settings, level: u8, node: NodeId) {
    let Some(tasks) = settings.fencing.tasks(level, node) else { return };
    let agents = &settings.fencing.level[usize::from(level)].agent;
    assert_eq!(tasks.len(), agents.len());
    for (task, agent) in tasks.iter().zip(agents) {
        assert!(task.command.is_absolute() && task.input.len() <= INPUT_BYTES_MAX);
        assert!(task.input.ends_with('\n'));
        let mut said = BTreeMap::new();
        for line in task.input.split_terminator('\n') {
            let (key, value) = line.split_once('=').expect("key=value");
            assert!(!key.is_empty(), "'{value}' has no name");
            assert_eq!(said.insert(key, value), None, "'{key}' twice");
        }
        assert_eq!(said.get("action"), Some(&agent.action.name()));
        // The node's own name: for this agent, for all agents; for all nodes; or its id.
        let id = node.to_string();
        let own = [agent.nodes.get(&id), settings.fencing.nodes.get(&id), Some(&agent.options)];
        let name = own.into_iter().flatten().find_map(|options| options.get("nodename"));
        assert_eq!(said.get("nodename"), Some(&name.unwrap_or(&id).as_str()));
    }
}
