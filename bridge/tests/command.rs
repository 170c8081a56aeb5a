//! The operator's command against the new door: exact outputs and exit codes.

mod stub;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use o2bridge::machine::Machine;
use o2bridge::status::{LogLevel, Status, Use};
use o2bridge_core::{Event, NodeId, Refusal, Reply, ServiceName, Waiting};
use stub::{Stub, UUID, done, silent};

const PROGRAM: &str = env!("CARGO_BIN_EXE_o2bridge");

fn command(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--socket").arg(socket).args(arguments).env_remove("NO_COLOR");
    command
}

/// Exit code, standard output, standard error.
fn run(stub: &Stub, arguments: &[&str]) -> (i32, String, String) {
    run_at(&stub.socket, arguments)
}

fn run_at(socket: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = command(socket, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn ok(stdout: &str) -> (i32, String, String) {
    (0, stdout.to_owned(), String::new())
}

fn failed(code: i32, stderr: &str) -> (i32, String, String) {
    (code, String::new(), stderr.to_owned())
}

#[test]
fn begin_complete_leave() {
    let stub = Stub::start(|event| match event {
        Event::Begin(begin) if begin.service.is_ocfs2() => Some(Reply::Already),
        _ => Some(Reply::Done),
    });
    let dashed = "19d19f8e-ca01-475e-ba67-afd6d84c3b45";
    let all = ["begin", dashed, "/mnt/x", "--cluster", "demo", "--device", "/dev/null"];
    assert_eq!(run(&stub, &all), ok("ready\n"));
    let Event::Begin(begin) = stub.event() else { panic!("no begin") };
    assert_eq!(begin.group, UUID.parse().unwrap());
    assert_eq!(begin.service, ServiceName::new("/mnt/x").unwrap());
    assert_eq!((begin.cluster.as_deref(), begin.held), (Some("demo"), false));
    assert!(matches!(stub.event(), Event::ClientGone { .. }));

    assert_eq!(run(&stub, &["begin", UUID, "ocfs2"]), ok("already\n"));
    stub.event();
    stub.event();
    assert_eq!(run(&stub, &["complete", UUID, "/mnt/x", "-5"]), ok(""));
    let event = stub.event();
    assert!(matches!(event, Event::Complete { code: -5, .. }), "{event:?}");
    stub.event();
    assert_eq!(run(&stub, &["leave", &UUID.to_lowercase(), "/mnt/x"]), ok(""));
    let event = stub.event();
    assert!(matches!(event, Event::Leave { .. }), "{event:?}");
}

#[test]
fn fence_ack_and_log_level_and_dump() {
    let stub = Stub::start(done);
    assert_eq!(run(&stub, &["fence-ack", "2"]), ok(""));
    let event = stub.event();
    assert!(matches!(event, Event::FenceAck { node: NodeId(2), .. }), "{event:?}");
    assert_eq!(run(&stub, &["log-level", "debug"]), ok(""));
    assert_eq!(stub.world.lock().unwrap().log_level, LogLevel::Debug);
    assert_eq!(run(&stub, &["dump"]), ok("what happened\n"));
}

const STATUS: &str = "\
node 1 of cluster 'demo': quorate, ring 1.5c, protocol 1
o2bridged 9.9.9, up 1 h 2 min; shim record (configured); fencing ack; log level info; memory locked
warning: fencing is none

NODE  RING  DAEMON    GROUPS  FENCING
1     in    speaking  1       -
2     out   absent    1       waiting for ack

GROUP                             STATE      WAITING FOR            DEVICE  NODES  SERVICES
19D19F8ECA01475EBA67AFD6D84C3B45  suspended  the fencing of node 2  8:17    1,2    /mnt/a b, ocfs2

node 2 is to be fenced by hand: see that it is off or was reset, then run 'o2bridge fence-ack 2'
";

#[test]
fn the_tables() {
    let stub = Stub::start(silent);
    assert_eq!(run(&stub, &["status"]), ok(STATUS));
    let list = "\
GROUP                             STATE      SERVICES
19D19F8ECA01475EBA67AFD6D84C3B45  suspended  /mnt/a b, ocfs2
";
    assert_eq!(run(&stub, &["list"]), ok(list));
    let members = "\
GROUP                             NODE  STATE   USE
19D19F8ECA01475EBA67AFD6D84C3B45  1     member  1f
19D19F8ECA01475EBA67AFD6D84C3B45  2     lost    a0
";
    assert_eq!(run(&stub, &["members"]), ok(members));
    assert_eq!(run(&stub, &["members", UUID]), ok(members));
    let none = "o2bridge: nobody on this node uses the group 00000000000000000000000000000001\n";
    let other = format!("{}1", "0".repeat(31));
    assert_eq!(run(&stub, &["members", &other]), failed(1, none));
}

#[test]
fn a_daemon_without_a_cluster() {
    let stub = Stub::start(silent);
    stub.change(|world| {
        world.snapshot.node = None;
        world.snapshot.cluster.clear();
        world.snapshot.connected = false;
        world.snapshot.ring = None;
        world.snapshot.nodes.clear();
        world.snapshot.groups.clear();
    });
    let expected = "\
node ? of cluster '': corosync does not answer, ring ?, protocol 1
o2bridged 9.9.9, up 1 h 2 min; shim record (configured); fencing ack; log level info; memory locked
warning: fencing is none

no group in use
";
    assert_eq!(run(&stub, &["status"]), ok(expected));
}

#[test]
fn json_is_what_the_daemon_says() {
    let stub = Stub::start(silent);
    let (code, text, _) = run(&stub, &["status", "--format", "json"]);
    assert_eq!(code, 0);
    let status: Status = serde_json::from_str(&text).unwrap();
    assert_eq!((status.node, status.groups.len()), (Some(1), 1));
    assert_eq!(text, format!("{}\n", serde_json::to_string_pretty(&status).unwrap()));
    let (_, text, _) = run(&stub, &["list", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Vec<Use>>(&text).unwrap(), status.uses());
    let (_, text, _) = run(&stub, &["members", "--format", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["group"], UUID);
}

#[test]
fn watch_goes_on_until_the_daemon_ends() {
    let stub = Stub::start(silent);
    let mut child = command(&stub.socket, &["status", "--watch", "--format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Status { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next().protocol, 1);
    stub.change(|world| world.snapshot.protocol = 2);
    assert_eq!(next().protocol, 2);
    drop(stub);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("o2bridged ended the connection"));
}

#[test]
fn a_reader_that_has_seen_enough() {
    let stub = Stub::start(silent);
    stub.change(|world| world.dump = "a line\n".repeat(100_000));
    let mut child = command(&stub.socket, &["dump"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "a line\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn refusals() {
    let stub = Stub::start(|event| {
        Some(Reply::Refused(match event {
            Event::Begin(_) => Refusal::TimedOut(Waiting::Quorum),
            Event::Leave { .. } => Refusal::TimedOut(Waiting::Shim("detach")),
            _ => Refusal::NotBegun,
        }))
    });
    let begin = "o2bridge: not ready in time: waiting for quorum\n";
    assert_eq!(run(&stub, &["begin", UUID, "s"]), failed(4, begin));
    let leave = "o2bridge: not ready in time: waiting for the shim's detach\n";
    assert_eq!(run(&stub, &["leave", UUID, "s"]), failed(4, leave));
    let complete = "o2bridge: there is no begin of this service by this client to complete\n";
    assert_eq!(run(&stub, &["complete", UUID, "s", "0"]), failed(1, complete));
}

#[test]
fn a_daemon_that_does_not_answer() {
    let stub = Stub::start(silent);
    let expected = format!(
        "o2bridge: Begin: no answer from o2bridged within 1 s; it may still go on with it: 'o2bridge \
         status' shows how far it is\n'o2bridge leave {UUID} s' takes it back\n"
    );
    assert_eq!(run(&stub, &["begin", UUID, "s", "--timeout", "1"]), failed(4, &expected));
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let expected = |why: &str| {
        format!(
            "o2bridge: o2bridged is not running ({}: {why}); start it with 'systemctl start \
             o2bridged', or see why it ended with 'journalctl -u o2bridged'\n",
            socket.display()
        )
    };
    let why = "No such file or directory (os error 2)";
    assert_eq!(run_at(&socket, &["status"]), failed(3, &expected(why)));
    drop(UnixListener::bind(&socket).unwrap());
    let why = "Connection refused (os error 111)";
    assert_eq!(run_at(&socket, &["status"]), failed(3, &expected(why)));
}

#[test]
fn not_root() {
    let stub = Stub::start_for(done, Vec::new());
    let expected = "o2bridge: only root may do this\n";
    assert_eq!(run(&stub, &["dump"]), failed(5, expected));
    assert_eq!(run(&stub, &["leave", UUID, "s"]), failed(5, expected));
    assert_eq!(run(&stub, &["status"]), ok(STATUS));
}

#[test]
fn wrong_command_lines() {
    let stub = Stub::start(silent);
    let table: [&[&str]; 8] = [
        &[],
        &["mount"],
        &["begin", UUID],
        &["begin", "1234", "s"],
        &["complete", UUID, "s", "zero"],
        &["fence-ack", "node2"],
        &["log-level", "loud"],
        &["status", "--timeout", "0"],
    ];
    for arguments in table {
        let (code, out, error) = run(&stub, arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(error.contains("Usage") || error.contains("--help"), "{arguments:?}: {error}");
    }
    stub.assert_quiet();
}

/// The machine is looked at by the command itself.
#[test]
fn the_kernel_needs_no_daemon() {
    let socket = Path::new("/nonexistent");
    let (code, text, error) = run_at(socket, &["status", "--kernel", "--format", "json"]);
    assert_eq!((code, error.as_str()), (0, ""));
    let machine: Machine = serde_json::from_str(&text).unwrap();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(machine.release, release.trim());
    let (code, table, _) = run_at(socket, &["status", "--kernel"]);
    assert_eq!(code, 0);
    assert_eq!(machine.shims.len(), 5);
    for one in &machine.shims {
        let line = table.lines().find(|line| line.starts_with(&format!("{} ", one.shim)));
        let line = line.unwrap_or_else(|| panic!("no {} in {table}", one.shim));
        assert!(line.contains(&one.verdict) && line.ends_with(&one.reason), "{line}");
    }
    assert_eq!(run_at(socket, &["status", "--kernel", "--watch"]).0, 2);
}

#[test]
fn colours_only_where_they_are_wanted() {
    let stub = Stub::start(silent);
    let paints = |arguments: &[&str], no_color: bool| {
        let mut command = command(&stub.socket, arguments);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(strip(&text), STATUS);
        text != STATUS
    };
    assert!(!paints(&["status"], false), "colours into a pipe");
    assert!(paints(&["status", "--color", "always"], false));
    assert!(paints(&["status", "--color", "always"], true), "always means always");
    assert!(!paints(&["status", "--color", "never"], false));
}

/// Takes the colours out.
fn strip(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

#[test]
fn help_names_the_exit_codes_and_the_version_is_ours() {
    let socket = Path::new("/nonexistent");
    let (code, help, _) = run_at(socket, &["--help"]);
    assert_eq!(code, 0);
    for line in [
        "  0  done",
        "  1  refused by the daemon, or failed",
        "  2  the command line is wrong",
        "  3  o2bridged is not running",
        "  4  timed out",
        "  5  not permitted",
        "Examples:",
    ] {
        assert!(help.contains(line), "{line}\n{help}");
    }
    let version = format!("o2bridge {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run_at(socket, &["--version"]), ok(&version));
}
