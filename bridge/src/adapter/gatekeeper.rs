//! A thread that closes the gates of volumes that only other nodes know: to look for a region that is not there is to
//! wait for all that are being removed, and the loop does not wait. It only closes them; the loop opens.
//!
//! A close may end when it is not wanted any more, so the loop is woken after that, and looks.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::Builder;
use std::time::Duration;

use mio::Waker;
use o2bridge_core::GroupId;
use o2bridge_shim::user_heartbeat::Gates;
use slog::{Logger, error, info};

use super::workers::STACK_BYTES;

/// The pause before a gate that a tool held is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// The pause before all are closed anew: somebody may have removed their semaphores, or a region has gone.
const ASSURE: Duration = Duration::from_secs(10);

/// The thread's other end. It ends with this.
#[derive(Debug)]
pub struct Gatekeeper {
    orders: Sender<BTreeSet<GroupId>>,
    ordered: BTreeSet<GroupId>,
}

impl Gatekeeper {
    /// Starts with no gate to close.
    ///
    /// # Errors
    /// There are no more threads.
    pub fn start(gates: Gates, waker: Arc<Waker>, log: Logger) -> io::Result<Self> {
        let (orders, receiver) = channel();
        let thread = Thread {
            gates,
            orders: receiver,
            wanted: BTreeSet::new(),
            closed: BTreeSet::new(),
            is_new: false,
            waker,
            log,
        };
        let builder = Builder::new().name("gates".into()).stack_size(STACK_BYTES);
        builder.spawn(move || thread.run())?;
        Ok(Self { orders, ordered: BTreeSet::new() })
    }

    /// Closes these gates from now on, and no others. Those that are closed stay so until somebody opens them.
    pub fn order(&mut self, volumes: &BTreeSet<GroupId>) {
        if self.ordered != *volumes {
            self.ordered.clone_from(volumes);
            // Without the thread the daemon ends.
            let _ = self.orders.send(volumes.clone());
        }
    }
}

/// The gatekeeper is not wanted any more.
struct Over;

struct Thread {
    gates: Gates,
    orders: Receiver<BTreeSet<GroupId>>,
    wanted: BTreeSet<GroupId>,
    /// Those whose gates were closed, or cannot be.
    closed: BTreeSet<GroupId>,
    /// Whether there was an order since the last round began.
    is_new: bool,
    waker: Arc<Waker>,
    log: Logger,
}

impl Thread {
    fn run(mut self) {
        while self.wait().is_ok() && self.round().is_ok() {}
    }

    /// Waits for an order, or for the next round.
    fn wait(&mut self) -> Result<(), Over> {
        let pause = match (self.is_new, self.closed == self.wanted) {
            (true, _) => Duration::ZERO,
            (false, true) => ASSURE,
            (false, false) => RETRY,
        };
        match self.orders.recv_timeout(pause) {
            Ok(wanted) => self.take(wanted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Over),
        }
        self.hear()?;
        self.is_new = false;
        Ok(())
    }

    /// Closes all that are wanted. What is not wanted any more meanwhile is left out, what comes has the next round.
    fn round(&mut self) -> Result<(), Over> {
        for volume in self.wanted.clone() {
            self.hear()?;
            if self.wanted.contains(&volume) {
                self.close(volume);
            }
        }
        self.hear()?;
        if self.is_new {
            self.wake();
        }
        Ok(())
    }

    /// Of several orders the last one counts.
    fn hear(&mut self) -> Result<(), Over> {
        loop {
            match self.orders.try_recv() {
                Ok(wanted) => self.take(wanted),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Over),
            }
        }
    }

    fn take(&mut self, wanted: BTreeSet<GroupId>) {
        self.closed.retain(|volume| wanted.contains(volume));
        self.wanted = wanted;
        self.is_new = true;
    }

    fn close(&mut self, volume: GroupId) {
        match self.gates.close(volume) {
            Ok(true) if self.closed.insert(volume) => {
                info!(self.log, "other nodes use a volume that was not seen here: a mount of it would wait until it is";
                    "group" => %volume);
                self.wake();
            }
            Ok(true) => {}
            Ok(false) => drop(self.closed.remove(&volume)),
            Err(error) => {
                if self.closed.insert(volume) {
                    error!(self.log, "mounts cannot be held back: {error}"; "group" => %volume);
                }
            }
        }
    }

    fn wake(&self) {
        // Can only fail when it is set already.
        let _ = self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use mio::{Poll, Token};

    /// Whether somebody holds the gate, as somebody else sees it.
    fn is_closed(gates: &Gates, volume: GroupId) -> bool {
        let is_closed = !gates.close(volume).unwrap();
        gates.open_all();
        is_closed
    }

    fn wait_for(what: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn closes_what_it_is_told_to_and_leaves_the_rest_to_who_opens() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, others) = (Gates::new(dir.path()), Gates::new(dir.path()));
        let volume = |number| GroupId(u128::from(std::process::id()) << 64 | 0x6 << 124 | number);
        let (one, two) = (volume(1), volume(2));
        if let Err(error) = others.close(one) {
            println!("SKIPPED closes_what_it_is_told_to_and_leaves_the_rest_to_who_opens: {error}");
            return;
        }
        others.open_all();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let log = Logger::root(slog::Discard, slog::o!());
        let mut keeper = Gatekeeper::start(ours.clone(), waker, log).unwrap();
        keeper.order(&[one, two].into());
        wait_for(|| is_closed(&others, one) && is_closed(&others, two));
        keeper.order(&[two].into());
        ours.open_others(&[two].into(), &BTreeSet::new());
        assert!(!is_closed(&others, one));
        assert!(is_closed(&others, two));
        drop(keeper);
        ours.open_all();
        wait_for(|| !is_closed(&others, two));
    }
}
