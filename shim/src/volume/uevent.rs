//! What the kernel broadcasts of its devices: words that end with NULs, `KEY=value` after the first.

/// The device that a uevent is about, if it is a block device: its name as a directory of sysfs.
#[must_use]
pub fn block_device(message: &[u8]) -> Option<String> {
    let find =
        |key: &[u8]| message.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(key));
    let is_block = find(b"SUBSYSTEM=")? == b"block";
    let name = std::str::from_utf8(find(b"DEVNAME=")?).ok()?;
    is_block.then(|| name.replace('/', "!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_uevents_matter() {
        let message = |subsystem: &str, name: &str| {
            format!("change@/devices/x\0ACTION=change\0SUBSYSTEM={subsystem}\0DEVNAME={name}\0")
        };
        assert_eq!(block_device(message("block", "sdb1").as_bytes()), Some("sdb1".into()));
        assert_eq!(block_device(message("block", "a/b").as_bytes()), Some("a!b".into()));
        assert_eq!(block_device(message("net", "sdb1").as_bytes()), None);
        assert_eq!(block_device(b"remove@/x\0SUBSYSTEM=block\0"), None);
        assert_eq!(block_device(b"\xff\xff"), None);
        assert_eq!(block_device(b""), None);
    }
}
