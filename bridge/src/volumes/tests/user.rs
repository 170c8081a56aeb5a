//! User stacks: the kernel's word is all there is.

use std::collections::BTreeSet;

use o2bridge_core::NodeId;
use o2bridge_core::snapshot::NodeStatus;

use super::*;

fn pcmk(uuid: GroupId, minor: u64) -> Present {
    present(uuid, minor, &named("pcmk", "lab", false))
}

/// Knows its cluster, and that nothing is in use.
fn ready(serves: Serves) -> Bench {
    let mut bench = Bench::new(Policy { serves, ..policy(OnLoss::Reset) });
    bench.set_cluster(Mode::Local);
    bench.lockspaces(&[]);
    bench.mounts(&[]);
    bench
}

/// With one volume, not in use.
fn seen() -> Bench {
    let mut bench = ready(Serves::UserSeen);
    bench.present(&[pcmk(U, 1)]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "not in use");
    bench
}

impl Bench {
    fn lockspaces(&mut self, groups: &[GroupId]) {
        let all = groups.iter().map(|group| (*group, BTreeSet::new())).collect();
        self.change(Change::Lockspaces(all));
    }

    /// Everything that is asked is done.
    fn done(&mut self, expected: &[&str]) {
        let mut said = Vec::new();
        while !self.events.is_empty() {
            said.extend(self.events.iter().map(brief));
            if self.events.iter().all(|event| request_of(event).is_none()) {
                self.events.clear();
            } else {
                self.answer(&Reply::Done);
            }
        }
        assert_eq!(said, expected);
    }
}

/// A mount that nobody announced gets its service, and loses it with the umount.
#[test]
fn a_silent_mount_is_seen() {
    let mut bench = seen();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.done(&["begin 45 /srv lab", "complete 45 /srv"]);
    assert_eq!(bench.state(), "in use");
    assert_eq!(bench.orders(), [] as [&str; 0], "no beats are looked for, no storage is guarded");
    bench.mounts(&[]);
    bench.done(&["leave 45 /srv"]);
    assert_eq!(bench.state(), "not in use");
}

/// A tool that says nothing has a lockspace and no mount.
#[test]
fn a_silent_tool_is_seen_by_its_lockspace() {
    let mut bench = seen();
    bench.lockspaces(&[U]);
    bench.done(&["begin 45 lockspace lab", "complete 45 lockspace"]);
    assert_eq!(bench.state(), "in use");
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.answer_all(&["begin 45 /srv lab", "leave 45 lockspace"]);
    bench.lockspaces(&[]);
    bench.mounts(&[]);
    bench.done(&["leave 45 /srv"]);
}

impl Bench {
    /// Two requests at once: each is answered.
    fn answer_all(&mut self, expected: &[&str]) {
        let requests: Vec<RequestId> = self.events.iter().filter_map(request_of).collect();
        assert_eq!(self.said(), expected);
        for request in requests {
            self.volumes.reply(request, &Reply::Done, self.now, &mut self.events);
        }
        self.done(&["complete 45 /srv"]);
    }
}

/// A lockspace of a volume that was never seen on a disk is no volume of ours yet.
#[test]
fn a_lockspace_without_a_volume_waits_for_one() {
    let mut bench = ready(Serves::UserSeen);
    bench.lockspaces(&[U]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "waiting: its device cannot be read");
    bench.present(&[pcmk(U, 1)]);
    bench.done(&["begin 45 lockspace lab", "complete 45 lockspace"]);
    bench.present(&[]);
    nothing(&mut bench);
    bench.lockspaces(&[]);
    bench.done(&["leave 45 lockspace"]);
    assert!(bench.is_forgotten(), "forgotten");
}

/// Where the kernel must be told, the group stands ahead of any mount.
#[test]
fn ahead_of_any_mount() {
    let mut bench = ready(Serves::UserAhead);
    bench.present(&[pcmk(U, 1)]);
    bench.done(&["begin 45 volume lab", "complete 45 volume"]);
    assert_eq!(bench.state(), "ready");
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.done(&["begin 45 /srv lab", "complete 45 /srv"]);
    bench.present(&[]);
    nothing(&mut bench);
    bench.mounts(&[]);
    bench.done(&["leave 45 volume", "leave 45 /srv"]);
}

/// What is not ours is not followed.
#[test]
fn only_user_stacks_of_our_cluster() {
    let elsewhere = named("pcmk", "elsewhere", false);
    for (serves, stack, state) in [
        (
            Serves::UserSeen,
            named("o2cb", "lab", false),
            "left alone: it is made for the stack o2cb",
        ),
        (
            Serves::UserAhead,
            named("o2cb", "lab", false),
            "left alone: it is made for the stack o2cb",
        ),
        (Serves::UserAhead, Stack::Classic, "left alone: it is made for the stack o2cb"),
        (Serves::UserSeen, elsewhere, "another cluster"),
    ] {
        let mut bench = ready(serves);
        bench.present(&[present(U, 1, &stack)]);
        bench.mounts(&[mount(Some(U), 1, "/srv")]);
        nothing(&mut bench);
        assert_eq!((bench.state().as_str(), bench.view().warning), (state, None));
        assert_eq!(bench.after(0), None);
    }
}

/// Where the kernel has to be told nobody compares the names: it mounts, and its users die as those of others do.
#[test]
fn a_volume_of_another_cluster_is_followed_while_it_is_in_use() {
    let mut bench = ready(Serves::UserAhead);
    bench.present(&[present(U, 1, &named("pcmk", "elsewhere", false))]);
    nothing(&mut bench);
    assert_eq!((bench.state().as_str(), bench.view().warning), ("another cluster", None));
    bench.lockspaces(&[U]);
    bench.done(&["begin 45 lockspace -", "complete 45 lockspace"]);
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.answer_all(&["begin 45 /srv -", "leave 45 lockspace"]);
    assert_eq!(bench.state(), "in use");
    assert!(bench.view().warning.is_some_and(|it| it.contains("the cluster 'elsewhere'")));
    bench.after(ASSURE_MS);
    bench.done(&["begin 45 /srv -", "complete 45 /srv"]);
    bench.lockspaces(&[]);
    bench.mounts(&[]);
    bench.done(&["leave 45 /srv"]);
    assert_eq!((bench.state().as_str(), bench.view().warning), ("another cluster", None));
}

/// The operator hears of each such use once.
#[test]
fn a_volume_of_another_cluster_is_reported() {
    let mut bench = ready(Serves::UserAhead);
    bench.present(&[present(U, 1, &named("pcmk", "elsewhere", false))]);
    for _ in 0..2 {
        assert_eq!(bench.after(1), None);
        bench.mounts(&[mount(Some(U), 1, "/srv")]);
        let Some(Decision::Report { uuid: U, why }) = bench.after(1) else { panic!("not said") };
        assert!(why.contains("'elsewhere'") && why.contains("unmount it"), "{why}");
        assert_eq!(bench.after(1), None, "said");
        bench.mounts(&[]);
    }
}

/// Attached, not mounted: the lockspace that dlm_controld would stop is not there, and its tools ask nobody.
#[test]
fn an_idle_group_is_not_ready_while_a_lost_node_may_write() {
    let mut bench = ready(Serves::UserAhead);
    bench.present(&[pcmk(U, 1)]);
    bench.done(&["begin 45 volume lab", "complete 45 volume"]);
    let quiet = Snapshot { connected: true, quorate: true, ..snapshot(&["volume"]) };
    let state = |snapshot: &Snapshot| bench.volumes.view(snapshot)[0].state.clone();
    let lost = |fencing| {
        let node = NodeStatus { fencing, ..node(3) };
        Snapshot { nodes: vec![node], ..quiet.clone() }
    };
    let waiting = |waiting| {
        let mut snapshot = quiet.clone();
        snapshot.groups[0].waiting = waiting;
        snapshot
    };
    for fencing in ["needed", "running", "retrying", "waiting for ack"] {
        assert_eq!(state(&lost(fencing)), "waiting: the fencing of node 3", "{fencing}");
    }
    for fencing in ["none", "fenced"] {
        assert_eq!(state(&lost(fencing)), "ready", "{fencing}");
    }
    for (snapshot, said) in [
        (waiting(Waiting::Fencing(NodeId(3))), "waiting: the fencing of node 3"),
        (waiting(Waiting::Peer(NodeId(3))), "waiting: the daemon of node 3"),
        (waiting(Waiting::Shim("node_down")), "waiting: the shim's node_down"),
        (Snapshot { quorate: false, ..quiet.clone() }, "waiting: quorum"),
        (Snapshot { connected: false, ..quiet.clone() }, "waiting: corosync"),
    ] {
        assert_eq!(state(&snapshot), said);
    }
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.done(&["begin 45 /srv lab", "complete 45 /srv"]);
    assert_eq!(bench.volumes.view(&lost("needed"))[0].state, "in use");
}

fn node(id: u32) -> NodeStatus {
    NodeStatus {
        node: NodeId(id),
        in_ring: false,
        daemon: "absent",
        boot: None,
        groups: 0,
        fencing: "none",
        in_debt: false,
    }
}

/// What mount.ocfs2 began is ended when the mount's own service is there: the tool never does.
#[test]
fn a_tools_service_is_replaced_by_the_mounts() {
    let mut bench = seen();
    bench.volumes.tool_gone(U, bench.now, &mut bench.events);
    nothing(&mut bench);
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.done(&["begin 45 /srv lab", "complete 45 /srv", "leave 45 ocfs2"]);
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(ASSURE_MS)), "nothing else is due");
    bench.mounts(&[]);
    bench.done(&["leave 45 /srv"]);
}

/// A tool that died before it mounted, or a mount that came and went unseen.
#[test]
fn a_tools_service_without_a_mount_ends_in_time() {
    let mut bench = seen();
    bench.volumes.tool_gone(U, bench.now, &mut bench.events);
    bench.after(TOOL_PATIENCE_MS - 1);
    nothing(&mut bench);
    bench.after(1);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 ocfs2"]);
    bench.answer(&Reply::Refused(Refusal::Busy));
    bench.after(BUSY_MS);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 ocfs2"]);
    bench.answer(&Reply::Refused(Refusal::NoGroup));
    nothing(&mut bench);
    assert_eq!(bench.volumes.deadline(), None);
}

/// A tool's service lasts as long as its lockspace: the mount may be about to appear.
#[test]
fn a_tools_service_lasts_while_the_kernel_has_a_lockspace() {
    let mut bench = seen();
    bench.volumes.tool_gone(U, bench.now, &mut bench.events);
    bench.lockspaces(&[U]);
    assert_eq!(bench.said(), ["begin 45 lockspace lab"]);
    bench.after(10 * TOOL_PATIENCE_MS);
    nothing(&mut bench);
}

/// For the stack o2cb a tool's word is its own affair, and so is fs/dlm.
#[test]
fn o2cb_knows_neither() {
    let mut bench = Bench::ready();
    bench.volumes.tool_gone(U, bench.now, &mut bench.events);
    bench.after(10 * TOOL_PATIENCE_MS);
    nothing(&mut bench);
}

/// A restarted daemon takes over what its predecessor had: also a tool's service.
#[test]
fn what_a_predecessor_had_goes_on() {
    let saved = saved(&[("/srv", true), ("lockspace", true), ("ocfs2", true)]);
    let mut bench = Bench::new(Policy { serves: Serves::UserSeen, ..policy(OnLoss::Reset) });
    bench.volumes.inherit(&saved, bench.now, &mut bench.events);
    bench.set_cluster(Mode::Local);
    bench.present(&[pcmk(U, 1)]);
    bench.lockspaces(&[U]);
    assert_eq!(bench.said(), ["leave 45 ocfs2"], "the mount's own service is there");
    nothing(&mut bench);
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.said(), ["leave 45 lockspace"]);
}
