//! The only unsafe code of this package: System V semaphores, which no crate here wraps.
//!
//! Nothing of the protocol is here; see [`crate::user_heartbeat`] for what the numbers mean.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// A set of two semaphores, named by a key that other programs know as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SemaphorePair {
    id: libc::c_int,
}

/// One step of an operation on a pair; all steps of an operation happen at once or not at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Which of the two.
    pub(crate) semaphore: u16,
    /// What is added; 0 asks for the value 0 instead.
    pub(crate) add: i16,
    /// Whether the kernel takes it back when this process ends.
    pub(crate) undo: bool,
}

impl SemaphorePair {
    /// The pair of this key, if there is one.
    pub(crate) fn find(key: u32) -> io::Result<Option<Self>> {
        match get(key, 0) {
            Ok(pair) => Ok(Some(pair)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The pair of this key, made if there is none. It has no permissions: root only.
    pub(crate) fn find_or_make(key: u32) -> io::Result<Self> {
        get(key, libc::IPC_CREAT)
    }

    /// Does all steps, or fails with `EAGAIN` where it would have to wait.
    pub(crate) fn try_steps<const N: usize>(self, steps: [Step; N]) -> io::Result<()> {
        let mut operations = steps.map(|step| {
            let undo = if step.undo { libc::SEM_UNDO } else { 0 };
            libc::sembuf {
                sem_num: step.semaphore,
                sem_op: step.add,
                // Both flags are far below 2^15.
                sem_flg: (undo | libc::IPC_NOWAIT) as libc::c_short,
            }
        });
        // SAFETY: semop(2) reads N operations from the array, which is N long and lives until it
        // returns; it keeps no pointer.
        let result = unsafe { libc::semop(self.id, operations.as_mut_ptr(), N) };
        check(result).map(drop)
    }

    /// The value of one semaphore.
    pub(crate) fn value(self, semaphore: u16) -> io::Result<u32> {
        // SAFETY: semctl(2) with GETVAL takes no fourth argument and touches no memory of ours.
        let result = unsafe { libc::semctl(self.id, libc::c_int::from(semaphore), libc::GETVAL) };
        check(result).map(libc::c_int::unsigned_abs)
    }

    /// Removes the pair. Whoever waits for it is woken with `EIDRM`.
    pub(crate) fn remove(self) -> io::Result<()> {
        // SAFETY: semctl(2) with IPC_RMID takes no fourth argument and touches no memory of ours.
        let result = unsafe { libc::semctl(self.id, 0, libc::IPC_RMID) };
        check(result).map(drop)
    }
}

/// A set of one semaphore, as nobody of ours makes it.
#[cfg(test)]
pub(crate) fn make_single(key: u32) -> io::Result<SemaphorePair> {
    make(key, 1, libc::IPC_CREAT | libc::IPC_EXCL)
}

fn get(key: u32, flags: libc::c_int) -> io::Result<SemaphorePair> {
    make(key, 2, flags)
}

fn make(key: u32, semaphores: libc::c_int, flags: libc::c_int) -> io::Result<SemaphorePair> {
    // SAFETY: semget(2) takes three integers and touches no memory of ours.
    let id = unsafe { libc::semget(key as libc::key_t, semaphores, flags) };
    check(id).map(|id| SemaphorePair { id })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
