//! The tables of [`super`], cell by cell, and what stands between them.

use std::path::PathBuf;

use nix::sys::stat::makedev;
use o2bridge_core::saved::SavedService;
use o2bridge_core::snapshot::{GroupStatus, ServiceStatus};
use o2bridge_core::{Begin, DeviceId, Incarnation, Refusal, SavedGroup, ServiceName, Waiting};
use o2bridge_shim::volume::{Beats, Device, Health, Stack, Superblock};

use super::usage::{ASSURE_MS, BUSY_MS, LAPSE_MS, RETRY_MS};
use super::volume::RECHECK_MS;
use super::*;

mod claims;
mod user;
mod with_core;

const U: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);
const V: GroupId = GroupId(0x2);
const START: Now = Now(1_000_000);

/// A superblock as mkfs would make it, by way of the real parser.
fn superblock(uuid: GroupId, stack: &Stack, incompat: u32) -> Superblock {
    let mut head = vec![0_u8; 16 * 1024];
    let mut put = |at: usize, bytes: &[u8]| {
        head[0x2000 + at..0x2000 + at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, b"OCFSV2");
    put(0x50, &2_u64.to_le_bytes());
    put(0xF8, &12_u32.to_le_bytes());
    put(0xFC, &12_u32.to_le_bytes());
    put(0x110, b"label");
    put(0x150, &uuid.0.to_be_bytes());
    let mut features = incompat;
    if let Stack::Named { stack, cluster, global_heartbeat } = stack {
        features |= 0x4000;
        put(0x160, stack.as_bytes());
        put(0x164, &[u8::from(*global_heartbeat)]);
        put(0x168, cluster.as_bytes());
    }
    put(0xE0, &features.to_le_bytes());
    o2bridge_shim::volume::parse(&head).unwrap()
}

fn named(stack: &str, cluster: &str, global_heartbeat: bool) -> Stack {
    Stack::Named { stack: stack.into(), cluster: cluster.into(), global_heartbeat }
}

fn device(minor: u64) -> Device {
    let name = format!("sd{minor}");
    let path = PathBuf::from(format!("/dev/{name}"));
    Device { name, path, number: DeviceId(makedev(8, minor)), sectors: 2048 }
}

fn present(uuid: GroupId, minor: u64, stack: &Stack) -> Present {
    Present { device: device(minor), superblock: superblock(uuid, stack, 0) }
}

fn ours(uuid: GroupId, minor: u64) -> Present {
    present(uuid, minor, &named("o2cb", "lab", false))
}

fn mount(uuid: Option<GroupId>, minor: u64, at: &str) -> Mount {
    let path = Some(device(minor).path);
    Mount { device: device(minor).number, mountpoint: at.into(), uuid, path }
}

fn policy(on_storage_loss: OnLoss) -> Policy {
    Policy { serves: Serves::O2cb, which: Which::Auto, storage_loss_ms: 20_000, on_storage_loss }
}

/// A manager, its clock, and what it last said.
struct Bench {
    volumes: Volumes,
    now: Now,
    events: Vec<Event>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self { volumes: Volumes::new(policy), now: START, events: Vec::new() }
    }

    /// Knows its cluster, and that nothing is mounted.
    fn ready() -> Self {
        let mut bench = Self::new(policy(OnLoss::Reset));
        bench.set_cluster(Mode::Local);
        bench.mounts(&[]);
        bench
    }

    fn set_cluster(&mut self, mode: Mode) {
        self.volumes.set_cluster("lab", mode, self.now, &mut self.events);
    }

    fn set_policy(&mut self, policy: Policy) {
        self.volumes.policy = policy;
        self.volumes.advance(self.now, &mut self.events);
    }

    fn change(&mut self, change: Change) {
        self.volumes.change(change, self.now, &mut self.events);
    }

    fn present(&mut self, present: &[Present]) {
        self.change(Change::Volumes(present.to_vec()));
    }

    fn mounts(&mut self, mounts: &[Mount]) {
        self.change(Change::Mounts(mounts.to_vec()));
    }

    fn beats(&mut self, beats: Beats) {
        self.change(Change::Beats { uuid: U, beats });
    }

    fn after(&mut self, ms: u64) -> Option<Decision> {
        self.now = self.now.after(ms);
        self.volumes.tick(self.now, &mut self.events)
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events).iter().map(brief).collect()
    }

    fn orders(&mut self) -> Vec<String> {
        self.volumes
            .orders()
            .iter()
            .map(|order| match order {
                Order::Beats { uuid, devices } => {
                    let names: Vec<&str> =
                        devices.iter().map(|device| device.name.as_str()).collect();
                    format!("look {:X} {}", uuid.0 & 0xFF, names.join(" "))
                }
                Order::Guard(guards) => {
                    let guards: Vec<String> = guards
                        .iter()
                        .map(|(uuid, guarded)| {
                            let path = guarded.path.display();
                            format!("{:X} {path}+{}", uuid.0 & 0xFF, guarded.offset)
                        })
                        .collect();
                    format!("guard {}", guards.join(", "))
                }
            })
            .collect()
    }

    /// Answers the last request among the events, and forgets them.
    fn answer(&mut self, reply: &Reply) {
        let request = self.events.iter().rev().find_map(request_of).unwrap();
        assert!(Volumes::owns(request));
        self.events.clear();
        self.volumes.reply(request, reply, self.now, &mut self.events);
    }

    fn state(&self) -> String {
        self.view().state
    }

    fn view(&self) -> VolumeView {
        let uuid = U.to_string();
        self.volumes.view().into_iter().find(|view| view.uuid == uuid).unwrap()
    }
}

fn request_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Begin(Begin { request, .. })
        | Event::Complete { request, .. }
        | Event::Leave { request, .. } => Some(*request),
        _ => None,
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Begin(Begin { group, service, cluster, device: None, held: false, .. }) => {
            let cluster = cluster.as_deref().unwrap_or("-");
            format!("begin {:X} {service} {cluster}", group.0 & 0xFF)
        }
        Event::Complete { group, service, code: 0, .. } => {
            format!("complete {:X} {service}", group.0 & 0xFF)
        }
        Event::Leave { group, service, .. } => format!("leave {:X} {service}", group.0 & 0xFF),
        Event::ClientGone { .. } => "gone".into(),
        Event::Stop => "stop".into(),
        other => panic!("{other:?}"),
    }
}

fn asked() -> Bench {
    let mut bench = Bench::ready();
    bench.present(&[ours(U, 1)]);
    assert_eq!(bench.orders(), ["look 45 sd1"]);
    assert_eq!(bench.said(), [] as [&str; 0]);
    bench
}

fn begun() -> Bench {
    let mut bench = asked();
    bench.beats(Beats::Quiet);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["begin 45 volume lab"]);
    bench
}

fn region() -> Bench {
    let mut bench = begun();
    bench.answer(&Reply::Done);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["complete 45 volume"]);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.state(), "region");
    bench
}

fn mounted() -> Bench {
    let mut bench = region();
    bench.mounts(&[mount(Some(U), 1, "/srv")]);
    assert_eq!(bench.events.iter().map(brief).collect::<Vec<_>>(), ["begin 45 /srv lab"]);
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.orders(), ["guard 45 /dev/sd1+8192"]);
    bench
}

fn refused_region() -> Bench {
    let mut bench = begun();
    bench.answer(&Reply::Refused(Refusal::TimedOut(Waiting::Quorum)));
    assert_eq!(bench.state(), "refused: not ready in time: waiting for quorum");
    bench
}

fn nothing(bench: &mut Bench) {
    assert_eq!(bench.said(), [] as [&str; 0]);
    assert_eq!(bench.orders(), [] as [&str; 0]);
}

fn beating(slots: &[u8], here: bool) -> Beats {
    Beats::Beating { slots: slots.to_vec(), here }
}

fn unknown() -> Beats {
    Beats::Unknown { why: "the disk does not answer".into() }
}

/// Nobody may mount a volume of ours before its region stands, and a classic heartbeat may go on.
#[test]
fn unready_until_the_region_stands() {
    let unready = |bench: &Bench| bench.volumes.unready().map(|set| set.contains(&U));
    let mut bench = Bench::new(policy(OnLoss::Reset));
    bench.present(&[ours(U, 1)]);
    assert_eq!(unready(&bench), None, "whose it is depends on the cluster");
    bench.set_cluster(Mode::Local);
    assert_eq!(unready(&bench), Some(true));
    for (bench, is_unready) in [
        (asked(), true),
        (begun(), true),
        (refused_region(), true),
        (region(), false),
        (mounted(), false),
    ] {
        assert_eq!(unready(&bench), Some(is_unready), "{}", bench.state());
    }
    let mut bench = asked();
    bench.beats(beating(&[3], false));
    assert_eq!(unready(&bench), Some(false), "{}", bench.state());
    let mut bench = asked();
    bench.beats(unknown());
    assert_eq!(unready(&bench), Some(true), "{}", bench.state());
    let mut bench = Bench::ready();
    bench.present(&[present(U, 1, &named("o2cb", "elsewhere", false))]);
    assert_eq!(unready(&bench), Some(false));
}

// The region: one test for each row.

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
    assert!(bench.volumes.view().is_empty(), "gone");
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
        assert!(bench.volumes.view().is_empty());
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
    assert!(bench.volumes.view().is_empty());

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

// The mounts: one test for each row.

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

// What a predecessor left.

fn saved(services: &[(&str, bool)]) -> Saved {
    let services = services
        .iter()
        .map(|(name, live)| SavedService { name: ServiceName::new(name).unwrap(), live: *live });
    let group = SavedGroup {
        incarnation: Incarnation(7),
        services: services.collect(),
        device: None,
        told: BTreeMap::new(),
        unfinished: false,
    };
    Saved { memory_from: None, groups: [(U, group)].into() }
}

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

// Stop.

fn snapshot(services: &[&str]) -> Snapshot {
    let services = services
        .iter()
        .map(|name| ServiceStatus { service: ServiceName::new(name).unwrap(), state: "live" });
    let services: Vec<ServiceStatus> = services.collect();
    let group = GroupStatus {
        group: U,
        state: "ready",
        waiting: Waiting::Nothing,
        presence: "in",
        grip: "granting",
        step: None,
        incarnation: Incarnation(1),
        device: None,
        ring: None,
        services: services.clone(),
        members: Vec::new(),
    };
    let config = o2bridge_core::Config {
        boot: o2bridge_core::BootId(1),
        first_incarnation: Incarnation(1),
        locking: o2bridge_core::Locking::default(),
        tunables: with_core::tunables(),
    };
    let empty = o2bridge_core::Core::new(config, Saved::default()).snapshot();
    let groups = if services.is_empty() { Vec::new() } else { vec![group] };
    Snapshot { groups, ..empty }
}

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

// Storage.

fn failing(for_ms: u64) -> Health {
    Health::Failing { errno: nix::libc::EIO, for_ms }
}

#[test]
fn lost_storage_of_a_mounted_volume_resets_the_node() {
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.view().storage, "good");
    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: 3_000 } });
    assert_eq!(bench.view().storage, "no answer for 3000 ms");
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(RETRY_MS)), "the look comes first");
    assert_eq!(bench.after(16_999), None);
    bench.change(Change::Storage { uuid: U, health: failing(19_999) });
    let why = format!(
        "the storage of volume {U}, which is mounted here, is lost: failing for 19999 ms: \
         Input/output error (os error 5)"
    );
    let reset = Some(Decision::Reset { uuid: U, why });
    assert_eq!(bench.after(1), reset);
    assert_eq!(bench.after(0), None);
    assert_eq!(bench.after(storage::AGAIN_MS), reset, "it may not have worked");
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.after(100_000), None);
}

#[test]
fn lost_storage_is_reported_once_if_so_configured() {
    let mut bench = mounted();
    bench.set_policy(policy(OnLoss::Report));
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    assert_eq!(bench.volumes.deadline(), Some(bench.now));
    assert!(matches!(bench.after(0), Some(Decision::Report { uuid: U, .. })));
    assert_eq!(bench.after(storage::AGAIN_MS), None);
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    assert!(matches!(bench.after(0), Some(Decision::Report { uuid: U, .. })), "a second loss");
}

#[test]
fn storage_counts_only_while_mounted_through_us() {
    let mut bench = region();
    bench.change(Change::Storage { uuid: U, health: failing(60_000) });
    assert_eq!(bench.after(0), None);
    assert_eq!(bench.view().storage, "unknown");
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: failing(1_000) });
    bench.mounts(&[]);
    assert_eq!(bench.orders(), ["guard "]);
    assert_eq!(bench.after(60_000), None);
}

#[test]
fn a_device_that_is_gone_is_guarded_by_its_old_name() {
    let mut bench = mounted();
    bench.present(&[]);
    bench.mounts(&[Mount { path: None, ..mount(Some(U), 1, "/srv") }]);
    assert_eq!(bench.orders(), [] as [&str; 0]);
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    assert!(matches!(bench.after(0), Some(Decision::Reset { uuid: U, .. })));
}

// The rest.

#[test]
fn one_volume_on_two_devices_is_one_volume() {
    let mut bench = Bench::ready();
    bench.present(&[ours(U, 1), ours(U, 2)]);
    assert_eq!(bench.orders(), ["look 45 sd1 sd2"]);
    assert_eq!(bench.view().devices, ["/dev/sd1", "/dev/sd2"]);
    bench.beats(Beats::Quiet);
    bench.answer(&Reply::Done);
    bench.answer(&Reply::Done);
    bench.present(&[ours(U, 3)]);
    nothing(&mut bench);
    assert_eq!(bench.state(), "region", "another way to the same volume");
}

#[test]
fn with_a_global_heartbeat_every_device_of_the_cluster_is_looked_at() {
    let global = named("o2cb", "lab", true);
    let all = [
        present(U, 1, &global),
        present(V, 2, &global),
        present(GroupId(3), 3, &named("o2cb", "elsewhere", true)),
        present(GroupId(4), 4, &Stack::Classic),
    ];
    let mut bench = Bench::new(policy(OnLoss::Reset));
    bench.set_cluster(Mode::Global);
    bench.mounts(&[]);
    bench.present(&all);
    assert_eq!(bench.orders(), ["look 2 sd2 sd1", "look 45 sd2 sd1"]);
}

#[test]
fn an_answer_that_nobody_waits_for_means_nothing() {
    let mut bench = region();
    bench.volumes.reply(RequestId(1 << 63), &Reply::Done, bench.now, &mut bench.events);
    nothing(&mut bench);
    assert_eq!(bench.state(), "region");
}

#[test]
fn the_view() {
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    let expected = VolumeView {
        uuid: "19D19F8ECA01475EBA67AFD6D84C3B45".into(),
        devices: vec!["/dev/sd1".into()],
        label: "label".into(),
        stack: "o2cb".into(),
        cluster: Some("lab".into()),
        state: "region".into(),
        mountpoints: vec!["/srv".into()],
        storage: "good".into(),
        warning: None,
    };
    assert_eq!(bench.view(), expected);
    let json = serde_json::to_string(&expected).unwrap();
    assert_eq!(serde_json::from_str::<VolumeView>(&json).unwrap(), expected);
}
