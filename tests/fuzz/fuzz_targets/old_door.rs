//! The old door: whatever 256 bytes a tool sends, and whatever a daemon answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::{Begin, ClientId, DeviceId, Event, GroupId, Reply, RequestId};
use o2bridge_fuzz::refusals;
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
            if let Event::Begin(Begin { cluster, .. }) = &event {
                refused(cluster.as_deref().unwrap_or_default());
            }
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

/// Written by a tool that means the event, the message says what it said, and is read as the same event.
fn says_the_same(request: Request<'_>, event: &Event) {
    let (group, number);
    let said = match (request, event) {
        (
            Request::Mount { uuid: was, cluster: named, device, service: name, .. },
            Event::Begin(Begin { group: of, service, cluster, .. }),
        ) => {
            assert_eq!((Some(named), name), (cluster.as_deref(), service.as_str()));
            group = written(was, *of);
            Request::Mount { fstype: "ocfs2", uuid: &group, cluster: named, device, service: name }
        }
        (
            Request::MountResult { uuid: was, code: result, service: name, .. },
            Event::Complete { group: of, service, code, .. },
        ) => {
            assert_eq!((name, result.parse()), (service.as_str(), Ok(*code)));
            (group, number) = (written(was, *of), code.to_string());
            Request::MountResult { fstype: "ocfs2", uuid: &group, code: &number, service: name }
        }
        (
            Request::Unmount { uuid: was, service: name, .. },
            Event::Leave { group: of, service, .. },
        ) => {
            assert_eq!(name, service.as_str());
            group = written(was, *of);
            Request::Unmount { fstype: "ocfs2", uuid: &group, service: name }
        }
        (request, event) => panic!("{request:?} became {event:?}"),
    };
    let message = said.encode().expect("no word is longer than it came");
    let again = Request::decode(&message).expect("it is a request");
    let device = |path: &str| Ok(Some(DeviceId(path.len() as u64)));
    assert_eq!(again.meaning(ASKER, device), Ok(Meaning::Event(event.clone())));
}

/// The group as it is written, which must be how it was.
fn written(was: &str, group: GroupId) -> String {
    let text = group.to_string();
    assert!(text.eq_ignore_ascii_case(was));
    text
}

/// The response fits into a message, and its number arrives.
fn answers(response: &Response, number: i32) {
    let message = response.encode();
    match Response::decode(&message) {
        Ok(Response::Status { errno, .. }) => assert_eq!(errno, number),
        other => panic!("{response:?} arrives as {other:?}"),
    }
}

/// Whatever the core says to these words fits, and arrives.
fn refused(words: &str) {
    for refusal in refusals(words) {
        let errno = refusal.errno();
        assert!(errno > 0);
        answers(&Response::from(&Reply::Refused(refusal)), errno);
    }
}

fn response(message: &[u8; MESSAGE_BYTES]) {
    if let Ok(response) = Response::decode(message) {
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
    }
}
