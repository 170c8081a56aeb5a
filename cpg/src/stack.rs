//! How much stack this thread has left.
//!
//! libcpg's dispatch takes 1,053,016 bytes of stack at once and without probing (measured): on a
//! smaller stack it jumps over the guard page and writes into whatever lies there.

use std::mem::MaybeUninit;

/// What dispatch needs, with room for its callers and callbacks.
const NEEDED_BYTES: usize = 1_310_720;

/// This thread cannot dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this thread has {left_bytes} bytes of stack left, and reading from corosync needs \
     {NEEDED_BYTES}: give it a stack of 2 MiB or more"
)]
pub struct StackTooSmall {
    /// What is left.
    pub left_bytes: usize,
}

/// Looks at the stack of the calling thread. When the C library does not know it, it is taken as big
/// enough.
pub(crate) fn check() -> Result<(), StackTooSmall> {
    let here = 0u8;
    let Some(lowest) = lowest_address() else { return Ok(()) };
    let left_bytes = (&raw const here as usize).saturating_sub(lowest);
    if left_bytes < NEEDED_BYTES { Err(StackTooSmall { left_bytes }) } else { Ok(()) }
}

fn lowest_address() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: pthread_getattr_np(3) fills the attributes of a live thread, which this one is.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut address, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes were initialized above; the out-parameters are ours.
    let error = unsafe {
        libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut address, &raw mut size)
    };
    // SAFETY: initialized above, and not used after this.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (error == 0).then_some(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(stack_bytes: usize) -> Result<(), StackTooSmall> {
        std::thread::Builder::new().stack_size(stack_bytes).spawn(check).unwrap().join().unwrap()
    }

    #[test]
    fn a_small_stack_is_refused() {
        // Small enough that the C library does not reuse the stack of an earlier thread.
        let left_bytes = check_with(256 << 10).unwrap_err().left_bytes;
        assert!((100_000..=512 << 10).contains(&left_bytes), "{left_bytes}");
        assert_eq!(check_with(2 << 20), Ok(()));
    }
}
