//! The handle: a keeper that dies is replaced, one that lives is adopted, nothing told is lost.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use o2bridge_keeper::block::{self, Heartbeat};
use o2bridge_keeper::record::{Op, Record, Status};
use o2bridge_keeper::{Area, Keeper, KeeperError, Line, Notice, SignOfLife, Slot, block_number};
use support::{Node, life, lives, ms, signal, until};

#[test]
fn the_handle_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Keeper>();
    let node = Node::new();
    let keeper = Arc::new(node.keeper().0);
    let threads: Vec<_> = (0..8_u8)
        .map(|slot| {
            let keeper = Arc::clone(&keeper);
            spawn(move || (0..50).for_each(|n| turn(&keeper, Slot(slot), n)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(keeper.table().len(), 8);
}

fn turn(keeper: &Keeper, slot: Slot, number: u64) {
    keeper.down(Area(0), slot).unwrap();
    keeper.beat(Area(0), slot, life(number + 1)).unwrap();
}

#[test]
fn a_killed_keeper_is_replaced_with_all_that_it_knew() {
    let node = Node::new();
    let (keeper, notices) = node.keeper();
    for slot in 1..=5 {
        keeper.beat(Area(0), Slot(slot), life(100 + u64::from(slot))).unwrap();
    }
    keeper.down(Area(0), Slot(5)).unwrap();
    let table = keeper.table();
    let mut worst = ms(0);
    for _ in 0..5 {
        let pid = keeper.pid().unwrap();
        let seq = node.block(0, 1).seq;
        let killed = Instant::now();
        signal(pid, Signal::SIGKILL);
        until("the keeper's end", ms(3000), || !lives(pid));
        until("a beat", ms(3000), || node.block(0, 1).seq > seq + 1);
        worst = worst.max(killed.elapsed());
        until("a new keeper", ms(3000), || keeper.pid().is_some_and(|new| new != pid));
        assert_eq!(keeper.table(), table);
        let new = keeper.pid().unwrap();
        let said: Vec<Notice> = notices.try_iter().collect();
        let died = said.iter().position(|it| *it == Notice::Died { pid }).expect("died");
        let is_start =
            |it: &Notice| matches!(it, Notice::Started { pid, beats: 4, .. } if *pid == new);
        assert!(died < said.iter().position(is_start).expect("started"), "{said:?}");
    }
    for slot in 1..=4 {
        node.beats(0, slot, 2);
        assert_eq!(node.block(0, slot).generation, 100 + u64::from(slot));
    }
    assert!(node.is_silent(0, 5, ms(200)));
    assert_eq!(node.block(0, 5).generation, 0);
    assert!(worst < ms(2000), "{worst:?} without a beat");
    eprintln!("longest time from SIGKILL to a beat of the next keeper: {worst:?}");
    assert_eq!(node.resets(), 0);
}

#[test]
fn a_call_survives_the_keeper_that_it_was_for() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    for number in 1..=10 {
        signal(keeper.pid().unwrap(), Signal::SIGKILL);
        keeper.beat(Area(0), Slot(1), life(number)).unwrap();
        assert_eq!(node.block(0, 1).generation, number);
        signal(keeper.pid().unwrap(), Signal::SIGKILL);
        keeper.down(Area(0), Slot(1)).unwrap();
        assert_eq!(node.block(0, 1).generation, 0);
    }
}

#[test]
fn what_was_cleared_without_an_answer_is_not_cleared_again_under_new_beats() {
    let node = Node::with(|settings| settings.silence_max_ms = 16_000);
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let pid = keeper.pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    assert_eq!(keeper.clear(Area(0)), Err(KeeperError::Unanswered));
    signal(pid, Signal::SIGCONT);
    until("a beat", ms(3000), || keeper.beat(Area(0), Slot(1), life(6)).is_ok());
    for _ in 0..40 {
        assert_eq!(node.block(0, 1).generation, 6);
        sleep(ms(50));
    }
    assert_eq!(keeper.table().len(), 1);
}

#[test]
fn a_killed_daemon_is_not_missed_and_its_successor_adopts() {
    let node = Node::new();
    assert!(node.ctl(&["beat", "0", "1", "0x17"]).0);
    assert!(node.ctl(&["beat", "3", "254", "5"]).0);
    let mut daemon = node.daemon();
    let pid = {
        let (keeper, notices) = adopt_after(&node, &mut daemon);
        let pid = keeper.pid().unwrap();
        assert_eq!(notices, [Notice::Adopted { pid, beats: 2 }]);
        let expected =
            BTreeMap::from([((Area(0), Slot(1)), life(0x17)), ((Area(3), Slot(254)), life(5))]);
        assert_eq!(keeper.table(), expected);
        keeper.down(Area(3), Slot(254)).unwrap();
        assert_eq!(node.block(3, 254).generation, 0);
        pid
    };
    node.beats(0, 1, 3);
    let (is_good, table) = node.ctl(&["table"]);
    assert_eq!((is_good, table.as_str()), (true, "area 0 slot 1 generation 0x17\n"));
    assert_eq!(node.dial().unwrap().pid(), pid);
}

fn adopt_after(node: &Node, daemon: &mut support::Daemon) -> (Keeper, Vec<Notice>) {
    node.beats(0, 1, 2);
    daemon.kill();
    node.beats(0, 1, 20);
    let (keeper, notices) = node.keeper();
    (keeper, except_protection(&notices))
}

/// Not every machine on which this is tested grants all of it.
fn except_protection(notices: &Receiver<Notice>) -> Vec<Notice> {
    let is_other = |notice: &Notice| !matches!(notice, Notice::Unprotected { .. });
    notices.try_iter().filter(is_other).collect()
}

#[test]
fn a_keeper_with_other_settings_is_adopted_and_said_to_be() {
    let mut node = Node::new();
    assert!(node.ctl(&["beat", "0", "1", "5"]).0);
    node.settings.daemon_back_ms += 1;
    let (keeper, notices) = node.keeper();
    let notices: Vec<Notice> = notices.try_iter().collect();
    let pid = keeper.pid().unwrap();
    assert_eq!(notices.first(), Some(&Notice::Adopted { pid, beats: 1 }));
    let is_said = |notice: &Notice| match notice {
        Notice::OtherSettings { running, .. } => running.contains("--daemon-back-ms 20000"),
        _ => false,
    };
    assert!(notices.iter().any(is_said), "{notices:?}");
}

#[test]
fn a_keeper_that_beats_nothing_is_replaced_at_start() {
    let mut node = Node::new();
    let mut daemon = node.daemon();
    let old = daemon.0.id();
    daemon.kill();
    let first = node.dial().unwrap().pid();
    assert_ne!(first, old);
    node.settings.beat_ms = 60;
    let (keeper, notices) = node.keeper();
    let pid = keeper.pid().unwrap();
    assert_ne!(pid, first);
    assert!(!lives(first));
    let notices = except_protection(&notices);
    assert_eq!(notices, [Notice::Started { pid, beats: 0, gap_ms: 0 }]);
}

#[test]
fn two_daemons_are_one_too_many() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let pid = keeper.pid();
    assert!(matches!(node.try_keeper(), Err(KeeperError::Busy)));
    keeper.beat(Area(0), Slot(2), life(5)).unwrap();
    assert_eq!(keeper.pid(), pid);
}

#[test]
fn a_stop_is_refused_while_it_beats() {
    let node = Node::new();
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    assert_eq!(keeper.stop(), Err(KeeperError::Refused(Status::Beating)));
    node.beats(0, 1, 2);
    keeper.down(Area(0), Slot(1)).unwrap();
    let pid = keeper.pid().unwrap();
    keeper.stop().unwrap();
    until("the end", ms(3000), || !lives(pid));
    assert!(!node.settings.socket.exists());
    assert_eq!(keeper.pid(), None);
    assert_eq!(keeper.beat(Area(0), Slot(1), life(5)), Err(KeeperError::Stopped));
    assert_eq!(keeper.stop(), Err(KeeperError::Stopped));
    sleep(ms(200));
    assert!(!notices.try_iter().any(|notice| matches!(notice, Notice::Died { .. })));
}

#[test]
fn a_hung_keeper_is_killed_and_replaced() {
    let node = Node::with(|settings| settings.silence_max_ms = 8000);
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let pid = keeper.pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    assert_eq!(keeper.beat(Area(0), Slot(2), life(6)), Err(KeeperError::Unanswered));
    until("a new keeper", ms(8000), || keeper.pid().is_some_and(|new| new != pid));
    assert!(!lives(pid));
    node.beats(0, 1, 3);
    let hung = |notice: Notice| matches!(notice, Notice::Hung { pid: old, .. } if old == pid);
    assert!(notices.try_iter().any(hung));
    assert_eq!(node.resets(), 0);
    keeper.beat(Area(0), Slot(2), life(6)).unwrap();
}

#[test]
fn a_keeper_that_hangs_when_a_daemon_starts_is_killed_and_replaced() {
    let node = Node::new();
    assert!(node.ctl(&["beat", "0", "1", "5"]).0);
    let hung = node.dial().unwrap().pid();
    signal(hung, Signal::SIGSTOP);
    let (keeper, notices) = node.keeper();
    assert!(!lives(hung));
    assert!(keeper.pid().is_some_and(|new| new != hung));
    let said = |notice: Notice| matches!(notice, Notice::Hung { pid, .. } if pid == hung);
    assert!(notices.try_iter().any(said));
    assert_eq!(node.resets(), 0);
}

#[test]
fn a_down_that_got_no_answer_is_done_all_the_same() {
    let node = Node::with(|settings| settings.silence_max_ms = 16_000);
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    keeper.beat(Area(0), Slot(2), life(5)).unwrap();
    let pid = keeper.pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    let error = keeper.down(Area(0), Slot(1)).unwrap_err();
    assert_eq!(error, KeeperError::Unanswered);
    assert!(!error.is_nothing_changed());
    assert!(!keeper.table().contains_key(&(Area(0), Slot(1))));
    assert_eq!(node.block(0, 1).generation, 5);
    signal(pid, Signal::SIGCONT);
    until("down", ms(3000), || node.block(0, 1).generation == 0);
    node.beats(0, 2, 3);
    assert!(node.is_silent(0, 1, ms(200)));
    assert_eq!(keeper.pid(), Some(pid));
}

/// For a keeper of this process.
fn listener(node: &Node) -> UnixListener {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new(&node.settings.socket).unwrap()).unwrap();
    listen(&socket, Backlog::new(1).unwrap()).unwrap();
    UnixListener::from(socket)
}

/// A keeper of this process that beats one slot, and says when it hears a ping.
fn keeper_that_is_pinged(node: &Node) -> Receiver<Instant> {
    let (listener, (pinged, pings)) = (listener(node), channel());
    let path = node.settings.socket.clone();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Whoever drops the node kills what listens there, which is this process.
        std::fs::remove_file(path).unwrap();
        let mut bytes = [0; 32];
        while stream.read(&mut bytes).is_ok_and(|length| length == bytes.len()) {
            let asked = Record::decode(&bytes).unwrap();
            let answer = match (asked.op, asked.value) {
                (Op::Hello, 0) => Record { generation: 5, ..asked.answer(Status::Entry) },
                _ => asked.answer(Status::Done),
            };
            if asked.op == Op::Ping && pinged.send(Instant::now()).is_err() {
                return;
            }
            if stream.write_all(&answer.encode()).is_err() {
                return;
            }
        }
    });
    pings
}

/// With a short `daemon_back_ms` every part of a second counts. In one of many tries, because this machine may be busy.
#[test]
fn a_daemon_that_comes_to_its_work_says_so_at_once() {
    let try_once = || {
        let node = Node::new();
        let pings = keeper_that_is_pinged(&node);
        let (keeper, _notices) = node.starting();
        sleep(ms(100));
        assert!(pings.try_recv().is_err(), "it is not at work yet");
        let said = Instant::now();
        keeper.alive();
        pings.recv_timeout(ms(10_000)).unwrap() - said
    };
    let mut tries = std::iter::repeat_with(try_once).take(20);
    assert!(tries.any(|took| took < ms(300)), "the pause between two pings is a second");
}

/// A keeper of this process that writes the `down` and dies before the answer.
fn keeper_that_dies_in_a_down(node: &Node) -> std::thread::JoinHandle<()> {
    let (listener, path) = (listener(node), node.settings.socket.clone());
    let device = File::options().write(true).open(node.device()).unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        loop {
            let mut bytes = [0; 32];
            assert_eq!(stream.read(&mut bytes).unwrap(), 32);
            let asked = Record::decode(&bytes).unwrap();
            let answer = match (asked.op, asked.value) {
                (Op::Hello, slot @ 0..2) => Record {
                    slot: 1 + u8::try_from(slot).unwrap(),
                    generation: 5,
                    ..asked.answer(Status::Entry)
                },
                (Op::Hello | Op::Ping, _) => asked.answer(Status::Done),
                (Op::Down, _) => {
                    let said = Heartbeat { seq: 77, node: 1, generation: 0, dead_ms: 0 };
                    let mut block = [0; 512];
                    block::encode(&said, &mut block).unwrap();
                    let at = block_number(Area(asked.area), Slot(asked.slot)) * 512;
                    device.write_all_at(&block, at).unwrap();
                    std::fs::remove_file(path).unwrap();
                    return;
                }
                _ => panic!("{asked:?}"),
            };
            stream.write_all(&answer.encode()).unwrap();
        }
    })
}

#[test]
fn a_down_survives_a_keeper_that_dies_between_write_and_answer() {
    let node = Node::new();
    let fake = keeper_that_dies_in_a_down(&node);
    let (keeper, notices) = node.keeper();
    assert_eq!(keeper.table().len(), 2);
    keeper.down(Area(0), Slot(1)).unwrap();
    fake.join().unwrap();
    assert_eq!(keeper.table().into_iter().collect::<Vec<_>>(), [((Area(0), Slot(2)), life(5))]);
    let said = node.block(0, 1);
    assert_eq!(said.generation, 0);
    assert!(said.seq > 77, "said again by the new keeper: {said:?}");
    node.beats(0, 2, 3);
    assert!(node.is_silent(0, 1, ms(200)));
    let pid = std::process::id();
    assert!(notices.try_iter().any(|notice| notice == Notice::Died { pid }));
}

#[test]
fn the_command_shows_what_is_on_the_device() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(1), Slot(3), life(0xbeef)).unwrap();
    let (is_good, blocks) = node.ctl(&["blocks", "1"]);
    assert!(is_good);
    assert!(blocks.starts_with("area 1 slot 3 Heartbeat"), "{blocks}");
    assert!(blocks.contains("generation: beef"), "{blocks}");
    assert_eq!(blocks.lines().count(), 1);
}

/// A file that greets as the kernel's control device does, and takes what is said to it.
fn control(node: &mut Node, greeting: &str) -> PathBuf {
    let path = node.path("control");
    std::fs::write(&path, greeting).unwrap();
    (node.settings.device, node.settings.control) = (None, Some(path.clone()));
    path
}

const LINE: Line = Line { node: 2, major: 1, minor: 0 };

fn holds(pid: u32, path: &Path) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    fds.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == path))
}

#[test]
fn a_line_outlives_the_daemon_and_is_let_go_on_demand() {
    let mut node = Node::new();
    let path = control(&mut node, "T01\n");
    let (keeper, _notices) = node.keeper();
    let pid = keeper.pid().unwrap();
    assert!(!holds(pid, &path));
    keeper.hold(LINE).unwrap();
    keeper.hold(LINE).unwrap();
    assert!(holds(pid, &path));
    let said = std::fs::read_to_string(&path).unwrap();
    assert_eq!(said, "T01\nT01\nSETN 00000002\nSETV 01 00\n", "hands are shaken once");
    let other = keeper.hold(Line { node: 3, ..LINE }).unwrap_err();
    assert_eq!(other, KeeperError::Refused(Status::OtherLine));
    assert_eq!(keeper.stop().unwrap_err(), KeeperError::Refused(Status::Beating));
    let no_slot = keeper.beat(Area(0), Slot(1), life(1)).unwrap_err();
    assert_eq!(no_slot, KeeperError::Refused(Status::OutOfRange), "there is no device");

    drop(keeper);
    let (keeper, _notices) = node.keeper();
    assert_eq!((keeper.pid(), keeper.line()), (Some(pid), Some(LINE)), "adopted with its line");
    keeper.release().unwrap();
    keeper.release().unwrap();
    assert!(!holds(pid, &path));
    assert_eq!(keeper.line(), None);
    keeper.stop().unwrap();
    assert_eq!(node.resets(), 0);
}

#[test]
fn a_new_keeper_takes_the_line_again() {
    let mut node = Node::new();
    let path = control(&mut node, "T01\n");
    let (keeper, _notices) = node.keeper();
    keeper.hold(LINE).unwrap();
    let pid = keeper.pid().unwrap();
    signal(pid, Signal::SIGKILL);
    until("another keeper", ms(5000), || keeper.pid().is_some_and(|new| new != pid));
    assert!(holds(keeper.pid().unwrap(), &path));
    keeper.release().unwrap();
}

/// Nobody else holds the line then: its end would be the node's.
#[test]
fn a_keeper_that_hangs_with_a_line_is_not_killed_by_a_daemon_that_starts() {
    let mut node = Node::new();
    let path = control(&mut node, "T01\n");
    let (keeper, _notices) = node.keeper();
    keeper.hold(LINE).unwrap();
    let pid = keeper.pid().unwrap();
    drop(keeper);
    signal(pid, Signal::SIGSTOP);
    let (said, notices) = channel();
    let log = Box::new(move |notice| said.send(notice).unwrap_or_default());
    let refused = Keeper::start(node.settings.clone(), SignOfLife::Work, log).map(drop);
    assert_eq!(refused, Err(KeeperError::Unanswered));
    let spared = |notice| matches!(notice, Notice::Spared { pid: of, .. } if of == pid);
    assert!(notices.try_iter().any(spared));
    assert!(holds(pid, &path));
    signal(pid, Signal::SIGCONT);
    let (keeper, _notices) = node.keeper();
    assert_eq!((keeper.pid(), keeper.line()), (Some(pid), Some(LINE)));
    keeper.release().unwrap();
    assert_eq!(node.resets(), 0);
}

#[test]
fn a_device_that_refuses_leaves_no_line() {
    let mut node = Node::new();
    let path = control(&mut node, "T02\n");
    let (keeper, _notices) = node.keeper();
    assert_eq!(keeper.hold(LINE).unwrap_err(), KeeperError::Refused(Status::Control));
    assert!(!holds(keeper.pid().unwrap(), &path));
    assert_eq!(keeper.line(), None);
    keeper.stop().unwrap();
}

#[test]
fn a_line_without_a_daemon_ends_in_a_reset() {
    let mut node = Node::new();
    let _ = control(&mut node, "T01\n");
    node.settings.daemon_back_ms = 300;
    let (keeper, _notices) = node.keeper();
    keeper.hold(LINE).unwrap();
    drop(keeper);
    until("the reset", ms(5000), || node.resets() > 0);
}
