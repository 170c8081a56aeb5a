//! A tool is killed at each step between begin and leave, on both doors.

use std::process::Command;
use std::time::Duration;

use o2bridge_e2e::{Lab, LabError, Told};
use o2bridge_harness::{Proc, Signal, wait_until};

const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(15);
/// Longer than the time that a tool gets to mount.
const LONG: Duration = Duration::from_millis(2500);
const SETTINGS: &str = "[timing]\ngrace_ms = 3000\ncomplete_timeout_ms = 1500\n[fencing]\n\
                        policy = \"ack\"\n[paths]\nmountinfo = \"{dir}/mountinfo\"\n";

type Result<T = ()> = std::result::Result<T, LabError>;

/// Three nodes; node 2 uses the group all the time, and the tools are killed on node 1.
struct Story {
    lab: Lab,
    told: Told,
    door: &'static str,
    /// The letter of the next use by node 1 that a shim hears of.
    next: u8,
}

impl Story {
    fn new(door: &'static str) -> Result<Self> {
        let lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
        let mut told = Told::new();
        lab.mount(2, GROUP, MOUNT)?;
        told.add(&[2], "attach 2a");
        let story = Self { lab, told, door, next: b'a' };
        story.mounted(false);
        Ok(story)
    }

    /// Node 1's mount table, as the daemon sees it.
    fn mounted(&self, mounted: bool) {
        let line = if mounted {
            format!("36 25 1:3 / {MOUNT} rw,relatime shared:1 - ocfs2 /dev/null rw\n")
        } else {
            String::new()
        };
        let path = self.lab.cluster().node(1).dir().join("mountinfo");
        std::fs::write(path, line).unwrap();
    }

    fn tool(&self) -> Result<Proc> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tool"));
        command.args([self.door, GROUP, MOUNT]);
        Ok(self.lab.cluster().node(1).spawn("tool", &command)?)
    }

    /// The tool says this and is answered.
    fn says(&self, tool: &mut Proc, command: &str) -> Result {
        let answers = tool.stdout().matches("answer").count();
        tool.write_line(command).unwrap();
        wait_until("the tool was to be answered", LIMIT, || {
            tool.stdout().matches("answer").count() > answers && tool.stdout().ends_with('\n')
        })?;
        let output = tool.stdout();
        let answer = output.lines().last().unwrap_or_default();
        let good = if self.door == "old" { "answer STATUS 0 OK" } else { "answer {\"parameters\"" };
        assert!(answer.starts_with(good), "{command}: {answer}");
        Ok(())
    }

    /// The tool says this, and is dead before the daemon has read it.
    fn last_words(&mut self, mut tool: Proc, command: &str) -> Result {
        self.lab.daemon(1).unwrap().signal(Signal::SIGSTOP);
        tool.write_line(command).unwrap();
        tool.wait_line(&format!("sent {command}"), LIMIT)?;
        tool.kill();
        self.lab.daemon(1).unwrap().signal(Signal::SIGCONT);
        Ok(())
    }

    /// The state of the service on node 1.
    fn wait_state(&self, wanted: &str) -> Result {
        let what = format!("the service was to be '{wanted}'");
        Ok(wait_until(&what, LIMIT, || self.state() == wanted)?)
    }

    fn state(&self) -> String {
        let groups = self.lab.status(1).map(|status| status.groups).unwrap_or_default();
        let service = groups.first().and_then(|group| group.services.first());
        service.map_or_else(|| "none".to_owned(), |service| service.state.clone())
    }

    /// Node 1 came into the group.
    fn in_(&mut self) -> Result {
        let use_ = char::from(self.next);
        self.next += 1;
        self.told.add(&[1], &format!("attach 1{use_} 2a"));
        self.told.add(&[2], &format!("suspend | resume 1{use_} 2a"));
        self.lab.expect(GROUP, &self.told)
    }

    /// Node 1 went out of the group, and nobody died.
    fn out(&mut self) -> Result {
        self.told.add(&[1], "detach").add(&[2], "suspend | resume 2a");
        self.lab.expect(GROUP, &self.told)?;
        self.wait_state("none")
    }

    fn nothing_happens(&self, state: &str) -> Result {
        self.lab.expect_still(&[GROUP], &self.told, LONG)?;
        assert_eq!(self.state(), state);
        Ok(())
    }
}

/// A begin waits as long as the death of another user is not acknowledged.
fn killed_while_begin_waits(story: &mut Story) -> Result {
    story.lab.mount(3, GROUP, MOUNT)?;
    story.told.add(&[3], "attach 2a 3a").add(&[2], "suspend | resume 2a 3a");
    story.lab.expect(GROUP, &story.told)?;
    story.lab.cluster().node(3).crash();
    story.told.add(&[2], "suspend");
    story.lab.expect(GROUP, &story.told)?;
    let mut tool = story.tool()?;
    tool.write_line("begin").unwrap();
    story.wait_state("beginning")?;
    story.nothing_happens("beginning")?;
    tool.kill();
    story.wait_state("none")?;
    story.lab.expect(GROUP, &story.told)?;
    story.lab.o2bridge(1, &["fence-ack", "3"])?;
    story.told.add(&[2], "node_down 3a | resume 2a");
    story.lab.expect(GROUP, &story.told)
}

fn killed_before_begin_is_read(story: &mut Story) -> Result {
    let tool = story.tool()?;
    story.last_words(tool, "begin")?;
    story.nothing_happens("none")
}

/// The mount table says what became of the mount.
fn killed_after_begin(story: &mut Story) -> Result {
    let mut tool = story.tool()?;
    story.says(&mut tool, "begin")?;
    story.in_()?;
    story.wait_state("granted")?;
    tool.kill();
    story.out()?;

    let mut tool = story.tool()?;
    story.says(&mut tool, "begin")?;
    story.in_()?;
    story.mounted(true);
    tool.kill();
    story.wait_state("live")?;
    story.nothing_happens("live")?;
    let mut tool = story.tool()?;
    story.mounted(false);
    story.says(&mut tool, "leave")?;
    story.out()
}

fn killed_around_complete(story: &mut Story) -> Result {
    let mut tool = story.tool()?;
    story.says(&mut tool, "begin")?;
    story.in_()?;
    story.last_words(tool, "complete")?;
    story.wait_state("live")?;
    story.nothing_happens("live")?;
    let mut tool = story.tool()?;
    story.says(&mut tool, "leave")?;
    story.out()?;

    let mut tool = story.tool()?;
    story.says(&mut tool, "begin")?;
    story.says(&mut tool, "complete")?;
    story.in_()?;
    tool.kill();
    story.nothing_happens("live")
}

/// The service of [`killed_around_complete`] ends.
fn killed_during_leave(story: &mut Story) -> Result {
    let tool = story.tool()?;
    story.last_words(tool, "leave")?;
    story.out()
}

fn each_step(door: &'static str) -> Result {
    let mut story = Story::new(door)?;
    killed_while_begin_waits(&mut story)?;
    killed_before_begin_is_read(&mut story)?;
    killed_after_begin(&mut story)?;
    killed_around_complete(&mut story)?;
    killed_during_leave(&mut story)
}

#[test]
fn at_each_step_on_the_old_door() -> Result {
    each_step("old")
}

#[test]
fn at_each_step_on_the_new_door() -> Result {
    each_step("new")
}

/// The connection of such a tool does not stand for it: a shell script has one for each command.
#[test]
fn a_tool_whose_connection_does_not_stand_for_it_gets_its_time() -> Result {
    let mut story = Story::new("new")?;
    let mut tool = story.tool()?;
    story.says(&mut tool, "begin-unheld")?;
    tool.kill();
    story.in_()?;
    story.wait_state("granted")?;
    story.out()?;

    let mut tool = story.tool()?;
    story.says(&mut tool, "begin-unheld")?;
    tool.kill();
    story.in_()?;
    story.says(&mut story.tool()?, "complete")?;
    story.nothing_happens("live")?;
    story.says(&mut story.tool()?, "leave")?;
    story.out()
}
