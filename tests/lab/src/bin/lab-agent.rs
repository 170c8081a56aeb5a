//! The lab's hand in a guest: runs commands, writes files, and passes on what fence agents ask.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::Pid;
use o2bridge_lab::wire::{FromGuest, OUTPUT_MAX, PORT, SOCKET, ToGuest};

/// Where outputs of commands are kept while they run: a pipe would be held open by a daemon that a
/// command leaves behind.
const OUTPUTS: &str = "/run/lab-agent";

fn main() {
    if let Err(error) = run() {
        let _ = fs::write("/dev/kmsg", format!("lab-agent: {error}\n"));
        thread::sleep(Duration::from_secs(1));
    }
}

fn run() -> io::Result<()> {
    fs::create_dir_all(OUTPUTS)?;
    let path = port()?;
    let writer = OpenOptions::new().read(true).write(true).open(&path)?;
    let reader = writer.try_clone()?;
    let agent = Arc::new(Agent {
        writer: Mutex::new(writer),
        commands: Mutex::default(),
        fences: Mutex::default(),
    });
    let doors = Arc::clone(&agent);
    let _ = fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    thread::spawn(move || doors.serve(&listener));
    agent.say(&FromGuest::Hello {
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
    })?;
    agent.listen(reader)
}

/// The port's device; without udev it is found by its name in sysfs.
fn port() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!("no virtio port {PORT}")))
}

struct Agent {
    writer: Mutex<File>,
    /// Process groups of commands that run.
    commands: Mutex<BTreeMap<u64, Pid>>,
    /// Fence agents that wait.
    fences: Mutex<(u64, BTreeMap<u64, UnixStream>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    fn say(&self, message: &FromGuest) -> io::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        lock(&self.writer).write_all(line.as_bytes())
    }

    /// A port can be opened once only, so the reader's descriptor is a duplicate.
    fn listen(self: &Arc<Self>, port: File) -> io::Result<()> {
        let mut reader = BufReader::new(port);
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            let Ok(message) = serde_json::from_str(&line) else { continue };
            self.handle(message);
        }
    }

    fn handle(self: &Arc<Self>, message: ToGuest) {
        match message {
            ToGuest::Run { id, command } => {
                let agent = Arc::clone(self);
                thread::spawn(move || agent.command(id, &command));
            }
            ToGuest::Kill { id } => {
                if let Some(group) = lock(&self.commands).get(&id) {
                    let _ = killpg(*group, Signal::SIGKILL);
                }
            }
            ToGuest::Put { id, path, text, mode } => {
                let agent = Arc::clone(self);
                thread::spawn(move || agent.exit(id, put(Path::new(&path), &text, mode)));
            }
            ToGuest::Clock { seconds, nanoseconds } => {
                let now = TimeSpec::new(seconds, nanoseconds);
                let _ = clock_settime(ClockId::CLOCK_REALTIME, now);
            }
            ToGuest::Fenced { id, exit } => {
                if let Some(mut stream) = lock(&self.fences).1.remove(&id) {
                    let _ = writeln!(stream, "{exit}");
                }
            }
        }
    }

    fn command(&self, id: u64, command: &str) {
        let done = self.start(id, command).and_then(|(mut child, stdout, stderr)| {
            let status = child.wait()?;
            lock(&self.commands).remove(&id);
            Ok((code(status), tail(stdout)?, tail(stderr)?))
        });
        for kind in ["out", "err"] {
            let _ = fs::remove_file(format!("{OUTPUTS}/{id}.{kind}"));
        }
        self.exit(id, done);
    }

    fn start(&self, id: u64, command: &str) -> io::Result<(Child, File, File)> {
        let open = |kind: &str| {
            let path = format!("{OUTPUTS}/{id}.{kind}");
            OpenOptions::new().read(true).append(true).create(true).open(path)
        };
        let (stdout, stderr) = (open("out")?, open("err")?);
        let child = Command::new("bash")
            .args(["-c", command])
            .env("PATH", "/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            // dmsetup would leave its links to a udev that is not here.
            .env("DM_DISABLE_UDEV", "1")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .process_group(0)
            .spawn()?;
        let group = i32::try_from(child.id()).map_err(io::Error::other)?;
        lock(&self.commands).insert(id, Pid::from_raw(group));
        Ok((child, stdout, stderr))
    }

    fn exit(&self, id: u64, done: io::Result<(i32, String, String)>) {
        let (exit, stdout, stderr) =
            done.unwrap_or_else(|error| (127, String::new(), format!("lab-agent: {error}")));
        let _ = self.say(&FromGuest::Exit { id, exit, stdout, stderr });
    }

    /// Each connection is one fence agent with one line: the action, a blank, the node.
    fn serve(&self, listener: &UnixListener) {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let Ok(copy) = stream.try_clone() else { continue };
            let _ = BufReader::new(copy).read_line(&mut line);
            let Some((action, node)) = line.trim().split_once(' ') else { continue };
            let id = {
                let mut fences = lock(&self.fences);
                fences.0 += 1;
                let id = fences.0;
                fences.1.insert(id, stream);
                id
            };
            let (action, node) = (action.to_owned(), node.to_owned());
            let _ = self.say(&FromGuest::Fence { id, action, node });
        }
    }
}

fn put(path: &Path, text: &str, mode: u32) -> io::Result<(i32, String, String)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((0, String::new(), String::new()))
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The end of an output.
fn tail(mut file: File) -> io::Result<String> {
    let skip = file.metadata()?.len().saturating_sub(OUTPUT_MAX as u64);
    file.seek(SeekFrom::Start(skip))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
