//! The new door: whatever object a client sends, and what is answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::{Begin, ClientId, DeviceId, Event, GroupId, Refusal, Reply, RequestId};
use o2bridge_fuzz::refusals;
use o2bridge_wire::Asker;
use o2bridge_wire::varlink::{
    Call, END, INTERFACE, Method, Parameters, Refused, Response, SERVICE, parse_group,
};
use serde_json::{Map, Value, json};

const ASKER: Asker = Asker { request: RequestId(7), client: ClientId(3) };

fuzz_target!(|data: &[u8]| {
    if let Some(group) = std::str::from_utf8(data).ok().and_then(parse_group) {
        let digits: Vec<u8> = data.iter().copied().filter(|byte| *byte != b'-').collect();
        assert!(group.to_string().as_bytes().eq_ignore_ascii_case(&digits));
    }
    let Ok(call) = Call::decode(data) else { return };
    let (interface, name) = call.name();
    match interface {
        "" => assert!(call.method.ends_with(name)),
        _ => assert_eq!(format!("{interface}.{name}"), call.method),
    }
    // Whatever is called, its parameters may be meant for each method.
    let parameters = call.parameters.unwrap_or_default();
    for method in Method::ALL {
        assert_eq!(Method::named(method.name()), Some(method));
        match event(method, parameters.clone()) {
            Ok(event) => {
                says_the_same(method, &event, &parameters);
                drop(is_message(method.response(&Reply::Done), data.len()));
                is_refused(method, &event, data.len());
            }
            Err(refused) => drop(is_message(refused.into(), data.len())),
        }
    }
});

fn event(method: Method, parameters: Map<String, Value>) -> Result<Event, Refused> {
    let device = |path: &str| match path {
        "" => Err(Refused::not_found("InvalidParameter", "parameter", "device")),
        path => Ok(Some(DeviceId(path.len() as u64))),
    };
    method.event(&mut Parameters::new(parameters), ASKER, device)
}

/// Written by a client that means the event, the parameters are read as the same event; and they are
/// those that were said.
fn says_the_same(method: Method, event: &Event, were: &Map<String, Value>) {
    let said = match (method, event) {
        (Method::Begin, Event::Begin(Begin { group, service, cluster, device, held, .. })) => {
            let device = device.map(|device| "d".repeat(device.0 as usize));
            let (group, service) = (group.to_string(), service.as_str());
            json!({ "group": group, "service": service, "cluster": cluster, "device": device,
                "hold": held })
        }
        (Method::Complete, Event::Complete { group, service, code, .. }) => {
            json!({ "group": group.to_string(), "service": service.as_str(), "code": code })
        }
        (Method::Leave, Event::Leave { group, service, .. }) => {
            json!({ "group": group.to_string(), "service": service.as_str() })
        }
        (Method::FenceAck, Event::FenceAck { node, .. }) => json!({ "node": node.0 }),
        (method, event) => panic!("{method:?} became {event:?}"),
    };
    let Value::Object(said) = said else { panic!("{said} is no object") };
    for (key, value) in &said {
        let was = were.get(key).filter(|was| !was.is_null());
        match key.as_str() {
            "group" => assert_eq!(was.and_then(Value::as_str).and_then(parse_group), group(value)),
            // What stands in for the path is as long as the path.
            "device" => assert_eq!(length(was), length(Some(value))),
            "hold" => assert_eq!(was.unwrap_or(&Value::Bool(false)), value),
            _ => assert_eq!(was.unwrap_or(&Value::Null), value, "{key}"),
        }
    }
    assert!(were.keys().all(|key| said.contains_key(key)), "a word was passed over: {were:?}");
    assert_eq!(self::event(method, said).as_ref(), Ok(event));
}

fn group(value: &Value) -> Option<GroupId> {
    value.as_str()?.parse().ok()
}

fn length(value: Option<&Value>) -> Option<usize> {
    value.and_then(Value::as_str).map(str::len)
}

/// Each refusal of the core is one for programs and for people, and hears no word more than once.
fn is_refused(method: Method, event: &Event, call_bytes: usize) {
    let words = match event {
        Event::Begin(Begin { cluster: Some(cluster), .. }) => cluster,
        _ => "",
    };
    for mut refusal in refusals(words) {
        if let Refusal::WrongCluster { ours, .. } = &mut refusal {
            "east".clone_into(ours);
        }
        let reply = Reply::Refused(refusal.clone());
        let said = &is_message(method.response(&reply), call_bytes)["parameters"];
        assert_eq!(
            (&said["code"], &said["errno"]),
            (&json!(refusal.code()), &json!(refusal.errno()))
        );
        assert_eq!(said["message"], json!(refusal.to_string()));
    }
}

/// One JSON object and one NUL at its end, not longer than what was asked by more than a sentence.
fn is_message(response: Response, call_bytes: usize) -> Value {
    let mut bytes = Vec::new();
    response.encode(&mut bytes);
    assert_eq!(bytes.iter().position(|byte| *byte == END), Some(bytes.len() - 1));
    assert!(bytes.len() <= 6 * call_bytes + 512, "{} bytes for {call_bytes}", bytes.len());
    let said: Value = serde_json::from_slice(&bytes[..bytes.len() - 1]).expect("it is JSON");
    assert!(said["parameters"].is_object(), "{said}");
    if let Some(error) = said.get("error") {
        let name = error.as_str().expect("an error has a name");
        assert!(name.starts_with(INTERFACE) || name.starts_with(SERVICE), "{name}");
    }
    said
}
