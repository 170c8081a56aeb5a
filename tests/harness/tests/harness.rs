//! The harness itself, on real corosync.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use o2bridge_harness::{Cluster, Node, Proc, Signal};

const LIMIT: Duration = Duration::from_secs(10);

fn sleeper(node: &Node) -> Proc {
    node.spawn("sleeper", Command::new("sleep").arg("600")).unwrap()
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn cat(node: &Node, path: &str) -> String {
    node.run(Command::new("cat").arg(path), LIMIT).unwrap().stdout
}

#[test]
fn forms_loses_and_gets_back_a_node() {
    let start = Instant::now();
    let cluster = Cluster::builder().nodes(3).start().unwrap();
    println!("3 nodes formed in {:?}", start.elapsed());

    cluster.node(3).kill_corosync();
    let killed = Instant::now();
    cluster.wait_members(&[1, 2], &[1, 2], LIMIT).unwrap();
    let gone = killed.elapsed();
    println!("the death was noticed in {gone:?}");
    assert!(gone > Duration::from_secs(1), "an effective token of a second or more");

    cluster.node(3).start_corosync().unwrap();
    cluster.wait_members(&[1, 2, 3], &[1, 2, 3], LIMIT).unwrap();

    let stopped = Instant::now();
    cluster.node(2).stop_corosync().unwrap();
    cluster.wait_members(&[1, 3], &[1, 3], LIMIT).unwrap();
    assert!(stopped.elapsed() < Duration::from_secs(1), "a clean stop is noticed at once");
}

#[test]
fn cables_partitions_and_pauses() {
    let cluster = Cluster::builder().nodes(3).token_ms(500).start().unwrap();
    cluster.node(3).cable_out().unwrap();
    cluster.wait_members(&[1, 2], &[1, 2], LIMIT).unwrap();
    cluster.wait_members(&[3], &[3], LIMIT).unwrap();
    cluster.node(3).cable_in().unwrap();
    cluster.wait_members(&[1, 2, 3], &[1, 2, 3], LIMIT).unwrap();

    cluster.partition(&[&[2, 3], &[1]]).unwrap();
    cluster.wait_members(&[2, 3], &[2, 3], LIMIT).unwrap();
    cluster.wait_members(&[1], &[1], LIMIT).unwrap();
    cluster.heal().unwrap();
    cluster.wait_members(&[1, 2, 3], &[1, 2, 3], LIMIT).unwrap();

    cluster.node(1).freeze_corosync();
    cluster.wait_members(&[2, 3], &[2, 3], LIMIT).unwrap();
    assert!(cluster.node(1).has_corosync());
    cluster.node(1).thaw_corosync();
    cluster.wait_members(&[1, 2, 3], &[1, 2, 3], LIMIT).unwrap();
}

#[test]
fn a_mute_node_sends_nothing_and_is_still_sent_to() {
    let cluster = Cluster::builder().nodes(2).corosync(false).start().unwrap();
    let reaches = |from: u32, to: u32| {
        let mut route = Command::new("ip");
        route.args(["route", "get", &cluster.node(to).address()]);
        cluster.node(from).run(&route, LIMIT).unwrap().code == 0
    };
    cluster.node(1).mute(2).unwrap();
    assert_eq!((reaches(1, 2), reaches(2, 1)), (false, true));
    cluster.heal().unwrap();
    assert!(reaches(1, 2));
}

#[test]
fn a_crash_ends_all_and_a_reboot_forgets_run() {
    let cluster = Cluster::builder().nodes(2).token_ms(500).start().unwrap();
    let node = cluster.node(2);
    let boot_id = node.boot_id();
    assert_eq!(cat(node, "/proc/sys/kernel/random/boot_id").trim(), boot_id);
    assert_ne!(cluster.node(1).boot_id(), boot_id);
    assert_eq!(cat(node, "/proc/sys/kernel/hostname"), "node2\n");
    let mut touch = Command::new("touch");
    touch.args(["/run/gone", "/dev/shm/gone", "/var/lib/corosync/stays"]);
    assert_eq!(node.run(&touch, LIMIT).unwrap().code, 0);
    assert!(node.dir().join("run/gone").exists(), "/run is visible from outside");
    let mut procs = [sleeper(node), sleeper(node)];
    let pids = [procs[0].pid(), procs[1].pid(), node.corosync_pid(), node.init_pid()];

    node.crash();
    assert!(pids.iter().all(|pid| !is_alive(pid.unwrap())));
    assert!(procs.iter_mut().all(|proc| !proc.is_running()));
    assert!(node.spawn("late", &Command::new("true")).is_err());

    node.reboot().unwrap();
    assert_ne!(node.boot_id(), boot_id);
    assert_eq!(cat(node, "/proc/sys/kernel/random/boot_id").trim(), node.boot_id());
    let mut ls = Command::new("ls");
    ls.args(["-A", "/run", "/dev/shm", "/var/lib/corosync"]);
    let listing = node.run(&ls, LIMIT).unwrap().stdout;
    assert!(!listing.contains("gone") && listing.contains("stays"), "{listing}");
    node.start_corosync().unwrap();
    cluster.wait_members(&[1, 2], &[1, 2], LIMIT).unwrap();
}

#[test]
fn processes_are_in_hand() {
    let cluster = Cluster::builder().nodes(1).corosync(false).start().unwrap();
    let node = cluster.node(1);
    let mut cat = node.spawn("cat", &Command::new("cat")).unwrap();
    cat.write_line("one").unwrap();
    assert_eq!(cat.wait_line("on", LIMIT).unwrap(), "one");
    assert!(cat.inner_pid().unwrap() < cat.pid().unwrap());
    cat.signal(Signal::SIGSTOP);
    cat.write_line("two").unwrap();
    assert!(cat.wait_line("two", Duration::from_millis(100)).is_err(), "it is frozen");
    cat.signal(Signal::SIGCONT);
    cat.wait_line("two", LIMIT).unwrap();
    cat.signal(Signal::SIGTERM);
    assert_eq!(cat.wait(LIMIT).unwrap(), 128 + 15);

    let mut sh = Command::new("sh");
    sh.args(["-c", "echo out; echo err >&2; echo $WORD; pwd; exit 7"]).env("WORD", "word");
    let output = node.run(&sh, LIMIT).unwrap();
    assert_eq!((output.code, output.stderr.as_str()), (7, "err\n"));
    assert_eq!(output.stdout, format!("out\nword\n{}\n", node.dir().display()));
    assert!(node.run(Command::new("sleep").arg("9"), Duration::from_millis(50)).is_err());
    assert_eq!(node.run(&Command::new("no-such-program"), LIMIT).unwrap().code, 127);
}

#[test]
fn nothing_is_left() {
    let cluster = Cluster::builder().nodes(2).start().unwrap();
    let orphan = sleeper(cluster.node(1));
    let mut sh = Command::new("sh");
    sh.args(["-c", "sleep 601 >/dev/null 2>&1 & echo $!"]);
    cluster.node(1).run(&sh, LIMIT).unwrap();
    let mut pids = vec![orphan.pid().unwrap()];
    for node in cluster.nodes() {
        pids.extend([node.init_pid().unwrap(), node.corosync_pid().unwrap()]);
    }
    let directory = cluster.dir().to_owned();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    std::mem::forget(orphan);
    drop(cluster);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(!directory.exists());
}

/// Not a test by itself: what the next one kills. It makes a cluster, says the pids, and waits.
#[test]
#[ignore = "a helper of dies_with_the_test_process"]
fn helper_that_is_killed() {
    let cluster = Cluster::builder().nodes(1).start().unwrap();
    let node = cluster.node(1);
    let pids = format!("{} {}\n", node.init_pid().unwrap(), node.corosync_pid().unwrap());
    std::fs::write(std::env::var_os("O2BRIDGE_HELPER").unwrap(), pids).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn dies_with_the_test_process() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pids");
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "helper_that_is_killed"])
        .env("O2BRIDGE_HELPER", &file)
        .env("TMPDIR", scratch.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    o2bridge_harness::wait_until("the helper's pids", LIMIT, || read().ends_with('\n')).unwrap();
    let pids: Vec<u32> = read().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    helper.kill().unwrap();
    helper.wait().unwrap();
    let gone = || pids.iter().all(|pid| !is_alive(*pid));
    o2bridge_harness::wait_until("the node's end", LIMIT, gone).unwrap();
}

#[test]
fn works_without_root() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        println!("this whole run is without root");
        return;
    }
    let setpriv = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let probe = ["unshare", "--user", "--map-root-user", "--net", "true"];
    if !Command::new("setpriv").args(setpriv).args(probe).status().unwrap().success() {
        o2bridge_harness::skipped(
            "works_without_root",
            "this kernel allows no unprivileged namespaces",
        );
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = scratch.path().join("harness");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new("setpriv")
        .args(setpriv)
        .arg(copy)
        .args(["--exact", "a_crash_ends_all_and_a_reboot_forgets_run"])
        .env_remove("TMPDIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
