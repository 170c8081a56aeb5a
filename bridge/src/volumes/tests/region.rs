//! The region of a volume: one test for each row.

use super::*;

#[test]
fn region_none() {
    let mut bench = Bench::ready();
    nothing(&mut bench);
    bench.present(&[present(U, 1, &named("o2cb", "elsewhere", false))]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "another cluster");
    bench.beats(Beats::Quiet);
    nothing(&mut bench);
    bench.present(&[ours(U, 1)]);
    assert_eq!(bench.orders(), ["look 45 sd1"]);
    assert_eq!(bench.state(), "waiting: looking who beats on the disk");
    bench.present(&[ours(U, 1), ours(V, 2)]);
    assert_eq!(bench.orders(), ["look 2 sd2"], "each is asked once");
}

#[test]
fn region_asked() {
    assert_eq!(begun().state(), "waiting: its group");
    let mut bench = asked();
    bench.beats(beating(&[3, 7], false));
    nothing(&mut bench);
    assert_eq!(bench.state(), "disk heartbeat: o2cb node 3, 7 beats on the disk");
    bench.beats(Beats::Quiet);
    nothing(&mut bench);

    let mut bench = asked();
    bench.beats(unknown());
    nothing(&mut bench);
    assert_eq!(bench.state(), "waiting: the disk does not answer");

    let mut bench = asked();
    bench.present(&[]);
    nothing(&mut bench);
    assert!(bench.is_forgotten(), "gone");
    bench.beats(Beats::Quiet);
    nothing(&mut bench);

    let mut bench = asked();
    bench.present(&[present(U, 1, &named("o2cb", "elsewhere", false))]);
    bench.beats(Beats::Quiet);
    nothing(&mut bench);
    bench.present(&[ours(U, 1)]);
    assert_eq!(bench.orders(), ["look 45 sd1"], "an answer for another time is no answer");

    let mut bench = asked();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    nothing(&mut bench);
    bench.beats(beating(&[], true));
    nothing(&mut bench);
    assert_eq!(bench.state(), "disk heartbeat: this node's kernel beats on the disk");
    assert_eq!(bench.view().mountpoints, ["/srv"]);

    let mut bench = asked();
    let snapshot = snapshot(&[]);
    let answer = bench.volumes.stop(&snapshot, bench.now, &mut bench.events);
    assert_eq!(answer, StopAnswer::Going);
    bench.beats(Beats::Quiet);
    assert_eq!(bench.said(), ["stop"]);
}

#[test]
fn region_beating_or_unknown_is_asked_again_after_a_pause() {
    for beats in [beating(&[3], false), unknown()] {
        let mut bench = asked();
        bench.beats(beats.clone());
        assert_eq!(bench.volumes.deadline(), Some(bench.now.after(RETRY_MS)));
        assert_eq!(bench.after(RETRY_MS - 1), None);
        nothing(&mut bench);
        assert_eq!(bench.after(1), None);
        assert_eq!(bench.orders(), ["look 45 sd1"]);
        assert_eq!(bench.volumes.deadline(), None, "the watch answers");
        bench.beats(Beats::Quiet);
        assert_eq!(bench.said(), ["begin 45 volume lab"]);

        let mut bench = asked();
        bench.beats(beats);
        bench.present(&[]);
        assert!(bench.is_forgotten());
        assert_eq!(bench.volumes.deadline(), None);
    }
}

#[test]
fn region_begun_is_looked_at_and_assured_from_time_to_time() {
    let mut bench = region();
    bench.after(RETRY_MS);
    assert_eq!(bench.orders(), ["look 45 sd1"], "once more, soon: others may have looked too");
    bench.beats(Beats::Quiet);
    nothing(&mut bench);
    bench.after(RECHECK_MS - 1);
    assert_eq!(bench.orders(), [] as [&str; 0]);
    bench.after(1);
    assert_eq!(bench.orders(), ["look 45 sd1"]);
    bench.beats(unknown());
    bench.after(RECHECK_MS);
    assert_eq!(bench.orders(), ["look 45 sd1"]);
    assert_eq!(bench.state(), "region");
    bench.beats(beating(&[4], false));
    assert_eq!(bench.state(), "region", "it is no use to leave now");
    assert_eq!(bench.volumes.deadline(), Some(Now(0)));
    match bench.after(0) {
        Some(Decision::Report { uuid: U, why }) => assert!(why.starts_with("o2cb node 4 beats")),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.after(0), None);
    assert!(bench.view().warning.is_some_and(|warning| warning.contains("o2cb node 4")));

    let mut bench = region();
    bench.after(ASSURE_MS);
    assert_eq!(bench.said(), ["begin 45 volume lab"]);
}

#[test]
fn region_begun_that_is_not_ours_any_more_or_gone() {
    let elsewhere = present(U, 1, &named("o2cb", "elsewhere", false));
    for present in [vec![], vec![elsewhere]] {
        let mut bench = region();
        bench.present(&present);
        assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 volume"]);
        assert_eq!(bench.state(), "leaving");
        bench.answer(&Reply::Done);
        nothing(&mut bench);

        let mut bench = begun();
        bench.events.clear();
        bench.present(&present);
        assert_eq!(bench.said(), ["gone", "leave 45 volume"], "taken back");

        let mut bench = mounted();
        bench.present(&present);
        assert_eq!(bench.said(), [] as [&str; 0], "mounted: stays");
        assert_eq!(bench.state(), "region");
        bench.mounts(&[]);
        let mut said = bench.said();
        said.sort();
        assert_eq!(said, ["leave 45 /srv", "leave 45 volume"]);
    }
}

#[test]
fn region_begun_stays_while_a_tool_works_on_it() {
    let mut bench = region();
    let mut busy = ours(U, 1);
    busy.superblock = superblock(U, &named("o2cb", "lab", false), 0x20);
    bench.present(&[busy.clone()]);
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.state(), "region");

    let mut bench = Bench::ready();
    bench.present(&[busy]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "waiting: a resize or tunefs.ocfs2 is under way");
}

#[test]
fn region_refused_needs_a_pause_and_a_look_of_its_own() {
    let mut bench = refused_region();
    nothing(&mut bench);
    assert_eq!(bench.after(RETRY_MS - 1), None);
    nothing(&mut bench);
    bench.after(1);
    assert_eq!(bench.said(), [] as [&str; 0], "not begun without a look");
    assert_eq!(bench.orders(), ["look 45 sd1"]);
    bench.beats(Beats::Quiet);
    assert_eq!(bench.said(), ["begin 45 volume lab"]);

    let mut bench = refused_region();
    bench.present(&[]);
    nothing(&mut bench);
    bench.after(RETRY_MS);
    assert!(bench.is_forgotten());

    let mut bench = refused_region();
    bench.set_cluster(Mode::Local);
    assert_eq!(bench.orders(), ["look 45 sd1"], "corosync is back: no need to wait");
}

#[test]
fn region_leaving_is_left_again_until_it_is_gone() {
    let mut bench = region();
    bench.present(&[]);
    bench.answer(&Reply::Refused(Refusal::TimedOut(Waiting::Shim("detach"))));
    nothing(&mut bench);
    assert_eq!(bench.state(), "leaving");
    bench.present(&[ours(U, 1)]);
    nothing(&mut bench);
    bench.after(BUSY_MS);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 volume"]);
    bench.answer(&Reply::Refused(Refusal::NoGroup));
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.orders(), ["look 45 sd1"], "it is back meanwhile");
}

/// A device that flaps: its region goes while it is away, and it is back before the leave is answered.
#[test]
fn a_gate_stays_closed_for_as_long_as_the_region_is_being_left() {
    let mut bench = region();
    bench.present(&[]);
    assert_eq!(bench.volumes.unready(), Some([].into()));
    assert_eq!(bench.volumes.to_keep_closed(), [U].into());
    bench.answer(&Reply::Refused(Refusal::Busy));
    assert_eq!(bench.volumes.to_keep_closed(), [U].into(), "asked again");
    bench.present(&[ours(U, 1)]);
    assert_eq!((bench.volumes.to_keep_closed(), bench.volumes.to_close()), ([U].into(), [].into()));
    bench.after(BUSY_MS);
    bench.answer(&Reply::Done);
    assert_eq!(
        (bench.volumes.to_keep_closed(), bench.volumes.to_close()),
        ([U].into(), [U].into())
    );
    bench.present(&[]);
    assert_eq!(bench.volumes.to_keep_closed(), [].into());
}
