//! The table of [`super`].

use super::*;
use crate::volume::superblock::{Bad, Stack};

fn device(name: &str, number: u64) -> Device {
    Device { name: name.into(), path: name.into(), number: DeviceId(number), sectors: 8 }
}

fn superblock(uuid: u128) -> Superblock {
    Superblock {
        uuid: GroupId(uuid),
        label: String::new(),
        stack: Stack::Classic,
        block_bytes: 4096,
        cluster_bytes: 4096,
        slots_max: 2,
        is_local: false,
        is_heartbeat_device: false,
        is_in_repair: false,
        system_dir_block: 6,
    }
}

fn uuids(survey: &Survey) -> Vec<u128> {
    survey.present().iter().map(|present| present.superblock.uuid.0).collect()
}

fn io() -> Result<Superblock, VolumeError> {
    let source = std::io::ErrorKind::Other.into();
    Err(VolumeError::Io { step: "read", path: "x".into(), source })
}

/// Two devices, one of them a volume.
fn read() -> Survey {
    let mut survey = Survey::new(1_000, 100);
    survey.list(vec![device("a", 1), device("b", 2)], 0);
    assert_eq!(survey.take_due(MANY, 0), [device("a", 1), device("b", 2)]);
    survey.answer(&device("a", 1), Ok(superblock(7)), 0);
    survey.answer(&device("b", 2), Err(VolumeError::NoVolume(Bad::NoSignature)), 0);
    survey
}

const MANY: usize = 64;

#[test]
fn listed_due_asked_read() {
    let mut survey = Survey::new(1_000, 100);
    assert!(survey.is_settled(0));
    assert_eq!(survey.next_at(0), None);
    survey.list(vec![device("a", 1)], 5);
    assert_eq!(survey.next_at(5), Some(5));
    assert_eq!(survey.take_due(MANY, 4), []);
    assert_eq!(survey.take_due(MANY, 5), [device("a", 1)]);
    assert_eq!(survey.take_due(MANY, 5), [], "asked once");
    assert_eq!(survey.next_at(5), Some(105), "its deadline");
    assert!(!survey.is_settled(104));
    assert!(survey.is_settled(105), "gone on without");
    assert_eq!(survey.next_at(105), None, "and nobody wakes up for it");
    survey.answer(&device("a", 1), Ok(superblock(7)), 106);
    assert!(survey.is_settled(6));
    assert_eq!(uuids(&survey), [7]);
    assert_eq!(survey.uuids().collect::<Vec<_>>(), [(DeviceId(1), GroupId(7))]);
    assert_eq!(survey.path_of(DeviceId(1)), Some("a".into()));
    assert_eq!(survey.path_of(DeviceId(2)), None);
    assert_eq!(survey.next_at(106), Some(1_005), "to be read again");
    assert_eq!(survey.take_due(MANY, 1_005), [device("a", 1)]);
    assert!(survey.is_settled(1_006), "a second reading holds nobody up");
    assert_eq!(survey.next_at(1_006), None, "and a dead disk is not asked on top");
}

#[test]
fn a_hint_makes_due() {
    let mut survey = read();
    survey.hint(Some("b"), 500);
    survey.hint(Some("nobody"), 500);
    assert_eq!(survey.take_due(MANY, 500), [device("b", 2)]);
    survey.hint(None, 600);
    assert_eq!(survey.take_due(MANY, 600), [device("a", 1)], "b is asked already");
    survey.answer(&device("b", 2), Ok(superblock(8)), 600);
    assert_eq!(survey.take_due(MANY, 699), []);
    assert_eq!(survey.take_due(MANY, 700), [device("b", 2)], "and once more after that");
    assert_eq!(uuids(&survey), [7, 8]);
}

#[test]
fn a_flock_of_hints_is_one_reading_more() {
    let mut survey = read();
    for now in FLOCK_MS..2 * FLOCK_MS {
        survey.hint(Some("a"), now);
        let due = survey.take_due(MANY, now);
        assert_eq!(due.len(), usize::from(now == FLOCK_MS), "{now}");
        due.iter().for_each(|device| survey.answer(device, Ok(superblock(7)), now));
    }
    assert_eq!(survey.take_due(MANY, 2 * FLOCK_MS), [device("a", 1)]);
}

#[test]
fn gone_and_replaced() {
    let mut survey = read();
    survey.list(vec![device("a", 1)], 10);
    assert_eq!(uuids(&survey), [7], "as it was");
    assert_eq!(survey.take_due(MANY, 10), []);
    survey.list(vec![device("a", 9)], 20);
    assert_eq!(uuids(&survey), [], "another device of that name");
    assert_eq!(survey.take_due(MANY, 20), [device("a", 9)]);
    survey.answer(&device("a", 1), Ok(superblock(7)), 20);
    assert_eq!(uuids(&survey), [], "a late answer of the one before");
    survey.list(vec![], 30);
    assert_eq!(survey.next_at(30), None);
    survey.answer(&device("a", 9), Ok(superblock(7)), 30);
    assert_eq!(uuids(&survey), []);
}

#[test]
fn heard_of_before_it_is_listed() {
    let mut survey = read();
    assert!(survey.knows("a") && !survey.knows("c"));
    survey.add(device("c", 3), 40);
    survey.add(device("a", 9), 40);
    assert_eq!(survey.take_due(MANY, 40), [device("c", 3)], "a is there already");
    survey.answer(&device("c", 3), Ok(superblock(9)), 41);
    survey.list(vec![device("a", 1), device("c", 3)], 50);
    assert_eq!(uuids(&survey), [7, 9]);
    assert_eq!(survey.take_due(MANY, 50), []);
}

#[test]
fn an_error_is_no_proof() {
    let mut survey = read();
    survey.hint(None, 300);
    survey.take_due(MANY, 300);
    survey.answer(&device("a", 1), io(), 300);
    assert_eq!(uuids(&survey), [7]);
    assert_eq!(survey.take_due(MANY, 1_299), [], "what was read once is not hurried for");
    survey.hint(None, 600);
    survey.take_due(MANY, 600);
    survey.answer(&device("a", 1), Err(VolumeError::NoVolume(Bad::NoSignature)), 600);
    assert_eq!(uuids(&survey), [] as [u128; 0], "wiped");
}

/// As of a LUN that is not ready yet. One that never is, such as a passive path, is not asked every second.
#[test]
fn a_first_reading_that_fails_is_tried_again_soon() {
    let mut survey = Survey::new(5_000, 100);
    survey.list(vec![device("a", 1)], 0);
    for now in [0, 1_000, 3_000, 7_000, 12_000, 17_000] {
        assert_eq!(survey.next_at(now), Some(now));
        assert_eq!(survey.take_due(MANY, now), [device("a", 1)], "{now}");
        survey.answer(&device("a", 1), io(), now);
        assert!(survey.is_settled(now), "an error is an answer, too");
    }
    survey.take_due(MANY, 22_000);
    survey.answer(&device("a", 1), Ok(superblock(7)), 22_001);
    assert_eq!(uuids(&survey), [7]);
    assert_eq!(survey.next_at(22_001), Some(27_000));
}

/// More devices than helpers.
#[test]
fn who_waits_for_a_helper_is_waited_for() {
    let mut survey = Survey::new(1_000, 100);
    survey.list(vec![device("a", 1), device("b", 2), device("c", 3)], 0);
    assert_eq!(survey.take_due(2, 0), [device("a", 1), device("b", 2)]);
    survey.answer(&device("a", 1), Ok(superblock(7)), 1);
    assert_eq!(survey.next_at(1), Some(0), "a helper is free");
    assert_eq!(survey.take_due(0, 1), [], "not for us");
    assert_eq!(survey.next_at(1), Some(100), "b's deadline");
    survey.answer(&device("b", 2), Ok(superblock(8)), 2);
    assert!(!survey.is_settled(2), "c was never asked");
    assert_eq!(survey.news(None, 2), None);
    assert_eq!(survey.take_due(1, 2), [device("c", 3)]);
    survey.answer(&device("c", 3), Ok(superblock(9)), 3);
    assert!(survey.is_settled(3));
    assert_eq!(survey.news(None, 3).map(|all| all.len()), Some(3));
}

/// All helpers are with dead disks. When those are late there are others, for whom they kept waiting first.
#[test]
fn behind_dead_disks() {
    let mut survey = Survey::new(1_000, 100);
    survey.list(vec![device("a", 1), device("b", 2), device("c", 3)], 0);
    assert_eq!(survey.take_due(1, 0), [device("a", 1)]);
    assert!(!survey.is_settled(100), "the others have their turn now");
    assert_eq!(survey.take_due(1, 100), [device("b", 2)]);
    survey.answer(&device("b", 2), Ok(superblock(8)), 150);
    assert!(!survey.is_settled(199));
    assert_eq!(survey.next_at(199), Some(0));
    assert_eq!(survey.take_due(0, 199), []);
    assert_eq!(survey.next_at(199), Some(200), "c's deadline");
    assert!(survey.is_settled(200), "gone on without those that could not even be asked");
    assert_eq!(survey.next_at(200), Some(199 + POSTPONED_MS));
    survey.list(vec![device("a", 1), device("b", 2), device("c", 3), device("d", 4)], 1_300);
    assert_eq!(survey.take_due(2, 1_300), [device("c", 3), device("d", 4)], "b was read");
}

#[test]
fn a_reading_that_could_not_begin() {
    let mut survey = Survey::new(1_000, 100);
    survey.list(vec![device("a", 1)], 0);
    survey.take_due(MANY, 0);
    survey.postpone(&device("a", 1), 0);
    survey.postpone(&device("b", 2), 0);
    assert!(!survey.is_settled(199));
    assert!(survey.is_settled(200));
    assert_eq!(survey.next_at(200), Some(POSTPONED_MS));
    assert_eq!(survey.take_due(MANY, POSTPONED_MS), [device("a", 1)]);
}

#[test]
fn what_comes_is_told_at_once_and_what_goes_when_all_are_read() {
    let mut survey = read();
    let names = |told: &[Present]| -> Vec<String> {
        told.iter().map(|it| it.device.name.clone()).collect()
    };
    let told = survey.news(None, 0).unwrap();
    assert_eq!(survey.news(Some(&told), 0), None);
    survey.list(vec![device("b", 2), device("c", 3), device("d", 4)], 300);
    assert_eq!(survey.take_due(MANY, 300).len(), 2);
    assert_eq!(survey.news(Some(&told), 300), None, "a's volume may be on c");
    survey.answer(&device("d", 4), Ok(superblock(9)), 301);
    let told = survey.news(Some(&told), 301).unwrap();
    assert_eq!(names(&told), ["a", "d"]);
    survey.answer(&device("c", 3), Ok(superblock(7)), 302);
    let told = survey.news(Some(&told), 302).unwrap();
    assert_eq!(names(&told), ["c", "d"]);
    survey.list(vec![device("c", 3), device("e", 5)], 310);
    survey.take_due(MANY, 310);
    assert_eq!(survey.news(Some(&told), 409), None);
    let told = survey.news(Some(&told), 410).unwrap();
    assert_eq!(names(&told), ["c"], "e had its time");
}
