//! The new door over real sockets, with a stub in place of the core. The messages are written by
//! hand: the client library must not be able to hide a mistake of the door.

mod stub;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use o2bridge::door::STREAMS_MAX;
use o2bridge::door::varlink::{CALL_BYTES_MAX, DESCRIPTION};
use o2bridge::status::LogLevel;
use o2bridge_core::{Begin, Event, NodeId, Refusal, Reply, ServiceName};
use serde_json::{Value, json};
use stub::varlink::{ask, begin, call, hear, hear_end, say, watch};
use stub::{Stub, UUID, done, request_of, silent};

#[test]
fn a_begin_with_everything_and_one_with_nothing() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    let dashed = "19d19f8e-ca01-475e-ba67-afd6d84c3b45";
    let parameters = json!({
        "group": dashed, "service": "/mnt/x", "cluster": "demo", "device": "/dev/null", "hold": true
    });
    say(&mut tool, &call("Begin", parameters));
    let event = stub.event();
    let Event::Begin(Begin { request, client, .. }) = event else { panic!("{event:?}") };
    let mut expected = Begin {
        request,
        client,
        group: UUID.parse().unwrap(),
        service: ServiceName::new("/mnt/x").unwrap(),
        cluster: Some("demo".to_owned()),
        device: None,
        held: true,
    };
    assert_eq!(event, Event::Begin(expected.clone()));
    stub.reply(request, Reply::Done);
    assert_eq!(hear(&mut tool), json!({ "parameters": { "already": false } }));

    let mut other = stub.varlink();
    say(&mut other, &begin());
    let event = stub.event();
    let Event::Begin(Begin { request, client, .. }) = event else { panic!("{event:?}") };
    expected = Begin { request, client, cluster: None, held: false, ..expected };
    assert_eq!(event, Event::Begin(expected));
    stub.reply(request, Reply::Already);
    assert_eq!(hear(&mut other), json!({ "parameters": { "already": true } }));
}

#[test]
fn the_other_requests_to_the_core() {
    let stub = Stub::start(done);
    let mut tool = stub.varlink();
    let group = UUID.parse().unwrap();
    let service = ServiceName::new("s").unwrap();
    let done = json!({ "parameters": {} });

    let parameters = json!({ "group": UUID, "service": "s", "code": -5 });
    assert_eq!(ask(&mut tool, "Complete", parameters), done);
    let event = stub.event();
    let Event::Complete { request, client, .. } = event else { panic!("{event:?}") };
    let service_again = service.clone();
    let expected = Event::Complete { request, client, group, service: service_again, code: -5 };
    assert_eq!(event, expected);

    assert_eq!(ask(&mut tool, "Leave", json!({ "group": UUID, "service": "s" })), done);
    let event = stub.event();
    let request = request_of(&event).unwrap();
    assert_eq!(event, Event::Leave { request, client, group, service });

    assert_eq!(ask(&mut tool, "FenceAck", json!({ "node": 7 })), done);
    let event = stub.event();
    let request = request_of(&event).unwrap();
    assert_eq!(event, Event::FenceAck { request, client, node: NodeId(7) });
    drop(tool);
    assert_eq!(stub.event(), Event::ClientGone { client });
}

#[test]
fn a_refusal_of_the_core_has_a_word_a_number_and_a_sentence() {
    let stub = Stub::start(|_| Some(Reply::Refused(Refusal::NothingToAck(NodeId(7)))));
    let mut tool = stub.varlink();
    let expected = json!({
        "error": "io.o2bridge.Refused",
        "parameters": {
            "code": "NothingToAck",
            "errno": 2,
            "message":
                "node 7 waits for no acknowledgement: it is unknown, alive or fenced already",
        },
    });
    assert_eq!(ask(&mut tool, "FenceAck", json!({ "node": 7 })), expected);
}

#[test]
fn what_the_door_answers_by_itself() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    let service = |service: &str, state: &str| json!({ "service": service, "state": state });
    let uses = json!({ "parameters": { "groups": [{
        "group": UUID,
        "state": "suspended",
        "services": [service("/mnt/a b", "live"), service("ocfs2", "live")],
    }] } });
    for nothing in [json!({}), Value::Null] {
        assert_eq!(ask(&mut tool, "List", nothing), uses);
    }
    let dump = json!({ "parameters": { "text": "what happened\n" } });
    assert_eq!(ask(&mut tool, "Dump", json!({})), dump);
    let done = json!({ "parameters": {} });
    assert_eq!(ask(&mut tool, "SetLogLevel", json!({ "level": "debug" })), done);
    assert_eq!(stub.world.lock().unwrap().log_level, LogLevel::Debug);

    let status = &ask(&mut tool, "Status", json!({}))["parameters"];
    assert_eq!(status["log_level"], "debug");
    assert_eq!(status["shim"], json!({ "name": "record", "reason": "configured" }));
    assert_eq!(status["warnings"], json!(["fencing is none"]));
    assert_eq!(status["ring"], "1.5c");
    let group = &status["groups"][0];
    assert_eq!(group["waiting"], "the fencing of node 2");
    assert_eq!(group["device"], "8:17");
    assert_eq!(group["members"][1], json!({ "node": 2, "incarnation": "a0", "state": "lost" }));
    stub.assert_quiet();
}

#[test]
fn wrong_parameters_are_named_and_nothing_is_done() {
    let stub = Stub::start(done);
    let mut tool = stub.varlink();
    let table = [
        ("Begin", json!({ "service": "s" }), "group"),
        ("Begin", json!({ "group": UUID }), "service"),
        ("Begin", json!({ "group": UUID, "service": null }), "service"),
        ("Begin", json!({ "group": UUID, "service": ["s"] }), "service"),
        ("Begin", json!({ "group": UUID, "service": "s", "hold": 1 }), "hold"),
        ("Begin", json!({ "group": UUID, "service": "s", "device": {} }), "device"),
        ("Begin", json!({ "group": UUID, "service": "s", "devcie": "/dev/null" }), "devcie"),
        ("Complete", json!({ "group": UUID, "service": "s" }), "code"),
        ("Complete", json!({ "group": UUID, "service": "s", "code": 1.5 }), "code"),
        ("Complete", json!({ "group": UUID, "service": "s", "code": 2_147_483_648_u32 }), "code"),
        ("FenceAck", json!({ "node": -1 }), "node"),
        ("FenceAck", json!({ "node": "7" }), "node"),
        ("SetLogLevel", json!({ "level": "loud" }), "level"),
        ("SetLogLevel", json!({ "level": "debug", "forever": true }), "forever"),
        ("Dump", json!({ "all": true }), "all"),
    ];
    for (method, parameters, name) in table {
        let expected = json!({
            "error": "org.varlink.service.InvalidParameter", "parameters": { "parameter": name }
        });
        assert_eq!(ask(&mut tool, method, parameters.clone()), expected, "{method} {parameters}");
    }
    let table = [
        (json!({ "group": "1234", "service": "s" }), "BadGroup", 22),
        (json!({ "group": format!("-{UUID}"), "service": "s" }), "BadGroup", 22),
        (json!({ "group": UUID, "service": "" }), "BadService", 22),
        (json!({ "group": UUID, "service": "a\nb" }), "BadService", 22),
        (json!({ "group": UUID, "service": "s", "device": "/dev/none/such" }), "BadDevice", 2),
        (json!({ "group": UUID, "service": "s", "device": "a\0b" }), "BadDevice", 22),
    ];
    for (parameters, code, errno) in table {
        let heard = ask(&mut tool, "Begin", parameters.clone());
        assert_eq!(heard["error"], "io.o2bridge.Refused", "{parameters}");
        assert_eq!(heard["parameters"]["code"], code, "{parameters}");
        assert_eq!(heard["parameters"]["errno"], errno, "{parameters}");
    }
    stub.assert_quiet();
    assert_eq!(stub.world.lock().unwrap().log_level, LogLevel::Info);
}

#[test]
fn unknown_methods_and_interfaces_are_named() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    let table = [
        ("io.o2bridge.Mount", "MethodNotFound", "method", "Mount"),
        ("org.varlink.service.Hello", "MethodNotFound", "method", "Hello"),
        ("io.other.Begin", "InterfaceNotFound", "interface", "io.other"),
        ("Begin", "InterfaceNotFound", "interface", ""),
        ("", "InterfaceNotFound", "interface", ""),
    ];
    for (method, error, key, name) in table {
        say(&mut tool, &json!({ "method": method }));
        let expected = json!({
            "error": format!("org.varlink.service.{error}"), "parameters": { key: name }
        });
        assert_eq!(hear(&mut tool), expected, "{method}");
    }
    say(&mut tool, &json!({ "method": "io.o2bridge.List", "upgrade": true }));
    assert_eq!(hear(&mut tool)["error"], "org.varlink.service.MethodNotImplemented");
}

#[test]
fn garbage_gets_an_error_and_the_end() {
    let stub = Stub::start(silent);
    let deep = "[".repeat(CALL_BYTES_MAX - 100);
    let long = format!("{{\"method\":\"{}", "x".repeat(2 * CALL_BYTES_MAX));
    for text in [
        "",
        "hello",
        "{}",
        "[]",
        "null",
        "{\"method\":1}",
        "{\"method\":\"io.o2bridge.List\",\"parameters\":[]}",
        "{\"method\":\"io.o2bridge.List\"",
        deep.as_str(),
        long.as_str(),
    ] {
        let mut tool = stub.varlink();
        // The door may close while we still write.
        let _ = tool.write_all(format!("{text}\0").as_bytes());
        let short = &text[..text.len().min(60)];
        assert_eq!(hear(&mut tool)["error"], "io.o2bridge.BadMessage", "{short}");
        hear_end(&mut tool);
    }
    let mut tool = stub.varlink();
    tool.write_all(b"\xff\xfe\0").unwrap();
    assert_eq!(hear(&mut tool)["error"], "io.o2bridge.BadMessage");
    stub.assert_quiet();
}

#[test]
fn calls_with_a_few_wrong_bytes_are_answered() {
    let stub = Stub::start(done);
    let parameters = json!({ "group": UUID, "service": "s", "device": "/dev/null", "hold": true });
    let good = format!("{}\0", call("Begin", parameters)).into_bytes();
    let mut seed = 1_u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize % below
    };
    for round in 0..500 {
        let mut bad = good.clone();
        for _ in 0..=random(3) {
            let (at, byte) = (random(bad.len() - 1), random(256) as u8);
            match random(3) {
                0 => bad[at] = byte,
                1 => bad.insert(at, byte),
                _ => drop(bad.remove(at)),
            }
        }
        let mut tool = stub.varlink();
        tool.write_all(&bad).unwrap();
        let mut byte = [0];
        tool.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("round {round}: no answer to {}: {error}", String::from_utf8_lossy(&bad))
        });
    }
}

#[test]
fn calls_ahead_are_answered_in_order_and_oneway_calls_not_at_all() {
    let stub = Stub::start(done);
    let mut tool = stub.varlink();
    let mut oneway = begin();
    oneway["oneway"] = json!(true);
    let list = call("List", json!({}));
    let all = format!("{oneway}\0{list}\0{}\0{oneway}\0{list}\0", begin());
    tool.write_all(all.as_bytes()).unwrap();
    assert!(hear(&mut tool)["parameters"]["groups"].is_array());
    assert_eq!(hear(&mut tool), json!({ "parameters": { "already": false } }));
    assert!(hear(&mut tool)["parameters"]["groups"].is_array());
    for _ in 0..3 {
        assert!(matches!(stub.event(), Event::Begin(_)));
    }
}

#[test]
fn bytes_that_come_one_by_one() {
    let stub = Stub::start(done);
    let mut tool = stub.varlink();
    for byte in format!("{}\0", begin()).bytes() {
        tool.write_all(&[byte]).unwrap();
    }
    assert_eq!(hear(&mut tool), json!({ "parameters": { "already": false } }));
}

#[test]
fn a_client_that_closed_its_sending_side_gets_its_answer() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    say(&mut tool, &begin());
    tool.shutdown(Shutdown::Write).unwrap();
    let event = stub.event();
    let Event::Begin(Begin { request, client, .. }) = event else { panic!("{event:?}") };
    stub.assert_quiet();
    stub.reply(request, Reply::Done);
    assert_eq!(hear(&mut tool), json!({ "parameters": { "already": false } }));
    hear_end(&mut tool);
    assert_eq!(stub.event(), Event::ClientGone { client });
}

#[test]
fn a_client_that_closed_its_sending_side_and_dies() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    say(&mut tool, &begin());
    tool.shutdown(Shutdown::Write).unwrap();
    let event = stub.event();
    let Event::Begin(Begin { client, .. }) = event else { panic!("{event:?}") };
    stub.assert_quiet();
    drop(tool);
    assert_eq!(stub.event(), Event::ClientGone { client });
}

#[test]
fn a_holder_that_closes_its_sending_side_is_dead() {
    let stub = Stub::start(silent);
    let mut tool = stub.varlink();
    let parameters = json!({ "group": UUID, "service": "/mnt/x", "hold": true });
    say(&mut tool, &call("Begin", parameters));
    let event = stub.event();
    let Event::Begin(Begin { client, .. }) = event else { panic!("{event:?}") };
    tool.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stub.event(), Event::ClientGone { client });
}

#[test]
fn a_stream_has_one_status_per_change_and_no_more_than_five_per_second() {
    let stub = Stub::start(silent);
    let mut tool = watch(&stub);
    let first = hear(&mut tool);
    assert_eq!((&first["continues"], &first["parameters"]["protocol"]), (&json!(true), &json!(1)));
    let start = Instant::now();
    for protocol in 2..=300 {
        stub.change(|world| world.snapshot.protocol = protocol);
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut count = 0;
    while hear(&mut tool)["parameters"]["protocol"] != 300 {
        count += 1;
    }
    let most = start.elapsed().as_millis() / 200 + 1;
    assert!(count <= most, "{count} statuses, at most {most} expected");
    // A change that status does not show is not sent.
    stub.change(|_| ());
    tool.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(tool.read(&mut [0]).is_err(), "a status without a change");
}

#[test]
fn a_watcher_that_does_not_read_gets_the_latest_status_when_it_does() {
    let stub = Stub::start(silent);
    let mut tool = watch(&stub);
    hear(&mut tool);
    let mut warning = "w".repeat(300_000);
    for round in 0..4 {
        warning.push('w');
        stub.change(|world| {
            world.snapshot.cluster = warning.clone();
            world.snapshot.protocol = round;
        });
        std::thread::sleep(Duration::from_millis(250));
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&json!(3)) {
        heard.push(hear(&mut tool)["parameters"]["protocol"].clone());
    }
    assert!(heard.len() < 4, "{heard:?}: every status was kept for it");
}

#[test]
fn one_watcher_too_many() {
    let stub = Stub::start(silent);
    let mut tools: Vec<UnixStream> = (0..STREAMS_MAX).map(|_| watch(&stub)).collect();
    for tool in &mut tools {
        assert_eq!(hear(tool)["continues"], true);
    }
    let mut late = watch(&stub);
    assert_eq!(hear(&mut late)["parameters"]["code"], "TooMany");
    // The others are still served, all of them by one copy of the status.
    let before = stub.world.lock().unwrap().statuses;
    stub.change(|world| world.snapshot.protocol = 2);
    for tool in &mut tools {
        assert_eq!(hear(tool)["parameters"]["protocol"], 2);
    }
    let made = stub.world.lock().unwrap().statuses - before;
    assert!(made < 10, "{made} statuses made");
    drop(tools.pop());
    for _ in 0..100 {
        let mut late = watch(&stub);
        if hear(&mut late)["continues"] == true {
            return;
        }
    }
    panic!("no room after one left");
}

#[test]
fn the_socket_goes_with_the_daemon_and_a_left_over_one_is_replaced() {
    let stub = Stub::start(silent);
    let socket = stub.socket.clone();
    let keep = tempfile::tempdir().unwrap();
    let kept = keep.path().join("io.o2bridge");
    drop(std::os::unix::net::UnixListener::bind(&kept).unwrap());
    assert!(kept.exists());
    let poll = mio::Poll::new().unwrap();
    let places =
        o2bridge::door::Places { legacy: None, varlink: Some(kept.clone()), trusted_uids: vec![0] };
    let doors = o2bridge::door::Doors::open(poll.registry(), mio::Token(0), places).unwrap();
    UnixStream::connect(&kept).unwrap();
    drop(doors);
    assert!(!kept.exists());
    drop(stub);
    assert!(!socket.exists());
}

/// The description is an interface, and it says what the door does.
#[test]
fn the_description_is_true() {
    let stub = Stub::start(done);
    let mut tool = stub.varlink();
    say(&mut tool, &json!({ "method": "org.varlink.service.GetInfo" }));
    let info = hear(&mut tool)["parameters"].clone();
    assert_eq!(info["version"], "9.9.9");
    let interfaces = json!(["org.varlink.service", "io.o2bridge"]);
    assert_eq!(info["interfaces"], interfaces);
    for name in interfaces.as_array().unwrap() {
        let method = "org.varlink.service.GetInterfaceDescription";
        say(&mut tool, &json!({ "method": method, "parameters": { "interface": name } }));
        let text = hear(&mut tool)["parameters"]["description"].clone();
        let text = text.as_str().unwrap();
        let parsed = varlink_parser::IDL::try_from(text).unwrap();
        assert_eq!(parsed.name, name.as_str().unwrap());
    }
    let parsed = varlink_parser::IDL::try_from(DESCRIPTION).unwrap();
    let fields = |elements: &[varlink_parser::Argument<'_>]| -> BTreeSet<String> {
        elements.iter().map(|element| element.name.to_owned()).collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().cloned().collect()
    };
    let service = json!({ "group": UUID, "service": "s" });
    for (name, method) in &parsed.methods {
        let parameters = match *name {
            "Begin" | "Leave" => service.clone(),
            "Complete" => json!({ "group": UUID, "service": "s", "code": 0 }),
            "FenceAck" => json!({ "node": 2 }),
            "SetLogLevel" => json!({ "level": "info" }),
            _ => json!({}),
        };
        let heard = ask(&mut tool, name, parameters);
        assert_eq!(keys(&heard["parameters"]), fields(&method.output.elts), "{name}");
    }
    let status = ask(&mut tool, "Status", json!({}))["parameters"].clone();
    let group = &status["groups"][0];
    let table = [
        ("Shim", &status["shim"]),
        ("Node", &status["nodes"][0]),
        ("Group", group),
        ("Service", &group["services"][0]),
        ("Member", &group["members"][0]),
        ("Verdict", &ask(&mut tool, "Capabilities", json!({}))["parameters"]["shims"][0]),
        ("Use", &ask(&mut tool, "List", json!({}))["parameters"]["groups"][0]),
    ];
    for (name, value) in table {
        let varlink_parser::VStructOrEnum::VStruct(described) = &parsed.typedefs[name].elt else {
            panic!("{name} is no struct")
        };
        assert_eq!(keys(value), fields(&described.elts), "{name}");
    }
}

/// systemd's own client, where there is one.
#[test]
fn varlinkctl_understands_us() {
    if Command::new("varlinkctl").arg("--version").output().is_err() {
        // Not through eprintln!, whose output of a passing test is swallowed.
        let text =
            "SKIPPED varlinkctl_understands_us: no varlinkctl here (systemd >= 255 has it)\n";
        std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
        return;
    }
    let stub = Stub::start(done);
    let address = stub.socket.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("varlinkctl").args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["info", address]).contains("io.o2bridge"));
    assert!(run(&["introspect", address, "io.o2bridge"]).contains("method Begin("));
    let parameters = format!("{{\"group\":\"{UUID}\",\"service\":\"s\"}}");
    let answer = run(&["call", address, "io.o2bridge.Begin", &parameters]);
    assert!(answer.contains("already"), "{answer}");

    let dir = tempfile::tempdir().unwrap();
    let description = dir.path().join("io.o2bridge.varlink");
    std::fs::write(&description, DESCRIPTION).unwrap();
    run(&["validate-idl", description.to_str().unwrap()]);

    let mut child = Command::new("varlinkctl")
        .args(["--more", "--json=short", "call", address, "io.o2bridge.Status", "{}"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for protocol in [1, 2] {
        let line = lines.next().unwrap().unwrap();
        // The records of a stream may begin with a record separator (RFC 7464).
        let status: Value = serde_json::from_str(line.trim_start_matches('\x1e')).unwrap();
        assert_eq!(status["protocol"], protocol);
        stub.change(|world| world.snapshot.protocol = 2);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
