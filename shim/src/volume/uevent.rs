//! What the kernel broadcasts of its devices: words that end with NULs, `KEY=value` after the first.

/// What a broadcast says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uevent {
    /// Something happened to this block device; its name as a directory of sysfs.
    Block(String),
    /// A lockspace of fs/dlm comes or goes.
    Lockspace,
    /// Some of it was lost.
    Lost,
}

/// What a uevent is about, if it matters here.
#[must_use]
pub fn about(message: &[u8]) -> Option<Uevent> {
    let find =
        |key: &[u8]| message.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(key));
    match find(b"SUBSYSTEM=")? {
        b"block" => {
            let name = std::str::from_utf8(find(b"DEVNAME=")?).ok()?;
            Some(Uevent::Block(name.replace('/', "!")))
        }
        b"dlm" => Some(Uevent::Lockspace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_uevents_matter() {
        let message = |subsystem: &str, name: &str| {
            format!("change@/devices/x\0ACTION=change\0SUBSYSTEM={subsystem}\0DEVNAME={name}\0")
        };
        assert_eq!(about(message("block", "sdb1").as_bytes()), Some(Uevent::Block("sdb1".into())));
        assert_eq!(about(message("block", "a/b").as_bytes()), Some(Uevent::Block("a!b".into())));
        let online = b"online@/kernel/dlm/x\0ACTION=online\0SUBSYSTEM=dlm\0LOCKSPACE=x\0";
        assert_eq!(about(online), Some(Uevent::Lockspace));
        assert_eq!(about(message("net", "sdb1").as_bytes()), None);
        assert_eq!(about(b"remove@/x\0SUBSYSTEM=block\0"), None);
        assert_eq!(about(b"\xff\xff"), None);
        assert_eq!(about(b""), None);
    }
}
