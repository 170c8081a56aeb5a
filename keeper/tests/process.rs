//! The process, as the kernel and the system see it.

mod support;

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;

use nix::sys::signal::Signal;
use o2bridge_keeper::block::{self, Heartbeat};
use o2bridge_keeper::record::{Op, Record, Status};
use o2bridge_keeper::{Area, BEATS_MAX, KeeperError, Missing, Notice, Slot};
use support::{Node, life, lives, ms, signal, skipped, until};

#[test]
fn a_beat_is_a_valid_block_that_changes() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(2), Slot(7), life(0xabc)).unwrap();
    let first = node.block(2, 7);
    assert_eq!(first, Heartbeat { seq: first.seq, node: 7, generation: 0xabc, dead_ms: 62_000 });
    let time = node.beats(2, 7, 20);
    assert!(time > ms(900), "20 beats of 50 ms in {time:?}");
    assert!(time < ms(3000), "20 beats of 50 ms in {time:?}");
    assert_eq!(node.bytes(2, 6), [0; 512]);
    assert_eq!(node.bytes(2, 8), [0; 512]);
}

#[test]
fn the_first_beat_differs_from_what_the_device_says() {
    let node = Node::new();
    let mut bytes = [0; 512];
    let old = Heartbeat { seq: 41, node: 1, generation: 9, dead_ms: 0 };
    block::encode(&old, &mut bytes).unwrap();
    node.write(0, 1, &bytes);
    // Garbage has a seq, too.
    node.write(0, 2, &[0xff; 512]);
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(9)).unwrap();
    keeper.beat(Area(0), Slot(2), life(9)).unwrap();
    assert!((42..60).contains(&node.block(0, 1).seq));
    assert!(node.block(0, 2).seq < 20);
}

#[test]
fn down_is_one_write_and_then_silence() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    keeper.beat(Area(0), Slot(2), life(6)).unwrap();
    node.beats(0, 1, 3);
    let before = node.block(0, 1).seq;
    keeper.down(Area(0), Slot(1)).unwrap();
    let down = node.block(0, 1);
    assert_eq!((down.generation, down.node), (0, 1));
    assert!(down.seq > before);
    assert!(node.is_silent(0, 1, ms(300)));
    node.beats(0, 2, 2);
    assert_eq!(keeper.table().into_iter().collect::<Vec<_>>(), [((Area(0), Slot(2)), life(6))]);
    // Again: still down, and said again.
    keeper.down(Area(0), Slot(1)).unwrap();
    assert_eq!(node.block(0, 1).generation, 0);
    // A slot that was never up can go down, too.
    keeper.down(Area(1), Slot(9)).unwrap();
    assert_eq!(node.block(1, 9), Heartbeat { seq: 1, node: 9, generation: 0, dead_ms: 62_000 });
}

#[test]
fn another_generation_is_refused_until_the_slot_went_down() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let error = keeper.beat(Area(0), Slot(1), life(6)).unwrap_err();
    assert_eq!(error, KeeperError::Refused(Status::OtherGeneration));
    assert!(error.is_nothing_changed());
    assert_eq!(node.block(0, 1).generation, 5);
    assert_eq!(keeper.table()[&(Area(0), Slot(1))], life(5));
    keeper.down(Area(0), Slot(1)).unwrap();
    keeper.beat(Area(0), Slot(1), life(6)).unwrap();
    assert_eq!(node.block(0, 1).generation, 6);
}

#[test]
fn a_cleared_area_is_zeros_and_the_next_one_goes_on() {
    let node = Node::new();
    node.write(1, 200, &[0xaa; 512]);
    let (keeper, _notices) = node.keeper();
    for area in 0..3 {
        keeper.beat(Area(area), Slot(0), life(5)).unwrap();
        keeper.beat(Area(area), Slot(254), life(5)).unwrap();
    }
    keeper.clear(Area(1)).unwrap();
    for slot in 0..=254 {
        assert_eq!(node.bytes(1, slot), [0; 512], "slot {slot}");
    }
    assert_eq!(keeper.table().len(), 4);
    node.beats(0, 254, 2);
    node.beats(2, 0, 2);
    assert_eq!(node.bytes(1, 0), [0; 512]);
}

#[test]
fn what_is_not_on_the_device_is_refused() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    let refused = Err(KeeperError::Refused(Status::OutOfRange));
    assert_eq!(keeper.beat(Area(18), Slot(0), life(1)), refused);
    assert_eq!(keeper.down(Area(255), Slot(254)), refused);
    let error = keeper.beat(Area(256), Slot(0), life(1)).unwrap_err();
    assert_eq!(error, KeeperError::OutOfRange(Area(256), Slot(0)));
    assert!(keeper.down(Area(0), Slot(255)).is_err());
    assert!(keeper.clear(Area(300)).is_err());
    assert_eq!(node.device().metadata().unwrap().len(), (1 + 18 * 256) * 512);
}

#[test]
fn a_full_table_is_beaten_adopted_and_not_exceeded() {
    let node = Node::in_memory();
    let (keeper, _notices) = node.keeper();
    let places = |number: usize| {
        let (area, slot) = (number / 255, number % 255);
        (Area(u16::try_from(area).unwrap()), Slot(u8::try_from(slot).unwrap()))
    };
    for number in 0..BEATS_MAX {
        let (area, slot) = places(number);
        keeper.beat(area, slot, life(number as u64 + 1)).unwrap();
    }
    let (area, slot) = places(BEATS_MAX);
    assert_eq!(keeper.beat(area, slot, life(1)), Err(KeeperError::Refused(Status::Full)));
    let table = keeper.table();
    assert_eq!(table.len(), BEATS_MAX);
    for number in [0, 1234, BEATS_MAX - 1] {
        let (area, slot) = places(number);
        node.beats(area.0, slot.0, 2);
    }
    drop(keeper);
    let (keeper, _notices) = node.keeper();
    assert_eq!(keeper.table(), table);
}

#[test]
fn a_bad_record_costs_the_connection_and_nothing_else() {
    let node = Node::new();
    let mut daemon = node.daemon();
    daemon.kill();
    let mut dial = node.dial().unwrap();
    let pid = dial.pid();
    let up = Record { area: 1, slot: 2, generation: 3, ..Record::new(Op::Beat) };
    assert_eq!(dial.ask(up).status, Status::Done);
    drop(dial);
    let good = Record::new(Op::Down).encode();
    let mut magic = Record { area: 1, slot: 2, ..Record::new(Op::Down) }.encode();
    magic[0] = b'x';
    let bad: [&[u8]; 6] =
        [b"x", &good[..31], &[&good[..], &[0]].concat(), &magic, &[0; 32], &[7; 60]];
    for bytes in bad {
        let mut dial = node.dial().unwrap();
        dial.send(bytes);
        assert_eq!(dial.receive().expect("an answer").status, Status::BadRecord);
        assert_eq!(dial.receive(), None);
    }
    let mut dial = node.dial().unwrap();
    let first = dial.ask(Record::new(Op::Hello));
    assert_eq!((first.status, first.area, first.slot, first.generation), (Status::Entry, 1, 2, 3));
    let end = dial.ask(Record { value: 1, ..Record::new(Op::Hello) });
    assert_eq!((end.status, end.generation), (Status::Done, node.settings.fingerprint().into()));
    assert_eq!(dial.pid(), pid);
    node.beats(1, 2, 2);
}

#[test]
fn a_beat_of_generation_zero_is_refused() {
    let node = Node::new();
    node.daemon().kill();
    let mut dial = node.dial().unwrap();
    let zero = Record { area: 1, slot: 2, ..Record::new(Op::Beat) };
    assert_eq!(dial.ask(zero).status, Status::OutOfRange);
    assert_eq!(node.bytes(1, 2), [0; 512]);
}

#[test]
fn a_daemon_that_lives_is_not_pushed_aside_and_a_silent_one_is() {
    let node = Node::new();
    node.daemon().kill();
    let mut first = node.dial().unwrap();
    assert_eq!(first.ask(Record::new(Op::Ping)).status, Status::Done);
    let mut second = node.dial().unwrap();
    assert_eq!(second.receive().unwrap().status, Status::Busy);
    assert_eq!(second.receive(), None);
    assert_eq!(first.ask(Record::new(Op::Ping)).status, Status::Done);
    sleep(ms(3200));
    let mut third = node.dial().unwrap();
    assert_eq!(third.ask(Record::new(Op::Ping)).status, Status::Done);
    assert_eq!(first.receive(), None);
}

#[test]
fn signals_do_not_end_it() {
    let node = Node::new();
    let (keeper, notices) = node.keeper();
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    let pid = keeper.pid().unwrap();
    let deadly = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTSTP,
        Signal::SIGTTOU,
        Signal::SIGABRT,
        Signal::SIGXCPU,
    ];
    for number in deadly {
        signal(pid, number);
    }
    node.beats(0, 1, 5);
    assert!(lives(pid));
    assert_eq!(keeper.pid(), Some(pid));
    assert!(!notices.try_iter().any(|notice| matches!(notice, Notice::Died { .. })));
}

#[test]
fn it_belongs_to_nobody_and_holds_only_its_own() {
    let node = Node::new();
    let (keeper, _notices) = node.keeper();
    let pid = keeper.pid().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let own_stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let own: Vec<&str> = own_stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_ne!(fields[1], std::process::id().to_string(), "parent");
    assert_ne!(fields[2], own[2], "process group");
    assert_ne!(fields[3], own[3], "session");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|target| target.replace(&node.path("").display().to_string(), ""))
        .map(|target| target.split(":[").next().unwrap().to_owned())
        .collect();
    open.sort();
    let expected = [
        "/dev/null",
        "/dev/null",
        "device",
        "keeper.sock.lock",
        "log",
        "socket",
        "socket",
        "sysrq",
    ];
    assert_eq!(open, expected);
    let socket = std::fs::metadata(&node.settings.socket).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_inherited_descriptor_is_closed() {
    let node = Node::new();
    // A shell leaves descriptor 9 open in what it starts, as a careless library in the daemon would.
    let script = r#"exec 9>"$1"; shift; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(node.path("leak")).arg(&node.settings.program);
    let command = command.arg("--start").args(node.settings.to_args()).stdout(Stdio::piped());
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"ready\n");
    let pid = node.dial().unwrap().pid();
    assert!(!Path::new(&format!("/proc/{pid}/fd/9")).exists());
    assert!(node.path("leak").exists());
}

#[test]
fn the_watchdog_runs_as_long_as_something_is_beaten() {
    let node = Node::with(|settings| {
        let path = settings.sysrq.with_file_name("watchdog");
        File::create(&path).unwrap();
        settings.watchdog = Some(path);
    });
    let said = || std::fs::read(node.path("watchdog")).unwrap();
    let (keeper, _notices) = node.keeper();
    keeper.down(Area(0), Slot(1)).unwrap();
    sleep(ms(200));
    assert_eq!(said(), b"", "nothing to guard");
    keeper.beat(Area(0), Slot(1), life(5)).unwrap();
    until("fed", ms(5000), || said().len() >= 3);
    assert!(said().iter().all(|byte| *byte == 0));
    keeper.down(Area(0), Slot(1)).unwrap();
    assert_eq!(said().last(), Some(&b'V'));
    assert_eq!(said().iter().filter(|byte| **byte == b'V').count(), 1);
    let length = said().len();
    sleep(ms(200));
    assert_eq!(said().len(), length, "nothing to guard");
}

#[test]
fn no_watchdog_no_beats() {
    let node = Node::with(|settings| settings.watchdog = Some("/nowhere/watchdog".into()));
    let (keeper, _notices) = node.keeper();
    let error = keeper.beat(Area(0), Slot(1), life(5)).unwrap_err();
    assert_eq!(error, KeeperError::Refused(Status::Watchdog));
    assert_eq!(node.bytes(0, 1), [0; 512]);
    assert!(keeper.table().is_empty());
    keeper.stop().unwrap();
}

#[test]
fn it_asks_for_protection_and_says_what_it_did_not_get() {
    let node =
        Node::with(|settings| (settings.lock_memory, settings.realtime_priority) = (true, 20));
    let (keeper, notices) = node.keeper();
    let pid = keeper.pid().unwrap();
    let missing: Vec<Missing> = notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Unprotected { missing, .. } => Some(missing),
            _ => None,
        })
        .collect();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert_eq!(kib("VmLck:") > 0, !missing.contains(&Missing::LockedMemory), "{status}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (priority, policy) = (fields[37], fields[38]);
    let is_realtime = !missing.contains(&Missing::Realtime);
    assert_eq!((policy == "2", priority == "20"), (is_realtime, is_realtime), "{stat}");
    let oom = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let is_immune = !missing.contains(&Missing::OutOfMemoryImmunity);
    assert_eq!(oom.trim() == "-1000", is_immune, "{oom}");
    if !missing.is_empty() {
        let texts: Vec<String> = missing.iter().map(Missing::to_string).collect();
        skipped("keeper_protections", &texts.join("; "));
    }
}

#[test]
fn what_it_cannot_work_with_is_said_at_start() {
    let error = |node: &Node| match node.try_keeper() {
        Ok(_) => panic!("it works"),
        Err(error) => error.to_string(),
    };
    let node = Node::with(|settings| settings.device = Some("/nowhere/ram0".into()));
    let text = error(&node);
    assert!(text.contains("cannot open /nowhere/ram0: No such file"), "{text}");
    let node = Node::with(|settings| settings.sysrq = "/nowhere/sysrq".into());
    let text = error(&node);
    assert!(text.contains("/nowhere/sysrq: No such file"), "{text}");
    let node = Node::with(|settings| settings.program = "/nowhere/keeper".into());
    let text = error(&node);
    assert!(text.contains("cannot start /nowhere/keeper: No such file"), "{text}");
    let node = Node::with(|settings| settings.socket = "/nowhere/keeper.sock".into());
    let text = error(&node);
    assert!(text.contains("cannot open /nowhere/keeper.sock.lock: No such file"), "{text}");
    let node = Node::with(|settings| settings.block_bytes = 1000);
    let text = error(&node);
    assert!(text.contains("--block-bytes cannot be \"1000\""), "{text}");
}
