//! Threads for whatever may block: verbs, the state file, the mount table, fence agents.
//!
//! Jobs are queued in lanes: in order within a lane, lanes in parallel. All threads are made at the
//! start, because a death is no time to find out that the system has no thread left.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mio::Waker;
use o2bridge_core::Event;

/// How many groups can be stuck in the kernel at once before another one waits for them. A stuck
/// thread costs its stack only; 32 of 256 KiB are 8 MiB of locked memory.
pub const VERB_THREADS: usize = 32;

/// How many nodes can be fenced at once. An agent takes a minute where a verb takes a millisecond, so
/// agents have threads of their own.
pub const FENCE_THREADS: usize = 8;

/// Enough for a line of JSON and a few calls of the kernel. Nothing of corosync may run on it:
/// libcpg's dispatch alone takes 1 MiB.
pub(crate) const STACK_BYTES: usize = 256 * 1024;

/// What is done on a thread; its event, if there is one, goes to the loop.
pub type Job = Box<dyn FnOnce() -> Option<Event> + Send>;

/// The end of the loop at which finished jobs arrive.
#[derive(Debug)]
pub struct Results {
    receiver: Receiver<Event>,
}

impl Results {
    /// The next event, if one is there.
    pub fn take(&mut self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }
}

/// The end of the threads.
#[derive(Debug, Clone)]
pub struct Outbox {
    sender: Sender<Event>,
    waker: Arc<Waker>,
}

impl Outbox {
    /// A channel whose every event also wakes the loop.
    #[must_use]
    pub fn new(waker: Arc<Waker>) -> (Self, Results) {
        let (sender, receiver) = channel();
        (Self { sender, waker }, Results { receiver })
    }

    /// Sends an event to the loop.
    pub fn send(&self, event: Event) {
        // Without a receiver the loop has ended, and nobody wants to know any more.
        if self.sender.send(event).is_ok() {
            // The eventfd of a waker can only fail to be written when it is set already.
            let _ = self.waker.wake();
        }
    }
}

/// A fixed number of threads over any number of lanes.
#[derive(Debug)]
pub struct Workers<Lane> {
    shared: Arc<Shared<Lane>>,
}

#[derive(Debug)]
struct Shared<Lane> {
    queue: Mutex<Queue<Lane>>,
    work: Condvar,
}

/// A lane has an entry while one of its jobs is queued or runs; it is in `ready` while it has a job
/// queued and none runs.
#[derive(Debug)]
struct Queue<Lane> {
    lanes: BTreeMap<Lane, VecDeque<Entry>>,
    ready: VecDeque<Lane>,
}

struct Entry(Job);

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl<Lane: Ord + Copy + Send + 'static> Workers<Lane> {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system has no thread left. Those started so far wait for ever.
    pub fn start(name: &str, threads: usize, outbox: &Outbox) -> io::Result<Self> {
        let queue = Mutex::new(Queue { lanes: BTreeMap::new(), ready: VecDeque::new() });
        let shared = Arc::new(Shared { queue, work: Condvar::new() });
        for index in 0..threads {
            let (shared, outbox) = (Arc::clone(&shared), outbox.clone());
            std::thread::Builder::new()
                .name(format!("{name}-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || serve(&shared, &outbox))?;
        }
        Ok(Self { shared })
    }

    /// Queues a job behind the others of its lane.
    pub fn push(&self, lane: Lane, job: Job) {
        let mut queue = self.shared.lock();
        match queue.lanes.get_mut(&lane) {
            Some(jobs) => jobs.push_back(Entry(job)),
            None => {
                queue.lanes.insert(lane, VecDeque::from([Entry(job)]));
                queue.ready.push_back(lane);
                self.shared.work.notify_one();
            }
        }
    }
}

impl<Lane> Shared<Lane> {
    fn lock(&self) -> MutexGuard<'_, Queue<Lane>> {
        // No job runs under the lock, so a panic cannot have left the queue half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve<Lane: Ord + Copy>(shared: &Shared<Lane>, outbox: &Outbox) {
    let mut queue = shared.lock();
    loop {
        let Some(lane) = queue.ready.pop_front() else {
            queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let job = queue.lanes.get_mut(&lane).and_then(VecDeque::pop_front);
        drop(queue);
        if let Some(event) = job.and_then(|Entry(job)| job()) {
            outbox.send(event);
        }
        queue = shared.lock();
        if queue.lanes.get(&lane).is_some_and(|jobs| !jobs.is_empty()) {
            queue.ready.push_back(lane);
            shared.work.notify_one();
        } else {
            queue.lanes.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use o2bridge_core::OpId;
    use std::sync::mpsc::sync_channel;
    use std::time::{Duration, Instant};

    struct Loop {
        poll: Poll,
        results: Results,
    }

    impl Loop {
        fn new() -> (Self, Outbox) {
            let poll = Poll::new().unwrap();
            let (outbox, results) =
                Outbox::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
            (Self { poll, results }, outbox)
        }

        fn take(&mut self, count: usize) -> Vec<u64> {
            let mut taken = Vec::new();
            let end = Instant::now() + Duration::from_secs(10);
            while taken.len() < count && Instant::now() < end {
                while let Some(event) = self.results.take() {
                    match event {
                        Event::Done { op: OpId(op), .. } => taken.push(op),
                        other => panic!("{other:?}"),
                    }
                }
                if taken.len() < count {
                    let mut events = Events::with_capacity(4);
                    self.poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                }
            }
            taken
        }
    }

    fn done(op: u64) -> Option<Event> {
        Some(Event::Done { op: OpId(op), result: Ok(()) })
    }

    #[test]
    fn in_order_within_a_lane() {
        let (mut looped, outbox) = Loop::new();
        let workers = Workers::start("test", 4, &outbox).unwrap();
        for op in 0..1_000_u64 {
            workers.push(op % 7, Box::new(move || done(op)));
        }
        let ops = looped.take(1_000);
        assert_eq!(ops.len(), 1_000);
        for lane in 0..7 {
            let of_lane: Vec<u64> = ops.iter().copied().filter(|op| op % 7 == lane).collect();
            assert!(of_lane.is_sorted(), "lane {lane}: {of_lane:?}");
        }
    }

    #[test]
    fn a_blocked_lane_blocks_nobody_else() {
        let (mut looped, outbox) = Loop::new();
        let workers = Workers::start("test", 2, &outbox).unwrap();
        let (release, blocked) = sync_channel::<()>(0);
        workers.push(
            0,
            Box::new(move || {
                blocked.recv().unwrap();
                done(1)
            }),
        );
        workers.push(0, Box::new(|| done(2)));
        for op in 10..20 {
            workers.push(op, Box::new(move || done(op)));
        }
        let mut others = looped.take(10);
        others.sort_unstable();
        assert_eq!(others, (10..20).collect::<Vec<_>>());
        release.send(()).unwrap();
        assert_eq!(looped.take(2), [1, 2]);
    }

    #[test]
    fn as_many_lanes_as_threads_run_at_once() {
        let (mut looped, outbox) = Loop::new();
        let workers = Workers::start("test", 8, &outbox).unwrap();
        let barrier = Arc::new(std::sync::Barrier::new(8));
        for op in 0..8 {
            let barrier = Arc::clone(&barrier);
            workers.push(
                op,
                Box::new(move || {
                    barrier.wait();
                    done(op)
                }),
            );
        }
        assert_eq!(looped.take(8).len(), 8, "the barrier opens only when all eight run");
    }
}
