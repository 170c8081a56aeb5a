//! A node ends without a word: exactly one death for each survivor and group, after the suspend and
//! the fencing, before the resume.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use o2bridge_e2e::{GROUPS, Lab, Told, Verb};
use o2bridge_harness::wait_until;

const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(20);

/// Writes down its name and its input, and succeeds after so many failures.
const AGENT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
name=$(basename "$0")
echo "$name $(tr '\n' ' ')" >>"$dir/calls"
[ "$(grep -c "^$name " "$dir/calls")" -gt FAILURES ] || exit 1
date +%s%N >"$dir/fenced-at"
"#;

/// Mounts each group on these nodes, one after the other.
fn mount(lab: &Lab, group: &str, nodes: &[u32]) -> Told {
    let mut told = Told::new();
    for (index, node) in nodes.iter().enumerate() {
        lab.mount(*node, group, MOUNT).unwrap();
        let mut users = nodes[..=index].to_vec();
        users.sort_unstable();
        let users: String = users.iter().map(|node| format!(" {node}a")).collect();
        told.add(&[*node], &format!("attach{users}"));
        told.add(&nodes[..index], &format!("suspend | resume{users}"));
    }
    told
}

fn one_death_in_each_group(kill: impl Fn(&Lab)) {
    let lab = Lab::builder().nodes(3).start().unwrap();
    let mut told = [[1, 2, 3], [3, 1, 2]].map(|_| Told::new());
    for ((group, order), told) in GROUPS.iter().zip([[1, 2, 3], [3, 1, 2]]).zip(&mut told) {
        *told = mount(&lab, group, &order);
    }
    let unconcerned = mount(&lab, GROUPS[2], &[1, 2]);
    kill(&lab);
    for (group, told) in GROUPS.iter().zip(&mut told) {
        told.add(&[1, 2], "suspend | node_down 3a | resume 1a 2a");
        lab.expect(group, told).unwrap();
    }
    lab.expect(GROUPS[2], &unconcerned).unwrap();
    // Nothing comes late, and the survivors go on.
    for (group, told) in GROUPS.iter().zip(&mut told) {
        lab.unmount(1, group, MOUNT).unwrap();
        told.add(&[1], "detach").add(&[2], "suspend | resume 2a");
        lab.expect(group, told).unwrap();
    }
    lab.expect(GROUPS[2], &unconcerned).unwrap();
}

#[test]
fn sigkill_of_corosync() {
    one_death_in_each_group(|lab| lab.cluster().node(3).kill_corosync());
}

#[test]
fn power_cut() {
    one_death_in_each_group(|lab| lab.cluster().node(3).crash());
}

/// A lab with node 3 in a group, and on every node an agent for each level that fails so often.
fn with_agents(attempts: u8, failures: &[[u32; 2]]) -> (Lab, Told) {
    let mut settings = format!(
        "[timing]\ngrace_ms = 3000\n[fencing]\npolicy = \"agent\"\nattempts = {attempts}\n\
         pause_ms = 1000\n"
    );
    for level in 1..=failures.len() {
        settings.push_str(&format!(
            "[[fencing.level]]\n[[fencing.level.agent]]\ncommand = \"{{dir}}/level-{level}\"\n\
             options = {{ login = \"fence\" }}\nnodes.3 = {{ plug = \"outlet-3\" }}\n"
        ));
    }
    let lab = Lab::builder().nodes(3).settings(&settings).start().unwrap();
    for (level, failures) in (1..).zip(failures) {
        for (node, failures) in (1..).zip(failures) {
            let path = lab.cluster().node(node).dir().join(format!("level-{level}"));
            std::fs::write(&path, AGENT.replace("FAILURES", &failures.to_string())).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let told = mount(&lab, GROUPS[0], &[1, 2, 3]);
    lab.expect_all(&GROUPS[..1], &told).unwrap();
    (lab, told)
}

/// The calls of all agents of a node, by level.
fn calls(lab: &Lab, node: u32) -> Vec<String> {
    let path = lab.cluster().node(node).dir().join("calls");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn call(level: u32) -> String {
    format!("level-{level} action=reboot login=fence nodename=3 plug=outlet-3")
}

/// Kills node 3, sees that nobody is told anything but the suspend while the agents fail, and that
/// the death follows the agent's success on this node.
fn death_follows(lab: &Lab, told: &mut Told, fencer: u32) {
    lab.cluster().node(3).crash();
    wait_until("the first call of an agent", LIMIT, || !calls(lab, 1).is_empty()).unwrap();
    told.add(&[1, 2], "suspend");
    lab.expect_all(&GROUPS[..1], told).unwrap();
    told.add(&[1, 2], "node_down 3a | resume 1a 2a");
    lab.expect_all(&GROUPS[..1], told).unwrap();
    let text = std::fs::read_to_string(lab.cluster().node(fencer).dir().join("fenced-at")).unwrap();
    let fenced_us = text.trim().parse::<i64>().unwrap() / 1000;
    for node in [1, 2] {
        let records = lab.records(node).unwrap();
        let death = records.iter().find(|record| record.verb == Verb::NodeDown(3)).unwrap();
        assert!(death.at_us > fenced_us, "node {node} was told before the agent had succeeded");
    }
}

#[test]
fn an_agent_that_fails_twice() {
    let (lab, mut told) = with_agents(3, &[[2, 0]]);
    death_follows(&lab, &mut told, 1);
    assert_eq!(calls(&lab, 1), [call(1), call(1), call(1)]);
    assert_eq!(calls(&lab, 2), [""; 0], "it was not the turn of node 2");
}

#[test]
fn the_second_level_after_the_first() {
    let (lab, mut told) = with_agents(2, &[[9, 0], [1, 0]]);
    death_follows(&lab, &mut told, 1);
    assert_eq!(calls(&lab, 1), [call(1), call(1), call(2), call(2)]);
    assert_eq!(calls(&lab, 2), [""; 0], "it was not the turn of node 2");
}

#[test]
fn another_node_fences_when_the_first_cannot() {
    let (lab, mut told) = with_agents(1, &[[9, 9], [9, 0]]);
    death_follows(&lab, &mut told, 2);
    assert_eq!(calls(&lab, 1), [call(1), call(2)]);
    assert_eq!(calls(&lab, 2), [call(1), call(2)]);
}
