//! The end of the daemon, with volumes in every state.

use super::*;

fn stop(bench: &mut Bench, services: &[&str]) -> StopAnswer {
    bench.volumes.stop(&snapshot(services), bench.now, &mut bench.events)
}

#[test]
fn stop_with_nothing_there() {
    let mut bench = Bench::ready();
    assert_eq!(stop(&mut bench, &[]), StopAnswer::Going);
    assert_eq!(bench.said(), ["stop"]);
}

#[test]
fn stop_leaves_idle_regions_first() {
    let mut bench = region();
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 volume"]);
    bench.answer(&Reply::Refused(Refusal::Busy));
    assert_eq!(bench.said(), [] as [&str; 0]);
    bench.after(BUSY_MS);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), ["stop"]);
    bench.present(&[ours(U, 1), ours(V, 2)]);
    nothing(&mut bench);
}

/// As the service manager does when its patience ends: what is being left goes on, and the stop with it.
#[test]
fn a_stop_that_is_asked_for_once_more_goes_on() {
    let mut bench = region();
    for _ in 0..2 {
        assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    }
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 volume"]);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), ["stop"]);
}

/// The gate is closed by who removes the region. Nobody else may ask the kernel for it meanwhile: the loop would wait
/// for all regions that go, the keeper for the loop, and the node would be reset.
#[test]
fn stop_closes_no_gate_of_a_region_that_goes_and_opens_none() {
    let mut bench = region();
    bench.present(&[ours(U, 1), ours(V, 2)]);
    let of_both = Some([U, V].into());
    assert_eq!(bench.volumes.to_close(), [V].into(), "its region is not there yet");
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    assert_eq!((bench.volumes.unready(), bench.volumes.to_close()), (of_both.clone(), [V].into()));
    bench.answer(&Reply::Refused(Refusal::Busy));
    assert_eq!((bench.volumes.unready(), bench.volumes.to_close()), (of_both.clone(), [V].into()));
    bench.after(BUSY_MS);
    bench.answer(&Reply::Done);
    assert_eq!((bench.volumes.unready(), bench.volumes.to_close()), (of_both, [U, V].into()));
}

/// A mount that no table shows, such as one in another namespace: the stop is refused, and the others come back.
#[test]
fn a_region_that_cannot_be_left_ends_the_stop() {
    let mut bench = region();
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    bench.after(LEAVE_PATIENCE_MS - 1);
    assert!(!bench.said().contains(&"stop".to_owned()));
    bench.after(1);
    assert!(bench.said().contains(&"stop".to_owned()), "refused by the core");
    bench.present(&[ours(U, 1), ours(V, 2)]);
    assert!(bench.orders().contains(&"look 2 sd2".to_owned()), "volumes are served again");
}

#[test]
fn a_mount_in_the_moment_of_a_stop_ends_it() {
    let mut bench = region();
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 volume"]);
    bench.events.clear();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.said(), ["stop"], "refused by the core");
    bench.after(0);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["begin 45 /srv lab"]);
    bench.answer(&Reply::Done);
}

#[test]
fn stop_takes_back_what_is_being_begun() {
    let mut bench = begun();
    bench.events.clear();
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Leaving);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["gone", "leave 45 volume"]);
    bench.answer(&Reply::Refused(Refusal::NoGroup));
    assert_eq!(bench.said(), ["stop"]);
}

#[test]
fn stop_does_not_wait_for_what_was_refused() {
    let mut bench = refused_region();
    assert_eq!(stop(&mut bench, &[]), StopAnswer::Going);
    assert_eq!(bench.said(), ["stop"]);
}

#[test]
fn stop_is_refused_while_something_is_in_use() {
    let mut bench = region();
    assert_eq!(stop(&mut bench, &["fsck.ocfs2", "volume"]), StopAnswer::Refused);
    assert_eq!(bench.said(), ["stop"], "the core says what it is");
    assert_eq!(bench.state(), "region");
    let mut bench = mounted();
    assert_eq!(stop(&mut bench, &["volume"]), StopAnswer::Refused, "mounted, whoever knows of it");
    assert_eq!(bench.said(), ["stop"]);
    assert_eq!(bench.after(STOP_PATIENCE_MS), None);
    assert_eq!(bench.state(), "region");
}

#[test]
fn a_stop_that_the_core_refused_is_forgotten() {
    let mut bench = region();
    stop(&mut bench, &["volume"]);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), ["stop"]);
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(STOP_PATIENCE_MS)));
    bench.after(STOP_PATIENCE_MS - 1);
    nothing(&mut bench);
    bench.after(1);
    assert_eq!(bench.orders(), ["look 45 sd1"], "we still live, so the region is wanted");
}
