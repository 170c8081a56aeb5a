//! The old door over real sockets, with a stub in place of the core.

mod stub;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use o2bridge::door::{CLIENTS_MAX, STRANGERS_MAX};
use o2bridge_core::{Begin, Event, Refusal, Reply, ServiceName, Waiting};
use o2bridge_wire::legacy::{MESSAGE_BYTES, Response};
use stub::{Stub, UUID, done, request_of, silent};

fn say(stream: &mut UnixStream, text: &str) {
    let mut message = [0; MESSAGE_BYTES];
    message[..text.len()].copy_from_slice(text.as_bytes());
    stream.write_all(&message).unwrap();
}

fn hear(stream: &mut UnixStream) -> Response {
    let mut message = [0; MESSAGE_BYTES];
    stream.read_exact(&mut message).unwrap();
    Response::decode(&message).unwrap()
}

fn hear_status(stream: &mut UnixStream) -> (i32, String) {
    match hear(stream) {
        Response::Status { errno, text } => (errno, text),
        other => panic!("{other:?} is no status"),
    }
}

/// A list as libo2cb takes it.
fn hear_list(stream: &mut UnixStream) -> Vec<String> {
    let Response::ItemCount(count) = hear(stream) else { panic!("no item count") };
    let mut items = Vec::new();
    for _ in 0..count {
        let Response::Item(item) = hear(stream) else { panic!("no item") };
        assert!(!item.is_empty());
        items.push(item);
    }
    assert_eq!(hear_status(stream), (0, "OK".to_owned()));
    items
}

fn hear_end(stream: &mut UnixStream) {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} is not the end"),
    }
}

fn ocfs2() -> ServiceName {
    ServiceName::new("ocfs2").unwrap()
}

fn is_gone(event: &Event, of: &Event) -> bool {
    let client = match of {
        Event::Begin(begin) => begin.client,
        Event::Complete { client, .. } | Event::Leave { client, .. } => *client,
        other => panic!("{other:?} has no client"),
    };
    *event == Event::ClientGone { client }
}

#[test]
fn a_mount_and_an_unmount() {
    let stub = Stub::start(done);
    let mut tool = stub.legacy();
    say(&mut tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"));
    let begun = stub.event();
    let Event::Begin(Begin { request, client, .. }) = begun else { panic!("{begun:?}") };
    let expected = Begin {
        request,
        client,
        group: UUID.parse().unwrap(),
        service: ocfs2(),
        cluster: Some("demo".to_owned()),
        device: None, // No block device, so nothing that could contradict another.
        held: true,
    };
    assert_eq!(begun, Event::Begin(expected));
    assert_eq!(hear_status(&mut tool), (0, "OK".to_owned()));

    say(&mut tool, &format!("MRESULT ocfs2 {UUID} 0 ocfs2"));
    let completed = stub.event();
    let request = request_of(&completed).unwrap();
    let group = UUID.parse().unwrap();
    let expected = Event::Complete { request, client, group, service: ocfs2(), code: 0 };
    assert_eq!(completed, expected);
    assert_eq!(hear_status(&mut tool), (0, "OK".to_owned()));
    drop(tool);
    assert_eq!(stub.event(), Event::ClientGone { client });

    let mut tool = stub.legacy();
    say(&mut tool, &format!("UNMOUNT ocfs2 {UUID} ocfs2"));
    let left = stub.event();
    let Event::Leave { request, client, .. } = left else { panic!("{left:?}") };
    assert_eq!(left, Event::Leave { request, client, group, service: ocfs2() });
    assert_eq!(hear_status(&mut tool), (0, "OK".to_owned()));
}

#[test]
fn the_replies_of_the_core() {
    let stub = Stub::start(silent);
    let long = Refusal::WrongCluster { volume: "v".repeat(300), ours: "ours".to_owned() };
    let table = [
        (Reply::Done, 0, "OK"),
        (Reply::Already, 114, "in use already, go ahead"),
        (Reply::Refused(Refusal::Busy), 16, "another request for this service is under way"),
        (Reply::Refused(Refusal::NoGroup), 2, "nobody on this node uses this group"),
        (Reply::Refused(Refusal::NotBegun), 22, "there is no begin"),
        (Reply::Refused(Refusal::TimedOut(Waiting::Quorum)), 110, "not ready in time"),
        (Reply::Refused(long), 22, "the volume belongs to cluster 'vvv"),
    ];
    let mut tool = stub.legacy();
    for (reply, errno, text) in table {
        say(&mut tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"));
        let request = request_of(&stub.event()).unwrap();
        stub.reply(request, reply.clone());
        let (heard_errno, heard_text) = hear_status(&mut tool);
        assert_eq!(heard_errno, errno, "{reply:?}");
        assert!(heard_text.starts_with(text), "{heard_text}");
    }
}

#[test]
fn what_the_door_refuses_by_itself() {
    let stub = Stub::start(done);
    let mut tool = stub.legacy();
    let digits = "0".repeat(33);
    let table = [
        (format!("MOUNT ext4 {UUID} demo /dev/null ocfs2"), 22),
        (format!("MOUNT ocfs2 {digits} demo /dev/null ocfs2"), 36),
        ("MOUNT ocfs2 1234 demo /dev/null ocfs2".to_owned(), 22),
        (format!("MOUNT ocfs2 {}z demo /dev/null ocfs2", &UUID[1..]), 22),
        (format!("MOUNT ocfs2 {UUID} demo /dev/none/such ocfs2"), 2),
        (format!("MOUNT ocfs2 {UUID} demo /dev/null/such ocfs2"), 20),
        (format!("MOUNT ocfs2 {UUID} demo  ocfs2"), 2),
        (format!("MOUNT ocfs2 {UUID} demo /dev/null "), 22),
        (format!("MOUNT ocfs2 {UUID} demo /dev/null a\x07b"), 22),
        (format!("MRESULT ocfs2 {UUID} 2147483648 ocfs2"), 34),
        (format!("MRESULT ocfs2 {UUID} -2147483649 ocfs2"), 34),
        (format!("MRESULT ocfs2 {UUID} zero ocfs2"), 22),
        (format!("MRESULT ocfs2 {UUID}  ocfs2"), 22),
        (format!("MRESULT ext4 {UUID} 0 ocfs2"), 22),
        (format!("UNMOUNT ext4 {UUID} ocfs2"), 22),
        (format!("UNMOUNT ocfs2 {digits} ocfs2"), 36),
        ("LISTFS ext4 demo".to_owned(), 22),
        ("LISTFS ocfs2 other".to_owned(), 22),
        ("LISTMOUNTS ext4 x".to_owned(), 22),
        (format!("LISTMOUNTS ocfs2 {}", UUID.replace('1', "2")), 2),
        ("NONSENSE".to_owned(), 22),
        ("DUMP ".to_owned(), 22),
        ("STATUS 0 OK".to_owned(), 22),
        (String::new(), 22),
    ];
    for (text, errno) in table {
        say(&mut tool, &text);
        let (heard, why) = hear_status(&mut tool);
        assert_eq!(heard, errno, "'{text}': {why}");
        assert!(why.len() > 5, "'{text}': {why}");
    }
    stub.assert_quiet();
    say(&mut tool, &format!("MRESULT ocfs2 {UUID} -2147483648 ocfs2"));
    assert_eq!(hear_status(&mut tool), (0, "OK".to_owned()));
}

#[test]
fn the_lists() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    say(&mut tool, "LISTFS ocfs2 demo");
    assert_eq!(hear_list(&mut tool), [UUID]);
    say(&mut tool, &format!("LISTMOUNTS ocfs2 {}", UUID.to_lowercase()));
    assert_eq!(hear_list(&mut tool), ["/mnt/a b", "ocfs2"]);
    say(&mut tool, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut tool), ["demo"]);
    stub.change(|world| {
        world.snapshot.groups.clear();
        world.snapshot.cluster.clear();
    });
    say(&mut tool, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut tool), Vec::<String>::new());
    say(&mut tool, "LISTFS ocfs2 ");
    assert_eq!(hear_list(&mut tool), Vec::<String>::new());
}

#[test]
fn a_dump_of_a_mebibyte() {
    let stub = Stub::start(silent);
    let dump = "a line with a number and é\n".repeat(40_000);
    stub.change(|world| world.dump = format!("{dump}\0end"));
    let mut tool = stub.legacy();
    say(&mut tool, "DUMP");
    assert_eq!(hear_list(&mut tool).concat(), format!("{dump} end"));
}

#[test]
fn bytes_that_come_one_by_one() {
    let stub = Stub::start(done);
    let mut tool = stub.legacy();
    let mut message = [0; MESSAGE_BYTES];
    let text = format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2");
    message[..text.len()].copy_from_slice(text.as_bytes());
    for byte in message {
        tool.write_all(&[byte]).unwrap();
    }
    assert_eq!(hear_status(&mut tool), (0, "OK".to_owned()));
}

#[test]
fn two_messages_in_one_edge_and_a_thousand_ahead() {
    let stub = Stub::start(done);
    let mut tool = stub.legacy();
    let mut reader = tool.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..500 {
            say(&mut tool, &format!("UNMOUNT ocfs2 {UUID} ocfs2"));
            say(&mut tool, "LISTCLUSTERS");
        }
    });
    for _ in 0..500 {
        assert_eq!(hear_status(&mut reader), (0, "OK".to_owned()));
        assert_eq!(hear_list(&mut reader), ["demo"]);
    }
    writer.join().unwrap();
}

#[test]
fn what_a_batch_leaves_over_is_done_without_another_edge() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    // More than a batch, less than the socket's buffer: the client does not read, so no edge comes.
    for _ in 0..40 {
        say(&mut tool, "LISTCLUSTERS");
    }
    std::thread::sleep(Duration::from_millis(500));
    tool.set_nonblocking(true).unwrap();
    let mut answers = vec![0; 40 * 3 * MESSAGE_BYTES];
    tool.read_exact(&mut answers).unwrap();
}

#[test]
fn a_client_that_dies_between_begin_and_complete() {
    let stub = Stub::start(done);
    let mut tool = stub.legacy();
    say(&mut tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"));
    let begun = stub.event();
    assert_eq!(hear_status(&mut tool).0, 0);
    drop(tool);
    assert!(is_gone(&stub.event(), &begun));
}

#[test]
fn a_client_that_dies_before_its_reply() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    say(&mut tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"));
    drop(tool);
    let begun = stub.event();
    assert!(is_gone(&stub.event(), &begun));
    // The reply that comes too late reaches nobody, and harms nobody.
    stub.reply(request_of(&begun).unwrap(), Reply::Done);
    let mut other = stub.legacy();
    say(&mut other, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut other), ["demo"]);
}

#[test]
fn a_client_that_closes_its_sending_side_is_dead() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    say(&mut tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"));
    let begun = stub.event();
    tool.shutdown(Shutdown::Write).unwrap();
    assert!(is_gone(&stub.event(), &begun));
    hear_end(&mut tool);
}

#[test]
fn a_question_is_answered_to_a_client_that_closed_its_sending_side() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    say(&mut tool, "LISTCLUSTERS");
    tool.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hear_list(&mut tool), ["demo"]);
    hear_end(&mut tool);
}

#[test]
fn a_leave_whose_client_does_not_wait_is_a_leave() {
    let stub = Stub::start(silent);
    for _ in 0..50 {
        let mut tool = stub.legacy();
        say(&mut tool, &format!("UNMOUNT ocfs2 {UUID} ocfs2"));
        drop(tool);
        let left = stub.event();
        assert!(matches!(left, Event::Leave { .. }), "{left:?}");
        assert!(is_gone(&stub.event(), &left));
    }
}

#[test]
fn garbage_is_answered_and_harms_nobody() {
    let stub = Stub::start(silent);
    let mut tool = stub.legacy();
    let mut seed = 1_u32;
    for _ in 0..200 {
        let mut message = [0_u8; MESSAGE_BYTES];
        message.fill_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        });
        tool.write_all(&message).unwrap();
        assert_eq!(hear_status(&mut tool).0, 22);
    }
    // An end in the middle of a message.
    tool.write_all(b"MOUNT ocfs2 ").unwrap();
    drop(tool);
    stub.assert_quiet();
}

#[test]
fn a_client_that_never_reads_is_sent_away() {
    let stub = Stub::start(silent);
    stub.change(|world| world.dump = "x".repeat(1 << 20));
    let mut tool = stub.legacy();
    say(&mut tool, "DUMP");
    let mut other = stub.legacy();
    say(&mut other, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut other), ["demo"], "a slow client holds up the others");
    stub.skip_ms(15_000);
    std::thread::sleep(Duration::from_millis(1_500));
    let mut all = Vec::new();
    let _ = tool.read_to_end(&mut all);
    assert!(all.len() < 1 << 20, "it was never sent away");
}

#[test]
fn a_client_that_never_ends_its_message_is_sent_away_and_an_idle_one_is_not() {
    let stub = Stub::start(silent);
    let mut idle = stub.legacy();
    let mut tool = stub.legacy();
    tool.write_all(b"MOUNT").unwrap();
    say(&mut idle, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut idle), ["demo"]);
    stub.skip_ms(15_000);
    hear_end(&mut tool);
    stub.skip_ms(3_600_000);
    say(&mut idle, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut idle), ["demo"]);
}

#[test]
fn a_thousand_clients_at_once() {
    raise_descriptor_limit();
    let stub = Stub::start(silent);
    let mut tools: Vec<UnixStream> = (0..1_000).map(|_| stub.legacy()).collect();
    for (number, tool) in tools.iter_mut().enumerate() {
        say(tool, &format!("MOUNT ocfs2 {UUID} demo /dev/null service-{number}"));
    }
    let begun: Vec<Event> = (0..tools.len()).map(|_| stub.event()).collect();
    for event in &begun {
        stub.reply(request_of(event).unwrap(), Reply::Done);
    }
    for tool in &mut tools {
        assert_eq!(hear_status(tool), (0, "OK".to_owned()));
    }
    drop(tools);
    let mut gone: Vec<_> = (0..begun.len()).map(|_| stub.event()).collect();
    gone.dedup();
    assert_eq!(gone.len(), begun.len());
    assert!(gone.iter().all(|event| matches!(event, Event::ClientGone { .. })));
}

#[test]
fn one_client_too_many_is_told_so() {
    raise_descriptor_limit();
    let stub = Stub::start(silent);
    let tools: Vec<UnixStream> = (0..CLIENTS_MAX).map(|_| stub.legacy()).collect();
    let mut late = stub.legacy();
    assert_eq!(hear_status(&mut late), (23, "too many clients, try again".to_owned()));
    hear_end(&mut late);
    drop(tools);
    // There is room again as soon as the loop has seen them go.
    for _ in 0..100 {
        let mut tool = stub.legacy();
        let mut message = [0; MESSAGE_BYTES];
        message[..12].copy_from_slice(b"LISTCLUSTERS");
        if tool.write_all(&message).is_ok() && hear(&mut tool) == Response::ItemCount(1) {
            return;
        }
    }
    panic!("no room after everyone left");
}

#[test]
fn strangers_may_look_but_not_touch() {
    let stub = Stub::start_for(done, Vec::new());
    let mut tool = stub.legacy();
    for text in [
        format!("MOUNT ocfs2 {UUID} demo /dev/null ocfs2"),
        format!("MRESULT ocfs2 {UUID} 0 ocfs2"),
        format!("UNMOUNT ocfs2 {UUID} ocfs2"),
        "DUMP".to_owned(),
    ] {
        say(&mut tool, &text);
        assert_eq!(hear_status(&mut tool), (1, "only root may do this".to_owned()), "{text}");
    }
    say(&mut tool, "LISTFS ocfs2 demo");
    assert_eq!(hear_list(&mut tool), [UUID]);
    stub.assert_quiet();
    stub.skip_ms(61_000);
    hear_end(&mut tool);
}

#[test]
fn strangers_get_few_connections_and_few_statuses() {
    let stub = Stub::start_for(done, Vec::new());
    let mut tools: Vec<UnixStream> = (0..STRANGERS_MAX).map(|_| stub.legacy()).collect();
    let mut late = stub.legacy();
    assert_eq!(hear_status(&mut late).0, 23);
    for tool in &mut tools {
        for _ in 0..10 {
            stub.change(|_| ());
            say(tool, "LISTCLUSTERS");
            assert_eq!(hear_list(tool), ["demo"]);
        }
    }
    let made = stub.world.lock().unwrap().statuses;
    assert!(made < 100, "{made} statuses made for 640 questions");
}

#[test]
fn a_door_that_is_taken() {
    use mio::{Poll, Token};
    use o2bridge::door::{DoorError, Doors, Places};

    let stub = Stub::start(silent);
    let poll = Poll::new().unwrap();
    let taken = |places| match Doors::open(poll.registry(), Token(0), places) {
        Err(DoorError::Taken { name }) => name,
        other => panic!("{other:?}"),
    };
    let trusted_uids = vec![0];
    let places = Places {
        legacy: Some(stub.name.clone()),
        varlink: None,
        trusted_uids: trusted_uids.clone(),
    };
    assert_eq!(taken(places), format!("@{}", stub.name));
    let places = Places { legacy: None, varlink: Some(stub.socket.clone()), trusted_uids };
    assert_eq!(taken(places), stub.socket.display().to_string());
    // And it still works.
    let mut tool = stub.legacy();
    say(&mut tool, "LISTCLUSTERS");
    assert_eq!(hear_list(&mut tool), ["demo"]);
}

/// Both ends of all the clients are in this process.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > 3 * CLIENTS_MAX as u64, "the hard limit of descriptors is only {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
