//! Nodes begin to use groups and end it cleanly: nobody dies.

use o2bridge_e2e::{GROUPS, Lab, Told};

const MOUNT: &str = "/srv/shared";

#[test]
fn three_nodes_join_and_leave_three_groups() {
    let lab = Lab::builder().nodes(3).start().unwrap();
    let mut told: [Told; 3] = Default::default();
    // Each group sees the nodes in another order.
    let orders = [[1, 2, 3], [3, 1, 2], [2, 3, 1]];
    for step in 0..3 {
        for ((group, order), told) in GROUPS.iter().zip(orders).zip(&mut told) {
            lab.mount(order[step], group, MOUNT).unwrap();
            let mut users: Vec<u32> = order[..=step].to_vec();
            users.sort_unstable();
            told.add(&[order[step]], &format!("attach{}", names(&users)));
            told.add(&order[..step], &format!("suspend | resume{}", names(&users)));
            lab.expect(group, told).unwrap();
        }
    }
    // The first one leaves each group, then begins again; then the last one, the first one again ...
    for ((group, order), told) in GROUPS.iter().zip(orders).zip(&mut told) {
        let [first, middle, last] = order;
        lab.unmount(first, group, MOUNT).unwrap();
        let mut rest = [middle, last];
        rest.sort_unstable();
        told.add(&[first], "detach");
        told.add(&rest, &format!("suspend | resume{}", names(&rest)));
        lab.expect(group, told).unwrap();

        lab.mount(first, group, MOUNT).unwrap();
        let again = names(&[1, 2, 3]).replace(&format!("{first}a"), &format!("{first}b"));
        told.add(&[first], &format!("attach{again}"));
        told.add(&rest, &format!("suspend | resume{again}"));
        lab.expect(group, told).unwrap();

        lab.unmount(last, group, MOUNT).unwrap();
        let mut rest = [first, middle];
        rest.sort_unstable();
        let left = names(&rest).replace(&format!("{first}a"), &format!("{first}b"));
        told.add(&[last], "detach");
        told.add(&rest, &format!("suspend | resume{left}"));
        lab.expect(group, told).unwrap();

        lab.unmount(first, group, MOUNT).unwrap();
        told.add(&[first], "detach");
        told.add(&[middle], &format!("suspend | resume{}", names(&[middle])));
        lab.expect(group, told).unwrap();

        lab.unmount(middle, group, MOUNT).unwrap();
        told.add(&[middle], "detach");
    }
    for (group, told) in GROUPS.iter().zip(&told) {
        lab.expect(group, told).unwrap();
    }
    for node in 1..=3 {
        assert_eq!(lab.status(node).unwrap().groups, [], "nothing is left on node {node}");
        let groups: Vec<String> =
            lab.records(node).unwrap().into_iter().map(|record| record.group).collect();
        assert!(groups.iter().all(|group| GROUPS.contains(&group.as_str())), "{groups:?}");
    }
}

/// Two services of one node are one use, and the group stays until the last one left.
#[test]
fn two_services_are_one_use() {
    let lab = Lab::builder().nodes(2).start().unwrap();
    let group = GROUPS[0];
    let mut told = Told::new();
    lab.mount(1, group, "/first").unwrap();
    lab.mount(1, group, "/second").unwrap();
    told.add(&[1], "attach 1a");
    lab.expect_all(&[group], &told).unwrap();
    lab.mount(2, group, "/first").unwrap();
    told.add(&[1], "suspend | resume 1a 2a").add(&[2], "attach 1a 2a");
    lab.expect_all(&[group], &told).unwrap();
    lab.unmount(1, group, "/first").unwrap();
    lab.expect_all(&[group], &told).unwrap();
    lab.unmount(1, group, "/second").unwrap();
    told.add(&[1], "detach").add(&[2], "suspend | resume 2a");
    lab.expect_all(&[group], &told).unwrap();
}

fn names(nodes: &[u32]) -> String {
    nodes.iter().map(|node| format!(" {node}a")).collect()
}
