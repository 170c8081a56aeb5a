//! What a predecessor left.

use super::*;

fn inherited(services: &[(&str, bool)]) -> Bench {
    let mut bench = Bench::new(policy(OnLoss::Reset));
    bench.volumes.inherit(&saved(services), bench.now, &mut bench.events);
    bench
}

#[test]
fn an_inherited_region_is_judged_when_everything_was_seen() {
    let mut bench = inherited(&[("volume", true)]);
    bench.set_cluster(Mode::Local);
    bench.present(&[]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "region");
    bench.mounts(&[]);
    assert_eq!(bench.said(), ["leave 45 volume"]);

    let mut bench = inherited(&[("volume", true)]);
    bench.set_cluster(Mode::Local);
    bench.mounts(&[]);
    nothing(&mut bench);
    bench.present(&[ours(U, 1)]);
    nothing(&mut bench);
    bench.after(RECHECK_MS);
    assert_eq!(bench.orders(), ["look 45 sd1"]);

    let mut bench = inherited(&[("volume", true)]);
    bench.present(&[ours(U, 1)]);
    bench.mounts(&[]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "region", "corosync has not said whose it is");
}

#[test]
fn an_inherited_region_that_was_not_complete_is_completed() {
    let mut bench = inherited(&[("volume", false)]);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["complete 45 volume"]);
    bench.answer(&Reply::Done);
    assert_eq!(bench.state(), "region");
}

#[test]
fn inherited_mounts_that_are_gone_are_left() {
    let services =
        [("/gone", true), ("/half", false), ("/srv", true), ("fsck.ocfs2", true), ("volume", true)];
    let mut bench = inherited(&services);
    bench.set_cluster(Mode::Local);
    bench.present(&[ours(U, 1)]);
    nothing(&mut bench);
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.said(), ["leave 45 /gone"]);
    assert_eq!(bench.orders(), ["guard 45 /dev/sd1+8192"]);
}

#[test]
fn an_inherited_mount_on_a_dead_disk_is_known_by_its_name() {
    let mut bench = inherited(&[("/srv", true), ("volume", true)]);
    bench.set_cluster(Mode::Local);
    bench.present(&[]);
    bench.mounts(&[mount(None, 1, "/srv")]);
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.orders(), ["guard 45 /dev/sd1+0"], "and guarded all the same");
    assert_eq!(bench.view().mountpoints, ["/srv"]);
}

#[test]
fn an_inherited_region_that_nobody_wants_is_left() {
    let mut bench = inherited(&[("volume", true)]);
    let none = Policy { which: Which::None, ..policy(OnLoss::Reset) };
    bench.set_policy(none);
    bench.present(&[ours(U, 1)]);
    bench.mounts(&[]);
    assert_eq!(bench.said(), ["leave 45 volume"]);
    assert_eq!(bench.state(), "leaving");
}
