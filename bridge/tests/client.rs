//! The client library against the new door, and against daemons that misbehave.

mod stub;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use o2bridge::client::{Begin, Begun, Client, ClientError, GroupId, NodeId};
use o2bridge::status::LogLevel;
use o2bridge_core::{Event, Refusal, Reply, Waiting};
use stub::{Stub, UUID, done, silent};

fn group() -> GroupId {
    UUID.parse().unwrap()
}

#[test]
fn every_call() {
    let stub = Stub::start(|event| match event {
        Event::Begin(begin) if begin.held => Some(Reply::Already),
        _ => Some(Reply::Done),
    });
    let mut client = Client::connect(&stub.socket).unwrap();
    client.set_timeout(Duration::MAX);
    assert_eq!(client.begin(&Begin::new(group(), "s")).unwrap(), Begun::Ready);
    let begin = Begin::new(group(), "s").cluster("demo").device("/dev/null").hold();
    assert_eq!(client.begin(&begin).unwrap(), Begun::Already);
    client.complete(group(), "s", -7).unwrap();
    client.leave(group(), "s").unwrap();
    client.fence_ack(NodeId(2)).unwrap();
    client.set_log_level(LogLevel::Warning).unwrap();
    assert_eq!(client.dump().unwrap(), "what happened\n");
    let status = client.status().unwrap();
    assert_eq!((status.node, status.log_level), (Some(1), LogLevel::Warning));
    assert_eq!(client.list().unwrap(), status.uses());
    stub.event();
    let Event::Begin(begin) = stub.event() else { panic!("no begin") };
    assert_eq!((begin.cluster.as_deref(), begin.held), (Some("demo"), true));
}

#[test]
fn it_is_silent_unless_asked_to_speak() {
    let stub = Stub::start(done);
    let mut client = Client::connect(&stub.socket).unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    client.log_to(move |line| sink.lock().unwrap().push(line.to_owned()));
    client.leave(group(), "s").unwrap();
    let leave = format!(
        "call {{\"method\":\"io.o2bridge.Leave\",\"parameters\":{{\"group\":\"{UUID}\",\
         \"service\":\"s\"}}}}"
    );
    assert_eq!(*lines.lock().unwrap(), [leave, "answer {\"parameters\":{}}".to_owned()]);
}

#[test]
fn refusals_keep_their_code() {
    let stub = Stub::start(|_| Some(Reply::Refused(Refusal::TimedOut(Waiting::Quorum))));
    let mut client = Client::connect(&stub.socket).unwrap();
    let error = client.begin(&Begin::new(group(), "s")).unwrap_err();
    let ClientError::Refused(refused) = &error else { panic!("{error:?}") };
    assert_eq!((refused.code.as_str(), refused.errno), ("TimedOut", 110));
    assert_eq!(error.to_string(), "not ready in time: waiting for quorum");
    assert!(error.is_worth_a_retry());
    // The connection is as good as before.
    assert_eq!(client.status().unwrap().node, Some(1));
}

#[test]
fn a_watch_shows_each_change() {
    let stub = Stub::start(silent);
    let mut watch = Client::connect(&stub.socket).unwrap().watch().unwrap();
    assert_eq!(watch.next().unwrap().unwrap().protocol, 1);
    stub.change(|world| world.snapshot.protocol = 2);
    assert_eq!(watch.next().unwrap().unwrap().protocol, 2);
    drop(stub);
    assert!(matches!(watch.next(), Some(Err(ClientError::Lost { .. }))));
    assert!(watch.next().is_none());
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
    assert!(error.to_string().contains("systemctl start o2bridged"));
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
    let error = Client::connect(Path::new("/dev/null/none")).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
}

#[test]
fn a_timeout_ends_the_connection() {
    let stub = Stub::start(silent);
    let mut client = Client::connect(&stub.socket).unwrap();
    client.set_timeout(Duration::from_millis(200));
    let start = Instant::now();
    let error = client.begin(&Begin::new(group(), "s")).unwrap_err();
    assert!(matches!(error, ClientError::TimedOut { method: "Begin", .. }), "{error:?}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
    assert!(matches!(client.status(), Err(ClientError::Dead)));
    // The daemon knows at once, and may take the begin back.
    let Event::Begin(begin) = stub.event() else { panic!("no begin") };
    assert_eq!(stub.event(), Event::ClientGone { client: begin.client });
}

/// A daemon that sends these bytes to its one client, then closes.
fn sending(bytes: &'static [u8]) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        for byte in bytes {
            let _ = stream.write_all(&[*byte]);
        }
    });
    let client = Client::connect(&path).unwrap();
    (dir, client)
}

#[test]
fn daemons_that_misbehave() {
    for bytes in [&b""[..], b"{\"parameters\":{}}", b"{"] {
        let (_dir, mut client) = sending(bytes);
        let error = client.leave(group(), "s").unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }), "{error:?}");
        assert!(matches!(client.leave(group(), "s"), Err(ClientError::Dead)));
    }
    for bytes in [
        &b"\0"[..],
        b"hello\0",
        b"[]\0",
        b"{\"error\":\"io.other.Error\"}\0",
        b"{\"error\":\"io.o2bridge.Refused\",\"parameters\":{\"code\":1}}\0",
        b"{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{\"method\":\"Dump\"}}\0",
        b"{\"parameters\":{\"text\":7}}\0",
        b"{}\0",
    ] {
        let (_dir, mut client) = sending(bytes);
        let error = client.dump().unwrap_err();
        assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
    }
    let (_dir, mut client) = sending(b"{}\0");
    client.leave(group(), "s").unwrap();
}
