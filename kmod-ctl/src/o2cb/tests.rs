use super::*;
use crate::kernel::fake::Fake;
use crate::plan::Why;
use crate::wanted::tests::wanted;
use std::net::Ipv4Addr;

const ENOTEMPTY: i32 = 39;
const EADDRNOTAVAIL: i32 = 99;

fn start() -> (Fake, O2cb) {
    let fake = Fake::new();
    (fake.clone(), O2cb::with_kernel(Paths::default(), Box::new(fake)))
}

/// Nodes 1 to `count`, with volume A in use.
fn running(count: u8) -> (Fake, O2cb) {
    let (fake, o2cb) = start();
    o2cb.online(&wanted(count)).unwrap();
    fake.region("lab", "A");
    fake.log();
    (fake, o2cb)
}

fn node_lines(name: &str, slot: u8, is_local: bool) -> Vec<String> {
    let mut lines = vec![
        format!("make lab/node/{name}"),
        format!("write 7777 lab/node/{name}/ipv4_port"),
        format!("write 10.0.0.{slot} lab/node/{name}/ipv4_address"),
        format!("write {slot} lab/node/{name}/num"),
    ];
    lines.extend(is_local.then(|| format!("write 1 lab/node/{name}/local")));
    lines
}

#[test]
fn online_writes_what_differs_in_the_order_that_the_kernel_wants() {
    let (fake, o2cb) = start();
    let mut wanted = wanted(3);
    wanted.dead_threshold = 61;
    let online = o2cb.online(&wanted).unwrap();
    let mut lines = vec!["make lab".to_owned()];
    lines.push("write 61 lab/heartbeat/dead_threshold".into());
    lines.extend(node_lines("n2", 2, false));
    lines.extend(node_lines("n3", 3, false));
    lines.extend(node_lines("n1", 1, true));
    assert_eq!(fake.log(), lines);
    assert_eq!((online.local, online.port, online.slots.node(3)), (1, 7777, Some(3)));
    assert_eq!((online.done.len(), online.heads_up.len(), online.stale.len()), (5, 0, 0));
}

#[test]
fn again_is_adopted_and_nothing_is_written() {
    let (fake, o2cb) = running(3);
    for o2cb in [o2cb, O2cb::with_kernel(Paths::default(), Box::new(fake.clone()))] {
        let online = o2cb.online(&wanted(3)).unwrap();
        assert_eq!((online.done.len(), online.slots.node(2)), (0, Some(2)));
    }
    assert_eq!(fake.log(), [""; 0]);
}

#[test]
fn what_is_invalid_touches_nothing() {
    let (fake, o2cb) = start();
    let mut bad = wanted(2);
    bad.dead_threshold = 2;
    assert!(matches!(o2cb.online(&bad), Err(Error::Wanted(_))));
    let mut bad = wanted(2);
    bad.slots.insert(1, 2);
    assert!(matches!(o2cb.online(&bad), Err(Error::Slots(_))));
    fake.file("/etc/ocfs2/cluster.conf", "cluster:\n name lab\n");
    let error = o2cb.online(&wanted(2)).unwrap_err();
    assert!(error.to_string().starts_with("/etc/ocfs2/cluster.conf, line 2: "), "{error}");
    assert_eq!(fake.log(), [""; 0]);
}

const OTHER_PORT: &str = "\
cluster:
\tname = lab
node:
\tname = n2
\tnumber = 2
\tip_address = 10.0.0.2
\tip_port = 7778
\tcluster = lab
";

#[test]
fn cluster_conf_that_contradicts_is_refused_unless_the_table_is_in_use() {
    let (fake, o2cb) = start();
    fake.file("/etc/ocfs2/cluster.conf", OTHER_PORT);
    let error = o2cb.online(&wanted(2)).unwrap_err();
    assert!(matches!(error, Error::Contradiction(..)));
    let text = error.to_string();
    assert!(text.contains("node 'n2': ip_port is 7778 there, 7777 is wanted"), "{text}");
    assert_eq!(fake.log(), [""; 0]);

    let (fake, o2cb) = running(2);
    fake.file("/etc/ocfs2/cluster.conf", OTHER_PORT);
    let online = o2cb.online(&wanted(2)).unwrap();
    assert!(online.heads_up.iter().any(|line| line.contains("7778")), "{:?}", online.heads_up);
    assert!(matches!(o2cb.online(&wanted(3)), Err(Error::Contradiction(..))), "would be written");
}

#[test]
fn numbers_of_cluster_conf_become_slots() {
    let (fake, o2cb) = start();
    let text = OTHER_PORT.replace("7778", "7777").replace("number = 2", "number = 0");
    fake.file("/etc/ocfs2/cluster.conf", &text);
    let online = o2cb.online(&wanted(2)).unwrap();
    assert_eq!(online.slots.iter().collect::<Vec<_>>(), [(1, 1), (2, 0)]);
    assert!(fake.log().contains(&"write 0 lab/node/n2/num".to_owned()));
    // Slot 0 is looked at twice, because 0 is also what was never written.
    assert_eq!(o2cb.online(&wanted(2)).unwrap().done.len(), 0);
}

#[test]
fn whatever_fails_all_is_undone() {
    let steps = {
        let (fake, o2cb) = start();
        let mut wanted = wanted(2);
        wanted.dead_threshold = 61;
        o2cb.online(&wanted).unwrap();
        fake.log()
    };
    for step in &steps {
        let (fake, o2cb) = start();
        let mut wanted = wanted(2);
        wanted.dead_threshold = 61;
        fake.fail(step, EADDRNOTAVAIL);
        let error = o2cb.online(&wanted).unwrap_err();
        assert!(matches!(error, Error::Step { .. }), "{step}: {error}");
        assert!(error.to_string().contains("must be up on one of its interfaces"), "{error}");
        let left = fake.state().directories.len();
        assert_eq!(left, 1, "{step} leaves nothing");
        let threshold = Paths::default().configfs.join("cluster/.threshold");
        assert_eq!(fake.state().files[&threshold], "31", "{step}: what outlives the cluster too");
        o2cb.online(&wanted).unwrap();
    }
}

#[test]
fn what_cannot_be_undone_is_named() {
    let (fake, o2cb) = start();
    fake.fail("write 1 lab/node/n1/local", EADDRNOTAVAIL);
    fake.fail("remove lab/node/n2", ENOTEMPTY);
    let Error::Undo(cause, left) = o2cb.online(&wanted(2)).unwrap_err() else { panic!() };
    assert!(cause.to_string().contains("node/n1/local"));
    let text: Vec<String> = left.iter().map(Error::to_string).collect();
    assert!(text[0].contains("cluster/lab/node/n2"), "{text:?}");
    assert!(text[1].contains("cannot remove /sys/kernel/config/cluster/lab:"), "{text:?}");
}

#[test]
fn a_write_that_is_ignored_is_noticed() {
    let (fake, o2cb) = start();
    o2cb.online(&wanted(2)).unwrap();
    fake.log();
    let mut wanted = wanted(2);
    wanted.mode = crate::Mode::Global;
    let fs = o2cb.configfs();
    fake.region("lab", "A");
    let error = fs.set("lab", Attribute::Mode, "global").unwrap_err();
    let Error::Ignored { wanted: asked, found, .. } = &error else { panic!("{error}") };
    assert_eq!((asked.as_str(), found.as_str()), ("global", "local"));
    // The plan knows better than to try.
    assert!(matches!(o2cb.online(&wanted), Err(Error::Table(..))));
}

#[test]
fn nodes_come_and_go() {
    let (fake, o2cb) = running(2);
    let added = o2cb.update(&wanted(3), &BTreeSet::from([1, 2])).unwrap();
    assert_eq!((added.slots.slot(3), added.waiting.len()), (Some(3), 0));
    assert_eq!(fake.log(), node_lines("n3", 3, false));

    // Gone from the list, still a member; then a connection lingers; then it goes.
    let gone = o2cb.update(&wanted(2), &BTreeSet::from([1, 2, 3])).unwrap();
    assert_eq!(gone.waiting[0].why, Why::InUse);
    assert_eq!(gone.slots.node(3), Some(3), "its death must still find its slot");
    fake.state().busy.insert("n3".into());
    let gone = o2cb.update(&wanted(2), &BTreeSet::from([1, 2])).unwrap();
    assert_eq!((gone.waiting[0].why.clone(), gone.slots.node(3)), (Why::Busy, Some(3)));
    fake.state().busy.clear();
    let gone = o2cb.update(&wanted(2), &BTreeSet::from([1, 2])).unwrap();
    assert_eq!((gone.waiting.len(), gone.slots.node(3)), (0, None));
    assert_eq!(fake.log(), ["remove lab/node/n3"]);
    assert_eq!(o2cb.update(&wanted(2), &BTreeSet::new()).unwrap().done.len(), 0);
}

#[test]
fn who_comes_in_the_place_of_a_busy_one_waits() {
    let (fake, o2cb) = running(2);
    let mut moved = wanted(2);
    moved.nodes[1].address = Ipv4Addr::new(10, 0, 0, 9);
    fake.state().busy.insert("n2".into());
    let pending = o2cb.update(&moved, &BTreeSet::from([1])).unwrap();
    let whys: Vec<Why> = pending.waiting.iter().map(|it| it.why.clone()).collect();
    assert_eq!(whys, [Why::Busy, Why::Behind("n2".into())]);
    assert_eq!(pending.slots.slot(2), Some(2), "as long as the directory is there");
    assert_eq!(fake.log(), [""; 0]);
    fake.state().busy.clear();
    let done = o2cb.update(&moved, &BTreeSet::from([1])).unwrap();
    assert_eq!((done.waiting.len(), done.slots.slot(2)), (0, Some(2)));
    let log = fake.log();
    assert_eq!((log[0].as_str(), log[1].as_str()), ("remove lab/node/n2", "make lab/node/n2"));
    assert!(log.contains(&"write 10.0.0.9 lab/node/n2/ipv4_address".to_owned()));
}

#[test]
fn a_restart_that_finds_a_changed_address_leaves_it_to_an_update() {
    let (fake, _) = running(2);
    let o2cb = O2cb::with_kernel(Paths::default(), Box::new(fake.clone()));
    let mut moved = wanted(2);
    moved.nodes[1].address = Ipv4Addr::new(10, 0, 0, 9);
    let online = o2cb.online(&moved).unwrap();
    assert_eq!(online.stale, [("n2".to_owned(), 2)]);
    assert_eq!(online.waiting[0].why, Why::Behind("n2".into()));
    assert_eq!(online.slots.slot(2), Some(2), "its death must find its slot");
    assert_eq!(fake.log(), [""; 0]);
    let updated = o2cb.update(&moved, &BTreeSet::from([1])).unwrap();
    assert_eq!((updated.done.len(), updated.waiting.len()), (2, 0));
}

#[test]
fn a_slot_that_passes_to_another_node_is_the_old_ones_until_it_is_gone() {
    let (fake, o2cb) = running(2);
    let mut other = wanted(3);
    other.nodes.remove(1);
    other.slots.insert(3, 2);
    let pending = o2cb.update(&other, &BTreeSet::from([1, 2])).unwrap();
    assert_eq!((pending.slots.node(2), pending.slots.slot(3)), (Some(2), None));
    let pending = o2cb.update(&other, &BTreeSet::from([1])).unwrap();
    assert_eq!((pending.slots.node(2), pending.slots.slot(2)), (Some(3), None));
    assert_eq!(fake.nodes("lab"), ["n1", "n3"]);
}

#[test]
fn an_update_that_fails_is_undone() {
    let (fake, o2cb) = running(3);
    let mut changed = wanted(4);
    changed.nodes.remove(2);
    fake.fail("write 4 lab/node/n4/num", ENOTEMPTY);
    assert!(o2cb.update(&changed, &BTreeSet::from([1, 2])).is_err());
    assert_eq!(fake.nodes("lab"), ["n1", "n2", "n3"]);
    assert_eq!(o2cb.online(&wanted(3)).unwrap().done.len(), 0, "as it was");
}

#[test]
fn an_update_of_nothing_is_refused() {
    let (fake, o2cb) = start();
    let result = o2cb.update(&wanted(2), &BTreeSet::new());
    assert!(matches!(result, Err(Error::NotOnline(cluster)) if cluster == "lab"));
    assert_eq!(fake.log(), [""; 0]);
}

#[test]
fn offline_leaves_nothing_and_refuses_while_regions_are_there() {
    let (fake, o2cb) = running(3);
    let error = o2cb.offline().unwrap_err();
    assert!(matches!(&error, Error::InUse { regions, .. } if regions == &["A"]), "{error}");
    fake.no_regions("lab");
    assert!(o2cb.offline().unwrap(), "it was there");
    assert_eq!(
        fake.log(),
        ["remove lab/node/n2", "remove lab/node/n3", "remove lab/node/n1", "remove lab"]
    );
    assert!(!o2cb.offline().unwrap());
    assert_eq!(fake.log(), [""; 0]);
}

/// A daemon that never came online, after one that did: who stops it must not hear that all is gone.
#[test]
fn offline_leaves_the_cluster_of_an_earlier_process_and_says_so() {
    let (fake, earlier) = running(3);
    fake.no_regions("lab");
    let o2cb = O2cb::with_kernel(Paths::default(), Box::new(fake.clone()));
    let error = o2cb.offline().unwrap_err();
    assert!(matches!(&error, Error::NotOurs(path) if path.ends_with("cluster/lab")), "{error}");
    assert_eq!(fake.log(), [""; 0]);
    assert!(earlier.offline().unwrap());
    assert!(!o2cb.offline().unwrap(), "nothing is there");
}

#[test]
fn offline_collects_what_it_cannot_remove() {
    let (fake, o2cb) = running(3);
    fake.no_regions("lab");
    fake.state().busy.insert("n2".into());
    let Error::Teardown(left) = o2cb.offline().unwrap_err() else { panic!() };
    let texts: Vec<String> = left.iter().map(Error::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("lab/node/n2") && texts[1].contains("cluster/lab:"), "{texts:?}");
    fake.state().busy.clear();
    o2cb.offline().unwrap();
    assert_eq!(fake.state().directories.len(), 1);
}

#[test]
fn without_drivers_the_next_step_is_named() {
    let o2cb = O2cb::with_kernel(Paths::default(), Box::new(Fake::default()));
    let text = o2cb.online(&wanted(2)).unwrap_err().to_string();
    assert!(text.contains("/sys/kernel/config/cluster") && text.contains("loaded"), "{text}");
}

#[test]
fn what_a_user_heartbeat_driver_lacks_is_said_and_not_missed() {
    let fake = Fake::user_heartbeat();
    let o2cb = O2cb::with_kernel(Paths::default(), Box::new(fake.clone()));
    let online = o2cb.online(&wanted(2)).unwrap();
    let mut lines = vec!["make lab".to_owned()];
    lines.extend(node_lines("n2", 2, false));
    lines.extend(node_lines("n1", 1, true));
    assert_eq!(fake.log(), lines);
    assert_eq!(online.heads_up.len(), 1, "{:?}", online.heads_up);
    for attribute in Attribute::ALL {
        assert!(online.heads_up[0].contains(attribute.path()), "{:?}", online.heads_up);
    }

    fake.region("lab", "A");
    let mut other = wanted(3);
    other.dead_threshold = 61;
    let o2cb = O2cb::with_kernel(Paths::default(), Box::new(fake.clone()));
    assert_eq!(o2cb.online(&other).unwrap().done.len(), 1, "node 3, and no contradiction");
    assert_eq!(o2cb.update(&other, &BTreeSet::from([1])).unwrap().heads_up, [""; 0]);
    fake.no_regions("lab");
    o2cb.offline().unwrap();
    assert_eq!(fake.state().directories.len(), 1);
}

#[test]
fn what_a_stock_driver_lacks_is_an_error() {
    let (fake, o2cb) = running(2);
    fake.state().files.retain(|path, _| !path.ends_with("lab/keepalive_delay_ms"));
    let text = o2cb.online(&wanted(2)).unwrap_err().to_string();
    assert!(text.starts_with("cannot read") && text.contains("keepalive_delay_ms"), "{text}");
}
