use std::io::Read;

use super::super::image::mkfs;
use super::*;

const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

fn named(stack: &str, cluster: &str, global_heartbeat: bool) -> Stack {
    Stack::Named { stack: stack.into(), cluster: cluster.into(), global_heartbeat }
}

/// A block with the fields that make it a superblock.
fn block(bits: u32) -> Vec<u8> {
    let mut block = vec![0; 1 << bits];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, SIGNATURE);
    put(AT_BLOCK, &2_u64.to_le_bytes());
    put(AT_BLOCK_BITS, &bits.to_le_bytes());
    put(AT_CLUSTER_BITS, &12_u32.to_le_bytes());
    put(AT_UUID, &UUID.parse::<GroupId>().unwrap().0.to_be_bytes());
    block
}

/// The head of a volume with that block in its place.
fn head(bits: u32, block: &[u8]) -> Vec<u8> {
    let mut head = vec![0; 2 << bits];
    head.extend(block);
    head
}

#[test]
fn what_mkfs_makes() {
    let made = |arguments: &[&str]| {
        let image = mkfs("what_mkfs_makes", &[&["-U", UUID], arguments].concat())?;
        Some(read(&image.path).unwrap())
    };
    let Some(plain) = made(&["-b", "4K", "-C", "8K", "-N", "3", "-L", "a label"]) else { return };
    assert_eq!(plain.uuid.to_string(), UUID);
    assert_eq!(plain.label, "a label");
    assert_eq!(plain.stack, Stack::Classic);
    assert_eq!((plain.block_bytes, plain.cluster_bytes, plain.slots_max), (4096, 8192, 3));
    assert_eq!(plain.offset(), 0x2000);
    assert!(!plain.is_local && !plain.is_heartbeat_device && !plain.is_in_repair);

    let lab = ["--cluster-stack=o2cb", "--cluster-name=lab"];
    assert_eq!(made(&lab).unwrap().stack, named("o2cb", "lab", false));
    let global = [&lab[..], &["--global-heartbeat"]].concat();
    assert_eq!(made(&global).unwrap().stack, named("o2cb", "lab", true));
    let long = ["--cluster-stack=o2cb", "--cluster-name=0123456789abcdef"];
    assert_eq!(made(&long).unwrap().stack, named("o2cb", "0123456789abcdef", false));
    let user = ["--cluster-stack=pcmk", "--cluster-name=lab"];
    assert_eq!(made(&user).unwrap().stack, named("pcmk", "lab", false));
    assert!(made(&["-M", "local"]).unwrap().is_local);
    assert!(made(&["-H"]).unwrap().is_heartbeat_device);
    for (size, bytes) in [("512", 512), ("1K", 1024), ("2K", 2048)] {
        let superblock =
            made(&["-b", size, "-J", "size=4M", "--cluster-stack=o2cb", "--cluster-name=lab"])
                .unwrap();
        assert_eq!(superblock.block_bytes, bytes);
        assert_eq!(superblock.stack, named("o2cb", "lab", false));
    }
}

#[test]
fn a_truncated_volume_is_refused_or_read_in_full() {
    let name = "a_truncated_volume_is_refused_or_read_in_full";
    let Some(image) = mkfs(name, &["-b", "1K", "-J", "size=4M"]) else { return };
    let mut head = vec![0; HEAD_BYTES];
    std::fs::File::open(&image.path).unwrap().read_exact(&mut head).unwrap();
    let whole = parse(&head).unwrap();
    for len in 0..HEAD_BYTES {
        let expected = if len < 3 * 1024 { Err(Bad::NoSignature) } else { Ok(whole.clone()) };
        assert_eq!(parse(&head[..len]), expected, "{len} bytes");
    }
}

#[test]
fn each_block_size_has_its_place() {
    for bits in BLOCK_BITS {
        let superblock = parse(&head(bits, &block(bits))).unwrap();
        assert_eq!(superblock.block_bytes, 1 << bits);
        assert_eq!(superblock.offset(), 2 << bits);
        assert_eq!(superblock.stack, Stack::Classic);
        let elsewhere = [vec![0; 512], head(bits, &block(bits))].concat();
        assert_eq!(parse(&elsewhere), Err(Bad::NoSignature), "{bits} bits");
    }
}

#[test]
fn features() {
    let with = |incompat: u32| {
        let mut block = block(9);
        block[AT_INCOMPAT..AT_INCOMPAT + 4].copy_from_slice(&incompat.to_le_bytes());
        parse(&head(9, &block)).unwrap()
    };
    assert!(with(0x0002).is_heartbeat_device);
    assert!(with(0x0004).is_in_repair, "resize");
    assert!(with(0x0020).is_in_repair, "tunefs");
    assert!(with(0x0008).is_local);
    let none = with(!(0x0002 | 0x0004 | 0x0020 | 0x0008 | 0x0080 | 0x4000));
    assert!(!none.is_heartbeat_device && !none.is_in_repair && !none.is_local);
}

#[test]
fn names_count_only_with_their_flag() {
    let with = |incompat: u32, stack: &[u8; 4], flags: u8, cluster: &[u8; 16]| {
        let mut block = block(12);
        block[AT_INCOMPAT..AT_INCOMPAT + 4].copy_from_slice(&incompat.to_le_bytes());
        block[AT_STACK..AT_STACK + 4].copy_from_slice(stack);
        block[AT_STACK_FLAGS] = flags;
        block[AT_CLUSTER..AT_CLUSTER + 16].copy_from_slice(cluster);
        parse(&head(12, &block)).map(|superblock| superblock.stack)
    };
    let lab = b"lab\0garbage\xff\0\0\0\0";
    assert_eq!(with(0, b"o2cb", 1, lab), Ok(Stack::Classic));
    assert_eq!(with(0x4000, b"o2cb", 1, lab), Ok(named("o2cb", "lab", true)));
    assert_eq!(with(0x4000, b"o2cb", 0xFE, lab), Ok(named("o2cb", "lab", false)));
    assert_eq!(with(0x0080, b"pcmk", 0, lab), Ok(named("pcmk", "lab", false)));
    assert_eq!(with(0x4000, b"\0\0\0\0", 0, lab), Err(Bad::Unsound("stack name")));
    assert_eq!(with(0x4000, b"o2cb", 0, &[0; 16]), Err(Bad::Unsound("cluster name")));
    assert_eq!(with(0x4000, b"o2cb", 0, &[0xFF; 16]), Err(Bad::Unsound("cluster name")));
    assert_eq!(with(0x4000, b"o2cb", 0, &[b'\n'; 16]), Err(Bad::Unsound("cluster name")));
}

#[test]
fn what_contradicts_itself() {
    let with = |at: usize, byte: u8| {
        let mut block = block(12);
        block[at] = byte;
        parse(&head(12, &block))
    };
    assert_eq!(with(0, b'X'), Err(Bad::NoSignature));
    assert_eq!(with(AT_BLOCK, 3), Err(Bad::NoSignature));
    assert_eq!(with(AT_BLOCK_BITS, 11), Err(Bad::NoSignature));
    assert_eq!(with(AT_CLUSTER_BITS, 11), Err(Bad::Unsound("cluster size")));
    assert_eq!(with(AT_CLUSTER_BITS, 21), Err(Bad::Unsound("cluster size")));
    let mut block = block(12);
    block[AT_UUID..AT_UUID + 16].fill(0);
    assert_eq!(parse(&head(12, &block)), Err(Bad::Unsound("UUID")));
}

#[test]
fn garbage_is_never_more_than_refused() {
    // A fixed generator: the same garbage every time.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let noise: Vec<u8> = (0..HEAD_BYTES).map(|_| next() as u8).collect();
        assert_eq!(parse(&noise), Err(Bad::NoSignature));
    }
    // Sound where it is looked for, noise in between: whatever comes out, nothing breaks.
    for _ in 0..2_000 {
        let mut block = block(10);
        for _ in 0..40 {
            let at = AT_INCOMPAT + next() as usize % (AT_CLUSTER + 16 - AT_INCOMPAT);
            block[at] = next() as u8;
        }
        let _ = parse(&head(10, &block));
    }
    assert_eq!(parse(&[]), Err(Bad::NoSignature));
}

#[test]
fn errors_name_the_step() {
    let error = read(Path::new("/no/such/device")).unwrap_err();
    let text = "cannot open /no/such/device: No such file or directory (os error 2)";
    assert_eq!(error.to_string(), text);
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(read(file.path()).unwrap_err().to_string(), "no OCFS2 superblock");
}
