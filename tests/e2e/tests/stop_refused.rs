//! A daemon whose groups are in use does not stop, nor before the others know that they are not any more; and it
//! does not let a second one beside it.

use std::process::Command;
use std::time::Duration;

use o2bridge_e2e::{GROUPS, Lab, LabError, Told};
use o2bridge_harness::{Output, Signal, wait_until};

const LIMIT: Duration = Duration::from_secs(15);
/// Longer than the grace.
const LONG: Duration = Duration::from_millis(2500);
const SETTINGS: &str = "[timing]\ngrace_ms = 2000\n";

type Result<T = ()> = std::result::Result<T, LabError>;

/// Asks node 1's daemon to stop, and waits for its refusal of these groups.
fn refused(lab: &mut Lab, signal: Signal, groups: &[(&str, &str)]) -> Result {
    let before = lab.log(1).len();
    lab.daemon(1).unwrap().signal(signal);
    let refusals = || -> Vec<String> {
        let log = lab.log(1).split_off(before);
        log.lines().filter(|line| line.contains("not stopping")).map(str::to_owned).collect()
    };
    wait_until("the stop was to be refused", LIMIT, || refusals().len() >= groups.len())?;
    let refusals = refusals();
    assert_eq!(refusals.len(), groups.len(), "{refusals:?}");
    for (line, (group, services)) in refusals.iter().zip(groups) {
        assert!(line.contains("the group is in use; unmount first"), "{line}");
        assert!(line.contains(group) && line.contains(services), "{line}");
    }
    assert!(lab.daemon(1).unwrap().is_running());
    Ok(())
}

#[test]
fn a_stop_is_refused_with_the_list_of_users_and_accepted_without() -> Result {
    let mut lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
    let [one, two, _] = GROUPS;
    let (mut told_one, mut told_two) = (Told::new(), Told::new());
    lab.mount(1, one, "/srv/shared")?;
    lab.mount(1, one, "fsck.ocfs2")?;
    lab.mount(1, two, "/mnt/b")?;
    lab.mount(2, one, "/srv/shared")?;
    told_one.add(&[1], "attach 1a | suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    told_two.add(&[1], "attach 1a");
    let users = [(one, "/srv/shared, fsck.ocfs2"), (two, "/mnt/b")];
    refused(&mut lab, Signal::SIGTERM, &users)?;
    refused(&mut lab, Signal::SIGINT, &users)?;

    // It works as before, and a part of the leaves is not enough.
    lab.mount(3, one, "/srv/shared")?;
    told_one.add(&[3], "attach 1a 2a 3a").add(&[1, 2], "suspend | resume 1a 2a 3a");
    lab.unmount(1, one, "/srv/shared")?;
    lab.unmount(1, two, "/mnt/b")?;
    told_two.add(&[1], "detach");
    lab.expect(one, &told_one)?;
    lab.expect(two, &told_two)?;
    refused(&mut lab, Signal::SIGTERM, &[(one, "fsck.ocfs2")])?;

    lab.unmount(1, one, "fsck.ocfs2")?;
    told_one.add(&[1], "detach").add(&[2, 3], "suspend | resume 2a 3a");
    lab.daemon(1).unwrap().signal(Signal::SIGTERM);
    assert_eq!(lab.daemon(1).unwrap().wait(LIMIT)?, 0, "{}", lab.log(1));
    lab.expect(one, &told_one)?;
    lab.expect(two, &told_two)?;
    // Its node goes on without it: no debt, no death.
    std::thread::sleep(LONG);
    lab.expect(one, &told_one)?;
    assert!(lab.cluster().node(1).has_corosync());

    lab.start_daemon(1)?;
    lab.wait_settled(1)?;
    lab.mount(1, one, "/srv/shared")?;
    told_one.add(&[1], "attach 1b 2a 3a").add(&[2, 3], "suspend | resume 1b 2a 3a");
    lab.expect(one, &told_one)?;
    lab.expect(two, &told_two)
}

/// The last leave comes while corosync is away. The others hold the node for lost: it is a user, as far as they know.
#[test]
fn a_stop_waits_until_the_last_leave_is_heard() -> Result {
    let settings = format!("{SETTINGS}[fencing]\npolicy = \"ack\"\n");
    let mut lab = Lab::builder().nodes(3).settings(&settings).start()?;
    let group = GROUPS[0];
    lab.mount(1, group, "/srv/shared")?;
    lab.mount(2, group, "/srv/shared")?;
    let mut told = Told::new();
    told.add(&[1], "attach 1a | suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    lab.cluster().node(1).stop_corosync()?;
    told.add(&[2], "suspend");
    lab.expect(group, &told)?;
    lab.unmount(1, group, "/srv/shared")?;
    told.add(&[1], "detach");

    lab.daemon(1).unwrap().signal(Signal::SIGTERM);
    wait_until("the stop was to wait", LIMIT, || lab.log(1).contains("not stopping yet"))?;
    lab.expect_still(&[group], &told, LONG)?;
    assert!(lab.daemon(1).unwrap().is_running());
    assert_eq!(lab.refused(1, group, "/srv/shared")?.0, "Stopping");

    lab.cluster().node(1).start_corosync()?;
    assert_eq!(lab.daemon(1).unwrap().wait(LIMIT)?, 0, "{}", lab.log(1));
    told.add(&[2], "resume 2a");
    lab.expect(group, &told)
}

/// Starts one more daemon on node 1.
fn second(lab: &Lab, config: &str) -> Result<Output> {
    let mut command = Command::new(lab.program("o2bridged")?);
    command.arg("--config").arg(lab.cluster().node(1).dir().join(config));
    Ok(lab.cluster().node(1).run(&command, LIMIT)?)
}

#[test]
fn a_second_instance_is_refused() -> Result {
    let mut lab = Lab::builder().nodes(3).settings(SETTINGS).start()?;
    let group = GROUPS[0];
    lab.mount(1, group, "/srv/shared")?;
    let mut told = Told::new();
    told.add(&[1], "attach 1a");

    let pid = lab.daemon(1).unwrap().inner_pid().unwrap();
    let same = second(&lab, "o2bridge.toml")?;
    assert_eq!(same.code, 1, "{}", same.stderr);
    assert!(same.stderr.contains(&format!("process id {pid}")), "{}", same.stderr);

    // Another run directory does not help: stock tools know one name only.
    let dir = lab.cluster().node(1).dir();
    let text = std::fs::read_to_string(dir.join("o2bridge.toml")).unwrap();
    let other = format!("{text}[paths]\nrun_dir = \"{}\"\n", dir.join("run/other").display());
    std::fs::write(dir.join("other.toml"), other).unwrap();
    let other = second(&lab, "other.toml")?;
    assert_eq!(other.code, 1, "{}", other.stderr);
    assert!(other.stderr.contains("@ocfs2_controld_sock"), "{}", other.stderr);

    lab.expect_still(&[group], &told, LONG)?;
    lab.mount(2, group, "/srv/shared")?;
    told.add(&[2], "attach 1a 2a").add(&[1], "suspend | resume 1a 2a");
    lab.expect_all(&[group], &told)
}
