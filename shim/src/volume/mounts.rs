//! The OCFS2 mounts of this mount namespace, from a table in the format of `/proc/self/mountinfo`.

use std::path::PathBuf;

use nix::sys::stat::makedev;
use o2bridge_core::{DeviceId, GroupId};

const FSTYPE: &[u8] = b"ocfs2";

/// One OCFS2 mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device under it.
    pub device: DeviceId,
    /// Where, as the kernel has it: any bytes but NUL.
    pub mountpoint: Vec<u8>,
    /// The volume, if its superblock could ever be read. The table does not tell.
    pub uuid: Option<GroupId>,
    /// The device's node, if the device is there. The table does not tell that either.
    pub path: Option<PathBuf>,
}

/// The OCFS2 mounts of a table; `None` if a line is not as proc(5) has it: a table that is not
/// understood says nothing, least of all that something is not mounted.
#[must_use]
pub fn mounts(text: &[u8]) -> Option<Vec<Mount>> {
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut words = line.split(|byte| *byte == b' ');
        let device = device(words.nth(2)?)?;
        let mountpoint = unescape(words.nth(1)?);
        // Optional fields follow, in any number; a lone dash ends them.
        words.find(|word| *word == b"-")?;
        if words.next()? == FSTYPE {
            found.push(Mount { device, mountpoint, uuid: None, path: None });
        }
    }
    Some(found)
}

/// A device as the kernel writes it in tables and in sysfs: `major:minor`.
pub(super) fn device(word: &[u8]) -> Option<DeviceId> {
    let (major, minor) = std::str::from_utf8(word).ok()?.split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    Some(DeviceId(makedev(major.into(), minor.into())))
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
80 28 8:16 / /srv/shared rw,relatime shared:40 master:2 - ocfs2 /dev/sdb rw,_netdev
81 28 8:32 / /srv/with\\040space\\134 rw,relatime - ocfs2 /dev/sdc rw
82 28 8:48 / /srv/ext rw,relatime - ext4 /dev/ocfs2 rw
83 28 0:48 / /dlm rw,relatime - ocfs2_dlmfs ocfs2_dlmfs rw
";

    fn mount(major: u64, minor: u64, mountpoint: &str) -> Mount {
        let device = DeviceId(makedev(major, minor));
        Mount { device, mountpoint: mountpoint.into(), uuid: None, path: None }
    }

    #[test]
    fn only_ocfs2() {
        let expected = [mount(8, 16, "/srv/shared"), mount(8, 32, "/srv/with space\\")];
        assert_eq!(mounts(TABLE.as_bytes()).unwrap(), expected);
        assert_eq!(mounts(b"").unwrap(), []);
    }

    #[test]
    fn escapes() {
        let table = b"1 1 8:1 / /a\\011b\\012c\\134\\04\\999 rw - ocfs2 x rw\n";
        assert_eq!(mounts(table).unwrap(), [mount(8, 1, "/a\tb\nc\\\\04\\999")]);
    }

    #[test]
    fn a_line_that_is_not_understood_spoils_the_table() {
        let tables: [&[u8]; 6] = [
            b"80 28 8 / /x rw - ocfs2 x rw\n",
            b"80\n",
            b"80 28 8:1 / /x rw ocfs2 x rw\n",
            b"80 28 8:1 / /x rw -\n",
            b"80 28 8:4294967296 / /x rw - ocfs2 x rw\n",
            b"80 28 8:1 / /x rw - ext4 x rw\n\xff\n",
        ];
        for table in tables {
            assert_eq!(mounts(table), None, "{}", String::from_utf8_lossy(table));
        }
    }

    #[test]
    fn the_table_of_this_machine_is_understood() {
        assert!(mounts(&std::fs::read("/proc/self/mountinfo").unwrap()).is_some());
    }
}
