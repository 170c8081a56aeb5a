//! Every cell of the table that opens the module.
#![allow(clippy::panic, reason = "a test may panic")]

use alloc::vec::Vec;

use super::*;

const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);
const OLD: RequestId = RequestId(1);
const NEW: RequestId = RequestId(2);
const LOOK: OpId = OpId(7);
const OTHER_LOOK: OpId = OpId(8);

const BEGINNING: Service = Service::Beginning { request: OLD, client: A, held: true };
const GRANTED_HELD: Service = Service::Granted { client: A, held: true };
const GRANTED_LOOSE: Service = Service::Granted { client: A, held: false };
const COMPLETING: Service = Service::Completing { request: OLD };
const LIVE: Service = Service::Live;
const ADDITIONAL_HELD: Service = Service::Additional { client: A, held: true };
const ADDITIONAL_LOOSE: Service = Service::Additional { client: A, held: false };
const LOOKING: Service = Service::Looking { op: LOOK };
const LEAVING: Service = Service::Leaving { request: Some(OLD) };
const LEAVING_MUTELY: Service = Service::Leaving { request: None };

const ALL: [Service; 10] = [
    BEGINNING,
    GRANTED_HELD,
    GRANTED_LOOSE,
    COMPLETING,
    LIVE,
    ADDITIONAL_HELD,
    ADDITIONAL_LOOSE,
    LOOKING,
    LEAVING,
    LEAVING_MUTELY,
];

/// The new request leaves the service and is answered when the group let go.
const LEAVES_FOR_NEW: Service = Service::Leaving { request: Some(NEW) };
/// It lives, and the new request is answered when that is saved.
const COMPLETES_FOR_NEW: Service = Service::Completing { request: NEW };

/// Checks one event against all states: what it answers, and the state after it.
#[track_caller]
fn check<T: core::fmt::Debug + PartialEq>(
    event: impl Fn(&mut Service) -> T,
    cells: [(T, Service); ALL.len()],
) {
    for (before, (answer, after)) in ALL.into_iter().zip(cells) {
        let mut service = before;
        assert_eq!(event(&mut service), answer, "the answer in {before:?}");
        assert_eq!(service, after, "the state after {before:?}");
    }
}

const fn answer(kind: ReplyKind) -> Moved {
    Moved::Answer(NEW, kind)
}

#[test]
fn begin_of_a_mountpoint_again() {
    check(
        |service| service.begin_again(false, B, true),
        [
            (ReplyKind::Busy, BEGINNING),
            (ReplyKind::Busy, GRANTED_HELD),
            (ReplyKind::Busy, GRANTED_LOOSE),
            (ReplyKind::Busy, COMPLETING),
            (ReplyKind::InUse, LIVE),
            (ReplyKind::Busy, ADDITIONAL_HELD),
            (ReplyKind::Busy, ADDITIONAL_LOOSE),
            (ReplyKind::Busy, LOOKING),
            (ReplyKind::Busy, LEAVING),
            (ReplyKind::Busy, LEAVING_MUTELY),
        ],
    );
}

#[test]
fn begin_of_ocfs2_again() {
    for held in [true, false] {
        check(
            |service| service.begin_again(true, B, held),
            [
                (ReplyKind::Busy, BEGINNING),
                (ReplyKind::Busy, GRANTED_HELD),
                (ReplyKind::Busy, GRANTED_LOOSE),
                (ReplyKind::Busy, COMPLETING),
                (ReplyKind::Already, Service::Additional { client: B, held }),
                (ReplyKind::Busy, ADDITIONAL_HELD),
                (ReplyKind::Busy, ADDITIONAL_LOOSE),
                (ReplyKind::Busy, LOOKING),
                (ReplyKind::Busy, LEAVING),
                (ReplyKind::Busy, LEAVING_MUTELY),
            ],
        );
    }
}

#[test]
fn complete_with_success() {
    check(
        |service| service.complete(NEW, A, 0),
        [
            (answer(ReplyKind::NotBegun), BEGINNING),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (answer(ReplyKind::Busy), COMPLETING),
            (answer(ReplyKind::NotBegun), LIVE),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (answer(ReplyKind::Busy), LOOKING),
            (answer(ReplyKind::NotBegun), LEAVING),
            (answer(ReplyKind::NotBegun), LEAVING_MUTELY),
        ],
    );
}

#[test]
fn complete_with_failure() {
    for code in [1, -1, 32, i32::MIN, i32::MAX] {
        check(
            |service| service.complete(NEW, A, code),
            [
                (answer(ReplyKind::NotBegun), BEGINNING),
                (Moved::Quietly, LEAVES_FOR_NEW),
                (Moved::Quietly, LEAVES_FOR_NEW),
                (answer(ReplyKind::Busy), COMPLETING),
                (answer(ReplyKind::NotBegun), LIVE),
                (Moved::Quietly, COMPLETES_FOR_NEW),
                (Moved::Quietly, COMPLETES_FOR_NEW),
                (answer(ReplyKind::Busy), LOOKING),
                (answer(ReplyKind::NotBegun), LEAVING),
                (answer(ReplyKind::NotBegun), LEAVING_MUTELY),
            ],
        );
    }
}

/// Who did not begin cannot complete, unless the begin was not tied to its connection.
#[test]
fn complete_by_a_stranger() {
    check(
        |service| service.complete(NEW, B, 0),
        [
            (answer(ReplyKind::NotBegun), BEGINNING),
            (answer(ReplyKind::NotBegun), GRANTED_HELD),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (answer(ReplyKind::Busy), COMPLETING),
            (answer(ReplyKind::NotBegun), LIVE),
            (answer(ReplyKind::NotBegun), ADDITIONAL_HELD),
            (Moved::Quietly, COMPLETES_FOR_NEW),
            (answer(ReplyKind::Busy), LOOKING),
            (answer(ReplyKind::NotBegun), LEAVING),
            (answer(ReplyKind::NotBegun), LEAVING_MUTELY),
        ],
    );
}

#[test]
fn leave() {
    check(
        |service| service.leave(NEW),
        [
            (answer(ReplyKind::Busy), BEGINNING),
            (answer(ReplyKind::Busy), GRANTED_HELD),
            (Moved::Quietly, LEAVES_FOR_NEW),
            (answer(ReplyKind::Busy), COMPLETING),
            (Moved::Quietly, LEAVES_FOR_NEW),
            (answer(ReplyKind::Busy), ADDITIONAL_HELD),
            (answer(ReplyKind::Busy), ADDITIONAL_LOOSE),
            (answer(ReplyKind::Busy), LOOKING),
            (answer(ReplyKind::Busy), LEAVING),
            (answer(ReplyKind::Busy), LEAVING_MUTELY),
        ],
    );
}

#[test]
fn client_gone() {
    check(
        |service| service.client_gone(A),
        [
            (Moved::Quietly, LEAVING_MUTELY),
            (Moved::Look, GRANTED_HELD),
            (Moved::Quietly, GRANTED_LOOSE),
            (Moved::Quietly, COMPLETING),
            (Moved::Quietly, LIVE),
            (Moved::Quietly, LIVE),
            (Moved::Quietly, ADDITIONAL_LOOSE),
            (Moved::Quietly, LOOKING),
            (Moved::Quietly, LEAVING),
            (Moved::Quietly, LEAVING_MUTELY),
        ],
    );
}

#[test]
fn another_client_gone() {
    check(|service| service.client_gone(B), ALL.map(|service| (Moved::Quietly, service)));
}

#[test]
fn complete_overdue() {
    check(
        Service::complete_overdue,
        [
            (Moved::Quietly, BEGINNING),
            (Moved::Look, GRANTED_HELD),
            (Moved::Look, GRANTED_LOOSE),
            (Moved::Quietly, COMPLETING),
            (Moved::Quietly, LIVE),
            (Moved::Quietly, LIVE),
            (Moved::Quietly, LIVE),
            (Moved::Quietly, LOOKING),
            (Moved::Quietly, LEAVING),
            (Moved::Quietly, LEAVING_MUTELY),
        ],
    );
}

#[test]
fn looked() {
    let after = |looking: Service| {
        let become_looked = |service| if service == LOOKING { looking } else { service };
        ALL.map(|service| ((), become_looked(service)))
    };
    check(|service| service.looked(LOOK, Finding::Mounted), after(LIVE));
    check(|service| service.looked(LOOK, Finding::Unknown), after(LIVE));
    check(|service| service.looked(LOOK, Finding::NotMounted), after(LEAVING_MUTELY));
    for finding in [Finding::Mounted, Finding::Unknown, Finding::NotMounted] {
        check(|service| service.looked(OTHER_LOOK, finding), after(LOOKING));
    }
}

/// Only a tool's word makes a service live for a successor, and it is live before the tool is
/// answered: a tool that heard "done" finds its service after a crash of the daemon.
#[test]
fn words_and_images() {
    let words: Vec<_> =
        ALL.iter().map(|svc| (svc.name(), svc.is_live(), svc.is_leaving())).collect();
    assert_eq!(
        words,
        [
            ("beginning", false, false),
            ("granted", false, false),
            ("granted", false, false),
            ("completing", true, false),
            ("live", true, false),
            ("additional", true, false),
            ("additional", true, false),
            ("looking", false, false),
            ("leaving", false, true),
            ("leaving", false, true),
        ]
    );
}

#[test]
fn replies() {
    let kinds = [
        (ReplyKind::Already, Reply::Already),
        (ReplyKind::Busy, Reply::Refused(Refusal::Busy)),
        (ReplyKind::NotBegun, Reply::Refused(Refusal::NotBegun)),
        (ReplyKind::InUse, Reply::Refused(Refusal::InUse)),
    ];
    for (kind, reply) in kinds {
        assert_eq!(Reply::from(kind), reply);
    }
}
