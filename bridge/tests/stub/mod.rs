//! Doors with a stub behind them in place of the core: it answers as a test tells it.
#![allow(dead_code)]

pub(crate) mod varlink;

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use o2bridge::door::{Doors, Places, Turn, View};
use o2bridge::machine::Machine;
use o2bridge::status::{Facts, LogLevel, Status};
use o2bridge_core::snapshot::{GroupStatus, MemberStatus, NodeStatus, ServiceStatus};
use o2bridge_core::{
    DeviceId, Event, Incarnation, NodeId, Now, Reply, RequestId, RingId, ServiceName, Snapshot,
    Waiting,
};

pub(crate) const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How the stub answers an event; `None`: the test does it later, or nobody.
pub(crate) type Script = fn(&Event) -> Option<Reply>;

/// What the stub's view shows.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) dump: String,
    pub(crate) log_level: LogLevel,
    /// How often a status was made.
    pub(crate) statuses: u64,
    /// What is added to the clock that the doors see.
    pub(crate) skipped_ms: u64,
}

enum Order {
    Reply(RequestId, Reply),
    Changed(Sender<()>),
    Stop,
}

pub(crate) struct Stub {
    pub(crate) socket: PathBuf,
    pub(crate) name: String,
    pub(crate) world: Arc<Mutex<World>>,
    events: Receiver<Event>,
    orders: Sender<Order>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

struct StubView<'a>(&'a Mutex<World>);

impl View for StubView<'_> {
    fn status(&self) -> Status {
        let mut world = self.0.lock().unwrap();
        world.statuses += 1;
        let facts = Facts {
            version: "9.9.9".to_owned(),
            uptime_s: 3725,
            log_level: world.log_level,
            shim: "record".to_owned(),
            shim_reason: "configured".to_owned(),
            memory_locked: true,
            shm_bytes: 3_195_000,
            warnings: vec!["fencing is none".to_owned()],
            kernel: None,
            volumes: Vec::new(),
            views: Vec::new(),
        };
        Status::new(&world.snapshot, facts)
    }

    fn machine(&mut self) -> Machine {
        Machine::new(&o2bridge_shim::probe::Facts {
            release: "6.12.107".to_owned(),
            fortify: Some(true),
            ..Default::default()
        })
    }

    fn dump(&self) -> String {
        self.0.lock().unwrap().dump.clone()
    }

    fn set_log_level(&mut self, level: LogLevel) {
        self.0.lock().unwrap().log_level = level;
    }
}

pub(crate) fn done(_: &Event) -> Option<Reply> {
    Some(Reply::Done)
}

pub(crate) fn silent(_: &Event) -> Option<Reply> {
    None
}

/// The request of an event that has one.
pub(crate) fn request_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Begin(begin) => Some(begin.request),
        Event::Complete { request, .. }
        | Event::Leave { request, .. }
        | Event::FenceAck { request, .. } => Some(*request),
        _ => None,
    }
}

impl Stub {
    pub(crate) fn start(script: Script) -> Self {
        Self::start_for(script, Places::default().trusted_uids)
    }

    /// Trusts these users only.
    pub(crate) fn start_for(script: Script, trusted_uids: Vec<u32>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::start_as(
            format!("o2bridge-test-{}-{count}", std::process::id()),
            script,
            trusted_uids,
        )
    }

    /// The old door has this name.
    pub(crate) fn start_as(name: String, script: Script, trusted_uids: Vec<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("io.o2bridge");
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let places =
            Places { legacy: Some(name.clone()), varlink: Some(socket.clone()), trusted_uids };
        let doors = Doors::open(poll.registry(), Token(10), places).unwrap();
        let world = Arc::new(Mutex::new(World {
            snapshot: snapshot(),
            dump: "what happened\n".to_owned(),
            log_level: LogLevel::Info,
            statuses: 0,
            skipped_ms: 0,
        }));
        let (events_in, events) = channel();
        let (orders, orders_out) = channel();
        let shared = Arc::clone(&world);
        let thread = std::thread::spawn(move || {
            Loop { poll, doors, world: shared, script, events: events_in, orders: orders_out }
                .run();
        });
        let thread = Some(thread);
        Self { socket, name, world, events, orders, waker, thread, _dir: dir }
    }

    /// A connection to the old door.
    pub(crate) fn legacy(&self) -> UnixStream {
        let address = SocketAddr::from_abstract_name(&self.name).unwrap();
        patient(UnixStream::connect_addr(&address).unwrap())
    }

    /// A connection to the new door.
    pub(crate) fn varlink(&self) -> UnixStream {
        patient(UnixStream::connect(&self.socket).unwrap())
    }

    /// The next event that reached the stub core.
    pub(crate) fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("no event in time")
    }

    /// That nothing reaches it for a moment.
    pub(crate) fn assert_quiet(&self) {
        if let Ok(event) = self.events.recv_timeout(Duration::from_millis(150)) {
            panic!("unexpected {event:?}");
        }
    }

    pub(crate) fn reply(&self, request: RequestId, reply: Reply) {
        self.order(Order::Reply(request, reply));
    }

    /// Changes what status shows, and tells the doors. They know when this returns, as they do in the
    /// daemon.
    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
        let (told, is_told) = channel();
        self.order(Order::Changed(told));
        is_told.recv_timeout(PATIENCE).unwrap();
    }

    /// Lets time pass for the doors.
    pub(crate) fn skip_ms(&self, ms: u64) {
        self.change(|world| world.skipped_ms += ms);
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.waker.wake().unwrap();
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        let _ = self.waker.wake();
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the loop behind the doors panicked");
        }
    }
}

/// The stub's loop, shaped like the daemon's.
struct Loop {
    poll: Poll,
    doors: Doors,
    world: Arc<Mutex<World>>,
    script: Script,
    events: Sender<Event>,
    orders: Receiver<Order>,
}

impl Loop {
    fn run(&mut self) {
        let start = Instant::now();
        let world = Arc::clone(&self.world);
        let now = || {
            let passed = u64::try_from(start.elapsed().as_millis()).unwrap();
            Now(passed + world.lock().unwrap().skipped_ms)
        };
        let mut ready = Events::with_capacity(64);
        loop {
            let pause = self
                .doors
                .deadline(now())
                .map(|at| Duration::from_millis(at.0.saturating_sub(now().0)));
            match self.poll.poll(&mut ready, pause) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            if self.obey(now()) {
                return;
            }
            let mut out = Vec::new();
            let mut view = StubView(&world);
            let mut turn = Turn { now: now(), view: &mut view, out: &mut out };
            for event in ready.iter().filter(|event| event.token() != Token(0)) {
                assert!(self.doors.owns(event.token()));
                self.doors.ready(event, &mut turn);
            }
            self.doors.tick(&mut turn);
            for event in out {
                if let (Some(request), Some(reply)) = (request_of(&event), (self.script)(&event)) {
                    self.doors.reply(request, &reply, now());
                }
                // The test may have seen enough.
                let _ = self.events.send(event);
            }
        }
    }

    /// True: stop.
    fn obey(&mut self, now: Now) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Reply(request, reply) => self.doors.reply(request, &reply, now),
                Order::Changed(told) => {
                    self.doors.changed();
                    told.send(()).unwrap();
                }
                Order::Stop => return true,
            }
        }
        false
    }
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Two nodes, one group in use.
pub(crate) fn snapshot() -> Snapshot {
    let node = |id, in_ring, daemon, groups, fencing| NodeStatus {
        node: NodeId(id),
        in_ring,
        daemon,
        boot: None,
        groups,
        fencing,
        in_debt: false,
    };
    Snapshot {
        node: Some(NodeId(1)),
        cluster: "demo".to_owned(),
        connected: true,
        link: "up",
        quorate: true,
        ring: Some(RingId { seq: 0x5c, node: NodeId(1) }),
        settled: true,
        witness: true,
        outvoted: false,
        locking: "none",
        protocol: 1,
        fencing: "ack",
        nodes: vec![
            node(1, true, "speaking", 1, "none"),
            node(2, false, "absent", 1, "waiting for ack"),
        ],
        groups: vec![GroupStatus {
            group: UUID.parse().unwrap(),
            state: "suspended",
            waiting: Waiting::Fencing(NodeId(2)),
            presence: "in",
            grip: "suspended",
            step: None,
            incarnation: Incarnation(0x1f),
            device: Some(DeviceId(nix::sys::stat::makedev(8, 17))),
            ring: Some(RingId { seq: 0x5c, node: NodeId(1) }),
            services: vec![
                ServiceStatus { service: ServiceName::new("/mnt/a b").unwrap(), state: "live" },
                ServiceStatus { service: ServiceName::new("ocfs2").unwrap(), state: "live" },
            ],
            members: vec![
                MemberStatus { node: NodeId(1), incarnation: Incarnation(0x1f), state: "member" },
                MemberStatus { node: NodeId(2), incarnation: Incarnation(0xa0), state: "lost" },
            ],
        }],
        garbage_messages: 0,
    }
}
