//! What READY waits for.

use super::*;

fn global(uuid: GroupId, minor: u64) -> Present {
    present(uuid, minor, &named("o2cb", "lab", true))
}

/// With a global heartbeat.
fn known() -> Bench {
    let mut bench = Bench::new(policy(OnLoss::Reset));
    bench.set_cluster(Mode::Global);
    bench.mounts(&[]);
    bench
}

fn quiet(bench: &mut Bench, uuid: GroupId) {
    bench.change(Change::Beats { uuid, beats: Beats::Quiet });
}

/// There a mount takes no semaphore: whoever mounts at READY does not wait for a region.
#[test]
fn with_a_global_heartbeat_ready_waits_for_every_region() {
    let mut bench = Bench::new(policy(OnLoss::Reset));
    assert!(!bench.volumes.is_ready(), "nothing is known");
    bench.set_cluster(Mode::Global);
    assert!(!bench.volumes.is_ready(), "the volumes are not known");
    bench.present(&[global(U, 1), global(V, 2), present(GroupId(3), 3, &Stack::Classic)]);
    bench.mounts(&[]);
    assert!(!bench.volumes.is_ready());
    quiet(&mut bench, U);
    assert!(!bench.volumes.is_ready(), "begun");
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    assert!(!bench.volumes.is_ready(), "of two");
    quiet(&mut bench, V);
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    assert!(bench.volumes.is_ready());
}

#[test]
fn ready_waits_for_no_region_that_does_not_come() {
    let mut bench = known();
    bench.present(&[]);
    assert!(bench.volumes.is_ready(), "no volume");
    for other in [
        ours(U, 1),
        present(U, 1, &Stack::Classic),
        present(U, 1, &named("o2cb", "elsewhere", true)),
        present(U, 1, &named("pcmk", "lab", false)),
    ] {
        bench.present(&[other]);
        assert!(bench.volumes.is_ready(), "{}", bench.state());
    }
    bench.present(&[global(U, 1)]);
    bench.beats(unknown());
    assert!(!bench.volumes.is_ready(), "{}", bench.state());
    let mut bench = known();
    bench.present(&[global(U, 1)]);
    bench.beats(beating(&[3], false));
    assert!(bench.volumes.is_ready(), "{}", bench.state());
    let mut bench = known();
    bench.present(&[global(U, 1)]);
    quiet(&mut bench, U);
    bench.answer(&Reply::Refused(Refusal::TimedOut(Waiting::Quorum)));
    assert!(bench.volumes.is_ready(), "{}", bench.state());
}

/// There a mount waits by itself.
#[test]
fn with_a_local_heartbeat_ready_waits_for_no_region() {
    assert!(asked().volumes.is_ready());
}

/// The tools of user stacks ask nobody, or not for long; who only watches holds nobody up.
#[test]
fn of_a_user_stack_ready_waits_for_every_group_that_is_told() {
    let serving = |serves| {
        let mut bench = Bench::new(Policy { serves, ..policy(OnLoss::Reset) });
        assert_eq!(bench.volumes.is_ready(), serves == Serves::UserSeen, "nothing is known");
        bench.set_cluster(Mode::Local);
        bench.present(&[present(U, 1, &named("pcmk", "lab", false))]);
        bench.mounts(&[]);
        bench
    };
    assert!(serving(Serves::UserSeen).volumes.is_ready());
    let mut bench = serving(Serves::UserAhead);
    assert!(!bench.volumes.is_ready());
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    assert!(bench.volumes.is_ready());
}
