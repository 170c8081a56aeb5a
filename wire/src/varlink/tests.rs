use o2bridge_core::{ClientId, Refusal, RequestId};

use super::*;

const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const ASKER: Asker = Asker { request: RequestId(7), client: ClientId(3) };

fn event(method: Method, parameters: serde_json::Value) -> Result<Event, Refused> {
    let call =
        json!({ "method": format!("{INTERFACE}.{}", method.name()), "parameters": parameters });
    let call = Call::decode(call.to_string().as_bytes()).unwrap();
    assert_eq!(call.name(), (INTERFACE, method.name()));
    let device = |path: &str| match path {
        "/dev/sdb1" => Ok(Some(DeviceId(8))),
        _ => Err(Refused::invalid("BadDevice", path.to_owned())),
    };
    method.event(&mut Parameters::new(call.parameters.unwrap_or_default()), ASKER, device)
}

fn error(method: Method, parameters: serde_json::Value) -> (String, String) {
    match Response::from(event(method, parameters).unwrap_err()) {
        Response::Error(name, parameters) => (name, parameters.to_string()),
        Response::Last(value) => panic!("no error: {value}"),
    }
}

#[test]
fn methods_become_events() {
    let (group, service) = (UUID.parse().unwrap(), ServiceName::new("/mnt").unwrap());
    let Asker { request, client } = ASKER;
    let begin = |cluster, device, held| {
        let service = service.clone();
        Ok(Event::Begin(Begin { request, client, group, service, cluster, device, held }))
    };
    let said = json!({ "group": UUID, "service": "/mnt" });
    assert_eq!(event(Method::Begin, said.clone()), begin(None, None, false));
    let mut all = said.clone();
    all["cluster"] = json!("demo");
    all["device"] = json!("/dev/sdb1");
    all["hold"] = json!(true);
    assert_eq!(event(Method::Begin, all), begin(Some("demo".to_owned()), Some(DeviceId(8)), true));
    let leave = Event::Leave { request, client, group, service: service.clone() };
    assert_eq!(event(Method::Leave, said.clone()), Ok(leave));
    let mut complete = said;
    complete["code"] = json!(-5);
    let completed = Event::Complete { request, client, group, service, code: -5 };
    assert_eq!(event(Method::Complete, complete), Ok(completed));
    let ack = Event::FenceAck { request, client, node: NodeId(4) };
    assert_eq!(event(Method::FenceAck, json!({ "node": 4 })), Ok(ack));
}

#[test]
fn a_wrong_parameter_is_named() {
    let invalid = "org.varlink.service.InvalidParameter".to_owned();
    let refused = "io.o2bridge.Refused".to_owned();
    for (method, parameters, name, word) in [
        (Method::FenceAck, json!({ "node": -1 }), &invalid, "node"),
        (Method::FenceAck, json!({ "node": 1, "x": 2 }), &invalid, "\"x\""),
        (Method::Leave, json!({ "service": "s" }), &invalid, "group"),
        (Method::Leave, json!({ "group": UUID, "service": 5 }), &invalid, "service"),
        (Method::Leave, json!({ "group": "19D1", "service": "s" }), &refused, "BadGroup"),
        (Method::Leave, json!({ "group": UUID, "service": "" }), &refused, "BadService"),
        (
            Method::Begin,
            json!({ "group": UUID, "service": "s", "device": "/dev/none" }),
            &refused,
            "BadDevice",
        ),
    ] {
        let (found, text) = error(method, parameters);
        assert_eq!(found, *name, "{text}");
        assert!(text.contains(word), "{text} does not name {word}");
    }
}

#[test]
fn groups_have_dashes_or_none() {
    let group = UUID.parse().ok();
    assert_eq!(parse_group(&UUID.to_lowercase()), group);
    assert_eq!(parse_group("19d19f8e-ca01-475e-ba67-afd6d84c3b45"), group);
    assert_eq!(parse_group("19d19f8eca01-475e-ba67-afd6-d84c3b45"), None);
    assert_eq!(parse_group(""), None);
}

#[test]
fn replies_are_objects_that_end_with_a_nul() {
    let text = |method: Method, reply: &Reply| {
        let mut bytes = Vec::new();
        method.response(reply).encode(&mut bytes);
        assert_eq!(bytes.pop(), Some(END));
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(text(Method::Begin, &Reply::Already), r#"{"parameters":{"already":true}}"#);
    assert_eq!(text(Method::Begin, &Reply::Done), r#"{"parameters":{"already":false}}"#);
    assert_eq!(text(Method::Leave, &Reply::Done), r#"{"parameters":{}}"#);
    let refused = text(Method::Leave, &Reply::Refused(Refusal::NoGroup));
    assert!(refused.starts_with(r#"{"error":"io.o2bridge.Refused","parameters":"#), "{refused}");
    assert!(refused.contains(r#""code":"NoGroup","errno":2"#), "{refused}");
}
