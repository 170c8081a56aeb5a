//! Other processes in our corosync groups, with something to say and without.

use std::time::Duration;

use o2bridge_core::NodeId;
use o2bridge_core::proto::{self, Body};
use o2bridge_e2e::{Lab, LabError, Stranger, Told};
use o2bridge_harness::wait_until;

const CONTROL: &str = "o2bridge:control";
const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(60);
const RANDOM: usize = 1500;
const HUGE: [usize; 3] = [70_000, 300_000, 900_000];

type Result<T = ()> = std::result::Result<T, LabError>;

/// Two nodes that use the group, and strangers in the control group and in the group, on node 1.
fn two_mounted() -> Result<(Lab, Told, [Stranger; 2])> {
    let lab = Lab::builder().nodes(3).settings("[timing]\ngrace_ms = 3000\n").start()?;
    let strangers = [lab.stranger(1, CONTROL)?, lab.stranger(1, &mountgroup())?];
    let mut told = Told::new();
    lab.mount(1, GROUP, MOUNT)?;
    lab.mount(2, GROUP, MOUNT)?;
    told.add(&[1], "attach 1a | suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    lab.expect_all(&[GROUP], &told)?;
    Ok((lab, told, strangers))
}

fn mountgroup() -> String {
    format!("o2bridge:{GROUP}")
}

/// The same noise on every run.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0.to_le_bytes()[7]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }
}

/// Everything that is no message: noise of all lengths, every beginning of the real messages, real
/// ones with something behind them, and some with one bit of the magic wrong.
fn garbage(real: &[Vec<u8>], noise: &mut Noise) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..RANDOM {
        let count = usize::from(noise.byte());
        all.push(noise.bytes(count));
    }
    for message in real {
        all.extend((0..message.len()).map(|end| message[..end].to_vec()));
        all.push([message.as_slice(), b"x"].concat());
        let mut wrong = message.clone();
        wrong[0] ^= 1;
        all.push(wrong);
    }
    for count in HUGE {
        all.push(noise.bytes(count));
        all.push([real[0].as_slice(), &noise.bytes(count)].concat());
    }
    all
}

fn wait_counted(lab: &Lab, expected: &[(u32, usize)]) -> Result {
    let counted = || -> Vec<(u32, usize)> {
        let count = |node| lab.status(node).map_or(0, |status| status.garbage_messages);
        expected.iter().map(|(node, _)| (*node, usize::try_from(count(*node)).unwrap())).collect()
    };
    let waited = wait_until("all garbage was to be counted", LIMIT, || counted() == expected);
    assert_eq!(counted(), expected);
    Ok(waited?)
}

fn assert_calm(lab: &mut Lab) {
    for node in [1, 2, 3] {
        assert!(lab.daemon(node).unwrap().is_running(), "{}", lab.log(node));
        assert!(!lab.log(node).contains("panicked"), "{}", lab.log(node));
    }
}

#[test]
fn thousands_of_messages_that_are_none() -> Result {
    let (lab, mut told, mut strangers) = two_mounted()?;
    let mut noise = Noise(7);
    let mut sent = [0, 0];
    for (stranger, sent) in strangers.iter_mut().zip(&mut sent) {
        let mut real: Vec<Vec<u8>> = stranger.heard().into_iter().map(|(_, bytes)| bytes).collect();
        real.sort();
        real.dedup();
        assert!(real.iter().all(|bytes| proto::decode(bytes).is_ok()) && real.len() > 2);
        for message in garbage(&real[..2], &mut noise) {
            stranger.send(&message)?;
            *sent += 1;
        }
    }
    // While it still comes.
    lab.mount(3, GROUP, "/mnt/first")?;
    lab.unmount(3, GROUP, "/mnt/first")?;
    told.add(&[3], "attach 1a 2a 3a | detach");
    told.add(&[1, 2], "suspend | resume 1a 2a 3a | suspend | resume 1a 2a");
    let [control, group] = sent;
    println!("{control} messages in the control group, {group} in the mountgroup");
    let count = |node| lab.status(node).unwrap().garbage_messages;
    wait_until("all garbage was to be counted", LIMIT, || {
        [1, 2].iter().all(|node| usize::try_from(count(*node)).unwrap() >= control + group)
    })?;
    lab.expect_all(&[GROUP], &told)?;
    wait_counted(&lab, &[(1, control + group), (2, control + group)])?;
    assert!(usize::try_from(count(3)).unwrap() >= control);

    lab.mount(3, GROUP, MOUNT)?;
    told.add(&[3], "attach 1a 2a 3b").add(&[1, 2], "suspend | resume 1a 2a 3b");
    lab.expect_all(&[GROUP], &told)?;
    lab.cluster().node(3).crash();
    told.add(&[1, 2], "suspend | node_down 3b | resume 1a 2a");
    lab.expect_all(&[GROUP], &told)?;
    assert!(!lab.log(1).contains("panicked") && !lab.log(2).contains("panicked"));
    // A flood of messages is no flood of log lines.
    let lines = lab.log(1).lines().filter(|line| line.contains("garbage")).count();
    assert!(lines < 100, "{lines} lines about garbage");
    Ok(())
}

/// One on a node without and one on a node with a daemon in the group.
#[test]
fn a_silent_stranger_holds_nobody_up() -> Result {
    let (mut lab, mut told, strangers) = two_mounted()?;
    let _silent = (lab.stranger(3, &mountgroup())?, lab.stranger(2, &mountgroup())?);
    lab.mount(3, GROUP, MOUNT)?;
    told.add(&[3], "attach 1a 2a 3a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(&[GROUP], &told)?;
    lab.unmount(1, GROUP, MOUNT)?;
    told.add(&[1], "detach").add(&[2, 3], "suspend | resume 2a 3a");
    lab.expect_all(&[GROUP], &told)?;
    drop(strangers);
    lab.expect_still(&[GROUP], &told, Duration::from_secs(4))?;
    wait_counted(&lab, &[(1, 0), (2, 0), (3, 0)])?;
    assert_calm(&mut lab);
    Ok(())
}

/// Real messages, said again by another process of the same node, which then leaves: the daemon has
/// neither spoken nor left.
#[test]
fn a_message_said_by_somebody_else_is_not_the_daemons() -> Result {
    let (mut lab, told, [mut control, mut group]) = two_mounted()?;
    let from_1 = |stranger: &Stranger| -> Vec<Vec<u8>> {
        stranger.heard().into_iter().filter(|(node, _)| *node == 1).map(|(_, m)| m).collect()
    };
    for message in from_1(&control) {
        control.send(&message)?;
    }
    control.send(&proto::encode(1, true, &Body::Refuse(NodeId(2))))?;
    let said = from_1(&group);
    for message in &said {
        group.send(message)?;
    }
    wait_until("the stranger was to hear itself", LIMIT, || {
        from_1(&group).len() == 2 * said.len()
    })?;
    lab.expect_still(&[GROUP], &told, Duration::from_secs(1))?;
    group.proc().write_line("leave").unwrap();
    control.proc().write_line("leave").unwrap();
    lab.expect_still(&[GROUP], &told, Duration::from_secs(4))?;
    for node in [1, 2] {
        let members = lab.status(node)?.groups[0].members.len();
        assert_eq!(members, 2, "node {node} still knows both users");
    }
    let mut told = told;
    lab.mount(3, GROUP, MOUNT)?;
    told.add(&[3], "attach 1a 2a 3a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.expect_all(&[GROUP], &told)?;
    assert_calm(&mut lab);
    Ok(())
}
