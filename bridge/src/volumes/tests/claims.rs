//! Whose a volume is.

use super::super::claim::{Claim, judge};
use super::*;

fn lab(mode: Mode) -> Cluster {
    Cluster { name: "lab".into(), mode }
}

fn auto(stack: &Stack, incompat: u32) -> Claim {
    judge(Serves::O2cb, &Which::Auto, Some(&lab(Mode::Local)), &superblock(U, stack, incompat))
}

fn listed(uuid: GroupId, stack: &Stack) -> Claim {
    let which = Which::Listed([uuid].into());
    judge(Serves::O2cb, &which, Some(&lab(Mode::Local)), &superblock(U, stack, 0))
}

#[test]
fn by_its_names() {
    assert_eq!(auto(&named("o2cb", "lab", false), 0), Claim::Ours);
    assert_eq!(auto(&named("o2cb", "la", false), 0), Claim::OtherCluster);
    assert_eq!(auto(&named("o2cb", "LAB", false), 0), Claim::OtherCluster);
    assert_eq!(auto(&named("o2cb", "lab", true), 0), Claim::OtherMode);
    assert_eq!(auto(&named("pcmk", "lab", false), 0), Claim::OtherStack("pcmk".into()));
    assert_eq!(auto(&Stack::Classic, 0), Claim::Unnamed);
}

#[test]
fn by_its_features() {
    let stack = named("o2cb", "lab", false);
    assert_eq!(auto(&stack, 0x0008), Claim::Local);
    assert_eq!(auto(&stack, 0x0002), Claim::HeartbeatDevice);
    assert_eq!(auto(&stack, 0x0004), Claim::InRepair);
    assert_eq!(auto(&stack, 0x0020), Claim::InRepair);
    assert_eq!(auto(&named("o2cb", "la", false), 0x0020), Claim::OtherCluster);
}

#[test]
fn by_the_configuration() {
    assert_eq!(listed(U, &Stack::Classic), Claim::Ours);
    assert_eq!(listed(U, &named("o2cb", "lab", false)), Claim::Ours);
    assert_eq!(listed(U, &named("o2cb", "la", false)), Claim::OtherCluster);
    assert_eq!(listed(U, &named("o2cb", "lab", true)), Claim::OtherMode);
    assert_eq!(listed(U, &named("cman", "lab", false)), Claim::OtherStack("cman".into()));
    assert_eq!(listed(V, &named("o2cb", "lab", false)), Claim::Unwanted);
    let none = judge(
        Serves::O2cb,
        &Which::None,
        Some(&lab(Mode::Local)),
        &superblock(U, &Stack::Classic, 0),
    );
    assert_eq!(none, Claim::Unwanted);
}

#[test]
fn by_the_mode() {
    let global = lab(Mode::Global);
    let judged =
        |stack: &Stack| judge(Serves::O2cb, &Which::Auto, Some(&global), &superblock(U, stack, 0));
    assert_eq!(judged(&named("o2cb", "lab", true)), Claim::Ours);
    assert_eq!(judged(&named("o2cb", "lab", false)), Claim::OtherMode);
}

#[test]
fn before_corosync_told() {
    let judged = |stack: &Stack| judge(Serves::O2cb, &Which::Auto, None, &superblock(U, stack, 0));
    assert_eq!(judged(&named("o2cb", "lab", false)), Claim::Unsure);
    assert_eq!(judged(&Stack::Classic), Claim::Unnamed);
}

#[test]
fn what_keeps_a_region() {
    for claim in [Claim::Ours, Claim::InRepair, Claim::Unsure] {
        assert!(claim.keeps(), "{claim:?}");
    }
    let others = [
        Claim::Unwanted,
        Claim::Unnamed,
        Claim::OtherCluster,
        Claim::OtherMode,
        Claim::OtherStack("pcmk".into()),
        Claim::Local,
        Claim::HeartbeatDevice,
    ];
    for claim in others {
        assert!(!claim.keeps(), "{claim:?}");
    }
}
