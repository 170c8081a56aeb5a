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
mod inherited;
mod mount;
mod ready;
mod region;
mod stop;
mod storage_loss;
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
                Order::Reread => "reread".to_owned(),
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
        let settled = Snapshot { connected: true, quorate: true, ..snapshot(&["volume"]) };
        self.volumes.view(&settled).into_iter().find(|view| view.uuid == uuid).unwrap()
    }

    fn is_forgotten(&self) -> bool {
        self.volumes.view(&snapshot(&[])).is_empty()
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
/// What a predecessor left.
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

/// What the core says, with these services of one volume.
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

#[test]
fn unready_until_the_region_stands() {
    let unready = |bench: &Bench| bench.volumes.unready().map(|set| set.contains(&U));
    let mut bench = Bench::new(policy(OnLoss::Reset));
    bench.present(&[ours(U, 1)]);
    assert_eq!(unready(&bench), None, "whose it is depends on the cluster");
    assert_eq!(bench.volumes.to_close(), [].into());
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
        assert_eq!(bench.volumes.ours(), [U].into(), "{}", bench.state());
    }
    let mut bench = asked();
    bench.beats(beating(&[3], false));
    assert_eq!(unready(&bench), Some(false), "{}", bench.state());
    assert_eq!(bench.volumes.ours(), [].into());
    let mut bench = asked();
    bench.beats(unknown());
    assert_eq!(unready(&bench), Some(true), "{}", bench.state());
    let mut bench = Bench::ready();
    bench.present(&[present(U, 1, &named("o2cb", "elsewhere", false))]);
    assert_eq!(unready(&bench), Some(false));
}

/// What peers use may appear here at any time.
#[test]
fn unseen_until_it_is_seen_or_used_nowhere() {
    let used = BTreeSet::from([U, V]);
    let mut bench = Bench::new(policy(OnLoss::Reset));
    assert_eq!(bench.volumes.unseen(&used), [].into(), "nobody knows how we beat");
    bench.set_cluster(Mode::Local);
    assert_eq!(bench.volumes.unseen(&used), used);
    assert_eq!(bench.volumes.unseen(&[].into()), [].into());
    for stack in [named("o2cb", "lab", false), named("o2cb", "elsewhere", false), Stack::Classic] {
        bench.present(&[present(U, 1, &stack)]);
        assert_eq!(bench.volumes.unseen(&used), [V].into(), "judged: {stack:?}");
    }
    bench.present(&[]);
    assert_eq!(bench.volumes.unseen(&used), used);

    let mut bench = region();
    bench.present(&[]);
    assert_eq!(bench.volumes.unseen(&used), [V].into(), "its region is being left");
    bench.answer(&Reply::Done);
    assert_eq!(bench.volumes.unseen(&used), used);

    let mut bench = mounted();
    bench.present(&[]);
    assert_eq!(bench.volumes.unseen(&used), [V].into(), "its region stands");
}

#[test]
fn unseen_is_only_what_would_be_guarded_once_it_is_seen() {
    let used = BTreeSet::from([U, V]);
    let unseen = |policy: Policy, mode: Mode| {
        let mut bench = Bench::new(policy);
        bench.set_cluster(mode);
        bench.volumes.unseen(&used)
    };
    let policy = || policy(OnLoss::Reset);
    assert_eq!(unseen(policy(), Mode::Global), [].into());
    assert_eq!(unseen(Policy { which: Which::None, ..policy() }, Mode::Local), [].into());
    let which = Which::Listed([V].into());
    assert_eq!(unseen(Policy { which, ..policy() }, Mode::Local), [V].into());
    for serves in [Serves::UserAhead, Serves::UserSeen] {
        assert_eq!(unseen(Policy { serves, ..policy() }, Mode::Local), [].into());
    }
}

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

/// A copy that was made before the volume was ours, or was made another's since, does not hide it.
#[test]
fn a_copy_of_a_volume_does_not_hide_it() {
    let copy = |minor, stack: &Stack| present(U, minor, stack);
    for other in [Stack::Classic, named("o2cb", "other", false), named("pcmk", "lab", false)] {
        for devices in [[copy(1, &other), ours(U, 2)], [ours(U, 1), copy(2, &other)]] {
            let mut bench = Bench::ready();
            bench.present(&devices);
            assert_eq!(bench.volumes.unready(), Some([U].into()), "{other:?}");
            assert_eq!(bench.orders(), ["look 45 sd1 sd2"], "{other:?}");
        }
    }
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
