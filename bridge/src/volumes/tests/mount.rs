//! The mounts of a volume: one test for each row.

use super::*;

#[test]
fn mount_none() {
    let bench = mounted();
    assert_eq!(bench.view().mountpoints, ["/srv"]);

    let mut bench = Bench::ready();
    bench.present(&[ours(U, 1)]);
    bench.beats(beating(&[1], true));
    bench.orders();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    nothing(&mut bench);
    bench.mounts(&[]);
    nothing(&mut bench);

    let mut bench = begun();
    bench.events.clear();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.said(), [] as [&str; 0], "the region is not there yet");
    let mut bench = region();
    bench.mounts(&[mount(Some(V), 1, "/srv"), mount(None, 9, "/other")]);
    nothing(&mut bench);
}

#[test]
fn mount_begun() {
    let mut bench = mounted();
    bench.mounts(&[mount(Some(U), 1, "/srv"), mount(Some(U), 1, "/again")]);
    assert_eq!(bench.said(), ["begin 45 /again lab"]);
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.said(), ["gone", "leave 45 /again"]);
    bench.mounts(&[]);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 /srv"]);
    assert_eq!(bench.orders(), ["guard "]);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), [] as [&str; 0], "the region stays");
    assert_eq!(bench.state(), "region");
}

#[test]
fn mount_that_a_tool_began_is_the_tools_to_end_for_a_while() {
    let mut bench = region();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.answer(&Reply::Refused(Refusal::InUse));
    bench.mounts(&[]);
    assert_eq!(bench.said(), [] as [&str; 0]);
    bench.after(LAPSE_MS - 1);
    assert_eq!(bench.said(), [] as [&str; 0]);
    bench.after(1);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["leave 45 /srv"]);
    bench.answer(&Reply::Refused(Refusal::NoService));
    assert_eq!(bench.said(), [] as [&str; 0]);
}

#[test]
fn mount_refused_is_begun_again() {
    let mut bench = region();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    bench.answer(&Reply::Refused(Refusal::Busy));
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(BUSY_MS)));
    bench.after(BUSY_MS);
    assert_eq!(bench.said(), ["begin 45 /srv lab"]);
}

#[test]
fn mountpoints_that_cannot_be_names() {
    let long = format!("/{}", "x".repeat(200));
    let mut bench = region();
    let mut binary = mount(Some(U), 1, "/");
    binary.mountpoint = vec![b'/', 0xFF];
    bench.mounts(&[mount(Some(U), 1, &long), binary.clone()]);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["begin 45 mount of 8:1 lab"]);
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    bench.mounts(&[binary]);
    assert_eq!(bench.said(), [] as [&str; 0], "one is left");
    bench.mounts(&[]);
    assert_eq!(bench.said(), ["leave 45 mount of 8:1"]);
}
