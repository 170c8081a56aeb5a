use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::*;

fn node(slot: u8) -> Entry {
    Entry {
        name: format!("n{slot}"),
        slot,
        address: Ipv4Addr::new(10, 0, 0, slot),
        port: 7777,
        is_local: slot == 1,
    }
}

fn attributes() -> Vec<(Attribute, String)> {
    let values = ["local", "31", "30000", "2000", "2000"];
    Attribute::ALL.into_iter().zip(values.map(str::to_owned)).collect()
}

fn goal(slots: &[u8]) -> Goal {
    let nodes = slots.iter().copied().map(node).collect();
    Goal { cluster: "lab".into(), attributes: attributes(), nodes }
}

fn table(slots: &[u8], regions: &[&str]) -> Table {
    Table {
        cluster: "lab".into(),
        attributes: attributes(),
        nodes: slots.iter().copied().map(node).collect(),
        regions: regions.iter().map(|&name| name.into()).collect(),
    }
}

fn set(attributes: &mut [(Attribute, String)], which: Attribute, value: &str) {
    attributes.iter_mut().find(|(attribute, _)| *attribute == which).unwrap().1 = value.into();
}

fn online(found: &Table, goal: &Goal) -> Result<Plan, Vec<Difference>> {
    plan(Some(found), goal, Users::Unknown)
}

fn update(found: &Table, goal: &Goal, in_use: &[u8]) -> Result<Plan, Vec<Difference>> {
    let in_use: BTreeSet<u8> = in_use.iter().copied().collect();
    plan(Some(found), goal, Users::Known(&in_use))
}

fn texts(differences: Vec<Difference>) -> Vec<String> {
    differences.iter().map(Difference::to_string).collect()
}

fn waiting(slot: u8, why: Why) -> Waiting {
    Waiting { name: format!("n{slot}"), slot, why }
}

#[test]
fn from_nothing_our_own_node_is_last() {
    let plan = plan(None, &goal(&[1, 3, 2]), Users::Unknown).unwrap();
    let mut wanted = vec![Step::MakeCluster];
    wanted.extend(attributes().into_iter().map(|(attribute, value)| Step::Set(attribute, value)));
    wanted.extend([2, 3, 1].map(|slot| Step::AddNode(node(slot))));
    assert_eq!(plan, Plan { steps: wanted, ..Plan::default() });
}

#[test]
fn an_equal_table_is_adopted() {
    for regions in [&[][..], &["A"]] {
        assert_eq!(online(&table(&[1, 2], regions), &goal(&[2, 1])), Ok(Plan::default()));
        assert_eq!(update(&table(&[1, 2], regions), &goal(&[2, 1]), &[1]), Ok(Plan::default()));
    }
}

#[test]
fn another_cluster_is_refused_with_both_names() {
    let mut found = table(&[], &[]);
    found.cluster = "old".into();
    let text = "cluster: name is old there, lab is wanted";
    assert_eq!(texts(online(&found, &goal(&[1])).unwrap_err()), [text]);
}

#[test]
fn attributes_are_written_only_while_nothing_is_active() {
    let mut goal = goal(&[1]);
    set(&mut goal.attributes, Attribute::DeadThreshold, "61");
    let steps = vec![Step::Set(Attribute::DeadThreshold, "61".into())];
    assert_eq!(online(&table(&[1], &[]), &goal).unwrap().steps, steps);
    assert_eq!(update(&table(&[1], &[]), &goal, &[]).unwrap().steps, steps);
    let text = "cluster: heartbeat/dead_threshold is 31 there, 61 is wanted";
    assert_eq!(texts(online(&table(&[1], &["A"]), &goal).unwrap_err()), [text]);
    let updated = update(&table(&[1], &["A"]), &goal, &[1]).unwrap();
    assert_eq!((updated.steps.len(), updated.heads_up.len()), (0, 1));
    assert!(updated.heads_up[0].starts_with(text));
}

#[test]
fn the_idle_timeout_is_above_the_keepalive_delay_at_every_moment() {
    let order = |idle: &str, keepalive: &str| {
        let mut goal = goal(&[1]);
        set(&mut goal.attributes, Attribute::IdleTimeout, idle);
        set(&mut goal.attributes, Attribute::KeepaliveDelay, keepalive);
        online(&table(&[1], &[]), &goal).unwrap().steps
    };
    let idle = |value: &str| Step::Set(Attribute::IdleTimeout, value.into());
    let keepalive = |value: &str| Step::Set(Attribute::KeepaliveDelay, value.into());
    assert_eq!(order("90000", "60000"), [idle("90000"), keepalive("60000")]);
    assert_eq!(order("1500", "1000"), [keepalive("1000"), idle("1500")]);
    assert_eq!(order("30000", "1000"), [keepalive("1000")]);
    let mut fresh = goal(&[1]);
    set(&mut fresh.attributes, Attribute::IdleTimeout, "1500");
    set(&mut fresh.attributes, Attribute::KeepaliveDelay, "1000");
    let steps = plan(None, &fresh, Users::Unknown).unwrap().steps;
    assert_eq!(steps[3..5], [keepalive("1000"), idle("1500")]);
}

#[test]
fn a_node_that_comes_is_added_also_while_regions_are_active() {
    let added = [Step::AddNode(node(3))];
    assert_eq!(online(&table(&[1, 2], &["A"]), &goal(&[1, 2, 3])).unwrap().steps, added);
    let plan = update(&table(&[1, 2], &["A"]), &goal(&[1, 2, 3]), &[1, 2]).unwrap();
    assert_eq!((plan.steps.as_slice(), plan.waiting.as_slice()), (&added[..], &[][..]));
}

#[test]
fn a_node_that_went_stays_while_its_membership_is_up() {
    let (found, wanted) = (table(&[1, 2, 3], &["A"]), goal(&[1, 2]));
    let plan = update(&found, &wanted, &[1, 3]).unwrap();
    assert_eq!((plan.steps.len(), plan.waiting), (0, vec![waiting(3, Why::InUse)]));
    let plan = update(&found, &wanted, &[1]).unwrap();
    assert_eq!((plan.steps, plan.waiting.len()), (vec![Step::RemoveNode(node(3))], 0));
    // Bringing online, nobody can say who is up.
    let plan = online(&found, &wanted).unwrap();
    assert_eq!((plan.steps.len(), plan.stale), (0, vec![node(3)]));
    let plan = online(&table(&[1, 2, 3], &[]), &wanted).unwrap();
    assert_eq!((plan.steps, plan.stale.len()), (vec![Step::RemoveNode(node(3))], 0));
}

#[test]
fn a_changed_address_is_a_removal_and_then_an_addition() {
    let mut wanted = goal(&[1, 2]);
    wanted.nodes[1].address = Ipv4Addr::new(10, 0, 0, 99);
    let new = wanted.nodes[1].clone();
    let steps = vec![Step::RemoveNode(node(2)), Step::AddNode(new)];
    let found = table(&[1, 2], &["A"]);
    assert_eq!(update(&found, &wanted, &[1]).unwrap().steps, steps);
    assert_eq!(online(&table(&[1, 2], &[]), &wanted).unwrap().steps, steps);
    let plan = update(&found, &wanted, &[1, 2]).unwrap();
    assert_eq!(plan.steps, []);
    assert_eq!(plan.waiting, [waiting(2, Why::Behind("n2".into())), waiting(2, Why::InUse)]);
    let plan = online(&found, &wanted).unwrap();
    assert_eq!((plan.steps.len(), plan.stale), (0, vec![node(2)]));
    assert_eq!(plan.waiting, [waiting(2, Why::Behind("n2".into()))]);
}

#[test]
fn a_member_does_not_get_another_slot_or_port() {
    let found = table(&[1, 2], &["A"]);
    let mut wanted = goal(&[1, 2]);
    wanted.nodes[1].slot = 9;
    wanted.nodes[1].port = 7778;
    let texts_wanted = [
        "node 'n2': num is 2 there, 9 is wanted",
        "node 'n2': ipv4_port is 7777 there, 7778 is wanted",
    ];
    assert_eq!(texts(update(&found, &wanted, &[1, 2]).unwrap_err()), texts_wanted);
    assert_eq!(texts(online(&found, &wanted).unwrap_err()), texts_wanted);
    assert_eq!(update(&found, &wanted, &[1]).unwrap().steps.len(), 2, "it is no member");
}

#[test]
fn our_own_node_changes_only_while_nothing_is_active() {
    let mut wanted = goal(&[1, 2]);
    wanted.nodes[0].address = Ipv4Addr::new(10, 0, 0, 77);
    for in_use in [&[1][..], &[]] {
        let error = texts(update(&table(&[1, 2], &["A"]), &wanted, in_use).unwrap_err());
        assert_eq!(error, ["node 'n1': ipv4_address is 10.0.0.1 there, 10.0.0.77 is wanted"]);
    }
    let steps = update(&table(&[1, 2], &[]), &wanted, &[]).unwrap().steps;
    assert_eq!(steps, [Step::RemoveNode(node(1)), Step::AddNode(wanted.nodes[0].clone())]);
    // Node 2 becomes ours, by a table of another machine: refused while it is in use.
    let mut moved = goal(&[1, 2]);
    moved.nodes[0].is_local = false;
    moved.nodes[1].is_local = true;
    let error = texts(online(&table(&[1, 2], &["A"]), &moved).unwrap_err());
    assert!(error.contains(&"node 'n1': local is true there, false is wanted".to_owned()));
}

#[test]
fn half_made_nodes_are_made_again() {
    let mut found = table(&[1, 2], &["A"]);
    found.nodes[1].port = 0;
    found.nodes[1].slot = 0;
    let steps = vec![Step::RemoveNode(found.nodes[1].clone()), Step::AddNode(node(2))];
    assert_eq!(online(&found, &goal(&[1, 2])).unwrap().steps, steps);
    assert_eq!(update(&found, &goal(&[1, 2]), &[0, 1, 2]).unwrap().steps, steps);
}

#[test]
fn slot_0_is_confirmed_unless_it_is_in_use() {
    let wanted = goal(&[0, 1]);
    let confirm = [Step::ConfirmZero("n0".into())];
    assert_eq!(online(&table(&[0, 1], &[]), &wanted).unwrap().steps, confirm);
    assert_eq!(online(&table(&[0, 1], &["A"]), &wanted).unwrap().steps, []);
}

#[test]
fn another_name_is_adopted() {
    let mut found = table(&[1, 2], &["A"]);
    found.nodes[1].name = "two.example.org".into();
    let plan = online(&found, &goal(&[1, 2])).unwrap();
    assert_eq!((plan.steps.len(), plan.heads_up.len()), (0, 1));
    assert!(plan.heads_up[0].contains("'two.example.org'"));
}

#[test]
fn a_teardown_ends_with_our_own_node_and_the_cluster() {
    let steps = teardown(&table(&[1, 2, 3], &[]));
    let nodes = [2, 3, 1].map(|slot| Step::RemoveNode(node(slot)));
    assert_eq!(steps, nodes.into_iter().chain([Step::RemoveCluster]).collect::<Vec<_>>());
}
