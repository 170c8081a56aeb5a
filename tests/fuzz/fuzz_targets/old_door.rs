//! The old door: whatever 256 bytes a tool sends, and whatever a daemon answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::{Begin, ClientId, DeviceId, Event, RequestId};
use o2bridge_wire::Asker;
use o2bridge_wire::legacy::{
    ITEM_BYTES_MAX, MESSAGE_BYTES, Meaning, Request, Response, TEXT_BYTES_MAX, chunks,
};

const ASKER: Asker = Asker { request: RequestId(7), client: ClientId(3) };

fuzz_target!(|data: &[u8]| {
    let mut message = [0; MESSAGE_BYTES];
    let len = data.len().min(MESSAGE_BYTES);
    message[..len].copy_from_slice(&data[..len]);
    request(&message);
    response(&message);
    if let Ok(text) = std::str::from_utf8(data) {
        let pieces: Vec<&str> = chunks(text).collect();
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| (1..=ITEM_BYTES_MAX).contains(&piece.len())));
    }
});

fn request(message: &[u8; MESSAGE_BYTES]) {
    let request = match Request::decode(message) {
        Ok(request) => request,
        Err(bad) => return answers(&Response::Status { errno: 22, text: bad.to_string() }, 22),
    };
    let end = message.iter().position(|byte| *byte == 0).unwrap_or(TEXT_BYTES_MAX);
    let end = end.min(TEXT_BYTES_MAX);
    let written = request.encode().expect("what was read can be written");
    assert_eq!(written[..end], message[..end], "every byte before the first NUL was read");
    assert!(written[end..].iter().all(|byte| *byte == 0));
    let device = |path: &str| Ok(Some(DeviceId(path.len() as u64)));
    match request.meaning(ASKER, device) {
        Ok(Meaning::Event(event)) => {
            assert!(request.needs_root(), "who may only read changes nothing");
            says_the_same(request, &event);
        }
        Ok(Meaning::Groups { cluster }) => assert!(message[..end].ends_with(cluster.as_bytes())),
        Ok(Meaning::Services(group)) => {
            let uuid = group.to_string();
            let said = Request::ListMounts { fstype: "ocfs2", uuid: &uuid };
            assert_eq!(said.meaning(ASKER, device), Ok(Meaning::Services(group)));
        }
        Ok(Meaning::Clusters | Meaning::Dump) => {}
        Err(refused) => {
            let errno = refused.errno;
            assert!([22, 34, 36].contains(&errno), "errno {errno}");
            answers(&refused.into(), errno);
        }
    }
}

/// Written by a tool that means the event, the message is read as the same event.
fn says_the_same(request: Request<'_>, event: &Event) {
    let (group, number);
    let said = match (request, event) {
        (
            Request::Mount { device, .. },
            Event::Begin(Begin { group: of, service, cluster, .. }),
        ) => {
            group = of.to_string();
            let cluster = cluster.as_deref().expect("the old door always names it");
            let (fstype, uuid, service) = ("ocfs2", group.as_str(), service.as_str());
            Request::Mount { fstype, uuid, cluster, device, service }
        }
        (Request::MountResult { .. }, Event::Complete { group: of, service, code, .. }) => {
            (group, number) = (of.to_string(), code.to_string());
            let (fstype, uuid, service) = ("ocfs2", group.as_str(), service.as_str());
            Request::MountResult { fstype, uuid, code: &number, service }
        }
        (Request::Unmount { .. }, Event::Leave { group: of, service, .. }) => {
            group = of.to_string();
            Request::Unmount { fstype: "ocfs2", uuid: &group, service: service.as_str() }
        }
        (request, event) => panic!("{request:?} became {event:?}"),
    };
    let message = said.encode().expect("no word is longer than it came");
    let again = Request::decode(&message).expect("it is a request");
    let device = |path: &str| Ok(Some(DeviceId(path.len() as u64)));
    assert_eq!(again.meaning(ASKER, device), Ok(Meaning::Event(event.clone())));
}

/// The response fits into a message, and its number arrives.
fn answers(response: &Response, number: i32) {
    let message = response.encode();
    match Response::decode(&message) {
        Ok(Response::Status { errno, .. }) => assert_eq!(errno, number),
        other => panic!("{response:?} arrives as {other:?}"),
    }
}

fn response(message: &[u8; MESSAGE_BYTES]) {
    if let Ok(response) = Response::decode(message) {
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
    }
}
