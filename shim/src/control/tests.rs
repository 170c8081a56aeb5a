use std::collections::VecDeque;
use std::path::PathBuf;

use o2bridge_keeper::Line;

use super::dlmc::{Lockspace, Node};
use super::*;
use crate::user_heartbeat::BeatError;

const GROUP: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);
const OTHER: GroupId = GroupId(7);
const LIFE: Incarnation = Incarnation(1);
const GREETING: &str = "T01\n";
const HANDS: &str = "T01\nT01\nSETN 00000001\nSETV 01 00\n";
const DOWN_2: &str = "DOWN 19D19F8ECA01475EBA67AFD6D84C3B45 00000002\n";

const GONE: Option<Node> = Some(Node { is_member: false, is_awaited: false });
const MEMBER: Option<Node> = Some(Node { is_member: true, is_awaited: false });
/// What it says depends on the version: the change that is under way, or the one before.
const AWAITED: Option<Node> = Some(Node { is_member: true, is_awaited: true });

fn lockspace(is_stopped: bool) -> Option<Lockspace> {
    Some(Lockspace { is_stopped, is_registered: true, has_started: true })
}

/// A dlm_controld that says what it was told to say, the last word for ever, and writes down what it
/// was told and what the device held then.
#[derive(Default)]
struct Fake {
    lockspaces: VecDeque<Option<Lockspace>>,
    nodes: VecDeque<Option<Node>>,
    taken: VecDeque<bool>,
    failure: Option<fn() -> ControlError>,
    /// A directory to be made then.
    on_unregister: Option<PathBuf>,
    heard: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Fake>>, PathBuf);

impl Shared {
    fn take<T: Copy>(
        &self,
        of: impl FnOnce(&mut Fake) -> &mut VecDeque<T>,
    ) -> Result<T, ControlError> {
        let mut fake = lock(&self.0);
        if let Some(failure) = fake.failure {
            return Err(failure());
        }
        let words = of(&mut fake);
        Ok(if words.len() > 1 { words.pop_front().unwrap() } else { words[0] })
    }

    fn hear(&self, what: String) -> Result<(), ControlError> {
        let mut fake = lock(&self.0);
        fake.failure.map_or(Ok(()), |failure| Err(failure()))?;
        fake.heard.push(what);
        Ok(())
    }
}

impl Dlm for Shared {
    fn lockspace(&self, _: GroupId) -> Result<Option<Lockspace>, ControlError> {
        self.take(|fake| &mut fake.lockspaces)
    }

    fn node(&self, _: GroupId, _: NodeId) -> Result<Option<Node>, ControlError> {
        self.take(|fake| &mut fake.nodes)
    }

    fn register(&self, group: GroupId) -> Result<(), ControlError> {
        self.hear(format!("register {group}"))
    }

    fn unregister(&self, group: GroupId) -> Result<(), ControlError> {
        let made = lock(&self.0).on_unregister.take();
        made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        self.hear(format!("unregister {group}"))
    }

    fn notified(&self, _: GroupId, node: NodeId) -> Result<bool, ControlError> {
        let told = std::fs::read_to_string(&self.1).unwrap().matches("DOWN").count();
        self.hear(format!("notified {node} after {told} DOWN"))?;
        self.take(|fake| &mut fake.taken)
    }
}

#[derive(Default)]
struct Held(Mutex<(Option<Line>, usize)>);

impl Lifeline for Held {
    fn line(&self) -> Option<Line> {
        lock(&self.0).0
    }

    fn hold(&self, line: Line) -> Result<(), BeatError> {
        let mut held = lock(&self.0);
        *held = (Some(line), held.1 + 1);
        Ok(())
    }

    fn release(&self) -> Result<(), BeatError> {
        lock(&self.0).0 = None;
        Ok(())
    }
}

struct World {
    _dir: tempfile::TempDir,
    settings: Settings,
    keeper: Arc<Held>,
    dlm: Shared,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("device"), GREETING).unwrap();
        std::fs::write(at("protocol"), "1.0\n").unwrap();
        std::fs::create_dir(at("lockspaces")).unwrap();
        let told = Told::default();
        told.set_node(NodeId(1));
        told.set_locking(LockingProtocol { major: 1, minor: 0 });
        let keeper = Arc::<Held>::default();
        let settings = Settings {
            paths: Paths {
                device: at("device"),
                protocol: at("protocol"),
                lockspaces: at("lockspaces"),
            },
            told,
            keeper: Arc::clone(&keeper) as Arc<dyn Lifeline>,
            groups: BTreeSet::new(),
            down: Down::Safe("tried".into()),
            risk_kernel_bug: false,
        };
        let fake = Fake {
            lockspaces: [None].into(),
            nodes: [GONE].into(),
            taken: [true].into(),
            ..Fake::default()
        };
        let dlm = Shared(Arc::new(Mutex::new(fake)), at("device"));
        Self { _dir: dir, settings, keeper, dlm }
    }

    fn control(&self) -> Control {
        Control::with(&self.settings, Box::new(self.dlm.clone())).unwrap()
    }

    /// With the group attached and mounted.
    fn mounted(&self) -> Control {
        let control = self.control();
        control.attach(GROUP, &Peers::new()).unwrap();
        self.lockspace(GROUP);
        lock(&self.dlm.0).lockspaces = [lockspace(false)].into();
        lock(&self.dlm.0).heard.clear();
        control
    }

    fn lockspace(&self, group: GroupId) {
        let path = self.settings.paths.lockspaces.join(group.to_string());
        std::fs::create_dir(path).unwrap();
    }

    fn unmount(&self, group: GroupId) {
        let path = self.settings.paths.lockspaces.join(group.to_string());
        std::fs::remove_dir(path).unwrap();
    }

    fn device(&self) -> String {
        std::fs::read_to_string(&self.settings.paths.device).unwrap()
    }

    fn heard(&self) -> Vec<String> {
        lock(&self.dlm.0).heard.clone()
    }
}

fn why(result: Result<(), ShimError>) -> ControlError {
    match result {
        Err(ShimError::Control(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_of_death_has_47_bytes() {
    assert_eq!(down_record(GROUP, NodeId(2)), DOWN_2.as_bytes());
    let last = down_record(GroupId(u128::MAX), NodeId(u32::MAX));
    assert_eq!(&last, b"DOWN FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF FFFFFFFF\n");
}

#[test]
fn attach_holds_the_line_twice_and_registers() {
    let world = World::new();
    let control = world.control();
    assert_eq!(world.device(), GREETING, "nothing is opened before a group is attached");
    control.attach(GROUP, &Peers::new()).unwrap();
    control.attach(OTHER, &Peers::new()).unwrap();
    control.attach(GROUP, &Peers::new()).unwrap();
    assert_eq!(world.device(), HANDS, "once");
    let line = Line { node: 1, major: 1, minor: 0 };
    assert_eq!(*lock(&world.keeper.0), (Some(line), 1));
    let registered = [GROUP, OTHER, GROUP].map(|group| format!("register {group}"));
    assert_eq!(world.heard(), registered);
    assert_eq!(control.tend(), None);
    assert_eq!(world.heard().len(), 5, "both again");
}

#[test]
fn down_comes_after_the_stop_and_before_the_word() {
    let world = World::new();
    let control = world.mounted();
    {
        let mut fake = lock(&world.dlm.0);
        fake.lockspaces = [lockspace(false), lockspace(false), lockspace(true)].into();
        fake.nodes = [MEMBER, AWAITED].into();
        fake.taken = [false, false, true].into();
    }
    control.suspend(GROUP).unwrap();
    control.node_down(GROUP, NodeId(2), LIFE).unwrap();
    assert_eq!(world.device(), format!("{HANDS}{DOWN_2}"));
    assert_eq!(world.heard(), ["notified 2 after 1 DOWN"; 3]);
    control.resume(GROUP, &Peers::new()).unwrap();
}

/// A node dies while our mount still joins: dlm_controld has no membership yet to look it up in.
#[test]
fn a_lockspace_that_never_started_is_not_told() {
    let world = World::new();
    let control = world.mounted();
    {
        let mut fake = lock(&world.dlm.0);
        fake.lockspaces = [lockspace(true).map(|it| Lockspace { has_started: false, ..it })].into();
        fake.nodes = [AWAITED].into();
    }
    let error = why(control.node_down(GROUP, NodeId(2), LIFE));
    assert!(matches!(error, ControlError::NotStopped(NodeId(2))), "{error}");
    assert_eq!((world.device(), world.heard().len()), (HANDS.into(), 0));
}

#[test]
fn a_lockspace_that_is_not_stopped_is_not_told() {
    for seen in [MEMBER, AWAITED] {
        let world = World::new();
        let control = world.mounted();
        lock(&world.dlm.0).nodes = [seen].into();
        let error = why(control.node_down(GROUP, NodeId(2), LIFE));
        assert!(matches!(error, ControlError::NotStopped(NodeId(2))), "{error}");
        assert_eq!(error.errno(), libc::EAGAIN);
        assert_eq!((world.device().as_str(), world.heard().len()), (HANDS, 0));
    }
}

#[test]
fn a_word_that_is_not_taken_is_said_again_with_the_down() {
    let world = World::new();
    let control = world.mounted();
    {
        let mut fake = lock(&world.dlm.0);
        fake.lockspaces = [lockspace(true)].into();
        fake.nodes = [AWAITED].into();
        fake.taken = [false].into();
    }
    let error = why(control.node_down(GROUP, NodeId(2), LIFE));
    assert!(matches!(error, ControlError::NotTaken(NodeId(2))), "{error}");
    lock(&world.dlm.0).taken = [true].into();
    control.node_down(GROUP, NodeId(2), LIFE).unwrap();
    assert_eq!(world.device(), format!("{HANDS}{DOWN_2}{DOWN_2}"));
}

#[test]
fn who_left_before_it_died_is_told_and_not_waited_for() {
    for seen in [None, GONE] {
        let world = World::new();
        let control = world.mounted();
        lock(&world.dlm.0).nodes = [seen].into();
        control.node_down(GROUP, NodeId(2), LIFE).unwrap();
        assert_eq!(world.device(), format!("{HANDS}{DOWN_2}"));
        assert_eq!(world.heard().len(), 0);
    }
}

#[test]
fn without_a_lockspace_there_is_nothing_to_tell() {
    let world = World::new();
    let control = world.control();
    control.attach(GROUP, &Peers::new()).unwrap();
    control.node_down(GROUP, NodeId(2), LIFE).unwrap();
    assert_eq!(world.device(), HANDS);
    world.lockspace(GROUP);
    let error = why(control.node_down(GROUP, NodeId(2), LIFE));
    assert!(matches!(error, ControlError::UnknownLockspace), "{error}");
}

#[test]
fn nobody_is_told_that_this_node_is_dead() {
    let world = World::new();
    let control = world.mounted();
    let error = why(control.node_down(GROUP, NodeId(1), LIFE));
    assert!(matches!(error, ControlError::Ourselves(NodeId(1))), "{error}");
    assert_eq!(world.device(), HANDS);
}

#[test]
fn a_daemon_that_is_gone_or_stopped_fails_every_verb_but_the_last() {
    let failures: [fn() -> ControlError; 2] =
        [|| ControlError::Absent, || ControlError::Slow { for_ms: 500 }];
    for failure in failures {
        let world = World::new();
        let control = world.mounted();
        lock(&world.dlm.0).failure = Some(failure);
        let expected = failure().to_string();
        assert_eq!(why(control.attach(OTHER, &Peers::new())).to_string(), expected);
        assert_eq!(why(control.resume(GROUP, &Peers::new())).to_string(), expected);
        assert_eq!(why(control.node_down(GROUP, NodeId(2), LIFE)).to_string(), expected);
        assert_eq!(control.tend(), Some(expected));
        assert_eq!(world.device(), HANDS);
        control.suspend(GROUP).unwrap();
    }
}

#[test]
fn detach_waits_for_the_kernel_and_the_last_one_lets_go() {
    let world = World::new();
    let control = world.mounted();
    control.attach(OTHER, &Peers::new()).unwrap();
    let error = control.detach(GROUP).unwrap_err();
    assert!(matches!(error, ShimError::InUse { .. }), "{error}");
    world.unmount(GROUP);
    control.detach(GROUP).unwrap();
    assert!(world.keeper.line().is_some(), "the other group needs it");
    control.detach(OTHER).unwrap();
    assert_eq!(world.keeper.line(), None);
    assert!(lock(&control.held).is_none());
    let heard = world.heard();
    let expected = [GROUP, OTHER].map(|group| format!("unregister {group}"));
    assert_eq!(heard[1..], expected);
}

/// A daemon that ended would be missed by the keeper, which cannot let go of the line: the node would be reset under a
/// mount that is nobody's fault.
#[test]
fn the_last_group_stays_while_others_need_the_line() {
    let world = World::new();
    let control = world.control();
    control.attach(OTHER, &Peers::new()).unwrap();
    world.lockspace(GroupId(9));
    for _ in 0..2 {
        let error = control.detach(OTHER).unwrap_err();
        assert!(matches!(error, ShimError::InUse { .. }), "{error}");
        assert!(world.keeper.line().is_some() && lock(&control.held).is_some());
        assert!(lock(&control.groups).contains(&OTHER));
    }
    assert_eq!(world.heard().len(), 1, "dlm_controld goes on asking us");
    world.unmount(GroupId(9));
    control.detach(OTHER).unwrap();
    assert_eq!(world.keeper.line(), None);
}

/// A volume of others is mounted while dlm_controld is told.
#[test]
fn a_lockspace_that_comes_in_the_last_detach_keeps_the_group() {
    let world = World::new();
    let control = world.control();
    control.attach(OTHER, &Peers::new()).unwrap();
    let late = world.settings.paths.lockspaces.join(GroupId(9).to_string());
    lock(&world.dlm.0).on_unregister = Some(late);
    let error = control.detach(OTHER).unwrap_err();
    assert!(matches!(error, ShimError::InUse { .. }), "{error}");
    assert!(world.keeper.line().is_some() && lock(&control.groups).contains(&OTHER));
    assert_eq!(control.tend(), None);
    assert_eq!(world.heard().last().unwrap(), &format!("register {OTHER}"), "as before");
}

/// It was killed, and the groups were left before: what keeps the line is a mount of others.
#[test]
fn a_line_that_no_group_holds_goes_with_the_last_lockspace() {
    let world = World::new();
    world.keeper.hold(Line { node: 1, major: 1, minor: 0 }).unwrap();
    world.lockspace(GroupId(9));
    let control = world.control();
    assert_eq!(control.tend(), None);
    assert!(world.keeper.line().is_some());
    world.unmount(GroupId(9));
    assert_eq!(control.tend(), None);
    assert_eq!(world.keeper.line(), None);
    assert!(lock(&control.held).is_none());
}

#[test]
fn a_successor_keeps_what_was_attached() {
    let mut world = World::new();
    let line = Line { node: 1, major: 1, minor: 0 };
    world.keeper.hold(line).unwrap();
    world.settings.groups.insert(GROUP);
    let control = world.control();
    assert_eq!(world.keeper.line(), Some(line));
    assert_eq!(world.device(), HANDS, "the keeper is not left alone with it");
    control.detach(OTHER).unwrap();
    assert_eq!(world.keeper.line(), Some(line));
    world.settings.groups.clear();
    drop(control);
    let _ = world.control();
    assert_eq!(world.keeper.line(), None, "nobody needs it");
    assert_eq!(world.device(), HANDS);
}

#[test]
fn kernels_that_may_crash_are_not_opened() {
    let mut world = World::new();
    let start = |world: &World| Control::with(&world.settings, Box::new(world.dlm.clone()));
    for (down, is_risked, is_fine) in [
        (Down::Bug("BUG".into()), false, false),
        (Down::Bug("BUG".into()), true, false),
        (Down::Unknown("who knows".into()), false, false),
        (Down::Unknown("who knows".into()), true, true),
        (Down::Safe("tried".into()), false, true),
    ] {
        (world.settings.down, world.settings.risk_kernel_bug) = (down.clone(), is_risked);
        assert_eq!(start(&world).is_ok(), is_fine, "{down:?}, {is_risked}");
    }
    (world.settings.down, world.settings.risk_kernel_bug) = (Down::Bug("BUG".into()), true);
    assert!(start(&world).unwrap_err().to_string().ends_with("control device: BUG"));
    assert_eq!(world.device(), GREETING);
}

#[test]
fn the_kernel_says_which_locking_protocol_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("protocol");
    let version = |major, minor| Some(LockingProtocol { major, minor });
    for (text, found) in [
        ("1.0\n", version(1, 0)),
        ("2.7", version(2, 7)),
        ("0.1\n", None),
        ("", None),
        ("1", None),
        ("1.256", None),
        ("x.y", None),
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(highest_protocol(&path).ok(), found, "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = highest_protocol(&path).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn the_kernel_is_told_what_the_daemons_chose() {
    let world = World::new();
    world.settings.told.set_locking(LockingProtocol { major: 1, minor: 3 });
    world.control().attach(GROUP, &Peers::new()).unwrap();
    assert_eq!(world.keeper.line(), Some(Line { node: 1, major: 1, minor: 3 }));
    let device = std::fs::read(&world.settings.paths.device).unwrap();
    assert!(device.ends_with(b"SETV 01 03\n"), "{}", String::from_utf8_lossy(&device));
}

#[test]
fn without_a_node_id_or_a_handshake_nothing_is_attached() {
    let mut world = World::new();
    world.settings.told = Told::default();
    let error = why(world.control().attach(GROUP, &Peers::new()));
    assert!(matches!(error, ControlError::NoProtocol), "{error}");
    world.settings.told.set_locking(LockingProtocol { major: 1, minor: 0 });
    let error = why(world.control().attach(GROUP, &Peers::new()));
    assert!(matches!(error, ControlError::NoNode), "{error}");
    world.settings.told.set_node(NodeId(1));
    std::fs::write(&world.settings.paths.device, "T02\n").unwrap();
    let error = world.control().attach(GROUP, &Peers::new()).unwrap_err();
    assert!(error.to_string().contains("cannot shake hands with"), "{error}");
    assert_eq!(world.keeper.line(), None);
}

#[test]
fn where_dlm_controld_does_not_ask_the_device_is_not_opened() {
    let world = World::new();
    lock(&world.dlm.0).failure = Some(|| ControlError::NotAsked);
    let error = why(world.control().attach(GROUP, &Peers::new()));
    assert!(error.to_string().contains("enable_fscontrol=1"), "{error}");
    assert_eq!((world.device().as_str(), world.keeper.line()), (GREETING, None));
}
