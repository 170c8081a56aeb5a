//! The manager with the real core, in a cluster of one: the two must mean the same by their words.

use std::collections::VecDeque;

use o2bridge_core::{
    Action, BootId, ClientId, Config, Core, Fencing, Finding, Locking, Member, NodeId, OpError,
    Pid, Reason, RingId, Tunables,
};

use super::*;

const ME: Member = Member { node: NodeId(1), pid: Pid(100) };
const RING: RingId = RingId { seq: 4, node: NodeId(1) };

fn quorum(quorate: bool) -> Event {
    Event::Quorum { quorate, ring: RING, nodes: vec![NodeId(1)], left: Vec::new() }
}

pub(super) fn tunables() -> Tunables {
    Tunables {
        grace_ms: 10_000,
        begin_timeout_ms: 60_000,
        complete_timeout_ms: 120_000,
        leave_timeout_ms: 30_000,
        retry_ms: 1_000,
        inquorate_reset_ms: 0,
        fencing: Fencing::Ack,
    }
}

/// A daemon whose hands do everything at once.
struct Daemon {
    core: Core,
    volumes: Volumes,
    now: Now,
    inbox: VecDeque<Event>,
    /// What the shim was told.
    verbs: Vec<&'static str>,
    /// Answers to others than the manager.
    replies: Vec<Reply>,
    /// What would survive the daemon.
    saved: Saved,
    has_ended: bool,
    timers: Vec<(Now, Event)>,
    /// The kernel refuses to attach.
    fails: bool,
    /// What the mount table says of a tool that is gone.
    finding: Finding,
}

impl Daemon {
    fn new(saved: Saved) -> Self {
        Self::serving(Serves::O2cb, saved)
    }

    fn serving(serves: Serves, saved: Saved) -> Self {
        let first_incarnation = Incarnation(1_000);
        let config = Config {
            boot: BootId(1),
            first_incarnation,
            locking: Locking::default(),
            tunables: tunables(),
        };
        let mut daemon = Self {
            core: Core::new(config, saved.clone()),
            volumes: Volumes::new(Policy { serves, ..policy(OnLoss::Reset) }),
            now: START,
            inbox: VecDeque::new(),
            verbs: Vec::new(),
            replies: Vec::new(),
            saved: saved.clone(),
            has_ended: false,
            timers: Vec::new(),
            fails: false,
            finding: Finding::NotMounted,
        };
        let mut out = Vec::new();
        daemon.volumes.inherit(&saved, START, &mut out);
        daemon.run(out);
        daemon
    }

    /// In a cluster of this node alone, with one volume and nothing mounted.
    fn up(saved: Saved) -> Self {
        let mut daemon = Self::new(saved);
        daemon.connect();
        daemon.change(Change::Volumes(vec![ours(U, 1)]));
        daemon.change(Change::Mounts(vec![]));
        daemon
    }

    fn with_region() -> Self {
        let mut daemon = Self::up(Saved::default());
        daemon.quiet();
        assert_eq!(daemon.state(), "region");
        daemon
    }

    fn connect(&mut self) {
        let nodelist = vec![NodeId(1)];
        self.run(vec![
            Event::Connected { node: NodeId(1), cluster: "lab".into(), nodelist },
            quorum(true),
        ]);
        let mut out = Vec::new();
        self.volumes.set_cluster("lab", Mode::Local, self.now, &mut out);
        self.run(out);
    }

    fn change(&mut self, change: Change) {
        let mut out = Vec::new();
        self.volumes.change(change, self.now, &mut out);
        self.run(out);
    }

    fn quiet(&mut self) {
        assert!(matches!(
            self.volumes.orders().as_slice(),
            [.., Order::Beats { uuid: U, .. }] | [Order::Beats { uuid: U, .. }, ..]
        ));
        self.change(Change::Beats { uuid: U, beats: Beats::Quiet });
    }

    fn mounts(&mut self, at: &[&str]) {
        let mounts = at.iter().map(|at| mount(Some(U), 1, at)).collect();
        self.change(Change::Mounts(mounts));
    }

    fn after(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        let (due, later) = self.timers.drain(..).partition(|(at, _)| *at <= self.now);
        self.timers = later;
        let due: Vec<(Now, Event)> = due;
        self.run(due.into_iter().map(|(_, event)| event).collect());
        let mut out = Vec::new();
        self.volumes.tick(self.now, &mut out);
        self.run(out);
    }

    fn stop(&mut self) -> StopAnswer {
        let mut out = Vec::new();
        let answer = self.volumes.stop(&self.core.snapshot(), self.now, &mut out);
        self.run(out);
        answer
    }

    fn run(&mut self, events: Vec<Event>) {
        self.inbox.extend(events);
        while let Some(event) = self.inbox.pop_front() {
            let mut actions = Vec::new();
            self.core.handle(self.now, event, &mut actions);
            self.core.check().unwrap();
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    fn act(&mut self, action: Action) {
        let done = |op, result| Event::Done { op, result };
        match action {
            Action::Join { op, channel } => {
                let joined = vec![(ME, Reason::Join)];
                let (members, left, nodes) = (vec![ME], vec![], vec![NodeId(1)]);
                self.inbox.extend([
                    done(op, Ok(())),
                    Event::Confchg { channel, members, left, joined },
                    Event::Totem { channel, ring: RING, nodes },
                ]);
            }
            Action::Depart { op, .. } => self.inbox.push_back(done(op, Ok(()))),
            Action::Mcast { channel, bytes } => {
                self.inbox.push_back(Event::Message { channel, from: ME, bytes });
            }
            Action::Verb { op, verb, .. } => {
                self.verbs.push(verb.name());
                let fails = self.fails && verb.name() == "attach";
                self.inbox
                    .push_back(done(op, if fails { Err(OpError::Errno(16)) } else { Ok(()) }));
            }
            Action::Save { op, group, image } => {
                match image {
                    Some(image) => drop(self.saved.groups.insert(group, image)),
                    None => drop(self.saved.groups.remove(&group)),
                }
                self.inbox.push_back(done(op, Ok(())));
            }
            Action::Reply { request, reply } if Volumes::owns(request) => {
                let mut out = Vec::new();
                self.volumes.reply(request, &reply, self.now, &mut out);
                self.inbox.extend(out);
            }
            Action::Reply { reply, .. } => self.replies.push(reply),
            Action::Arm { timer, generation, at } => {
                self.timers.push((at, Event::Timer { timer, generation }));
            }
            Action::Look { op, group, .. } => {
                let mut out = Vec::new();
                self.volumes.tool_gone(group, self.now, &mut out);
                self.inbox.extend(out);
                self.inbox.push_back(Event::Looked { op, finding: self.finding });
            }
            Action::Exit => self.has_ended = true,
            _ => {}
        }
    }

    fn state(&self) -> String {
        let volumes = self.volumes.view(&self.core.snapshot());
        volumes.first().map_or("none".into(), |view| view.state.clone())
    }

    fn services(&self) -> Vec<(String, &'static str)> {
        let groups = self.core.snapshot().groups;
        let services = groups.into_iter().flat_map(|group| group.services);
        services.map(|service| (service.service.as_str().to_owned(), service.state)).collect()
    }

    fn is_live(&self, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|name| ((*name).to_owned(), "live")).collect();
        assert_eq!(self.services(), expected);
    }

    fn leave_by_hand(&mut self, name: &str) {
        let service = ServiceName::new(name).unwrap();
        let (request, client) = (RequestId(7), ClientId(7));
        self.run(vec![Event::Leave { request, client, group: U, service }]);
    }

    fn begin_by_hand(&mut self, name: &str) {
        self.run(vec![Event::Begin(Begin {
            request: RequestId(8),
            client: ClientId(8),
            group: U,
            service: ServiceName::new(name).unwrap(),
            cluster: None,
            device: Some(DeviceId(77)),
            held: false,
        })]);
    }

    /// As mount.ocfs2 does it for the label cman, until it ends.
    fn begin_as_a_tool(&mut self) {
        self.run(vec![Event::Begin(Begin {
            request: RequestId(8),
            client: ClientId(8),
            group: U,
            service: ServiceName::new("ocfs2").unwrap(),
            cluster: Some("lab".into()),
            device: None,
            held: true,
        })]);
        assert_eq!(self.replies.pop(), Some(Reply::Done));
    }

    fn tool_ends(&mut self, finding: Finding) {
        self.finding = finding;
        self.run(vec![Event::ClientGone { client: ClientId(8) }]);
    }

    fn lockspace(&mut self, is_there: bool) {
        let groups = is_there.then(|| (U, std::collections::BTreeSet::new()));
        self.change(Change::Lockspaces(groups.into_iter().collect()));
    }

    fn complete_by_hand(&mut self, name: &str) {
        let service = ServiceName::new(name).unwrap();
        let (request, client) = (RequestId(9), ClientId(8));
        self.run(vec![Event::Complete { request, client, group: U, service, code: 0 }]);
    }
}

#[test]
fn a_volume_comes_is_mounted_is_unmounted_and_goes() {
    let mut daemon = Daemon::with_region();
    daemon.is_live(&["volume"]);
    assert_eq!(daemon.verbs, ["attach"]);
    daemon.mounts(&["/srv", "/also"]);
    daemon.is_live(&["/also", "/srv", "volume"]);
    daemon.mounts(&["/srv"]);
    daemon.is_live(&["/srv", "volume"]);
    daemon.mounts(&[]);
    daemon.is_live(&["volume"]);
    daemon.change(Change::Volumes(vec![]));
    daemon.is_live(&[]);
    assert_eq!(daemon.state(), "none");
    assert_eq!(daemon.verbs.last(), Some(&"detach"));
    assert!(daemon.saved.groups.is_empty());
}

#[test]
fn stop_with_an_idle_region_ends_the_daemon_and_leaves_nothing() {
    let mut daemon = Daemon::with_region();
    assert_eq!(daemon.stop(), StopAnswer::Leaving);
    assert!(daemon.has_ended);
    assert_eq!(daemon.verbs, ["attach", "detach"]);
    assert!(daemon.saved.groups.is_empty());
}

#[test]
fn stop_with_a_mount_changes_nothing() {
    let mut daemon = Daemon::with_region();
    daemon.mounts(&["/srv"]);
    assert_eq!(daemon.stop(), StopAnswer::Refused);
    assert!(!daemon.has_ended);
    daemon.is_live(&["/srv", "volume"]);
}

#[test]
fn stop_without_quorum_takes_the_begin_back() {
    let mut daemon = Daemon::new(Saved::default());
    daemon.connect();
    daemon.run(vec![quorum(false)]);
    daemon.change(Change::Volumes(vec![ours(U, 1)]));
    daemon.change(Change::Mounts(vec![]));
    daemon.quiet();
    assert_eq!(daemon.services(), [("volume".to_owned(), "beginning")]);
    assert_eq!(daemon.stop(), StopAnswer::Leaving);
    daemon.after(BUSY_MS);
    assert_eq!(daemon.services(), []);
    assert!(daemon.has_ended);
}

#[test]
fn a_vanished_volume_whose_begin_still_waits_is_taken_back() {
    let mut daemon = Daemon::new(Saved::default());
    daemon.connect();
    daemon.run(vec![quorum(false)]);
    daemon.change(Change::Volumes(vec![ours(U, 1)]));
    daemon.change(Change::Mounts(vec![]));
    daemon.quiet();
    daemon.change(Change::Volumes(vec![]));
    daemon.after(BUSY_MS);
    assert_eq!(daemon.services(), []);
    assert_eq!(daemon.state(), "none");
}

#[test]
fn a_restarted_daemon_goes_on() {
    let mut daemon = Daemon::with_region();
    daemon.mounts(&["/srv", "/gone"]);
    let saved = daemon.saved.clone();
    drop(daemon);
    let mut daemon = Daemon::new(saved);
    daemon.change(Change::Volumes(vec![ours(U, 1)]));
    daemon.mounts(&["/srv"]);
    daemon.connect();
    daemon.is_live(&["/srv", "volume"]);
    assert!(!daemon.verbs.contains(&"attach") && !daemon.verbs.contains(&"detach"));
    daemon.after(ASSURE_MS);
    daemon.is_live(&["/srv", "volume"]);
    assert_eq!(daemon.state(), "region");
    daemon.mounts(&[]);
    daemon.is_live(&["volume"]);
}

#[test]
fn a_daemon_that_died_between_begin_and_complete() {
    let mut daemon = Daemon::with_region();
    for group in daemon.saved.groups.values_mut() {
        group.services.iter_mut().for_each(|service| service.live = false);
    }
    let daemon = Daemon::up(daemon.saved.clone());
    daemon.is_live(&["volume"]);
    assert!(daemon.saved.groups[&U].services[0].live);
}

#[test]
fn a_region_that_was_ended_by_hand_comes_back() {
    let mut daemon = Daemon::with_region();
    daemon.leave_by_hand("volume");
    daemon.is_live(&[]);
    daemon.after(ASSURE_MS);
    daemon.is_live(&["volume"]);
    assert_eq!(daemon.state(), "region");
    assert_eq!(daemon.verbs, ["attach", "detach", "attach"]);
}

#[test]
fn a_mount_that_a_tool_began() {
    let mut daemon = Daemon::with_region();
    daemon.begin_by_hand("/srv");
    daemon.mounts(&["/srv"]);
    daemon.complete_by_hand("/srv");
    assert_eq!(daemon.replies, [Reply::Done, Reply::Done]);
    daemon.after(BUSY_MS);
    daemon.is_live(&["/srv", "volume"]);
    daemon.mounts(&[]);
    daemon.is_live(&["/srv", "volume"]);
    daemon.after(LAPSE_MS);
    daemon.is_live(&["volume"]);
}

#[test]
fn a_kernel_that_refuses_is_asked_again() {
    let mut daemon = Daemon::up(Saved::default());
    daemon.fails = true;
    daemon.quiet();
    assert_eq!(daemon.state(), "refused: attach failed: errno 16");
    daemon.after(1_000);
    assert_eq!(daemon.services(), [], "the core undid it");
    daemon.fails = false;
    daemon.after(RETRY_MS);
    daemon.quiet();
    daemon.is_live(&["volume"]);
}

#[test]
fn corosync_goes_and_comes_back() {
    let mut daemon = Daemon::with_region();
    daemon.run(vec![Event::Disconnected]);
    daemon.mounts(&["/srv"]);
    daemon.is_live(&["volume"]);
    daemon.connect();
    daemon.is_live(&["/srv", "volume"]);

    let mut daemon = Daemon::with_region();
    daemon.run(vec![Event::Disconnected]);
    daemon.after(ASSURE_MS);
    assert_eq!(daemon.state(), "region", "corosync is no reason to forget");
    daemon.connect();
    daemon.is_live(&["volume"]);
    assert_eq!(daemon.core.snapshot().groups[0].state, "ready");
}

/// In a cluster of this node alone, with one volume of a user stack and nothing in use.
fn user_stack(serves: Serves) -> Daemon {
    let mut daemon = Daemon::serving(serves, Saved::default());
    daemon.connect();
    daemon.change(Change::Volumes(vec![present(U, 1, &named("cman", "lab", false))]));
    daemon.lockspace(false);
    daemon.change(Change::Mounts(vec![]));
    daemon
}

#[test]
fn a_tool_that_says_half_of_it() {
    let mut daemon = user_stack(Serves::UserSeen);
    daemon.is_live(&[]);
    daemon.begin_as_a_tool();
    daemon.lockspace(true);
    daemon.mounts(&["/srv"]);
    daemon.tool_ends(Finding::Mounted);
    daemon.after(BUSY_MS);
    daemon.is_live(&["/srv"]);
    assert_eq!(daemon.state(), "in use");
    daemon.mounts(&[]);
    daemon.lockspace(false);
    daemon.is_live(&[]);
    assert_eq!(daemon.verbs, ["attach", "detach"]);
    assert!(daemon.saved.groups.is_empty());
}

/// The mount came and went before the table was read.
#[test]
fn a_tool_whose_mount_nobody_saw() {
    let mut daemon = user_stack(Serves::UserSeen);
    daemon.begin_as_a_tool();
    daemon.tool_ends(Finding::Mounted);
    daemon.is_live(&["ocfs2"]);
    daemon.after(TOOL_PATIENCE_MS);
    daemon.after(BUSY_MS);
    daemon.is_live(&[]);
}

#[test]
fn a_tool_that_dies_before_it_mounts() {
    let mut daemon = user_stack(Serves::UserAhead);
    daemon.is_live(&["volume"]);
    daemon.begin_as_a_tool();
    daemon.tool_ends(Finding::NotMounted);
    daemon.after(TOOL_PATIENCE_MS);
    daemon.after(BUSY_MS);
    daemon.is_live(&["volume"]);
    assert_eq!(daemon.verbs, ["attach"]);
}

#[test]
fn a_silent_tool_uses_the_group_while_it_has_its_lockspace() {
    for (serves, idle) in [(Serves::UserSeen, vec![]), (Serves::UserAhead, vec!["volume"])] {
        let mut daemon = user_stack(serves);
        daemon.lockspace(true);
        let busy: Vec<&str> = [LOCKSPACE].iter().chain(&idle).copied().collect();
        daemon.is_live(&busy);
        assert_eq!(daemon.stop(), StopAnswer::Refused);
        daemon.lockspace(false);
        daemon.is_live(&idle);
        assert_ne!(daemon.stop(), StopAnswer::Refused);
        assert!(daemon.has_ended);
    }
}
