//! The loop: readiness to events, events into the core, actions to the hands. It carries, it does
//! not decide, and it never waits for anything but the poll.
//!
//! One turn: corosync first, because a death may be among its events; then what the threads
//! finished, timers and signals; the tools last. Each is read to its bottom (the poll is
//! edge-triggered), and its events are carried through the core before the next one is read.
//!
//! While a silence is measured the loop turns often enough to notice that it stood still itself: stopped,
//! starved, or with its whole machine. The core is told before anything else.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use o2bridge_core::{Actions, Channel, Core, Event, Now};
use slog::{Logger, warn};

use crate::adapter::bus;
use crate::adapter::timers::{boot_us, now};
use crate::adapter::volumes::VolumeDesk;
use crate::adapter::workers::Results;
use crate::door::Turn;
use crate::exec::Hands;
use crate::kernel::Kernel;
use crate::log::trace;
use crate::manage::Manage;
use crate::window::{Seen, Window, abort_with_dump};

/// Of the waker that corosync's helper threads and ours share.
pub const WAKER: Token = Token(0);
/// Of the signals.
pub const SIGNALS: Token = Token(1);
/// Of corosync's handles: as many groups as it can serve with its usual limit of descriptors, fourfold.
pub const BUS: std::ops::Range<usize> = 16..4_112;
/// Of the doors, without an end.
pub const DOORS: Token = Token(BUS.end);

/// Readiness taken from the kernel at once.
const READY_MAX: usize = 1_024;

/// How often the bus is asked in one go, so that a flood of messages starves neither tools nor timers.
const DRAINS_MAX: usize = 16;

/// The daemon, put together.
pub struct Driver {
    poll: Poll,
    core: Core,
    hands: Hands,
    /// What the threads finished.
    results: Results,
    manage: Manage,
    log: Logger,
    /// Events on their way to the core.
    inbox: VecDeque<Event>,
    /// Whether the bus had more to say when it was last asked.
    is_bus_busy: bool,
    /// When the poll last returned, in microseconds of `CLOCK_BOOTTIME`.
    woke_us: u64,
}

impl Driver {
    /// Puts it together.
    #[must_use]
    pub fn new(poll: Poll, core: Core, hands: Hands, results: Results, manage: Manage) -> Self {
        let log = hands.log.clone();
        let inbox = VecDeque::new();
        Self { poll, core, hands, results, manage, log, inbox, is_bus_busy: false, woke_us: 0 }
    }

    /// Runs until the core says that it is over.
    ///
    /// # Errors
    /// The poll failed: a bug, or the kernel is out of memory.
    pub fn run(mut self) -> io::Result<()> {
        let mut ready = Events::with_capacity(READY_MAX);
        // Until corosync answers the daemon is as if it had lost it: what it inherited is in use.
        self.inbox.push_back(Event::Disconnected);
        self.carry();
        self.manage.started();
        while !self.hands.is_over {
            match self.poll.poll(&mut ready, self.patience()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {
                    let woke_before_us = std::mem::replace(&mut self.woke_us, boot_us());
                    self.turn(&ready, woke_before_us);
                }
            }
        }
        self.manage.stopping();
        // Whoever closes gates ends before whoever opens the last ones.
        self.hands.volumes = None;
        if let Some(kernel) = &mut self.hands.kernel {
            kernel.stop();
        }
        Ok(())
    }

    /// How long the loop stood still, if for a good part of a grace.
    fn stood_still_ms(&self, woke_before_us: u64) -> Option<u64> {
        let pause_ms = self.woke_us.saturating_sub(woke_before_us) / 1_000;
        (pause_ms > self.grace_ms() / 4).then_some(pause_ms)
    }

    /// Tells the core that what was said in time may not be here yet: the loop stood still, or corosync has more
    /// than could be read.
    fn admit_delay(&mut self, woke_before_us: u64) {
        let pause_ms = self.stood_still_ms(woke_before_us);
        if let Some(pause_ms) = pause_ms {
            warn!(
                self.log,
                "this daemon stood still for {pause_ms} ms: who was silent meanwhile has a whole grace anew"
            );
        }
        if pause_ms.is_some() || self.is_bus_busy {
            self.inbox.push_back(Event::Stalled);
            self.carry();
        }
    }

    fn grace_ms(&self) -> u64 {
        self.manage.facts.settings.timing.grace_ms.get()
    }

    /// How long nothing needs to happen.
    fn patience(&self) -> Option<Duration> {
        if self.is_bus_busy {
            return Some(Duration::ZERO);
        }
        let now = now();
        let doors = self.hands.doors.deadline(now);
        let volumes = self.hands.volumes.as_ref().and_then(VolumeDesk::deadline);
        let kernel = self.hands.kernel.as_ref().map(Kernel::deadline);
        let listens = self.hands.timers.measures_silence().then(|| now.after(self.grace_ms() / 8));
        let timers = self.hands.timers.next_at();
        let times = [timers, listens, doors, volumes, kernel, self.manage.deadline()];
        let next = times.into_iter().flatten().min();
        let ours = next.map(|at| Duration::from_millis(at.0.saturating_sub(now.0)));
        let bus = self.hands.bus.next_deadline();
        let bus = bus.map(|at| at.saturating_duration_since(Instant::now()));
        ours.into_iter().chain(bus).min()
    }

    fn turn(&mut self, ready: &Events, woke_before_us: u64) {
        let measures = self.hands.timers.measures_silence();
        for event in ready {
            if self.hands.bus.is_token(event.token()) {
                self.hands.bus.ready(event.token());
            }
        }
        self.hands.bus.tick(Instant::now());
        self.turn_bus();
        while let Some(event) = self.results.take() {
            self.inbox.push_back(event);
        }
        if measures {
            self.admit_delay(woke_before_us);
        }
        // What was due before corosync was read: should this process be stopped after that, more may wait there.
        let woke = Now(self.woke_us / 1_000);
        while let Some(event) = self.hands.timers.fire(woke) {
            self.inbox.push_back(event);
        }
        let now = now();
        self.manage.signals(&mut self.inbox, &self.core, &mut self.hands);
        self.inbox.extend(self.hands.turn_volumes(now));
        if let Some(kernel) = &mut self.hands.kernel {
            kernel.alive(now);
        }
        self.carry();
        self.turn_doors(ready, now);
        self.carry();
        self.turn_bus();
        self.manage.tick(now, &self.core, self.hands.is_ready());
    }

    /// Until nothing comes any more: what the core answers may make the bus say something at once.
    fn turn_bus(&mut self) {
        let mut heard = Vec::new();
        for _ in 0..DRAINS_MAX {
            self.hands.bus.drain(&mut heard);
            self.is_bus_busy = !heard.is_empty();
            if !self.is_bus_busy {
                return;
            }
            for event in heard.drain(..) {
                self.manage.facts.note_corosync(&event);
                self.hands.note_corosync(&event);
                self.inbox.extend(bus::translate(&self.log, &self.hands.repeats, event));
            }
            self.carry();
        }
    }

    fn turn_doors(&mut self, ready: &Events, now: Now) {
        let mut events = Vec::new();
        self.manage.facts.shm_bytes = self.hands.bus.shm_bytes();
        let hands =
            Seen { kernel: self.hands.kernel.as_ref(), volumes: self.hands.volumes.as_ref() };
        let mut view = Window { core: &self.core, facts: &mut self.manage.facts, hands };
        let mut turn = Turn { now, view: &mut view, out: &mut events };
        for event in ready {
            if self.hands.doors.owns(event.token()) {
                self.hands.doors.ready(event, &mut turn);
            }
        }
        self.hands.doors.tick(&mut turn);
        self.inbox.extend(events);
    }

    /// A stop with no group left ends us, and whoever misses us then must have nothing to guard.
    fn holds_up(&self, event: &Event) -> bool {
        *event == Event::Stop
            && self.core.snapshot().groups.is_empty()
            && self.hands.holds_up_stop()
    }

    /// Carries what is in the inbox through the core, each event to its last action.
    fn carry(&mut self) {
        let mut actions = Actions::new();
        while let Some(event) = self.inbox.pop_front() {
            trace::event(&self.log, self.woke_us, &event);
            if self.holds_up(&event) {
                continue;
            }
            let now = now();
            let is_lost = event == Event::Disconnected;
            let is_word = matches!(event, Event::Message { channel: Channel::Control, .. });
            self.core.handle(now, event, &mut actions);
            if let Err(broken) = self.core.check() {
                abort_with_dump(broken, &self.core, &self.manage.facts);
            }
            for action in actions.drain(..) {
                self.hands.act(now, action);
            }
            if is_lost {
                self.hands.bus.connect();
            }
            if let Some(volumes) = self.hands.volumes.as_mut().filter(|_| is_word) {
                volumes.peers_use(self.core.used_elsewhere());
            }
            self.inbox.extend(self.hands.volumes.iter_mut().flat_map(VolumeDesk::take_said));
            self.hands.doors.changed();
            self.manage.changed(now);
        }
    }
}
