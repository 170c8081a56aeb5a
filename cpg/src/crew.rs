//! Helper threads for calls that can block without limit, and the watchdog over them.
//!
//! One thread for each call, a few at a time. A call that does not end in its time is *stuck*: its
//! thread is left to itself and no longer counted among the few, so other calls go on. So many may
//! be stuck at once ([`STUCK_MAX`]); beyond that nothing new is started until one comes back.
//!
//! A call that is given up, or whose connection is lost, is *void*: it must not go on to its next step
//! when corosync answers after all. A join of yesterday would meet the join of today in the same group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;
use rust_corosync::CsError;

use crate::calls::{Bell, Connection, Cpg};
use crate::event::NodeEntry;

/// Calls at a time. Corosync answers one after the other, but 64 joins take 150 ms with four and 230
/// with one.
const RUNNING_MAX: usize = 4;
/// Threads that may be lost in calls that never end.
const STUCK_MAX: usize = 16;

/// After the system had no thread for a call that must be made.
const START_RETRY: Duration = Duration::from_millis(100);

/// Names one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

/// What a call brought back.
#[derive(Debug)]
pub(crate) enum Outcome {
    Connect(Result<Connection, CsError>),
    Join(Result<Cpg, CsError>),
    /// The handle comes back, because closing it is another call.
    Leave(Cpg, Result<(), CsError>),
    Close,
    Kill(Result<(), CsError>),
    /// No list while corosync reloads its configuration.
    Nodelist(Result<(Bell, Option<Vec<NodeEntry>>), CsError>),
}

/// Whether nobody waits for a call any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Void(Arc<AtomicBool>);

impl Void {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A call to be made.
pub(crate) struct Job {
    /// Its name, for the log.
    pub(crate) what: &'static str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// The call. In several steps, it asks before each whether it is void.
    pub(crate) run: Run,
}

type Run = Box<dyn FnOnce(&Void) -> Outcome + Send>;

impl Job {
    /// Whether it has a handle: that must be closed some day, whoever still waits for it.
    fn has_handle(&self) -> bool {
        matches!(self.what, CLOSE | LEAVE)
    }
}

/// A call that was given up, and why.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) id: CallId,
    pub(crate) what: &'static str,
    /// The time it had; none if it was not made at all.
    pub(crate) limit: Option<Duration>,
}

struct Running {
    what: &'static str,
    limit: Duration,
    deadline: Instant,
    void: Void,
}

/// The helper threads.
pub(crate) struct Crew {
    waker: Arc<Waker>,
    sender: Sender<(CallId, Outcome)>,
    receiver: Receiver<(CallId, Outcome)>,
    next_id: u64,
    waiting: VecDeque<(CallId, Job)>,
    running: BTreeMap<CallId, Running>,
    stuck: BTreeMap<CallId, &'static str>,
    failed_to_start: Vec<GivenUp>,
}

impl Crew {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel();
        Self {
            waker,
            sender,
            receiver,
            next_id: 0,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            stuck: BTreeMap::new(),
            failed_to_start: Vec::new(),
        }
    }

    /// Takes a call on. It starts at once, or when another one ends.
    pub(crate) fn submit(&mut self, job: Job) -> CallId {
        let id = CallId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back((id, job));
        self.start_waiting();
        id
    }

    fn start_waiting(&mut self) {
        let mut without_thread = Vec::new();
        while self.running.len() < RUNNING_MAX && self.stuck.len() < STUCK_MAX {
            let Some((id, job)) = self.waiting.pop_front() else { break };
            if let Err(job) = self.start(id, job) {
                without_thread.push((id, job));
            }
        }
        for (id, job) in without_thread {
            if let Some(given_up) = self.set_aside(id, job) {
                self.failed_to_start.push(given_up);
                let _ = self.waker.wake();
            }
        }
    }

    /// Starts a call on a thread of its own; gives it back if the system has none.
    fn start(&mut self, id: CallId, Job { what, limit, run }: Job) -> Result<(), Job> {
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let void = Void::default();
        let voided = void.clone();
        let ours = Arc::new(Mutex::new(Some(run)));
        let theirs = Arc::clone(&ours);
        let take =
            |run: &Mutex<Option<Run>>| run.lock().unwrap_or_else(PoisonError::into_inner).take();
        let body = move || {
            let Some(run) = take(&theirs) else { return };
            // The bus may be gone: then nobody needs the outcome.
            let _ = sender.send((id, run(&voided)));
            let _ = waker.wake();
        };
        match thread::Builder::new().name(format!("corosync-{what}")).spawn(body) {
            Ok(_) => {
                let deadline = Instant::now() + limit;
                self.running.insert(id, Running { what, limit, deadline, void });
                Ok(())
            }
            Err(_) => take(&ours).map_or(Ok(()), |run| Err(Job { what, limit, run })),
        }
    }

    /// A call that is not made now. Whoever waits for it is told so; one that has a handle is made later.
    fn set_aside(&mut self, id: CallId, mut job: Job) -> Option<GivenUp> {
        let is_awaited = job.what != CLOSE;
        let given_up = is_awaited.then_some(GivenUp { id, what: job.what, limit: None });
        if job.has_handle() {
            job.what = CLOSE;
            self.waiting.push_back((id, job));
        }
        given_up
    }

    /// The next call that ended, and the name of it if it had been given up before.
    pub(crate) fn next_outcome(&mut self) -> Option<(CallId, Outcome, Option<&'static str>)> {
        let (id, outcome) = self.receiver.try_recv().ok()?;
        self.running.remove(&id);
        let late = self.stuck.remove(&id);
        self.start_waiting();
        Some((id, outcome, late))
    }

    /// Gives up what is over its time. When all that may be stuck is stuck, what waits is given up
    /// too, but handles are closed when corosync is back.
    pub(crate) fn give_up(&mut self, now: Instant) -> Vec<GivenUp> {
        let mut list = std::mem::take(&mut self.failed_to_start);
        for (&id, call) in &self.running {
            if call.deadline <= now {
                list.push(GivenUp { id, what: call.what, limit: Some(call.limit) });
                call.void.set();
                self.stuck.insert(id, call.what);
            }
        }
        self.running.retain(|_, call| call.deadline > now);
        self.start_waiting();
        if self.stuck.len() >= STUCK_MAX {
            list.extend(self.drop_waiting());
        }
        list
    }

    /// Nobody waits for any call any more. What has not started does not start; closing goes on.
    pub(crate) fn void_all(&mut self) {
        drop(self.drop_waiting());
        for call in self.running.values() {
            call.void.set();
        }
    }

    fn drop_waiting(&mut self) -> Vec<GivenUp> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().filter_map(|(id, job)| self.set_aside(id, job)).collect()
    }

    /// When [`Self::give_up`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let is_full = self.stuck.len() >= STUCK_MAX;
        let is_awaited = |(_, job): &(CallId, Job)| job.what != CLOSE;
        if !self.failed_to_start.is_empty() || (is_full && self.waiting.iter().any(is_awaited)) {
            return Some(Instant::now());
        }
        let is_idle = self.running.is_empty() && !is_full;
        let retry = (is_idle && !self.waiting.is_empty()).then(|| Instant::now() + START_RETRY);
        self.running.values().map(|call| call.deadline).chain(retry).min()
    }
}

/// The name of the call that closes handles.
pub(crate) const CLOSE: &str = "close";
/// The name of the call that leaves a group; it brings its handle back.
pub(crate) const LEAVE: &str = "leave";

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    const LONG: Duration = Duration::from_secs(600);

    fn crew() -> (Crew, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
        (Crew::new(waker), poll)
    }

    fn job(what: &'static str, limit: Duration, body: impl FnOnce() + Send + 'static) -> Job {
        let run = Box::new(move |_: &Void| {
            body();
            Outcome::Close
        });
        Job { what, limit, run }
    }

    fn wait_outcome(crew: &mut Crew) -> (CallId, Option<&'static str>) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some((id, _, late)) = crew.next_outcome() {
                return (id, late);
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("no call ended");
    }

    #[test]
    fn a_stuck_call_is_reported_and_does_not_hold_up_others() {
        let (mut crew, _poll) = crew();
        let gate = Arc::new(Barrier::new(RUNNING_MAX + 1));
        let stuck: Vec<CallId> = (0..RUNNING_MAX)
            .map(|_| {
                let gate = Arc::clone(&gate);
                crew.submit(job("stuck", Duration::ZERO, move || {
                    gate.wait();
                }))
            })
            .collect();
        let next = crew.submit(job("next", LONG, || ()));
        assert!(crew.next_outcome().is_none(), "it waits for its turn");
        let given_up: Vec<CallId> =
            crew.give_up(Instant::now()).iter().map(|given_up| given_up.id).collect();
        assert_eq!(given_up, stuck);
        assert_eq!(wait_outcome(&mut crew), (next, None));
        gate.wait();
        for _ in &stuck {
            let (id, late) = wait_outcome(&mut crew);
            assert!(stuck.contains(&id));
            assert_eq!(late, Some("stuck"));
        }
    }

    #[test]
    fn a_void_call_stops_at_its_next_step() {
        let (mut crew, _poll) = crew();
        let gate = Arc::new(Barrier::new(2));
        let (there, went_on) = (Arc::clone(&gate), Arc::new(AtomicBool::new(false)));
        let went_on_too = Arc::clone(&went_on);
        let run = Box::new(move |void: &Void| {
            there.wait();
            there.wait();
            went_on_too.store(!void.is_set(), Ordering::Release);
            Outcome::Close
        });
        let id = crew.submit(Job { what: "join", limit: LONG, run });
        gate.wait();
        crew.void_all();
        gate.wait();
        assert_eq!(wait_outcome(&mut crew), (id, None));
        assert!(!went_on.load(Ordering::Acquire));
    }

    #[test]
    fn stuck_threads_are_bounded_and_only_handles_are_kept() {
        let (mut crew, _poll) = crew();
        let gate = Arc::new(Barrier::new(STUCK_MAX + 1));
        for _ in 0..STUCK_MAX {
            let gate = Arc::clone(&gate);
            crew.submit(job("stuck", Duration::ZERO, move || {
                gate.wait();
            }));
        }
        while crew.stuck.len() < STUCK_MAX {
            crew.give_up(Instant::now());
        }
        let join = crew.submit(job("join", LONG, || ()));
        let close = crew.submit(job(CLOSE, LONG, || ()));
        let leave = crew.submit(job(LEAVE, LONG, || ()));
        assert!(crew.deadline().is_some_and(|at| at <= Instant::now()), "nothing else may wake us");
        let given_up = crew.give_up(Instant::now());
        let ids_and_limits = |call: &GivenUp| (call.id, call.limit);
        let given_up: Vec<_> = given_up.iter().map(ids_and_limits).collect();
        assert_eq!(given_up, [(join, None), (leave, None)], "they had no time");
        assert!(crew.give_up(Instant::now()).is_empty(), "said once");
        assert_eq!(crew.deadline(), None, "what is left is done when corosync is back");
        crew.void_all();
        gate.wait();
        let ended: Vec<CallId> = (0..STUCK_MAX + 2).map(|_| wait_outcome(&mut crew).0).collect();
        assert!(ended.contains(&close) && ended.contains(&leave) && !ended.contains(&join));
    }
}
