use super::{BadMessage, ITEM_BYTES_MAX, MESSAGE_BYTES, Request, Response, chunks};

const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

/// A message as a client pads it.
fn message(text: &str) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..text.len()].copy_from_slice(text.as_bytes());
    message
}

#[test]
fn every_request_has_one_text() {
    let table = [
        (
            format!("MOUNT ocfs2 {UUID} demo /dev/sdb1 ocfs2"),
            Request::Mount {
                fstype: "ocfs2",
                uuid: UUID,
                cluster: "demo",
                device: "/dev/sdb1",
                service: "ocfs2",
            },
        ),
        (
            format!("MRESULT ocfs2 {UUID} -1485349887 fsck.ocfs2"),
            Request::MountResult {
                fstype: "ocfs2",
                uuid: UUID,
                code: "-1485349887",
                service: "fsck.ocfs2",
            },
        ),
        (
            format!("UNMOUNT ocfs2 {UUID} ocfs2"),
            Request::Unmount { fstype: "ocfs2", uuid: UUID, service: "ocfs2" },
        ),
        ("LISTFS ocfs2 demo".to_owned(), Request::ListFs { fstype: "ocfs2", cluster: "demo" }),
        (format!("LISTMOUNTS ocfs2 {UUID}"), Request::ListMounts { fstype: "ocfs2", uuid: UUID }),
        ("LISTCLUSTERS".to_owned(), Request::ListClusters),
        ("DUMP".to_owned(), Request::Dump),
    ];
    for (text, request) in table {
        assert_eq!(request.encode(), Ok(message(&text)), "{text}");
        assert_eq!(Request::decode(&message(&text)), Ok(request), "{text}");
    }
}

#[test]
fn every_response_has_one_text() {
    let table = [
        ("STATUS 0 OK", Response::Status { errno: 0, text: "OK".to_owned() }),
        (
            "STATUS 22 no such cluster",
            Response::Status { errno: 22, text: "no such cluster".to_owned() },
        ),
        ("ITEMCOUNT 0", Response::ItemCount(0)),
        ("ITEMCOUNT 4294967295", Response::ItemCount(u32::MAX)),
        ("ITEM a b\nc ", Response::Item("a b\nc ".to_owned())),
    ];
    for (text, response) in table {
        assert_eq!(response.encode(), message(text), "{text}");
        assert_eq!(Response::decode(&message(text)), Ok(response), "{text}");
    }
}

#[test]
fn the_last_argument_takes_the_rest() {
    let text = format!("UNMOUNT ocfs2 {UUID} /mnt/with  two spaces ");
    let text = message(&text);
    let Ok(Request::Unmount { service, .. }) = Request::decode(&text) else {
        panic!("not an unmount")
    };
    assert_eq!(service, "/mnt/with  two spaces ");
}

#[test]
fn two_spaces_make_an_empty_argument() {
    let text = message("MOUNT ocfs2  demo /dev/sdb1 ocfs2");
    let expected = Request::Mount {
        fstype: "ocfs2",
        uuid: "",
        cluster: "demo",
        device: "/dev/sdb1",
        service: "ocfs2",
    };
    assert_eq!(Request::decode(&text), Ok(expected));
    let text = message("LISTFS ocfs2 ");
    assert_eq!(Request::decode(&text), Ok(Request::ListFs { fstype: "ocfs2", cluster: "" }));
}

#[test]
fn text_ends_at_the_first_nul_and_at_the_last_byte() {
    let mut dirty = message("DUMP");
    dirty[5..].fill(b'x');
    assert_eq!(Request::decode(&dirty), Ok(Request::Dump));

    let mut full = [b'y'; MESSAGE_BYTES];
    full[..14].copy_from_slice(b"UNMOUNT ocfs2 ");
    full[14] = b' ';
    let Ok(Request::Unmount { uuid, service, .. }) = Request::decode(&full) else {
        panic!("not an unmount")
    };
    assert_eq!((uuid, service.len()), ("", 255 - 15));
}

#[test]
fn malformed_messages_are_named() {
    let table = [
        ("", BadMessage::Unknown(String::new())),
        (" ", BadMessage::Unknown(String::new())),
        ("mount ocfs2 a b c d", BadMessage::Unknown("mount".to_owned())),
        ("STATUS 0 OK", BadMessage::Unknown("STATUS".to_owned())),
        ("MOUNT", BadMessage::Arguments("MOUNT")),
        ("MOUNT ", BadMessage::Arguments("MOUNT")),
        ("MOUNT ocfs2 uuid demo device", BadMessage::Arguments("MOUNT")),
        ("MRESULT ocfs2 uuid 0", BadMessage::Arguments("MRESULT")),
        ("UNMOUNT ocfs2 uuid", BadMessage::Arguments("UNMOUNT")),
        ("LISTFS ocfs2", BadMessage::Arguments("LISTFS")),
        ("LISTMOUNTS ocfs2", BadMessage::Arguments("LISTMOUNTS")),
        ("LISTCLUSTERS ", BadMessage::Arguments("LISTCLUSTERS")),
        ("LISTCLUSTERS ocfs2", BadMessage::Arguments("LISTCLUSTERS")),
        ("DUMP ", BadMessage::Arguments("DUMP")),
    ];
    for (text, bad) in table {
        assert_eq!(Request::decode(&message(text)), Err(bad), "'{text}'");
    }
    let mut binary = message("MOUNT ");
    binary[6] = 0xFF;
    assert_eq!(Request::decode(&binary), Err(BadMessage::NotText));
}

#[test]
fn malformed_responses_are_named() {
    let table = [
        ("STATUS", BadMessage::Unknown("STATUS".to_owned())),
        ("STATUS 0", BadMessage::Arguments("STATUS")),
        ("STATUS OK 0", BadMessage::Number("STATUS")),
        ("ITEMCOUNT -1", BadMessage::Number("ITEMCOUNT")),
        ("ITEMCOUNT ", BadMessage::Number("ITEMCOUNT")),
        ("DUMP", BadMessage::Unknown("DUMP".to_owned())),
    ];
    for (text, bad) in table {
        assert_eq!(Response::decode(&message(text)), Err(bad), "'{text}'");
    }
}

#[test]
fn a_request_that_does_not_fit_is_not_made() {
    let service = "s".repeat(255 - "UNMOUNT ocfs2 u ".len());
    let fits = Request::Unmount { fstype: "ocfs2", uuid: "u", service: &service };
    assert!(fits.encode().is_ok());
    let longer = format!("{service}s");
    let too_long = Request::Unmount { fstype: "ocfs2", uuid: "u", service: &longer };
    assert_eq!(too_long.encode(), Err(BadMessage::TooLong));
}

#[test]
fn a_response_that_does_not_fit_is_cut_between_characters() {
    let text = "é".repeat(200);
    let encoded = Response::Status { errno: 22, text }.encode();
    assert_eq!(encoded[255], 0);
    let Ok(Response::Status { text, .. }) = Response::decode(&encoded) else { panic!("no status") };
    assert_eq!(text, "é".repeat((255 - "STATUS 22 ".len()) / 2));
}

#[test]
fn chunks_put_together_are_the_text() {
    for text in ["", "a", &"line\n".repeat(1000), &"é".repeat(999), &"x".repeat(500)] {
        let chunks: Vec<&str> = chunks(text).collect();
        assert_eq!(chunks.concat(), text);
        assert!(chunks.iter().all(|one| !one.is_empty() && one.len() <= ITEM_BYTES_MAX));
        assert!(chunks.len() <= text.len().div_ceil(ITEM_BYTES_MAX - 3));
    }
}
