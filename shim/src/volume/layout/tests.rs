use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::super::disk::Disk;
use super::super::heartbeat::disk_heartbeat;
use super::super::image::mkfs;
use super::*;

#[test]
fn a_damaged_way_is_an_error_and_not_silence() {
    let name = "a_damaged_way_is_an_error_and_not_silence";
    let arguments = ["-b", "4K", "-C", "4K"];
    let damage = |inode_of_file: bool, at: usize, bytes: &[u8]| {
        let image = mkfs(name, &arguments)?;
        let disk = Disk::open(&image.path).unwrap();
        let superblock = disk.superblock().unwrap();
        let mut block = superblock.system_dir_block;
        if inode_of_file {
            let read: Read<'_> = &|offset, len| disk.read(offset, len);
            let dir = inode(&superblock, read, block).unwrap();
            block = lookup(&contents(&superblock, read, &dir).unwrap()).unwrap();
        }
        let file = OpenOptions::new().write(true).open(&image.path).unwrap();
        file.write_all_at(bytes, block * 4096 + at as u64).unwrap();
        Some(disk_heartbeat(&image.path).unwrap_err().to_string())
    };
    let is = |what: &str, error: Option<String>| match error {
        Some(error) => assert_eq!(error, format!("the heartbeat area cannot be found: {what}")),
        None => assert!(mkfs(name, &arguments).is_none()),
    };
    is("no inode where one should be", damage(false, 0, b"X"));
    is("no inode where one should be", damage(false, AT_OWN_BLOCK, &[0xFF; 8]));
    is("no file of that name", damage(false, AT_INLINE_DATA, &[0; 3000]));
    is("no file of that name", damage(false, AT_SIZE, &[0; 8]));
    is("no inode where one should be", damage(true, 0, b"X"));
    is("its extents are not in the inode", damage(true, AT_DEPTH, &[1]));
    is("the file is not in one piece", damage(true, AT_USED, &[2]));
    is("the file is not in one piece", damage(true, AT_USED, &[0]));
    is("the file is too short", damage(true, AT_RECORDS + 4, &[31, 0]));
    is("an extent that cannot be", damage(true, AT_RECORDS + 4, &[0, 0]));
    is("an extent that cannot be", damage(true, AT_RECORDS + 8, &[0xFF; 8]));
    is("an extent that cannot be", damage(true, AT_RECORDS + 8, &[0; 8]));
}

#[test]
fn directory_entries_that_lead_nowhere() {
    let entry = |number: u64, record_len: u16, name: &[u8]| {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend(record_len.to_le_bytes());
        bytes.extend([name.len() as u8, 1]);
        bytes.extend(name);
        bytes.resize(usize::from(record_len).max(bytes.len()), 0);
        bytes
    };
    let heartbeat = || entry(10, 24, b"heartbeat");
    assert_eq!(lookup(&heartbeat()), Some(10));
    assert_eq!(lookup(&[entry(7, 32, b"slot_map"), heartbeat()].concat()), Some(10));
    assert_eq!(lookup(&[entry(0, 24, b"heartbeat"), heartbeat()].concat()), Some(10), "deleted");
    assert_eq!(lookup(&[entry(7, 24, b"heartbeats")].concat()), None);
    assert_eq!(lookup(&entry(7, 0, b"x")), None, "no endless loop");
    assert_eq!(lookup(&entry(7, 60_000, b"x")[..64]), None);
    assert_eq!(lookup(&heartbeat()[..20]), None, "cut in its name");
    assert_eq!(lookup(&[]), None);
}
