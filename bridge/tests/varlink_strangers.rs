//! The new door to whoever is not trusted, over real sockets.

mod stub;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;
use stub::varlink::{ask, hear, hear_end, watch};
use stub::{Stub, UUID, done, silent};

#[test]
fn strangers_may_look_but_not_touch() {
    let stub = Stub::start_for(done, Vec::new());
    let mut tool = stub.varlink();
    let table = [
        ("Begin", json!({ "group": UUID, "service": "s" })),
        ("Complete", json!({ "group": UUID, "service": "s", "code": 0 })),
        ("Leave", json!({ "group": UUID, "service": "s" })),
        ("FenceAck", json!({ "node": 2 })),
        ("SetLogLevel", json!({ "level": "debug" })),
        ("Dump", json!({})),
    ];
    for (method, parameters) in table {
        let heard = ask(&mut tool, method, parameters);
        let expected =
            json!({ "code": "PermissionDenied", "errno": 1, "message": "only root may do this" });
        assert_eq!(heard["parameters"], expected, "{method}");
    }
    assert!(ask(&mut tool, "List", json!({}))["parameters"]["groups"].is_array());
    assert_eq!(ask(&mut tool, "Status", json!({}))["parameters"]["node"], 1);
    stub.assert_quiet();
    let mode = std::fs::metadata(&stub.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn a_strangers_stream_ends_with_the_latest_status_too() {
    let stub = Stub::start_for(silent, Vec::new());
    let mut tool = watch(&stub);
    hear(&mut tool);
    std::thread::sleep(Duration::from_millis(250));
    // The status that strangers may see for a moment is made before the change.
    let mut other = stub.varlink();
    stub.change(|_| ());
    assert_eq!(ask(&mut other, "Status", json!({}))["parameters"]["protocol"], 1);
    stub.change(|world| world.snapshot.protocol = 2);
    assert_eq!(hear(&mut tool)["parameters"]["protocol"], 2);
}

#[test]
fn a_stranger_is_sent_away_for_its_silence_only() {
    let stub = Stub::start_for(silent, Vec::new());
    let mut tool = stub.varlink();
    for _ in 0..3 {
        assert_eq!(ask(&mut tool, "Status", json!({}))["parameters"]["node"], 1);
        stub.skip_ms(40_000);
    }
    assert_eq!(ask(&mut tool, "Status", json!({}))["parameters"]["node"], 1);
    stub.skip_ms(61_000);
    hear_end(&mut tool);
}
