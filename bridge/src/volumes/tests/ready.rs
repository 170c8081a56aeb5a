//! What READY waits for, and what the region that all volumes share lets in.

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

/// Two volumes, of which the region of the first stands.
fn half() -> Bench {
    let mut bench = known();
    bench.present(&[global(U, 1), global(V, 2)]);
    quiet(&mut bench, U);
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    bench
}

/// What is warned of with these groups attached.
fn warning(bench: &Bench, uuid: GroupId, held: &[GroupId]) -> String {
    let one = &snapshot(&["volume"]);
    let held = held.iter().map(|group| GroupStatus { group: *group, ..one.groups[0].clone() });
    let views = bench.volumes.view(&Snapshot { groups: held.collect(), ..one.clone() });
    let view = views.into_iter().find(|view| view.uuid == uuid.to_string()).unwrap();
    view.warning.unwrap_or_default()
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
    assert!(!bench.volumes.is_ready(), "it is asked for again: {}", bench.state());
    let mut bench = known();
    bench.present(&[global(U, 1)]);
    quiet(&mut bench, U);
    bench.answer(&Reply::Refused(Refusal::Expelled));
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

const NOT_NOW: &str = "do not mount it now";

/// The region of the first lets the second be mounted, too, by whoever does not ask for its state.
#[test]
fn a_volume_that_could_be_mounted_and_is_not_held_is_warned_of() {
    let mut bench = half();
    assert_eq!(warning(&bench, U, &[U]), "");
    assert!(warning(&bench, V, &[U]).starts_with(NOT_NOW), "{}", warning(&bench, V, &[U]));
    assert_eq!([warning(&bench, U, &[U, V]), warning(&bench, V, &[U, V])], ["", ""]);
    bench.mounts(&[mount(Some(V), 2, "/srv")]);
    assert!(warning(&bench, V, &[U]).starts_with("it is mounted here and not held"));
    assert_eq!(warning(&bench, V, &[U, V]), "");
}

#[test]
fn nobody_is_warned_of_what_cannot_be_mounted() {
    let mut bench = half();
    assert_eq!([warning(&bench, U, &[]), warning(&bench, V, &[])], ["", ""], "no region stands");
    for other in [present(V, 2, &named("o2cb", "elsewhere", true)), ours(V, 2)] {
        bench.present(&[global(U, 1), other]);
        assert_eq!(warning(&bench, V, &[U]), "", "the kernel refuses it");
    }
    let mut bench = region();
    bench.present(&[ours(U, 1), ours(V, 2)]);
    assert_eq!(warning(&bench, V, &[U]), "", "its own region does not stand");
}

/// A list leaves it alone; the kernel does not.
#[test]
fn a_volume_that_is_not_wanted_could_be_mounted_all_the_same() {
    let mut bench = half();
    let which = Which::Listed([U].into());
    bench.set_policy(Policy { which, ..policy(OnLoss::Reset) });
    assert!(warning(&bench, V, &[U]).starts_with(NOT_NOW));
    assert_eq!(warning(&bench, U, &[U]), "");
}
