//! The real daemon as a process, without corosync: how it starts, what it refuses, what signals do.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_o2bridged");
const LIMIT: Duration = Duration::from_secs(10);

/// A place for one daemon of its own. Another one of this machine is not disturbed: run directory
/// and the old door's name are this test's.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.configure("");
        place
    }

    fn configure(&self, more: &str) {
        let (run_dir, name) = (self.run_dir(), self.dir.path().file_name().unwrap());
        let text = format!(
            "{more}\n[shim]\nkind = \"record\"\n[process]\nlock_memory = false\n\
             realtime_priority = 0\nprotect_from_oom = false\n\
             [paths]\nrun_dir = \"{}\"\nold_door = \"test-{}\"\n",
            run_dir.display(),
            name.to_string_lossy()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("o2bridge.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(self.config());
        command
    }

    fn start(&self) -> Daemon {
        self.start_with(|_| ())
    }

    fn start_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command();
        let log = std::fs::File::create(self.log_path()).unwrap();
        command.stderr(log).stdin(Stdio::null()).env_remove("JOURNAL_STREAM");
        change(&mut command);
        let daemon = Daemon(command.spawn().unwrap());
        wait(|| self.run_dir().join("io.o2bridge").exists(), "the new door", || self.log());
        daemon
    }

    fn wait_log(&self, text: &str) {
        wait(|| self.log().contains(text), text, || self.log());
    }
}

/// Killed when the test ends, whatever its end.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> i32 {
        let end = Instant::now() + LIMIT;
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return status.code().unwrap_or(-1),
                None => assert!(Instant::now() < end, "the daemon did not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(mut condition: impl FnMut() -> bool, what: &str, detail: impl Fn() -> String) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for: {what}\n{}", detail());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_waits_for_corosync_and_ends_on_sigterm() {
    let place = Place::new();
    let mut daemon = place.start();
    place.wait_log("corosync does not answer");
    assert!(place.log().contains("shim record: the configuration says so"));
    assert!(place.log().contains("fencing.policy is \"none\""), "the loud warning");
    let pid = std::fs::read_to_string(place.run_dir().join("o2bridged.pid")).unwrap();
    assert_eq!(pid.trim(), daemon.0.id().to_string());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end(), 0);
    assert!(place.log().contains("stopping"), "the end of the log is written");
    assert!(!place.run_dir().join("io.o2bridge").exists());
    let mut again = place.start();
    again.signal(Signal::SIGINT);
    assert_eq!(again.end(), 0);
}

#[test]
fn a_second_instance_is_refused_and_disturbs_nothing() {
    let place = Place::new();
    let daemon = place.start();
    let second = place.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let wanted = format!("process id {}", daemon.0.id());
    assert!(stderr(&second).contains(&wanted), "{}", stderr(&second));
    assert!(place.run_dir().join("io.o2bridge").exists());
    let pid = std::fs::read_to_string(place.run_dir().join("o2bridged.pid")).unwrap();
    assert_eq!(pid.trim(), daemon.0.id().to_string());
}

#[test]
fn after_sigkill_it_starts_again() {
    let place = Place::new();
    let mut daemon = place.start();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = place.start();
    place.wait_log("corosync does not answer");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end(), 0);
}

#[test]
fn sighup_rereads_what_can_be_reread() {
    let place = Place::new();
    let daemon = place.start();
    assert!(!place.log().contains(" DEBG "));
    place.configure("[log]\nlevel = \"debug\"\n[timing]\ngrace_ms = 1234\n[record]\nfsync = true");
    daemon.signal(Signal::SIGHUP);
    place.wait_log("event Reconfigure(Tunables { grace_ms: 1234,");
    place.wait_log("changes that wait for a restart: record");
    place.configure("[timing]\ngrase_ms = 1");
    daemon.signal(Signal::SIGHUP);
    place.wait_log("the configuration stays as it was");
    place.wait_log("did you mean `grace_ms`?");
    place.configure("[log]\nlevel = \"debug\"\n[fencing]\npolicy = \"ack\"");
    daemon.signal(Signal::SIGHUP);
    place.wait_log("fencing: Ack");
    place.configure("");
    daemon.signal(Signal::SIGHUP);
    place.wait_log("if that is meant, restart o2bridged");
}

#[test]
fn sigusr1_dumps_state_and_recent_past_for_root_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let daemon = place.start();
    place.wait_log("corosync does not answer");
    daemon.signal(Signal::SIGUSR1);
    place.wait_log("dumped to");
    let path = place.run_dir().join("o2bridged.dump");
    let dump = std::fs::read_to_string(&path).unwrap();
    assert!(dump.contains("connected: false"), "{dump}");
    assert!(dump.contains("o2bridged 0.1.0 starts"), "{dump}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_service_manager_hears_of_it() {
    let place = Place::new();
    let path = place.dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = |wanted: &str| {
        let mut heard = Vec::new();
        for _ in 0..100 {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("waited in vain for {wanted}: {error}; heard {heard:?}")
            });
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(wanted) {
                return text;
            }
            heard.push(text);
        }
        panic!("never heard {wanted}, but {heard:?}")
    };
    let mut daemon = place.start_with(|command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    });
    hear("READY=1");
    hear("STATUS=waiting for corosync");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP);
    assert!(hear("RELOADING=1").contains("\nMONOTONIC_USEC="));
    hear("READY=1");
    daemon.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert_eq!(daemon.end(), 0);
}

#[test]
fn without_a_journal_the_log_goes_to_standard_error() {
    let place = Place::new();
    place.configure("[log]\ntarget = \"journald\"");
    if Path::new("/run/systemd/journal/socket").exists() {
        // Not through eprintln!, whose output of a passing test is swallowed.
        let text = "SKIPPED without_a_journal: this machine has a journal\n";
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
        return;
    }
    let _daemon = place.start();
    place.wait_log("no journal to log to");
}

#[test]
fn a_damaged_state_file_stops_the_start() {
    let place = Place::new();
    let state = place.run_dir().join("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("19D19F8ECA01475EBA67AFD6D84C3B45.json"), "{\"version\":1,").unwrap();
    let output = place.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot be understood"), "{}", stderr(&output));
    assert!(stderr(&output).contains("19D19F8ECA01475EBA67AFD6D84C3B45.json"));
}

#[test]
fn a_shim_that_is_not_there_stops_the_start() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.config()).unwrap().replace("\"record\"", "\"fsdlm\"");
    std::fs::write(place.config(), text).unwrap();
    let output = place.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not built in this version"), "{}", stderr(&output));
}

#[test]
fn check_config_says_what_is_wrong_and_touches_nothing() {
    let place = Place::new();
    let check = |config: &Path| {
        Command::new(PROGRAM).arg("--check-config").arg("--config").arg(config).output().unwrap()
    };
    let output = check(&place.config());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("is good"));
    assert!(!place.run_dir().exists());

    std::fs::write(place.config(), "[timing]\n\ngrace_ms = 1\n").unwrap();
    let output = check(&place.config());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("line 3: grace_ms: 1 is not within"), "{}", stderr(&output));
    let late = "[shim]\nkind = \"user-heartbeat\"\n[keeper]\ndaemon_back_ms = 24000\n";
    std::fs::write(place.config(), late).unwrap();
    let output = check(&place.config());
    assert_eq!(output.status.code(), Some(1));
    let arithmetic = "daemon_back_ms 24000 >= grace_ms 30000 * 4/5 = 24000";
    assert!(stderr(&output).contains(arithmetic), "{}", stderr(&output));
    let missing = check(Path::new("/no/such/file.toml"));
    assert_eq!(missing.status.code(), Some(1));
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/o2bridge.toml");
    assert_eq!(check(&shipped).status.code(), Some(0));
}

/// Whatever the system grants is in effect, and whatever it refuses is said.
#[test]
fn protection_is_in_effect_or_complained_of() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.config()).unwrap();
    let text =
        text.replace("= false", "= true").replace("realtime_priority = 0", "realtime_priority = 7");
    std::fs::write(place.config(), text).unwrap();
    let daemon = place.start();
    place.wait_log("corosync does not answer");
    let log = place.log();
    let proc =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", daemon.0.id())).unwrap();
    let status = proc("status");
    let locked = status.lines().find(|line| line.starts_with("VmLck")).unwrap();
    assert_eq!(locked.ends_with(" 0 kB"), log.contains("memory is not locked"), "{locked}\n{log}");
    let killable = proc("oom_score_adj").trim() != "-1000";
    assert_eq!(killable, log.contains("may end this daemon when memory is short"), "{log}");

    let refused = log.contains("no realtime priority");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.0.id())).unwrap();
    for task in tasks {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // proc(5): rt_priority is field 40, policy 41; SCHED_RR is 2. Two fields are cut off here.
        let wanted = if refused { ["0", "0"] } else { ["7", "2"] };
        assert_eq!(fields[37..39], wanted, "a thread has not inherited: {stat}");
    }
}

#[test]
fn standard_error_may_be_closed() {
    let place = Place::new();
    let mut daemon = place.start_with(|command| {
        command.stderr(Stdio::piped());
    });
    drop(daemon.0.stderr.take());
    daemon.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end(), 0);
}

#[test]
fn standard_error_may_be_stuck() {
    let place = Place::new();
    place.configure("[log]\nlevel = \"debug\"");
    let mut daemon = place.start_with(|command| {
        command.stderr(Stdio::piped());
    });
    // Nobody reads the pipe: after 64 KiB the thread of the log hangs, and only that one may.
    for _ in 0..1_000 {
        daemon.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_micros(500));
    }
    let dump = place.run_dir().join("o2bridged.dump");
    assert!(!dump.exists());
    daemon.signal(Signal::SIGUSR1);
    wait(|| dump.exists(), "the dump", String::new);
    daemon.signal(Signal::SIGTERM);
    let asked = Instant::now();
    assert_eq!(daemon.end(), 0);
    assert!(asked.elapsed() > Duration::from_secs(1), "the log was not stuck, nothing was tried");
}
