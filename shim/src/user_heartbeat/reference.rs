//! Our reference to a region, in the way of the OCFS2 tools: a pair of System V semaphores per
//! region, the first a mutex, the second the number of users. The tool that takes it to 0 removes
//! the region, and so does the last umount; while we hold ours, nobody does.
//!
//! We hold one reference from before the region stands until after it is gone. It survives this
//! process: whoever finds our region standing finds our reference in the count.

use std::io;
use std::time::{Duration, Instant};

use nix::libc;

use crate::ShimError;
use crate::sys::{SemaphorePair, Step};

const MUTEX: u16 = 0;
const COUNT: u16 = 1;

/// How long a tool may hold the mutex: it does while it starts a disk heartbeat, up to 40 s.
const MUTEX_WAIT: Duration = Duration::from_secs(60);
/// How long who needs nothing waits for it: longer than a tool that only counts.
const MUTEX_WAIT_SHORT: Duration = Duration::from_secs(1);
const MUTEX_POLL: Duration = Duration::from_millis(20);

/// The key that the tools derive from the name: its CRC-32 as zlib has it.
pub(super) fn key(region: &str) -> u32 {
    !region.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

/// How many use the region; 0 if nobody ever did. Makes nothing, waits for nothing.
pub(super) fn count(region: &str) -> Result<u32, ShimError> {
    let count = SemaphorePair::find(key(region))
        .and_then(|pair| pair.map_or(Ok(0), |pair| pair.value(COUNT)));
    match count {
        Err(error) if is_gone(&error) => Ok(0),
        count => count.map_err(|error| failed("read", region, error)),
    }
}

/// The mutex, held; no tool begins or ends a use of the region meanwhile. Given back when dropped,
/// or by the kernel if this process dies.
#[derive(Debug)]
pub(super) struct Locked {
    pair: SemaphorePair,
    region: String,
}

/// Takes the mutex.
pub(super) fn lock(region: &str) -> Result<Locked, ShimError> {
    lock_within(region, MUTEX_WAIT)
}

/// Takes the mutex, unless a tool holds it that takes its time.
pub(super) fn lock_soon(region: &str) -> Result<Locked, ShimError> {
    lock_within(region, MUTEX_WAIT_SHORT)
}

/// Takes the mutex if nobody holds it.
pub(super) fn try_lock(region: &str) -> Result<Option<Locked>, ShimError> {
    match lock_within(region, Duration::ZERO) {
        Err(error) if error.errno() == libc::EAGAIN => Ok(None),
        locked => locked.map(Some),
    }
}

fn lock_within(region: &str, wait: Duration) -> Result<Locked, ShimError> {
    const TAKE: [Step; 2] = [
        Step { semaphore: MUTEX, add: 0, undo: false },
        Step { semaphore: MUTEX, add: 1, undo: true },
    ];
    let end = Instant::now() + wait;
    loop {
        // Its last user may remove the pair at any time, so each try begins with the key.
        let pair = SemaphorePair::find_or_make(key(region));
        let pair = pair.map_err(|error| failed("make", region, error))?;
        match pair.try_steps(TAKE) {
            Ok(()) => return Ok(Locked { pair, region: region.into() }),
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EAGAIN) => {
                if Instant::now() >= end {
                    let busy = io::Error::from_raw_os_error(libc::EAGAIN);
                    return Err(failed("lock", region, busy));
                }
                std::thread::sleep(MUTEX_POLL);
            }
            Err(error) => return Err(failed("lock", region, error)),
        }
    }
}

impl Locked {
    /// Whether the pair is still there: else somebody removed it, and the mutex with it.
    pub(super) fn is_held(&self) -> bool {
        self.count().is_ok()
    }

    /// How many use the region.
    pub(super) fn count(&self) -> Result<u32, ShimError> {
        self.pair.value(COUNT).map_err(|error| failed("read", &self.region, error))
    }

    /// The region stands: our reference is in the count, unless somebody removed the pair.
    pub(super) fn keep(&self) -> Result<(), ShimError> {
        if self.count()? > 0 { Ok(()) } else { self.add(1) }
    }

    /// The region does not stand: whatever was counted is over, and only ours counts.
    pub(super) fn renew(&self) -> Result<(), ShimError> {
        self.set(1)
    }

    /// The region is gone, and with it all uses of it.
    pub(super) fn clear(&self) -> Result<(), ShimError> {
        self.set(0)
    }

    fn set(&self, count: i64) -> Result<(), ShimError> {
        match i16::try_from(count - i64::from(self.count()?)) {
            Ok(0) => Ok(()),
            Ok(add) => self.add(add),
            Err(_) => {
                Err(failed("count", &self.region, io::Error::from_raw_os_error(libc::ERANGE)))
            }
        }
    }

    /// The region did not come to stand: ours does not count.
    pub(super) fn give_back(&self) -> Result<(), ShimError> {
        self.add(-1)
    }

    /// Lets the tools in. A pair that counts nobody goes, as it goes with a tool that was the last: whoever waits
    /// looks for it anew.
    pub(super) fn open(self) {
        if self.count().is_ok_and(|count| count == 0) {
            // Fails only if the pair is gone.
            let _ = self.remove();
        }
    }

    /// Nobody needs the pair any more: the last user takes it away.
    pub(super) fn remove(self) -> Result<(), ShimError> {
        self.pair.remove().map_err(|error| failed("remove", &self.region, error))
    }

    /// Counts more or fewer users.
    pub(super) fn add(&self, add: i16) -> Result<(), ShimError> {
        let step = Step { semaphore: COUNT, add, undo: false };
        self.pair.try_steps([step]).map_err(|error| failed("count", &self.region, error))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Fails only if the pair is gone, and then there is nothing to give back.
        let _ = self.pair.try_steps([Step { semaphore: MUTEX, add: -1, undo: true }]);
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIDRM | libc::EINVAL))
}

fn failed(step: &'static str, region: &str, source: io::Error) -> ShimError {
    ShimError::Semaphore { step, region: region.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_heartbeat::fake::semaphores_work;

    /// A name of its own for every test, so that none meets another.
    fn region(test: u128) -> String {
        format!("{:032X}", (u128::from(std::process::id()) << 64) | test | 0xB << 124)
    }

    #[test]
    fn the_key_is_that_of_the_tools() {
        assert_eq!(key("19D19F8ECA01475EBA67AFD6D84C3B45"), 0x3e8f_3600);
        assert_eq!(key("123456789"), 0xcbf4_3926);
    }

    #[test]
    fn ours_is_counted_once() {
        if !semaphores_work("ours_is_counted_once") {
            return;
        }
        let region = region(1);
        assert_eq!(count(&region).unwrap(), 0);
        let locked = lock(&region).unwrap();
        locked.add(3).unwrap();
        locked.renew().unwrap();
        assert_eq!(locked.count().unwrap(), 1, "stale ones are forgotten");
        locked.renew().unwrap();
        locked.keep().unwrap();
        assert_eq!(locked.count().unwrap(), 1);
        drop(locked);
        assert_eq!(count(&region).unwrap(), 1, "not taken back with the mutex");
        lock(&region).unwrap().remove().unwrap();
        assert_eq!(SemaphorePair::find(key(&region)).unwrap(), None);
    }

    #[test]
    fn one_holder_at_a_time() {
        if !semaphores_work("one_holder_at_a_time") {
            return;
        }
        let region = region(2);
        let locked = lock(&region).unwrap();
        let error = lock_within(&region, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.errno(), libc::EAGAIN, "{error}");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock(&region).map(|locked| locked.count().unwrap()));
            std::thread::sleep(MUTEX_POLL * 2);
            locked.add(1).unwrap();
            locked.remove().unwrap();
            assert_eq!(waiter.join().unwrap().unwrap(), 0, "a new pair, not the removed one");
        });
        lock(&region).unwrap().remove().unwrap();
    }

    /// Anybody may make a set of one semaphore under the key.
    #[test]
    fn a_set_of_somebody_else_is_an_error() {
        if !semaphores_work("a_set_of_somebody_else_is_an_error") {
            return;
        }
        let region = region(3);
        let stranger = crate::sys::make_single(key(&region)).unwrap();
        let error = try_lock(&region).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{error}");
        stranger.remove().unwrap();
        try_lock(&region).unwrap().unwrap().remove().unwrap();
    }
}
