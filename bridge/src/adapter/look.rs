//! A look into the mount table: is the volume mounted that a dead tool was about to mount?

use std::path::Path;

use o2bridge_core::{DeviceId, Finding, ServiceName};
use o2bridge_shim::volume::{Mount, mounts};

/// Answers [`o2bridge_core::Action::Look`] from a file in the format of `/proc/self/mountinfo`.
#[must_use]
pub fn look(mountinfo: &Path, service: &ServiceName, device: Option<DeviceId>) -> Finding {
    match std::fs::read(mountinfo) {
        Ok(text) => judge(&text, service, device),
        Err(_) => Finding::Unknown,
    }
}

/// A path names a mountpoint, but one mountpoint may have many names (links, a trailing slash): the
/// device mounted at another place is no answer. `ocfs2` is mounted where its device is. Without a
/// known device only the absence of every OCFS2 mount says that nothing is mounted. Any other service is a
/// tool that uses the volume by itself and mounts nothing: it died, so it does not use it any more.
#[must_use]
pub fn judge(text: &[u8], service: &ServiceName, device: Option<DeviceId>) -> Finding {
    let Some(mounts) = mounts(text) else { return Finding::Unknown };
    let path = service.as_str().starts_with('/');
    if !path && !service.is_ocfs2() {
        return Finding::NotMounted;
    }
    let mut ours = mounts.iter().filter(|mount| device.is_none_or(|device| mount.device == device));
    let at_its_place = |mount: &Mount| mount.mountpoint == service.as_str().as_bytes();
    if path && ours.clone().any(at_its_place) {
        return Finding::Mounted;
    }
    match ours.next() {
        Some(_) if !path && device.is_some() => Finding::Mounted,
        Some(_) => Finding::Unknown,
        None => Finding::NotMounted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;

    const TABLE: &str = "\
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
80 28 8:16 / /srv/shared rw,relatime shared:40 master:2 - ocfs2 /dev/sdb rw,_netdev,coherency=full
81 28 8:32 / /srv/with\\040space\\134 rw,relatime - ocfs2 /dev/sdc rw
82 28 8:48 / /srv/ext rw,relatime - ext4 /dev/ocfs2 rw
";

    fn at(table: &str, service: &str, device: Option<(u64, u64)>) -> Finding {
        let device = device.map(|(major, minor)| DeviceId(makedev(major, minor)));
        judge(table.as_bytes(), &ServiceName::new(service).unwrap(), device)
    }

    #[test]
    fn by_device() {
        assert_eq!(at(TABLE, "ocfs2", Some((8, 16))), Finding::Mounted);
        assert_eq!(at(TABLE, "ocfs2", Some((8, 64))), Finding::NotMounted);
        assert_eq!(at(TABLE, "ocfs2", Some((8, 48))), Finding::NotMounted, "ext4 there");
        assert_eq!(at(TABLE, "ocfs2", Some((8, 1 << 19))), Finding::NotMounted);
    }

    #[test]
    fn by_mountpoint() {
        assert_eq!(at(TABLE, "/srv/shared", None), Finding::Mounted);
        assert_eq!(at(TABLE, "/srv/shared", Some((8, 16))), Finding::Mounted);
        assert_eq!(at(TABLE, "/srv/shared", Some((8, 32))), Finding::Unknown, "elsewhere");
        assert_eq!(at(TABLE, "/srv/shared", Some((8, 64))), Finding::NotMounted);
        assert_eq!(at(TABLE, "/srv/shared/", Some((8, 16))), Finding::Unknown, "another name");
        assert_eq!(at(TABLE, "/srv/with space\\", None), Finding::Mounted);
        assert_eq!(at(TABLE, "/srv/ext", Some((8, 48))), Finding::NotMounted, "ext4 there");
        assert_eq!(at(TABLE, "/srv", None), Finding::Unknown);
        assert_eq!(at("", "/srv", None), Finding::NotMounted);
    }

    #[test]
    fn without_a_device_only_no_mount_at_all_is_an_answer() {
        assert_eq!(at(TABLE, "ocfs2", None), Finding::Unknown);
        let none = "28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n";
        assert_eq!(at(none, "ocfs2", None), Finding::NotMounted);
        assert_eq!(at("", "ocfs2", None), Finding::NotMounted);
    }

    #[test]
    fn a_tool_mounts_nothing() {
        assert_eq!(at(TABLE, "fsck.ocfs2", Some((8, 16))), Finding::NotMounted);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let service = ServiceName::new("ocfs2").unwrap();
        assert_eq!(look(Path::new("/no/such/file"), &service, None), Finding::Unknown);
        for broken in ["80 28 8 / /x rw - ocfs2 x rw\n", "80\n", "80 28 8:1 / /x rw ocfs2 x rw\n"] {
            assert_eq!(at(broken, "ocfs2", Some((8, 16))), Finding::Unknown, "{broken}");
        }
        let here =
            look(Path::new("/proc/self/mountinfo"), &service, Some(DeviceId(makedev(4095, 1))));
        assert_eq!(here, Finding::NotMounted, "this machine's own table is understood");
    }
}
