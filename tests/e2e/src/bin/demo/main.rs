//! `make demo`: three nodes use the same volume, one loses its power, one leaves, the dead one comes
//! back. Then a timeline of who was told what and when, and whether that was right.

mod timeline;
mod verdict;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use o2bridge_e2e::{Lab, LabError, Line, Record, Verb};

use timeline::{Moment, Tone, Who, now_us, show};
use verdict::Story;

/// The volume: any UUID will do, because the record shim touches no disk.
const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
/// Who uses it: the place where it would be mounted.
const SERVICE: &str = "/srv/shared";
const STORY: Story = Story { stayed: 1, left: 2, killed: 3 };
/// How long any step of the story may take. A death takes 2.1 s to be noticed.
const STEP_LIMIT: Duration = Duration::from_secs(40);
/// How long the end is watched for a line too many.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// The death waits for a fence agent, as it should wherever data is at stake.
const FENCING: &str = "[fencing]\npolicy = \"agent\"\n[[fencing.level]]\n\
    [[fencing.level.agent]]\ncommand = \"{dir}/fence-agent\"\nany_node = true\n";

fn main() -> ExitCode {
    let mut demo = match Demo::start() {
        Ok(demo) => demo,
        Err(error) => return failure(&[error.to_string()]),
    };
    let played = demo.play();
    let mut problems: Vec<String> =
        played.err().map(|error| error.to_string()).into_iter().collect();
    let told = demo.collect(&mut problems);
    println!("{}", show(&mut demo.moments));
    problems.extend(verdict::problems(STORY, &told));
    if problems.is_empty() {
        println!("{}", verdict::summary(STORY, demo.power_cut_us, &told));
        return ExitCode::SUCCESS;
    }
    demo.lab.keep();
    failure(&problems)
}

fn failure(problems: &[String]) -> ExitCode {
    eprintln!("demo: FAILED");
    for problem in problems {
        eprintln!("demo: {problem}");
    }
    ExitCode::FAILURE
}

struct Demo {
    lab: Lab,
    moments: Vec<Moment>,
    begun: Instant,
    power_cut_us: i64,
}

impl Demo {
    fn start() -> Result<Self, LabError> {
        let begun = Instant::now();
        let first = Moment {
            at_us: now_us(),
            who: Who::Demo,
            tone: Tone::Title,
            text: "Three nodes, each with a corosync and an o2bridged of its own".to_owned(),
        };
        println!("demo: starting three nodes, in namespaces of this machine");
        let lab = Lab::builder().nodes(3).settings(FENCING).start()?;
        let mut demo = Self { lab, moments: vec![first], begun, power_cut_us: 0 };
        demo.note(Who::Demo, "three daemons answer in one quorate ring");
        Ok(demo)
    }

    fn play(&mut self) -> Result<(), LabError> {
        self.title("All three mount the same volume");
        for node in [1, 2, 3] {
            self.mount(node)?;
        }
        self.cut_power(STORY.killed)?;
        self.leave(STORY.left)?;
        self.power_on(STORY.killed)?;
        std::thread::sleep(QUIET_TIME);
        Ok(())
    }

    /// What a mount tool does: ask, mount, say how it went.
    fn mount(&mut self, node: u32) -> Result<(), LabError> {
        self.note(Who::Tool(node), &format!("begin {SERVICE}"));
        self.lab.o2bridge(node, &["begin", GROUP, SERVICE])?;
        self.note(Who::Tool(node), "may mount now; mounts");
        self.lab.o2bridge(node, &["complete", GROUP, SERVICE, "0"])?;
        self.note(Who::Tool(node), "complete: mounted");
        Ok(())
    }

    fn cut_power(&mut self, node: u32) -> Result<(), LabError> {
        self.title(&format!("Node {node} loses its power"));
        self.power_cut_us = now_us();
        self.death(Who::Demo, &format!("node {node}: power cut, every process gone at once"));
        self.lab.cluster().node(node).crash();
        let rest = vec![STORY.stayed, STORY.left];
        for survivor in rest.clone() {
            self.wait_last(survivor, &Verb::Resume(rest.clone()))?;
        }
        Ok(())
    }

    fn leave(&mut self, node: u32) -> Result<(), LabError> {
        self.title(&format!("Node {node} unmounts: a clean leave is no death"));
        self.note(Who::Tool(node), "has unmounted; leave");
        self.lab.o2bridge(node, &["leave", GROUP, SERVICE])?;
        self.note(Who::Tool(node), "left");
        self.wait_last(node, &Verb::Detach)?;
        self.wait_last(STORY.stayed, &Verb::Resume(vec![STORY.stayed]))
    }

    fn power_on(&mut self, node: u32) -> Result<(), LabError> {
        self.title(&format!("Node {node} comes back and mounts again"));
        self.note(Who::Demo, &format!("node {node}: power on; corosync and o2bridged start"));
        self.lab.cluster().node(node).reboot()?;
        self.lab.cluster().node(node).start_corosync()?;
        self.lab.start_daemon(node)?;
        self.lab.wait_settled(node)?;
        self.mount(node)?;
        self.wait_last(STORY.stayed, &Verb::Resume(vec![STORY.stayed, node]))
    }

    /// Waits until a shim's last line is this.
    fn wait_last(&self, node: u32, verb: &Verb) -> Result<(), LabError> {
        let deadline = Instant::now() + STEP_LIMIT;
        let mut next_word = Instant::now() + Duration::from_secs(3);
        loop {
            let records = self.lab.records(node)?;
            if records.last().is_some_and(|record| record.verb == *verb) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let verbs: Vec<_> = records.iter().map(|record| &record.verb).collect();
                return Err(LabError::Record(format!(
                    "node {node}: the last line was to be {verb:?} within {STEP_LIMIT:?}; the shim \
                     was told {verbs:?}"
                )));
            }
            if Instant::now() >= next_word {
                self.progress(&format!("waiting for node {node}'s shim to be told {verb:?}"));
                next_word += Duration::from_secs(3);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Adds what every shim was told, every agent did and every daemon noticed.
    fn collect(&mut self, problems: &mut Vec<String>) -> BTreeMap<u32, Vec<Record>> {
        let mut told = BTreeMap::new();
        for node in [1, 2, 3] {
            let records = self.lab.records(node).unwrap_or_else(|error| {
                problems.push(error.to_string());
                Vec::new()
            });
            self.moments.extend(records.iter().map(|record| shim_moment(node, record)));
            let noticed = self.lab.recent(node).unwrap_or_else(|error| {
                problems.push(error.to_string());
                Vec::new()
            });
            self.moments.extend(noticed.iter().filter_map(|line| daemon_moment(node, line)));
            self.moments.extend(self.lab.fenced(node).into_iter().map(|(at_us, dead)| Moment {
                at_us,
                who: Who::Agent(node),
                tone: Tone::Death,
                text: format!("node {dead} is off"),
            }));
            told.insert(node, records);
        }
        told
    }

    fn progress(&self, text: &str) {
        println!("demo: {:5.1} s  {text}", self.begun.elapsed().as_secs_f32());
    }

    fn title(&mut self, text: &str) {
        self.progress(text);
        self.add(Who::Demo, Tone::Title, text);
    }

    fn note(&mut self, who: Who, text: &str) {
        self.add(who, Tone::Plain, text);
    }

    fn death(&mut self, who: Who, text: &str) {
        self.add(who, Tone::Death, text);
    }

    fn add(&mut self, who: Who, tone: Tone, text: &str) {
        self.moments.push(Moment { at_us: now_us(), who, tone, text: text.to_owned() });
    }
}

/// What a daemon noticed about a node that uses the group, or decided about it.
fn daemon_moment(node: u32, line: &Line) -> Option<Moment> {
    let about = line.value("node")?;
    line.value("group").or(line.value("boot"))?;
    let tone = match line.level.as_str() {
        "WARN" => Tone::Death,
        "INFO" => Tone::Plain,
        _ => return None,
    };
    let name = format!("node {about}");
    let text = match line.sentence.strip_prefix("node ") {
        Some(rest) => format!("{name} {rest}"),
        None if line.sentence.contains("the node") => line.sentence.replace("the node", &name),
        None => format!("{name}: {}", line.sentence),
    };
    Some(Moment { at_us: line.at_us, who: Who::Daemon(node), tone, text })
}

fn shim_moment(node: u32, record: &Record) -> Moment {
    let list = |nodes: &[u32]| {
        let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
        nodes.join(", ")
    };
    let (tone, text) = match &record.verb {
        Verb::Attach(nodes) => (Tone::Plain, format!("attach: the users are {}", list(nodes))),
        Verb::Suspend => (Tone::Plain, "suspend: stop granting locks".to_owned()),
        Verb::NodeDown(dead) => (Tone::Death, format!("node_down: node {dead} died")),
        Verb::Resume(nodes) => (Tone::Plain, format!("resume: the users are {}", list(nodes))),
        Verb::Detach => (Tone::Plain, "detach: used here no more".to_owned()),
    };
    Moment { at_us: record.at_us, who: Who::Shim(node), tone, text }
}
