//! Whether keeper, peers and kernel lose patience in the right order.

use std::path::Path;

use o2bridge_shim::{control, user_heartbeat};

use super::{KernelError, ROUND_MS, keeper_settings};
use crate::config::Settings;

/// The rules between the times of keeper, peers and kernel; see [`o2bridge_keeper::check`].
///
/// # Errors
/// The first rule that is broken, with its numbers.
pub fn check_timing(settings: &Settings) -> Result<(), KernelError> {
    let keeper = keeper_settings(settings, Some((Path::new("/dev/null"), 512)));
    let watchdog_ms = keeper.watchdog.as_deref().and_then(watchdog_timeout_ms);
    o2bridge_keeper::check(&keeper, settings.timing.grace_ms.get(), watchdog_ms)?;
    let reset_ms = settings.tunables(true).inquorate_reset_ms;
    let o2quo_ms = settings.o2cb.o2quo_ms();
    if reset_ms >= o2quo_ms {
        return Err(KernelError::Outvoted(format!(
            "fencing.inquorate_reset_ms ({reset_ms}) must be less than {o2quo_ms} ms \
             (o2cb.idle_timeout_ms + (o2cb.dead_threshold + 2) rounds of {ROUND_MS} ms): by then the \
             kernels settle a lost network by themselves, and not always as corosync does"
        )));
    }
    Ok(())
}

/// The same for the shim `control`, where nothing is beaten and the kernels settle nothing by themselves.
///
/// # Errors
/// The first rule that is broken, with its numbers.
pub fn check_user_stack_timing(settings: &Settings) -> Result<(), KernelError> {
    let keeper = keeper_settings(settings, None);
    let watchdog_ms = keeper.watchdog.as_deref().and_then(watchdog_timeout_ms);
    Ok(o2bridge_keeper::check(&keeper, settings.timing.grace_ms.get(), watchdog_ms)?)
}

/// The rules for the shim of this name.
///
/// # Errors
/// The first rule that is broken, with its numbers.
pub fn check_timing_of(shim: &str, settings: &Settings) -> Result<(), KernelError> {
    match shim {
        user_heartbeat::NAME => check_timing(settings),
        control::NAME => check_user_stack_timing(settings),
        _ => Ok(()),
    }
}

/// The watchdog's own timeout as sysfs has it.
fn watchdog_timeout_ms(device: &Path) -> Option<u64> {
    // /dev/watchdog is the old name of the first one.
    let name = device.file_name()?.to_str()?;
    let name = if name == "watchdog" { "watchdog0" } else { name };
    let text = std::fs::read_to_string(format!("/sys/class/watchdog/{name}/timeout")).ok()?;
    Some(text.trim().parse::<u64>().ok()? * 1_000)
}
