//! The configuration: what is taken, what is refused and with which words.

use std::path::Path;

use o2bridge::config::{self, ConfigError, Policy, Settings, parse};
use o2bridge::status::LogLevel;
use o2bridge_core::{Fencing, NodeId};

const EXAMPLE: &str = include_str!("../../packaging/o2bridge.toml");

fn read(text: &str) -> Result<Settings, ConfigError> {
    parse(Path::new("test.toml"), text)
}

fn refusal(text: &str) -> String {
    match read(text) {
        Ok(settings) => panic!("taken: {text}\n{settings:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let settings = read("").unwrap();
    assert_eq!(settings, Settings::default());
    let tunables = settings.tunables(false);
    assert_eq!(tunables.grace_ms, 30_000);
    assert_eq!(tunables.begin_timeout_ms, 60_000);
    assert_eq!(tunables.complete_timeout_ms, 300_000);
    assert_eq!(tunables.leave_timeout_ms, 30_000);
    assert_eq!(tunables.retry_ms, 1_000);
    assert_eq!(tunables.fencing, Fencing::None);
    assert_eq!(tunables.inquorate_reset_ms, 0, "a record needs no reset");
    assert_eq!(settings.tunables(true).inquorate_reset_ms, 45_000);
    let kept = read("[fencing]\ninquorate_reset_ms = 0\n").unwrap();
    assert_eq!(kept.tunables(true).inquorate_reset_ms, 0);
}

/// The shipped file says of itself that what it comments out is the default; so with every key
/// uncommented it must be the default too, apart from the keys that it marks as examples.
#[test]
fn the_shipped_file_tells_the_defaults() {
    assert_eq!(read(EXAMPLE).unwrap(), Settings::default());
    let uncommented: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest)
                if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') =>
            {
                rest
            }
            Some(_) | None => line,
        })
        .collect();
    let mut settings = read(&uncommented.join("\n")).unwrap();
    assert_eq!(settings.fencing.level.len(), 1);
    assert_eq!(settings.record_path(), Settings::default().record_path());
    settings.record.path = None;
    assert_eq!(settings.o2cb.slots["167772161"].get(), 1);
    settings.o2cb.slots.clear();
    settings.keeper = config::KeeperSection { program: None, watchdog: None, ..settings.keeper };
    settings.fencing = config::FencingSection {
        level: Vec::new(),
        nodes: std::collections::BTreeMap::new(),
        self_fence_command: Vec::new(),
        inquorate_reset_ms: None,
        ..settings.fencing
    };
    assert_eq!(settings, Settings::default());
}

#[test]
fn unknown_keys_are_refused_with_line_and_hint() {
    let cases = [
        ("\n[timing]\ngrase_ms = 5\n", "line 3", "did you mean `grace_ms`?"),
        ("[timings]\n", "line 1", "did you mean `timing`?"),
        ("[fencing]\npolicy = \"agents\"\n", "line 2", "did you mean `agent`?"),
        (
            "[[fencing.level]]\n[[fencing.level.agent]]\ncommand = \"/x\"\ntimeout = 1\n",
            "line 4",
            "`timeout_ms`?",
        ),
        ("[log]\nlevel = \"warn\"\n", "line 2", "did you mean `warning`?"),
        ("[timing]\nzzz = 5\n", "line 2", "expected one of"),
    ];
    for (text, line, hint) in cases {
        let message = refusal(text);
        assert!(message.starts_with("test.toml, "), "{message}");
        assert!(message.contains(line) && message.contains(hint), "{message}");
    }
}

#[test]
fn ranges_are_checked_with_key_and_line() {
    let cases = [
        ("[timing]\ngrace_ms = 99\n", "line 2: grace_ms: 99 is not within 100 to 600000"),
        ("[timing]\nretry_ms = -1\n", "line 2: retry_ms: -1 is not within 10 to 60000"),
        (
            "[process]\n\nrealtime_priority = 99\n",
            "line 3: realtime_priority: 99 is not within 0 to 50",
        ),
        ("[corosync]\ngroups_warn = 0\n", "line 2: groups_warn: 0 is not within"),
        ("[fencing]\nattempts = 0\n", "line 2: attempts: 0 is not within"),
        ("[timing]\ngrace_ms = \"5s\"\n", "line 2: grace_ms: invalid type: string \"5s\""),
    ];
    for (text, wanted) in cases {
        let message = refusal(text);
        assert!(message.contains(wanted), "{message}\nwanted: {wanted}");
    }
    assert!(refusal("[timing\n").contains("line 1"));
}

#[test]
fn values_that_do_not_fit_together_are_refused_by_key() {
    let agent = "[[fencing.level]]\n[[fencing.level.agent]]\n";
    let cases = [
        ("[fencing]\npolicy = \"agent\"\n".to_string(), "no [[fencing.level]]"),
        (
            format!("{agent}command = \"fence_x\"\nany_node = true\n"),
            "command: \"fence_x\" needs its full path",
        ),
        (format!("{agent}command = \"/x\"\n"), "could fence no node"),
        (
            format!("{agent}command = \"/x\"\nany_node = true\noptions = {{ action = \"on\" }}\n"),
            "options.action",
        ),
        (
            format!("{agent}command = \"/x\"\nnodes.01 = {{ plug = \"1\" }}\n"),
            "\"01\" is not a node id",
        ),
        (
            format!("{agent}command = \"/x\"\nnodes.1 = {{ plug = \"1\\naction=on\" }}\n"),
            "cannot be written as one line",
        ),
        (
            format!(
                "{agent}command = \"/x\"\nany_node = true\n[[fencing.level.agent]]\ncommand = \"/y\"\nany_node = true\n"
            ),
            "two power supplies",
        ),
        ("[[fencing.level]]\nagent = []\n".repeat(10), "10 levels, at most 9"),
        (
            "[fencing]\nself_fence_command = [\"reboot\"]\n".into(),
            "self_fence_command: \"reboot\" needs its full path",
        ),
        ("[paths]\nrun_dir = \"run\"\n".into(), "paths.run_dir"),
        ("[o2cb]\nslots = { 1 = 3, 2 = 3 }\n".into(), "nodes 1 and 2 both have node number 3"),
        ("[o2cb]\nslots = { 0 = 3 }\n".into(), "o2cb.slots: \"0\" is not a node id"),
        (
            "[user_heartbeat]\nvolumes = [\"19d19f8e-ca01-475e-ba67-afd6d84c3b45\"]\n".into(),
            "32 hex digits without dashes",
        ),
        (
            "[keeper]\nprogram = \"keeper\"\n".into(),
            "keeper.program: \"keeper\" needs its full path",
        ),
    ];
    for (text, wanted) in cases {
        let message = refusal(&text);
        assert!(message.contains(wanted), "{message}\nwanted: {wanted}");
    }
}

#[test]
fn an_agent_gets_its_options_then_the_nodes_and_never_a_stranger() {
    let settings = read(
        r#"
        [fencing]
        policy = "agent"
        attempts = 2
        pause_ms = 100
        nodes.1 = { plug = "common" }
        nodes.2 = { plug = "two", ip = "192.0.2.9" }
        [[fencing.level]]
        [[fencing.level.agent]]
        command = "/usr/sbin/fence_a"
        action = "off"
        timeout_ms = 1234
        options = { ip = "192.0.2.1", verbose = "1" }
        nodes.1 = { plug = "own" }
        [[fencing.level]]
        [[fencing.level.agent]]
        command = "/usr/sbin/fence_b"
        any_node = true
        "#,
    )
    .unwrap();
    let fencing = &settings.fencing;
    assert_eq!(fencing.policy, Policy::Agent);
    assert_eq!(
        settings.tunables(false).fencing,
        Fencing::Agent { levels: 2, attempts: 2, pause_ms: 100 }
    );

    let input =
        |level, node| fencing.tasks(level, NodeId(node)).map(|tasks| tasks[0].input.clone());
    assert_eq!(input(0, 1).unwrap(), "action=off\nip=192.0.2.1\nnodename=1\nplug=own\nverbose=1\n");
    assert_eq!(input(0, 2).unwrap(), "action=off\nip=192.0.2.9\nnodename=2\nplug=two\nverbose=1\n");
    assert_eq!(input(0, 3), None, "a node that was forgotten is not fenced by another's plug");
    assert_eq!(input(1, 3).unwrap(), "action=reboot\nnodename=3\n");
    assert_eq!(input(2, 1), None, "no such level");
    assert_eq!(fencing.tasks(0, NodeId(1)).unwrap()[0].timeout_ms, 1234);
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let error = config::load(Some(Path::new("/no/such/o2bridge.toml"))).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(error.to_string().contains("/no/such/o2bridge.toml"), "{error}");
}

#[test]
fn what_cannot_be_reread_is_named() {
    let old = Settings::default();
    let new =
        read("[shim]\nkind = \"record\"\n[log]\nlevel = \"debug\"\n[paths]\nrun_dir = \"/x\"\n")
            .unwrap();
    assert_eq!(new.log.level, LogLevel::Debug);
    assert_eq!(old.needs_restart(&new), ["shim", "paths"]);
    assert!(old.needs_restart(&read("[timing]\ngrace_ms = 5000\n").unwrap()).is_empty());
}
