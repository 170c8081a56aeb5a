//! When the node is reset, and when not. The reset is a letter in a file.

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Instant;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use o2bridge_keeper::record::{Op, Record, Status};
use o2bridge_keeper::{Area, KeeperError, Notice, Slot};
use support::{HungFile, Node, PROGRAM, life, lives, ms, signal, until};

/// Allowed after the deadline, in milliseconds.
const LATE_MS: u64 = 1500;

fn beat(node: &Node) {
    assert!(node.ctl(&["beat", "0", "1", "5"]).0);
}

/// A node with a program of its own, which can be taken away.
fn with_own_program() -> Node {
    Node::with(|settings| {
        let program = settings.sysrq.with_file_name("program");
        std::fs::copy(PROGRAM, &program).unwrap();
        (settings.program, settings.silence_max_ms) = (program, 4000);
    })
}

#[test]
fn a_daemon_that_does_not_come_back_costs_the_node() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2500);
    beat(&node);
    let mut daemon = node.daemon();
    sleep(ms(3000));
    assert_eq!(node.resets(), 0, "the daemon lives");
    daemon.kill();
    let killed = Instant::now();
    while killed.elapsed() < ms(2490) {
        assert_eq!(node.resets(), 0, "{:?} after the kill", killed.elapsed());
        sleep(ms(10));
    }
    until("reset", ms(10 + LATE_MS), || node.resets() > 0);
    assert!(node.log().contains("no daemon came back in time"), "{}", node.log());
    // It failed, this being a file: tried again, and the peers are kept alive meanwhile.
    until("second try", ms(3000), || node.resets() > 1);
    node.beats(0, 1, 5);
    // A daemon that is back now gets nothing more.
    let (keeper, _notices) = node.keeper();
    let refused = Err(KeeperError::Refused(Status::Resetting));
    assert_eq!(keeper.beat(Area(0), Slot(2), life(6)), refused);
    assert_eq!(keeper.stop(), Err(KeeperError::Refused(Status::Beating)));
}

#[test]
fn a_daemon_that_is_back_in_time_is_enough() {
    let node = Node::with(|settings| settings.daemon_back_ms = 3000);
    beat(&node);
    for _ in 0..3 {
        let mut daemon = node.daemon();
        sleep(ms(1200));
        daemon.kill();
        sleep(ms(1500));
    }
    let _daemon = node.daemon();
    sleep(ms(3500));
    assert_eq!(node.resets(), 0);
    node.beats(0, 1, 2);
}

#[test]
fn a_hung_daemon_is_an_absent_one() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2500);
    beat(&node);
    let daemon = node.daemon();
    signal(daemon.0.id(), Signal::SIGSTOP);
    sleep(ms(1400));
    assert_eq!(node.resets(), 0);
    until("reset", ms(1100 + LATE_MS), || node.resets() > 0);
}

#[test]
fn a_daemon_whose_work_hangs_is_an_absent_one() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2000);
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    sleep(ms(2500));
    assert_eq!(node.resets(), 0, "never said, never missed");
    keeper.alive();
    sleep(ms(5000));
    assert_eq!(node.resets(), 0);
    until("reset", ms(2000 + LATE_MS), || node.resets() > 0);
}

/// The kernel is told of no death by a daemon that crashes whenever it starts.
#[test]
fn a_daemon_that_never_gets_to_work_is_an_absent_one() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2500);
    beat(&node);
    let start = Instant::now();
    while node.resets() == 0 {
        assert!(start.elapsed() < ms(2500 + LATE_MS), "kept alive by starts");
        let starting = node.starting();
        sleep(ms(200));
        drop(starting);
        sleep(ms(100));
    }
}

/// One that adopts the beats of another, and takes its time.
#[test]
fn a_daemon_that_gets_to_work_in_time_is_enough() {
    let node = Node::with(|settings| settings.daemon_back_ms = 3000);
    beat(&node);
    let (keeper, _notices) = node.starting();
    sleep(ms(1500));
    for _ in 0..4 {
        keeper.alive();
        sleep(ms(1000));
    }
    assert_eq!(node.resets(), 0);
    node.beats(0, 1, 2);
}

#[test]
fn looking_at_a_keeper_is_no_sign_of_life() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2000);
    beat(&node);
    let start = Instant::now();
    while node.resets() == 0 {
        assert!(start.elapsed() < ms(2000 + LATE_MS), "kept alive by being looked at");
        if let Some(mut dial) = node.dial() {
            assert_eq!(dial.ask(Record::new(Op::Hello)).status, Status::Entry);
        }
        sleep(ms(100));
    }
}

#[test]
fn a_keeper_that_was_stopped_too_long_resets_and_beats_no_more() {
    // The kernel's patience: 6 s, so that after 2 s it may have buried, by our margin.
    let node =
        Node::with(|settings| (settings.dead_threshold, settings.silence_max_ms) = (3, 1000));
    beat(&node);
    let pid = node.dial().unwrap().pid();
    node.beats(0, 1, 3);
    signal(pid, Signal::SIGSTOP);
    sleep(ms(2500));
    let stopped = node.bytes(0, 1);
    assert_eq!(node.resets(), 0);
    signal(pid, Signal::SIGCONT);
    until("reset", ms(1000), || node.resets() > 0);
    until("second try", ms(3000), || node.resets() > 1);
    assert_eq!(node.bytes(0, 1), stopped, "a beat after the silence");
    assert!(node.log().contains("silent for too long"), "{}", node.log());
}

/// A device that takes no more writes: its kernel hears nothing, and would bury the peers.
#[test]
fn beats_that_cannot_be_written_are_silence() {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let device = File::from(memfd_create(c"device", flags).unwrap());
    device.set_len(1 << 20).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), device.as_raw_fd());
    let node = Node::with(|settings| {
        (settings.device, settings.silence_max_ms) = (Some(path.into()), 1000);
    });
    beat(&node);
    node.beats(0, 1, 3);
    fcntl(&device, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
    sleep(ms(500));
    assert_eq!(node.resets(), 0);
    until("reset", ms(500 + LATE_MS), || node.resets() > 0);
    let log = node.log();
    assert!(log.contains("a round failed") && log.contains("silent for too long"), "{log}");
}

#[test]
fn a_keeper_that_was_stopped_for_a_moment_goes_on() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2000);
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let pid = keeper.pid().unwrap();
    signal(pid, Signal::SIGSTOP);
    sleep(ms(3000));
    signal(pid, Signal::SIGCONT);
    node.beats(0, 1, 10);
    assert_eq!(node.resets(), 0, "the daemon's words were waiting");
    assert_eq!(keeper.pid(), Some(pid));
}

#[test]
fn without_any_keeper_the_daemon_resets_the_node_itself() {
    let node = with_own_program();
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    std::fs::remove_file(&node.settings.program).unwrap();
    signal(keeper.pid().unwrap(), Signal::SIGKILL);
    sleep(ms(1900));
    assert_eq!(node.resets(), 0);
    let error = keeper.beat(Area(0), Slot(2), life(5)).unwrap_err();
    assert!(matches!(error, KeeperError::NotStarted(_)), "{error:?}");
    until("reset", ms(LATE_MS), || node.resets() > 0);
    let notices: Vec<Notice> = notices.try_iter().collect();
    let at = |wanted: fn(&Notice) -> bool| notices.iter().position(wanted).expect("a notice");
    let died = at(|notice| matches!(notice, Notice::Died { .. }));
    let not_started = at(|notice| matches!(notice, Notice::NotStarted { .. }));
    let reset = at(|notice| matches!(notice, Notice::Reset { .. }));
    assert!(died < not_started && not_started < reset, "{notices:?}");
}

/// The disk that the keeper is on does not answer: no new one can even be started.
#[test]
fn a_keeper_that_cannot_be_started_is_not_waited_for() {
    let node = with_own_program();
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let name = "a_keeper_that_cannot_be_started_is_not_waited_for";
    let Some(_hung) = HungFile::new(name, &node.settings.program) else { return };
    signal(keeper.pid().unwrap(), Signal::SIGKILL);
    // As long as a keeper may take to start, and a little.
    until("reset", ms(6000 + LATE_MS), || node.resets() > 0);
    let said =
        |notice| matches!(notice, Notice::NotStarted { error } if error.contains("does the disk"));
    assert!(notices.try_iter().any(said));
}

#[test]
fn without_a_keeper_and_without_a_table_nobody_is_reset() {
    let node = Node::with(|settings| {
        let program = settings.sysrq.with_file_name("program");
        std::fs::copy(PROGRAM, &program).unwrap();
        (settings.program, settings.silence_max_ms) = (program, 2000);
    });
    let (keeper, _notices) = node.keeper();
    std::fs::remove_file(&node.settings.program).unwrap();
    signal(keeper.pid().unwrap(), Signal::SIGKILL);
    sleep(ms(2500));
    assert_eq!(node.resets(), 0);
    std::fs::copy(PROGRAM, &node.settings.program).unwrap();
    until("a keeper", ms(5000), || keeper.pid().is_some());
}

#[test]
fn a_reset_that_is_asked_for_is_tried_by_both() {
    let node = Node::new();
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    keeper.reset_node("the storage is lost").unwrap();
    assert!(node.resets() >= 2);
    let why = Notice::Reset { why: "the storage is lost".into() };
    assert!(notices.try_iter().any(|notice| notice == why));
    until("another try", ms(3000), || node.resets() > 2);
    node.beats(0, 1, 3);
}

#[test]
fn a_reset_stops_feeding_the_watchdog() {
    let node = Node::with(|settings| {
        let path = settings.sysrq.with_file_name("watchdog");
        std::fs::write(&path, "").unwrap();
        settings.watchdog = Some(path);
    });
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    keeper.reset_node("test").unwrap();
    let fed = std::fs::read(node.path("watchdog")).unwrap();
    node.beats(0, 1, 5);
    assert_eq!(std::fs::read(node.path("watchdog")).unwrap(), fed);
    assert!(!fed.contains(&b'V'));
}

#[test]
fn a_keeper_with_nothing_to_do_and_nobody_there_ends() {
    let node = Node::with(|settings| settings.daemon_back_ms = 2000);
    let (keeper, _notices) = node.keeper();
    let pid = keeper.pid().unwrap();
    sleep(ms(2500));
    assert!(lives(pid), "the daemon is there");
    drop(keeper);
    until("the end", ms(2000 + LATE_MS), || !lives(pid));
    assert!(!node.settings.socket.exists());
    assert_eq!(node.resets(), 0);
}
