//! A bus inside a node, driven from a test.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use o2bridge_harness::{Node, Proc, Signal, wait_until};

/// For everything that should take milliseconds, or a token loss of two seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// The path of one of this crate's examples. They are built with the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let path = exe.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build -p o2bridge-cpg --examples", path.display());
    path
}

/// The example `bushost` in a node.
pub(crate) struct Host {
    pub(crate) proc: Proc,
}

impl Host {
    pub(crate) fn new(node: &Node) -> Self {
        Self { proc: node.spawn("bus", &Command::new(example("bushost"))).unwrap() }
    }

    /// With a limit for calls other than the default.
    pub(crate) fn with_call_limit(node: &Node, limit_ms: u32) -> Self {
        let mut command = Command::new(example("bushost"));
        command.env("BUS_CALL_LIMIT_MS", limit_ms.to_string());
        Self { proc: node.spawn("bus", &command).unwrap() }
    }

    /// Connected, and in these channels.
    pub(crate) fn in_channels(node: &Node, channels: &[&str]) -> Self {
        let mut host = Self::new(node);
        host.say("connect");
        host.wait("quorum true");
        for (index, channel) in channels.iter().enumerate() {
            host.say(&format!("join {index} {channel}"));
            let me = host.me(node);
            host.until("own join", |line| {
                line.contains(&format!("confchg {channel} "))
                    && line.contains("joined")
                    && line.contains(&format!("{me}:Join"))
            });
        }
        host
    }

    /// `node/pid`, as in the lines.
    pub(crate) fn me(&self, node: &Node) -> String {
        format!("{}/{}", node.id(), self.proc.inner_pid().unwrap())
    }

    pub(crate) fn say(&mut self, command: &str) {
        self.proc.write_line(command).unwrap();
    }

    pub(crate) fn freeze(&mut self) {
        self.proc.signal(Signal::SIGSTOP);
    }

    pub(crate) fn thaw(&mut self) {
        self.proc.signal(Signal::SIGCONT);
    }

    /// Waits for a line with a text, since the start of the host.
    pub(crate) fn wait(&mut self, text: &str) -> String {
        self.proc.wait_line(text, LIMIT).unwrap()
    }

    /// Waits for a line.
    pub(crate) fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        let result = wait_until(what, LIMIT, || {
            found = self.lines().into_iter().find(|line| is_it(line));
            found.is_some()
        });
        assert!(result.is_ok(), "no line: {what}\n{}", self.proc.stdout());
        found.unwrap()
    }

    /// Complete lines so far, without their times.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.proc.stdout();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let strip = |line: &str| match line.split_once(' ') {
            Some((time, rest)) if time.parse::<f64>().is_ok() => rest.to_owned(),
            _ => line.to_owned(),
        };
        complete.lines().map(strip).collect()
    }

    /// The lines with a text.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// The time in milliseconds of the first line with a text.
    pub(crate) fn time_of(&self, text: &str) -> f64 {
        let stdout = self.proc.stdout();
        let line = stdout.lines().find(|line| line.contains(text)).unwrap();
        line.split_once(' ').unwrap().0.parse().unwrap()
    }

    /// Asks for something that only a loop that runs can answer.
    pub(crate) fn is_alive_within(&mut self, limit: Duration) -> bool {
        let before = self.with("shm ").len();
        self.say("shm");
        wait_until("an answer", limit, || self.with("shm ").len() > before).is_ok()
    }
}
