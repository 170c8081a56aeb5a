//! The stock program `debugfs.ocfs2` reads our dump.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use o2bridge_e2e::{GROUPS, Lab, LabError, Line, Told};
use o2bridge_harness::Output;

const MOUNT: &str = "/srv/shared";
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a program of ocfs2-tools on a volume in a file of node 1.
fn stock(lab: &Lab, program: &str, arguments: &[&str]) -> Result<Output, LabError> {
    let node = lab.cluster().node(1);
    let mut command = Command::new(program);
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(arguments);
    let output = node.run(command.arg(node.dir().join("volume")), LIMIT)?;
    assert_ne!(output.code, 127, "there is no {program}: apt install ocfs2-tools");
    Ok(output)
}

/// The daemon's memory in a dump.
fn lines(dump: &str) -> Vec<Line> {
    dump.lines().filter_map(Line::parse).collect()
}

/// What a dump shows of the daemon's state: everything before its memory.
fn state(dump: &str) -> Vec<&str> {
    let is_state = |line: &&str| Line::parse(line).is_none();
    dump.lines().skip(1).take_while(is_state).collect()
}

#[test]
fn controld_dump() -> Result<(), LabError> {
    let mut lab = Lab::builder().nodes(3).start()?;
    let volume = File::create(lab.cluster().node(1).dir().join("volume")).unwrap();
    volume.set_len(64 << 20).unwrap();
    let made = stock(&lab, "mkfs.ocfs2", &["-q", "-F", "-M", "local", "-N", "1", "-J", "size=4M"])?;
    assert_eq!(made.code, 0, "{}", made.stderr);

    for group in GROUPS {
        for node in [1, 2, 3] {
            lab.mount(node, group, MOUNT)?;
        }
    }
    // More than fits into one message, or into a hundred.
    for _ in 0..30 {
        lab.unmount(2, GROUPS[0], MOUNT)?;
        lab.mount(2, GROUPS[0], MOUNT)?;
    }
    let ours = lab.o2bridge(1, &["dump"])?;
    let theirs = stock(&lab, "debugfs.ocfs2", &["-R", "controld dump"])?;
    assert_eq!((theirs.code, theirs.stderr.as_str()), (0, ""));
    assert_eq!(state(&theirs.stdout), state(&ours));
    for group in GROUPS {
        assert!(theirs.stdout.contains(group), "{group} is not in the dump");
    }
    let (told, ours) = (lines(&theirs.stdout), lines(&ours));
    assert!(ours.len() > 200, "only {} lines", ours.len());
    assert_eq!(told[..ours.len()], ours, "the same memory, in the same order");
    println!("{} bytes, {} lines", theirs.stdout.len(), told.len());

    // Reading it told nobody anything.
    let mut told = Told::new();
    told.add(&[1], "attach 1a | suspend | resume 1a 2a | suspend | resume 1a 2a 3a")
        .add(&[2], "attach 1a 2a | suspend | resume 1a 2a 3a")
        .add(&[3], "attach 1a 2a 3a");
    for group in &GROUPS[1..] {
        lab.expect(group, &told)?;
    }

    lab.kill_daemon(1);
    let nobody = stock(&lab, "debugfs.ocfs2", &["-R", "controld dump"])?;
    assert!(nobody.stderr.contains("Unable to access cluster service"), "{nobody:?}");
    Ok(())
}
