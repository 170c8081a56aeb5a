use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::super::image::{Image, mkfs};
use super::*;

fn write_slot(image: &Image, slot: u8, seq: u64, generation: u64) {
    let area = Area::find(&image.path).unwrap();
    let at = area.offset + u64::from(slot) * u64::from(area.slot_bytes);
    let file = OpenOptions::new().write(true).open(&image.path).unwrap();
    file.write_all_at(&seq.to_le_bytes(), at).unwrap();
    file.write_all_at(&[slot], at + 8).unwrap();
    file.write_all_at(&generation.to_le_bytes(), at + 16).unwrap();
}

fn nobody(image: &Image) {
    assert_eq!(disk_heartbeat(&image.path).unwrap(), [], "a fresh volume");
}

#[test]
fn the_area_of_every_kind_of_volume_is_found() {
    let name = "the_area_of_every_kind_of_volume_is_found";
    let kinds: [&[&str]; 6] = [
        &["-b", "4K", "--cluster-stack=o2cb", "--cluster-name=lab"],
        &["-b", "512", "-J", "size=4M"],
        &["-b", "1K", "-J", "size=4M", "-N", "4", "--fs-features=noinline-data"],
        &["-b", "2K", "-C", "64K"],
        &[
            "-b",
            "4K",
            "-C",
            "1M",
            "--cluster-stack=o2cb",
            "--cluster-name=lab",
            "--global-heartbeat",
        ],
        &["-H"],
    ];
    for arguments in kinds {
        let Some(image) = mkfs(name, arguments) else { return };
        nobody(&image);
        write_slot(&image, 0, 7, 9);
        write_slot(&image, 254, 1_767_225_613, 0x57d5_c6f5_5a4c_efda);
        let beats = disk_heartbeat(&image.path).unwrap();
        let last = Beat { slot: 254, generation: 0x57d5_c6f5_5a4c_efda, seq: 1_767_225_613 };
        assert_eq!(beats, [Beat { slot: 0, generation: 9, seq: 7 }, last], "{arguments:?}");
    }
}

/// The tools' own view of where the file lies, byte for byte.
#[test]
fn the_area_is_where_the_tools_see_it() {
    let name = "the_area_is_where_the_tools_see_it";
    let Some(image) = mkfs(name, &["-b", "4K"]) else { return };
    let copy = image.path.with_extension("heartbeat");
    write_slot(&image, 3, 0x1122_3344_5566_7788, 5);
    let output = std::process::Command::new("debugfs.ocfs2")
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .args(["-R", &format!("dump //heartbeat {}", copy.display())])
        .arg(&image.path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(&copy).unwrap();
    assert_eq!(le64(&bytes, 3 * 512), Some(0x1122_3344_5566_7788));
    assert_eq!(le64(&bytes, 3 * 512 + 16), Some(5));
}

#[test]
fn only_who_changes_between_two_readings_beats() {
    let name = "only_who_changes_between_two_readings_beats";
    let Some(image) = mkfs(name, &["--cluster-stack=o2cb", "--cluster-name=lab"]) else { return };
    let Some(other) = mkfs(name, &["-H"]) else { return };
    write_slot(&image, 1, 100, 11);
    write_slot(&image, 2, 100, 22);
    write_slot(&image, 4, 100, 44);
    let pause = Duration::from_millis(400);
    let paths: [&Path; 2] = [&other.path, &image.path];
    assert_eq!(beating(&paths, pause).unwrap(), [] as [u8; 0], "the dead leave their slots behind");
    let slots = std::thread::scope(|scope| {
        let watching = scope.spawn(|| beating(&paths, pause));
        std::thread::sleep(Duration::from_millis(150));
        write_slot(&image, 2, 101, 22);
        write_slot(&image, 4, 100, 45);
        write_slot(&image, 9, 1, 99);
        watching.join().unwrap().unwrap()
    });
    assert_eq!(slots, [2, 4, 9], "a beat, another life, and a newcomer");
}
