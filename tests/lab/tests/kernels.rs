//! What of the lab fits into every test run: a stock kernel boots, two guests form a cluster, mount an
//! ordinary volume, survive a death and the loss of a daemon; and no guest outlives the lab.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_lab");
const KERNEL: &str = "6.1";

/// Whether this machine lacks what no package source can give to a test; said loudly.
fn skipped(test: &str) -> bool {
    let has = |program: &str| Path::new("/usr/bin").join(program).exists();
    let busybox = has("busybox") || Path::new("/bin/busybox").exists();
    if has("qemu-system-x86_64") && busybox {
        return false;
    }
    skip(test, "no QEMU or no busybox here; .ci/deps lab installs them");
    true
}

/// Past the test harness, which swallows the output of tests that pass.
fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Runs scenarios on one kernel; all must pass.
fn pass(test: &str, scenarios: &[&str]) {
    if skipped(test) {
        return;
    }
    let words = scenarios.iter().flat_map(|name| ["--scenario", name]);
    let mut lab = Command::new(LAB);
    lab.args(["--kernel", KERNEL, "--format", "json"]).args(words);
    let output = lab.output().unwrap();
    let story = String::from_utf8_lossy(&output.stderr);
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).expect(&story);
    assert_eq!(outcomes.len(), scenarios.len());
    for outcome in outcomes {
        match outcome["verdict"].as_str() {
            Some("passed") => {}
            Some("skipped") => skip(test, outcome["why"].as_str().unwrap_or_default()),
            _ => panic!("{outcome}\n{story}"),
        }
    }
}

#[test]
fn a_stock_kernel_runs_two_guests() {
    pass("a_stock_kernel_runs_two_guests", &["boot", "corosync"]);
}

/// Needs the daemon's programs beside the lab's: `.ci/steps lab` builds them.
#[test]
fn an_ordinary_volume_is_shared_and_a_death_recovered() {
    pass("an_ordinary_volume_is_shared_and_a_death_recovered", &["ordinary", "death"]);
}

#[test]
fn a_node_whose_daemon_stays_away_is_reset() {
    pass("a_node_whose_daemon_stays_away_is_reset", &["nodaemon"]);
}

/// The child of a process that is QEMU.
fn qemu_of(lab: &Child) -> Option<u32> {
    let id = lab.id();
    let tasks = fs::read_dir(format!("/proc/{id}/task")).ok()?;
    let children =
        tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>())
        .collect();
    all.into_iter().find(|child| is_qemu(*child))
}

fn is_qemu(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
}

fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn no_guest_outlives(test: &str, signal: &str) {
    if skipped(test) {
        return;
    }
    let mut lab = Command::new(LAB)
        .args(["--accel", "tcg", "try", KERNEL, "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut gave_up = false;
    let qemu = wait("a guest", Duration::from_secs(150), || {
        gave_up = lab.try_wait().unwrap().is_some();
        if gave_up { Some(0) } else { qemu_of(&lab) }
    });
    if gave_up {
        skip(test, "no guest was started; is the kernel to be had?");
        return;
    }
    let killed = Command::new("kill").args(["-s", signal, &lab.id().to_string()]).status().unwrap();
    assert!(killed.success());
    lab.wait().unwrap();
    wait("the guest's end", Duration::from_secs(10), || (!is_qemu(qemu)).then_some(()));
}

#[test]
fn no_guest_outlives_an_interrupted_lab() {
    no_guest_outlives("no_guest_outlives_an_interrupted_lab", "INT");
}

#[test]
fn no_guest_outlives_a_killed_lab() {
    no_guest_outlives("no_guest_outlives_a_killed_lab", "KILL");
}
