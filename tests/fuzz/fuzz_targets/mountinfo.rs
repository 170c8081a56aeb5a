//! The mount table, and what it says of a tool that died.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::sys::stat::{major, makedev, minor};
use o2bridge::adapter::look::judge;
use o2bridge_core::{DeviceId, Finding, ServiceName};
use o2bridge_shim::volume::{Mount, mounts};

fuzz_target!(|table: &[u8]| {
    let found = mounts(table);
    // Line by line it says the same, and one line that is not understood spoils all.
    let lines = table.split_inclusive(|byte| *byte == b'\n');
    let each: Option<Vec<_>> = lines.map(mounts).collect();
    assert_eq!(found, each.map(|each| each.concat()));
    is_found(table, found.as_deref());
    for mount in found.unwrap_or_default() {
        // Written as the kernel writes it, the line says the same.
        let (device, mut line) = (mount.device.0, b"36 35 ".to_vec());
        line.extend(format!("{}:{} / ", major(device), minor(device)).into_bytes());
        for byte in &mount.mountpoint {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => line.extend(format!("\\{byte:03o}").into_bytes()),
                _ => line.push(*byte),
            }
        }
        line.extend(b" rw shared:1 - ocfs2 /dev/sdb rw\n");
        assert_eq!(mounts(&line), Some(vec![mount]));
    }
});

/// Whose line is in the table is mounted, and a table that is not understood says nothing. Of a tool that
/// mounts nothing there is nothing to find.
fn is_found(table: &[u8], found: Option<&[Mount]>) {
    let ocfs2 = ServiceName::new(ServiceName::OCFS2).expect("a good name");
    let tool = ServiceName::new("fsck.ocfs2").expect("a good name");
    let Some(found) = found else {
        return assert_eq!(judge(table, &ocfs2, None), Finding::Unknown);
    };
    for mount in found {
        let device = Some(mount.device);
        assert_eq!(judge(table, &ocfs2, device), Finding::Mounted);
        assert_eq!(judge(table, &tool, device), Finding::NotMounted);
        let Some(place) = std::str::from_utf8(&mount.mountpoint).ok().and_then(service) else {
            continue;
        };
        assert_eq!(judge(table, &place, device), Finding::Mounted);
        assert_eq!(judge(table, &place, None), Finding::Mounted);
    }
    // Nor does any other name of a mountpoint make a mounted device one that is not.
    let elsewhere = service("/another name").expect("a good name");
    for device in found.iter().map(|mount| Some(mount.device)).chain([None]) {
        let finding = judge(table, &elsewhere, device);
        assert!(found.is_empty() || finding != Finding::NotMounted, "{finding:?}");
    }
    // What another file system has mounted is none of ours, whatever else the table says.
    let absent = DeviceId(makedev(8, 1 << 19));
    if found.iter().all(|mount| mount.device != absent) {
        assert_eq!(judge(table, &ocfs2, Some(absent)), Finding::NotMounted);
    }
}

/// A mountpoint as a tool may name it.
fn service(path: &str) -> Option<ServiceName> {
    ServiceName::new(path).ok().filter(|name| name.as_str().starts_with('/'))
}
