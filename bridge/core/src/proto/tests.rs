//! What goes out comes back; what else comes in is refused without a panic.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use alloc::vec;

use super::*;

const NONE_IN_USE: Envelope = Envelope { speaks: SPEAKS, in_use: false };
const IN_USE: Envelope = Envelope { speaks: SPEAKS, in_use: true };

fn uses(count: usize) -> Uses {
    (0..count).map(|n| (GroupId(n as u128), Incarnation(n as u64 + 7))).collect()
}

fn testimony(n: u32, fate: Fate) -> Testimony {
    Testimony { node: NodeId(n), boot: BootId(u128::MAX - 5), uses: uses(2), fate }
}

fn hello() -> Hello {
    Hello {
        boot: BootId(u128::MAX),
        memory_from: Incarnation(u64::MAX),
        ring: Some(RingId { seq: 0x0102_0304_0506_0708, node: NodeId(u32::MAX) }),
        uses: uses(3),
        locking: Locking {
            highest: Some(LockingProtocol { major: 1, minor: u8::MAX }),
            running: Some(LockingProtocol { major: u8::MAX, minor: 0 }),
            choice: 0x0102,
        },
        testimony: vec![
            testimony(1, Fate::Missing),
            testimony(2, Fate::Condemned { turn: 0 }),
            testimony(3, Fate::Condemned { turn: u32::MAX }),
            testimony(4, Fate::Fenced),
        ],
        witness: true,
    }
}

fn bare_hello() -> Hello {
    Hello {
        boot: BootId(1),
        memory_from: Incarnation(0),
        ring: None,
        uses: Uses::new(),
        locking: Locking::default(),
        testimony: vec![],
        witness: false,
    }
}

fn state(count: u32) -> State {
    let user = |n: u32| User { incarnation: Incarnation(n.into()), boot: BootId(n.into()) };
    let told = (1..=count).map(|n| (NodeId(n), user(n))).collect();
    State { incarnation: Incarnation(u64::MAX), boot: BootId(u128::MAX), told }
}

fn bodies() -> Vec<Body> {
    vec![
        Body::Hello(hello()),
        Body::Hello(bare_hello()),
        Body::State(state(3)),
        Body::State(state(0)),
        Body::Refuse(NodeId(0x0102_0304)),
    ]
}

#[test]
fn every_body_comes_back() {
    for body in bodies() {
        assert_eq!(decode(&encode(1, true, &body)), Ok((IN_USE, body.clone())));
        assert_eq!(decode(&encode(1, false, &body)), Ok((NONE_IN_USE, body)));
    }
}

/// The envelope as it stands in every release. This test must never be changed.
#[test]
fn the_frozen_envelope() {
    let refuse = [
        b'O', b'2', b'B', b'R', // magic
        3,    // kind: Refuse
        1, 0, // lowest version
        1, 0, // highest version
        1, // in use
        1, 0, // version of the body
        4, 3, 2, 1, // the refused node
    ];
    assert_eq!(encode(1, true, &Body::Refuse(NodeId(0x0102_0304))), refuse);
    let hello = encode(1, false, &Body::Hello(bare_hello()));
    assert_eq!(hello[..12], *b"O2BR\x01\x01\0\x01\0\0\x01\0");
    let state = encode(1, true, &Body::State(state(0)));
    assert_eq!(state[..12], *b"O2BR\x02\x01\0\x01\0\x01\x01\0");
}

#[test]
fn every_truncation_is_garbage() {
    for body in bodies() {
        let bytes = encode(1, true, &body);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(Garbage::Length), "{length} of {body:?}");
        }
    }
}

#[test]
fn nothing_may_follow_the_end() {
    for body in bodies() {
        let mut bytes = encode(1, true, &body);
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(Garbage::Length));
    }
}

#[test]
fn values_that_are_never_sent() {
    let refuse = encode(1, true, &Body::Refuse(NodeId(1)));
    let with = |index: usize, byte: u8| {
        let mut bytes = refuse.clone();
        bytes[index] = byte;
        decode(&bytes)
    };
    for index in 0..4 {
        assert_eq!(with(index, b'X'), Err(Garbage::Magic));
    }
    for kind in [0, 4, u8::MAX] {
        assert_eq!(with(4, kind), Err(Garbage::Value), "kind {kind}");
    }
    assert_eq!(with(5, 2), Err(Garbage::Value), "lowest above highest");
    for flag in [2, u8::MAX] {
        assert_eq!(with(9, flag), Err(Garbage::Value), "in use {flag}");
    }
    let told = Testimony { uses: Uses::new(), ..testimony(1, Fate::Missing) };
    let hello = Hello { testimony: vec![told], ..bare_hello() };
    let mut fate = encode(1, true, &Body::Hello(hello));
    let index = fate.len() - 7;
    fate[index] = 3;
    assert_eq!(decode(&fate), Err(Garbage::Value), "fate 3");
    let nobody = BootId::UNSEEN;
    for body in [
        Body::Hello(Hello { boot: nobody, ..bare_hello() }),
        Body::State(State { incarnation: Incarnation(1), boot: nobody, told: Users::new() }),
    ] {
        assert_eq!(decode(&encode(1, true, &body)), Err(Garbage::Value), "{body:?}");
    }
}

#[test]
fn limits_are_taken_and_one_more_is_not() {
    let with_uses = |count| Body::Hello(Hello { uses: uses(count), ..bare_hello() });
    let with_testimony = |count: usize| {
        let fenced = Testimony { uses: Uses::new(), ..testimony(1, Fate::Fenced) };
        Body::Hello(Hello { testimony: vec![fenced; count], ..bare_hello() })
    };
    let with_their_uses = |count| {
        let fenced = Testimony { uses: uses(count), ..testimony(1, Fate::Fenced) };
        Body::Hello(Hello { testimony: vec![fenced], ..bare_hello() })
    };
    let with_told = |count: usize| Body::State(state(count as u32));
    let fits = [
        with_uses(GROUPS_MAX),
        with_testimony(NODES_MAX),
        with_their_uses(GROUPS_MAX),
        with_told(NODES_MAX),
    ];
    for body in fits {
        assert_eq!(decode(&encode(1, true, &body)), Ok((IN_USE, body)));
    }
    let too_many = [
        with_uses(GROUPS_MAX + 1),
        with_testimony(NODES_MAX + 1),
        with_their_uses(GROUPS_MAX + 1),
        with_told(NODES_MAX + 1),
        with_uses(70_000),
    ];
    for body in too_many {
        assert_eq!(decode(&encode(1, true, &body)), Err(Garbage::TooMany));
    }
}

/// A daemon that speaks only versions 7 to 9.
fn foreign(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'O', b'2', b'B', b'R', kind, 7, 0, 9, 0, 1, 9, 0];
    bytes.extend_from_slice(body);
    bytes
}

const FOREIGN: Envelope = Envelope { speaks: (7, 9), in_use: true };

#[test]
fn a_foreign_version_is_not_garbage() {
    let whatever: [&[u8]; 3] = [&[], &[1, 2, 3], &[255; 300]];
    for kind in [KIND_STATE, 4, 255] {
        for body in whatever {
            assert_eq!(
                decode(&foreign(kind, body)),
                Ok((FOREIGN, Body::Foreign(None))),
                "kind {kind}"
            );
        }
    }
}

/// Of a Hello the boot is understood across versions, whatever a later version appends.
#[test]
fn a_foreign_hello_names_its_boot() {
    let ours = encode(1, true, &Body::Hello(hello()));
    let body = &ours[foreign(KIND_HELLO, &[]).len()..];
    for (kind, body, boot) in [
        (KIND_HELLO, body.to_vec(), Some(hello().boot)),
        (KIND_HELLO, [body, &[0]].concat(), Some(hello().boot)),
        (KIND_HELLO, body[..16].to_vec(), Some(hello().boot)),
        (KIND_HELLO, body[..15].to_vec(), None),
        (KIND_HELLO, [&[0; 16], &body[16..]].concat(), None),
        (KIND_STATE, body.to_vec(), None),
    ] {
        assert_eq!(decode(&foreign(kind, &body)), Ok((FOREIGN, Body::Foreign(boot))));
    }
}

/// A refusal is understood across versions, whatever a later version appends.
#[test]
fn a_foreign_refusal_is_understood() {
    let refused = Ok((FOREIGN, Body::Refuse(NodeId(5))));
    assert_eq!(decode(&foreign(KIND_REFUSE, &[5, 0, 0, 0])), refused);
    assert_eq!(decode(&foreign(KIND_REFUSE, &[5, 0, 0, 0, 9, 9])), refused);
    assert_eq!(decode(&foreign(KIND_REFUSE, &[5, 0, 0])), Err(Garbage::Length));
}

/// Speaks our version too, but used a later one for this body.
#[test]
fn a_later_body_is_foreign() {
    for version in [0, 2, u16::MAX] {
        let mut bytes = encode(1, true, &Body::State(state(1)));
        bytes[7..9].copy_from_slice(&9_u16.to_le_bytes());
        bytes[10..12].copy_from_slice(&u16::to_le_bytes(version));
        let envelope = Envelope { speaks: (1, 9), in_use: true };
        assert_eq!(decode(&bytes), Ok((envelope, Body::Foreign(None))));
    }
}

#[test]
fn versions_in_common() {
    let cases = [
        ((1, 1), (1, 1), Some(1)),
        ((1, 2), (1, 3), Some(2)),
        ((2, 3), (3, 4), Some(3)),
        ((1, 2), (3, 4), None),
        ((0, u16::MAX), (7, 7), Some(7)),
    ];
    for (ours, theirs, common) in cases {
        assert_eq!(common_version(ours, theirs), common);
        assert_eq!(common_version(theirs, ours), common, "both sides agree");
    }
}

/// A plain generator (Knuth's MMIX constants): the same bytes in each run.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }
}

#[test]
fn noise_never_panics() {
    let mut noise = Noise(1);
    let mut accepted = 0;
    for round in 0..100_000_usize {
        let kind = 1 + noise.byte() % 4;
        let mut bytes = vec![b'O', b'2', b'B', b'R', kind, 1, 0, 1, 0, 1, 1, 0];
        let tail = round % 120;
        bytes.extend((0..tail).map(|_| noise.byte() % 2));
        accepted += usize::from(decode(&bytes).is_ok());
        let raw: Vec<u8> = (0..tail).map(|_| noise.byte()).collect();
        assert!(decode(&raw).is_err());
    }
    assert!(accepted > 100, "the noise reaches the end of bodies: {accepted}");
}

/// What a damaged message decodes to is at least a message: written again, it reads the same.
#[test]
fn damaged_messages_never_panic() {
    let mut noise = Noise(2);
    let (mut same, mut refused) = (0, 0);
    let all = bodies();
    for round in 0..50_000_usize {
        let mut bytes = encode(1, true, &all[round % all.len()]);
        for _ in 0..=round % 3 {
            let index =
                ((usize::from(noise.byte()) << 8) | usize::from(noise.byte())) % bytes.len();
            bytes[index] = noise.byte();
        }
        match decode(&bytes) {
            Ok((envelope, body))
                if envelope.speaks == SPEAKS && !matches!(body, Body::Foreign(_)) =>
            {
                assert_eq!(decode(&encode(1, envelope.in_use, &body)), Ok((envelope, body)));
                same += 1;
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(same > 1_000 && refused > 1_000, "{same} {refused}");
}
