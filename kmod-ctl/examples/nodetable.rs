//! Drives a node table by hand, to be tried in a virtual machine. **It changes the running
//! kernel.**
//!
//! Usage: `nodetable CLUSTER LOCAL-ID ID=NAME=ADDRESS... -- COMMAND...`, with the commands, in
//! their order: `prepare`, `online`, `add ID=NAME=ADDRESS`, `drop ID`, `use SLOT` and `free SLOT`
//! (what counts as in use), `threshold N`, `global`, `update`, `wait` (until nothing waits),
//! `offline`, `fails` (the next command must fail).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use o2bridge_kmod_ctl::{Error, Mode, Node, O2cb, Paths, Pending, Wanted};

const WAIT_TRIES: u32 = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((wanted, commands)) = parse(&arguments) else {
        eprintln!("usage: nodetable CLUSTER LOCAL-ID ID=NAME=ADDRESS... -- COMMAND...");
        return ExitCode::from(2);
    };
    let o2cb = O2cb::new(Paths::default());
    let mut table = Table { o2cb, wanted, in_use: BTreeSet::new() };
    let mut words = commands.iter();
    let mut must_fail = false;
    while let Some(word) = words.next() {
        if word == "fails" {
            must_fail = true;
            continue;
        }
        println!("== {word}");
        let result = table.obey(word, &mut words);
        if let Err(error) = &result {
            println!("error: {error}");
        }
        if result.is_err() != must_fail {
            return ExitCode::FAILURE;
        }
        must_fail = false;
    }
    ExitCode::SUCCESS
}

struct Table {
    o2cb: O2cb,
    wanted: Wanted,
    in_use: BTreeSet<u8>,
}

impl Table {
    fn obey<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut next = || rest.next().ok_or("a word is missing");
        match word {
            "prepare" => {
                let prepared = self.o2cb.prepare()?;
                lines("done", &prepared.done);
                lines("heads-up", &prepared.heads_up);
            }
            "online" => {
                let online = self.o2cb.online(&self.wanted)?;
                lines("done", &online.done);
                lines("heads-up", &online.heads_up);
                lines("waiting", &online.waiting);
                println!("slots {:?}, stale {:?}", online.slots.by_node(), online.stale);
            }
            "add" => self.wanted.nodes.push(node(next()?).ok_or("not a node")?),
            "drop" => {
                let id: u32 = next()?.parse()?;
                self.wanted.nodes.retain(|node| node.id != id);
            }
            "use" => drop(self.in_use.insert(next()?.parse()?)),
            "free" => drop(self.in_use.remove(&next()?.parse()?)),
            "global" => self.wanted.mode = Mode::Global,
            "threshold" => self.wanted.dead_threshold = next()?.parse()?,
            "update" => drop(self.update()?),
            "wait" => self.wait()?,
            "offline" => drop(self.o2cb.offline()?),
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(())
    }

    fn update(&self) -> Result<Pending, Error> {
        let pending = self.o2cb.update(&self.wanted, &self.in_use)?;
        lines("done", &pending.done);
        lines("waiting", &pending.waiting);
        lines("heads-up", &pending.heads_up);
        println!("slots {:?}", pending.slots.by_node());
        Ok(pending)
    }

    fn wait(&self) -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..WAIT_TRIES {
            if self.update()?.waiting.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        Err("it still waits".into())
    }
}

fn lines<T: Display>(what: &str, list: &[T]) {
    for item in list {
        println!("{what}: {item}");
    }
}

fn node(text: &str) -> Option<Node> {
    let mut parts = text.split('=');
    let mut next = || parts.next();
    let (id, name, address) = (next()?.parse().ok()?, next()?.to_owned(), next()?.parse().ok()?);
    Some(Node { id, name, address })
}

fn parse(arguments: &[String]) -> Option<(Wanted, &[String])> {
    let end = arguments.iter().position(|word| word == "--")?;
    let (words, commands) = (arguments.get(..end)?, arguments.get(end + 1..)?);
    let [cluster, local, nodes @ ..] = words else { return None };
    let wanted = Wanted {
        cluster: cluster.clone(),
        nodes: nodes.iter().map(|text| node(text)).collect::<Option<_>>()?,
        local: local.parse().ok()?,
        port: 7777,
        mode: Mode::Local,
        dead_threshold: 31,
        idle_timeout_ms: 30_000,
        keepalive_delay_ms: 2000,
        reconnect_delay_ms: 2000,
        slots: BTreeMap::new(),
    };
    Some((wanted, commands))
}
