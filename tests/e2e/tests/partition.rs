//! A network that falls apart and comes together again.

use std::time::Duration;

use o2bridge_e2e::{Lab, LabError, Told};
use o2bridge_harness::wait_until;

const GROUP: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";
const MOUNT: &str = "/srv/shared";
const ALL: [u32; 5] = [1, 2, 3, 4, 5];
/// A token loss is noticed after 2.2 s.
const LIMIT: Duration = Duration::from_secs(15);
/// Longer than the grace.
const LONG: Duration = Duration::from_secs(3);

type Result = std::result::Result<(), LabError>;

/// Five nodes that use the group, and what their shims were told until then.
fn five_mounted(policy: &str) -> std::result::Result<(Lab, Told), LabError> {
    let lab = Lab::builder().nodes(5).settings(&format!(
        "[timing]\ngrace_ms = 2000\nbegin_timeout_ms = 1500\n[fencing]\npolicy = \"{policy}\"\n"
    ));
    let lab = lab.start()?;
    for node in ALL {
        lab.mount(node, GROUP, MOUNT)?;
    }
    let mut told = Told::new();
    told.add(&[1], "attach 1a | suspend | resume 1a 2a");
    told.add(&[2], "attach 1a 2a");
    told.add(&[1, 2], "suspend | resume 1a 2a 3a").add(&[3], "attach 1a 2a 3a");
    told.add(&[1, 2, 3], "suspend | resume 1a 2a 3a 4a").add(&[4], "attach 1a 2a 3a 4a");
    told.add(&[1, 2, 3, 4], "suspend | resume 1a 2a 3a 4a 5a").add(&[5], "attach 1a 2a 3a 4a 5a");
    lab.expect(GROUP, &told)?;
    Ok((lab, told))
}

/// Cuts nodes 4 and 5 off, and waits until the three others are suspended.
fn cut_off_two(lab: &Lab, told: &mut Told) -> Result {
    lab.cluster().partition(&[&[1, 2, 3], &[4, 5]])?;
    lab.cluster().wait_members(&[1, 2, 3], &[1, 2, 3], LIMIT)?;
    lab.cluster().wait_members(&[4, 5], &[4, 5], LIMIT)?;
    told.add(&[1, 2, 3], "suspend");
    lab.expect(GROUP, told)?;
    lab.expect_still(&[GROUP], told, LONG)
}

fn come_together(lab: &Lab) -> Result {
    lab.cluster().heal()?;
    lab.cluster().wait_members(&ALL, &ALL, LIMIT)?;
    for node in [4, 5] {
        wait_until("the two were to learn that they are buried", LIMIT, || {
            let status = lab.status(node);
            status.is_ok_and(|status| status.groups.iter().all(|group| group.state == "expelled"))
        })?;
    }
    Ok(())
}

/// Neither the old group nor a new one may be used on a node that was buried.
fn assert_buried(lab: &Lab, node: u32) -> Result {
    let (code, why) = lab.refused(node, GROUP, "/mnt/second")?;
    assert_eq!(code, "Expelled", "{why}");
    let other = GROUP.replace('1', "2");
    let (code, why) = lab.refused(node, &other, MOUNT)?;
    assert_eq!(code, "TimedOut", "{why}");
    assert_eq!(lab.told(&other)?, Told::new());
    Ok(())
}

fn reboot(lab: &mut Lab, node: u32) -> Result {
    lab.cluster().node(node).reboot()?;
    lab.cluster().node(node).start_corosync()?;
    lab.start_daemon(node)?;
    lab.wait_settled(node)
}

#[test]
fn the_minority_hears_nothing_and_the_majority_waits_for_the_acknowledgement() -> Result {
    let (mut lab, mut told) = five_mounted("ack")?;
    cut_off_two(&lab, &mut told)?;
    let begin = lab.try_o2bridge(5, &["begin", &GROUP.replace('1', "2"), MOUNT])?;
    assert_eq!(begin.code, 4, "{}", begin.stderr);
    assert!(begin.stderr.contains("quorum"), "{}", begin.stderr);

    lab.o2bridge(1, &["fence-ack", "4"])?;
    told.add(&[1, 2, 3], "node_down 4a");
    lab.expect(GROUP, &told)?;
    let again = lab.try_o2bridge(2, &["fence-ack", "4"])?;
    assert_eq!(again.code, 1, "{}", again.stderr);
    lab.o2bridge(2, &["fence-ack", "5"])?;
    told.add(&[1, 2, 3], "node_down 5a | resume 1a 2a 3a");
    lab.expect(GROUP, &told)?;

    come_together(&lab)?;
    assert_buried(&lab, 4)?;
    assert_buried(&lab, 5)?;
    lab.expect(GROUP, &told)?;

    for node in [4, 5] {
        reboot(&mut lab, node)?;
        lab.mount(node, GROUP, MOUNT)?;
    }
    told.add(&[1, 2, 3], "suspend | resume 1a 2a 3a 4b").add(&[4], "attach 1a 2a 3a 4b");
    told.add(&[1, 2, 3, 4], "suspend | resume 1a 2a 3a 4b 5b").add(&[5], "attach 1a 2a 3a 4b 5b");
    lab.expect(GROUP, &told)
}

#[test]
fn the_cable_is_back_before_the_acknowledgement() -> Result {
    let (mut lab, mut told) = five_mounted("ack")?;
    cut_off_two(&lab, &mut told)?;
    come_together(&lab)?;
    assert_buried(&lab, 4)?;
    assert_buried(&lab, 5)?;
    lab.expect_still(&[GROUP], &told, LONG)?;

    // Another boot of node 4 is proof enough of the death of the first.
    reboot(&mut lab, 4)?;
    told.add(&[1, 2, 3], "node_down 4a");
    lab.expect(GROUP, &told)?;
    // Node 5 is here and still uses the volume: nobody's word makes it dead.
    assert!(lab.o2bridge(3, &["fence-ack", "5"]).is_err());
    lab.expect_still(&[GROUP], &told, LONG)?;
    // It has been waiting for its reset. It may also end all that it was buried in: then it has left, and
    // nobody has to say that it is dead.
    assert_buried(&lab, 5)?;
    lab.unmount(5, GROUP, MOUNT)?;
    told.add(&[5], "detach").add(&[1, 2, 3], "resume 1a 2a 3a");
    lab.expect(GROUP, &told)?;
    assert!(lab.o2bridge(3, &["fence-ack", "5"]).is_err());
    lab.mount(4, GROUP, MOUNT)?;
    told.add(&[1, 2, 3], "suspend | resume 1a 2a 3a 4b").add(&[4], "attach 1a 2a 3a 4b");
    lab.expect(GROUP, &told)?;

    lab.mount(5, GROUP, MOUNT)?;
    told.add(&[1, 2, 3, 4], "suspend | resume 1a 2a 3a 4b 5b").add(&[5], "attach 1a 2a 3a 4b 5b");
    lab.expect(GROUP, &told)
}

/// Everyone alone, longer than the grace, and all together again. Says which ring was the first
/// quorate one after that.
fn scatter_and_gather(lab: &Lab, told: &Told) -> std::result::Result<Vec<u32>, LabError> {
    lab.cluster().partition(&[&[1], &[2], &[3], &[4], &[5]])?;
    for node in ALL {
        lab.cluster().wait_members(&[node], &[node], LIMIT)?;
    }
    lab.expect_still(&[GROUP], told, LONG)?;
    let seen = ALL.map(|node| rings(lab, node).len());
    lab.cluster().heal()?;
    lab.cluster().wait_members(&ALL, &ALL, LIMIT)?;
    for node in ALL {
        lab.wait_settled(node)?;
    }
    let new = ALL.into_iter().zip(seen).flat_map(|(node, seen)| rings(lab, node).split_off(seen));
    let quorate = new.filter(|ring| 2 * ring.len() > ALL.len());
    Ok(quorate.min_by_key(Vec::len).unwrap())
}

/// The rings that a node's corosync has been in.
fn rings(lab: &Lab, node: u32) -> Vec<Vec<u32>> {
    let path = lab.cluster().node(node).dir().join("corosync.log");
    let log = std::fs::read_to_string(path).unwrap();
    let rings = log.lines().filter_map(|line| line.split_once("Members[")?.1.split_once(": "));
    let nodes = |text: &str| text.split_whitespace().map(|node| node.parse().unwrap()).collect();
    rings.map(|(_, text)| nodes(text)).collect()
}

/// Corosync may bring a majority together before it finds the rest: whoever was out of the ring when
/// quorum came has a grace to show up, so that is nobody's death either.
#[test]
fn everyone_cut_off_from_everyone_is_nobodys_death() -> Result {
    let (lab, told) = five_mounted("none")?;
    let ring = scatter_and_gather(&lab, &told)?;
    println!("the first quorate ring was {ring:?}");
    go_on(&lab, told)
}

fn go_on(lab: &Lab, mut told: Told) -> Result {
    lab.expect(GROUP, &told)?;
    lab.unmount(3, GROUP, MOUNT)?;
    told.add(&[3], "detach").add(&[1, 2, 4, 5], "suspend | resume 1a 2a 4a 5a");
    lab.expect(GROUP, &told)?;
    lab.mount(3, GROUP, MOUNT)?;
    told.add(&[1, 2, 4, 5], "suspend | resume 1a 2a 3b 4a 5a").add(&[3], "attach 1a 2a 3b 4a 5a");
    lab.expect(GROUP, &told)
}
