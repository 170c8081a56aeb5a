//! The arithmetic of the dead-man's switch.
//!
//! Three clocks run against each other. The kernel buries a peer whose slot was silent for
//! `dead = dead_threshold * 2 s`. The peers fence a node whose daemon is gone for `grace`. The keeper
//! resets the node when its daemon is away for `daemon_back`, or when it was itself silent for
//! `silence_max`. The keeper must come before both of the others, whatever fails.

use std::fmt;

use crate::Settings;

/// From round to round of the kernel's heartbeat, in milliseconds. Fixed in the kernel.
pub const KERNEL_ROUND_MS: u64 = 2000;
/// What a reset must be ahead of the kernel: two of its rounds, one of which a jump of the wall
/// clock can cost, because the kernel measures its rounds by that.
pub const MARGIN_MS: u64 = 2 * KERNEL_ROUND_MS;
/// The longest beat: two in each round of the kernel, so that one may be late.
pub const BEAT_MS_MAX: u64 = 1000;
/// How often the client says that the daemon is alive.
pub const PING_MS: u64 = 1000;
/// The least for `daemon_back_ms`: a daemon may be late by a ping or two.
pub const DAEMON_BACK_MS_MIN: u64 = 3 * PING_MS;
/// The least for a hardware watchdog: a killed keeper must be replaced before it bites.
pub const WATCHDOG_MS_MIN: u64 = 5000;

/// Settings with which the keeper could be too late, or too early. The text shows the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimingError {
    /// The beat is 0, or longer than half a round of the kernel.
    Beat(u64),
    /// A living daemon could be taken for an absent one.
    DaemonBackShort(u64),
    /// The peers could fence a node before its keeper gives up on the daemon.
    DaemonBackGrace {
        /// The setting.
        daemon_back_ms: u64,
        /// What the peers wait.
        grace_ms: u64,
    },
    /// The kernel could bury live peers before the keeper gives up on the daemon.
    DaemonBackDead {
        /// The setting.
        daemon_back_ms: u64,
        /// What the kernel waits.
        dead_ms: u64,
    },
    /// A keeper that is late by a few beats would reset the node.
    SilenceShort {
        /// The setting.
        silence_max_ms: u64,
        /// From beat to beat.
        beat_ms: u64,
    },
    /// The kernel could bury live peers before the keeper gives up on itself.
    SilenceDead {
        /// The setting.
        silence_max_ms: u64,
        /// What the kernel waits.
        dead_ms: u64,
    },
    /// There is a watchdog, and its timeout is not known.
    WatchdogUnknown,
    /// The watchdog would bite while a killed keeper is being replaced.
    WatchdogShort(u64),
    /// The kernel could bury live peers before the watchdog bites.
    WatchdogDead {
        /// The device's timeout.
        watchdog_ms: u64,
        /// From beat to beat.
        beat_ms: u64,
        /// What the kernel waits.
        dead_ms: u64,
    },
}

impl fmt::Display for TimingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beat(beat_ms) => {
                write!(f, "beat_ms {beat_ms} is not within 1..={BEAT_MS_MAX}, ")?;
                write!(f, "half a round of the kernel's heartbeat ({KERNEL_ROUND_MS})")
            }
            Self::DaemonBackShort(ms) => {
                write!(f, "daemon_back_ms {ms} < {DAEMON_BACK_MS_MIN}: ")?;
                write!(f, "a daemon that lives says so every {PING_MS} ms")
            }
            Self::DaemonBackGrace { daemon_back_ms, grace_ms } => {
                write!(f, "daemon_back_ms {daemon_back_ms} >= grace_ms {grace_ms} * 4/5 = ")?;
                write!(f, "{}: peers could fence this node first", four_fifths(*grace_ms))
            }
            Self::DaemonBackDead { daemon_back_ms, dead_ms } => {
                write!(f, "daemon_back_ms {daemon_back_ms} + margin {MARGIN_MS} >= {dead_ms}, ")?;
                write!(f, "{}", Dead(*dead_ms))
            }
            Self::SilenceShort { silence_max_ms, beat_ms } => {
                write!(f, "silence_max_ms {silence_max_ms} < 4 * beat_ms {beat_ms}: ")?;
                write!(f, "a keeper that is a little late would reset the node")
            }
            Self::SilenceDead { silence_max_ms, dead_ms } => {
                write!(f, "silence_max_ms {silence_max_ms} + margin {MARGIN_MS} >= {dead_ms}, ")?;
                write!(f, "{}", Dead(*dead_ms))
            }
            Self::WatchdogUnknown => {
                write!(f, "the timeout of the hardware watchdog is not known")
            }
            Self::WatchdogShort(ms) => {
                write!(f, "watchdog timeout {ms} < {WATCHDOG_MS_MIN}: ")?;
                write!(f, "it would reset the node while a killed keeper is replaced")
            }
            Self::WatchdogDead { watchdog_ms, beat_ms, dead_ms } => {
                write!(
                    f,
                    "watchdog timeout {watchdog_ms} + beat_ms {beat_ms} + margin {MARGIN_MS}"
                )?;
                write!(f, " >= {dead_ms}, {}", Dead(*dead_ms))
            }
        }
    }
}

impl std::error::Error for TimingError {}

struct Dead(u64);

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after which (dead_threshold {} * ", self.0 / KERNEL_ROUND_MS)?;
        write!(f, "{KERNEL_ROUND_MS}) the kernel buries peers that live")
    }
}

fn four_fifths(ms: u64) -> u64 {
    ms / 5 * 4 + ms % 5 * 4 / 5
}

fn require(holds: bool, error: TimingError) -> Result<(), TimingError> {
    if holds { Ok(()) } else { Err(error) }
}

/// Whether a keeper with these settings is always in time. `grace_ms`: how long peers wait for a
/// node's daemon; `watchdog_timeout_ms`: what the hardware watchdog's own timeout is, if one is set.
///
/// # Errors
/// The first rule that is broken, with its numbers.
pub fn check(
    settings: &Settings,
    grace_ms: u64,
    watchdog_timeout_ms: Option<u64>,
) -> Result<(), TimingError> {
    let Settings { beat_ms, daemon_back_ms, silence_max_ms, .. } = *settings;
    let dead_ms = settings.dead_ms();
    // Where nothing is beaten the kernel buries nobody.
    let has_beats = settings.device.is_some();
    let is_before_dead = |ms: u64| !has_beats || ms.saturating_add(MARGIN_MS) < dead_ms;
    require((1..=BEAT_MS_MAX).contains(&beat_ms), TimingError::Beat(beat_ms))?;
    require(daemon_back_ms >= DAEMON_BACK_MS_MIN, TimingError::DaemonBackShort(daemon_back_ms))?;
    require(
        daemon_back_ms < four_fifths(grace_ms),
        TimingError::DaemonBackGrace { daemon_back_ms, grace_ms },
    )?;
    require(
        is_before_dead(daemon_back_ms),
        TimingError::DaemonBackDead { daemon_back_ms, dead_ms },
    )?;
    require(silence_max_ms / 4 >= beat_ms, TimingError::SilenceShort { silence_max_ms, beat_ms })?;
    require(is_before_dead(silence_max_ms), TimingError::SilenceDead { silence_max_ms, dead_ms })?;
    if settings.watchdog.is_none() {
        return Ok(());
    }
    let watchdog_ms = watchdog_timeout_ms.ok_or(TimingError::WatchdogUnknown)?;
    require(watchdog_ms >= WATCHDOG_MS_MIN, TimingError::WatchdogShort(watchdog_ms))?;
    require(
        is_before_dead(watchdog_ms.saturating_add(beat_ms)),
        TimingError::WatchdogDead { watchdog_ms, beat_ms, dead_ms },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::example;

    const GRACE_MS: u64 = 30_000;

    fn verdict(change: impl FnOnce(&mut Settings), grace_ms: u64) -> Result<(), TimingError> {
        let mut settings = example();
        change(&mut settings);
        check(&settings, grace_ms, None)
    }

    fn with_watchdog(timeout_ms: Option<u64>) -> Result<(), TimingError> {
        check(
            &Settings { watchdog: Some("/dev/watchdog".into()), ..example() },
            GRACE_MS,
            timeout_ms,
        )
    }

    #[test]
    fn the_defaults_hold() {
        assert_eq!(verdict(|_| (), GRACE_MS), Ok(()));
        assert_eq!(with_watchdog(Some(30_000)), Ok(()));
    }

    #[test]
    fn the_beat() {
        assert_eq!(verdict(|s| s.beat_ms = 1, GRACE_MS), Ok(()));
        assert_eq!(verdict(|s| s.beat_ms = 0, GRACE_MS), Err(TimingError::Beat(0)));
        assert_eq!(verdict(|s| s.beat_ms = 1001, GRACE_MS), Err(TimingError::Beat(1001)));
    }

    #[test]
    fn the_daemons_way_back() {
        assert_eq!(verdict(|s| s.daemon_back_ms = 3000, GRACE_MS), Ok(()));
        let short = TimingError::DaemonBackShort(2999);
        assert_eq!(verdict(|s| s.daemon_back_ms = 2999, GRACE_MS), Err(short));
        assert_eq!(verdict(|s| s.daemon_back_ms = 23_999, GRACE_MS), Ok(()));
        let late = verdict(|s| s.daemon_back_ms = 24_000, GRACE_MS).unwrap_err();
        assert_eq!(
            late,
            TimingError::DaemonBackGrace { daemon_back_ms: 24_000, grace_ms: GRACE_MS }
        );
        let text = "daemon_back_ms 24000 >= grace_ms 30000 * 4/5 = 24000: \
                    peers could fence this node first";
        assert_eq!(late.to_string(), text);
        assert_eq!(verdict(|s| s.daemon_back_ms = 57_999, 100_000), Ok(()));
        let late = verdict(|s| s.daemon_back_ms = 58_000, 100_000).unwrap_err();
        assert_eq!(late, TimingError::DaemonBackDead { daemon_back_ms: 58_000, dead_ms: 62_000 });
        let text = "daemon_back_ms 58000 + margin 4000 >= 62000, after which (dead_threshold 31 * \
                    2000) the kernel buries peers that live";
        assert_eq!(late.to_string(), text);
    }

    #[test]
    fn the_keepers_own_silence() {
        assert_eq!(verdict(|s| s.silence_max_ms = 4000, GRACE_MS), Ok(()));
        let short = TimingError::SilenceShort { silence_max_ms: 3999, beat_ms: 1000 };
        assert_eq!(verdict(|s| s.silence_max_ms = 3999, GRACE_MS), Err(short));
        assert_eq!(verdict(|s| s.silence_max_ms = 57_999, GRACE_MS), Ok(()));
        let late = verdict(|s| s.silence_max_ms = 58_000, GRACE_MS).unwrap_err();
        assert_eq!(late, TimingError::SilenceDead { silence_max_ms: 58_000, dead_ms: 62_000 });
        assert!(late.to_string().starts_with("silence_max_ms 58000 + margin 4000 >= 62000"));
    }

    #[test]
    fn the_watchdog() {
        assert_eq!(with_watchdog(None), Err(TimingError::WatchdogUnknown));
        assert_eq!(with_watchdog(Some(5000)), Ok(()));
        assert_eq!(with_watchdog(Some(4999)), Err(TimingError::WatchdogShort(4999)));
        assert_eq!(with_watchdog(Some(56_999)), Ok(()));
        let late =
            TimingError::WatchdogDead { watchdog_ms: 57_000, beat_ms: 1000, dead_ms: 62_000 };
        assert_eq!(with_watchdog(Some(57_000)), Err(late.clone()));
        assert!(late.to_string().contains("57000 + beat_ms 1000 + margin 4000 >= 62000"), "{late}");
        assert_eq!(check(&example(), GRACE_MS, Some(90_000)), Ok(()), "no watchdog is set");
    }

    #[test]
    fn without_a_device_the_kernel_buries_nobody() {
        let no_device = |s: &mut Settings, ms| (s.device, s.daemon_back_ms) = (None, ms);
        assert_eq!(verdict(|s| no_device(s, 70_000), 100_000), Ok(()));
        let late = verdict(|s| no_device(s, 80_000), 100_000).unwrap_err();
        assert_eq!(
            late,
            TimingError::DaemonBackGrace { daemon_back_ms: 80_000, grace_ms: 100_000 }
        );
    }

    #[test]
    fn numbers_at_the_end_of_the_scale_do_not_wrap() {
        assert!(verdict(|s| s.daemon_back_ms = u64::MAX, u64::MAX).is_err());
        assert!(verdict(|s| s.silence_max_ms = u64::MAX, GRACE_MS).is_err());
        assert!(with_watchdog(Some(u64::MAX)).is_err());
    }
}
