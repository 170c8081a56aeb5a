//! Storage that fails, and what is done about it.

use super::*;
use storage::WATCHED_MS;

const LOSS_MS: u64 = 20_000;

fn failing(for_ms: u64) -> Health {
    Health::Failing { errno: nix::libc::EIO, for_ms }
}

#[test]
fn lost_storage_of_a_mounted_volume_resets_the_node() {
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.view().storage, "good");
    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: 3_000 } });
    assert_eq!(bench.view().storage, "no answer for 3000 ms");
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(RETRY_MS)), "the look comes first");
    for for_ms in (6_000..=18_000).step_by(3_000) {
        assert_eq!(bench.after(3_000), None);
        bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms } });
    }
    assert_eq!(bench.after(1_999), None);
    bench.change(Change::Storage { uuid: U, health: failing(19_999) });
    let why = format!(
        "the storage of volume {U}, which is mounted here, is lost: failing for 19999 ms: \
         Input/output error (os error 5)"
    );
    let reset = Some(Decision::Reset { uuid: U, why });
    assert_eq!(bench.after(1), reset);
    assert_eq!(bench.after(0), None);
    assert_eq!(bench.after(storage::AGAIN_MS), reset, "it may not have worked");
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.after(100_000), None);
}

/// The daemon was stopped with a question under way: the watch may go on before the guard that has the answer.
#[test]
fn a_word_that_is_the_first_bad_one_resets_nobody() {
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: LOSS_MS + 1 } });
    assert_eq!(bench.after(0), None);
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.after(100_000), None);

    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: LOSS_MS + 1 } });
    assert_eq!(bench.after(WATCHED_MS - 1), None);
    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: LOSS_MS + 2_000 } });
    assert!(matches!(bench.after(1), Some(Decision::Reset { uuid: U, .. })));
}

/// The same with a disk that was slow before: the loop may go on before both.
#[test]
fn a_loss_while_nobody_listened_resets_nobody() {
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: Health::Silent { for_ms: 3_000 } });
    assert_eq!(bench.after(60_000), None);
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    assert_eq!(bench.after(60_000), None);
}

#[test]
fn lost_storage_is_reported_once_if_so_configured() {
    let mut bench = mounted();
    bench.set_policy(policy(OnLoss::Report));
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    assert_eq!(bench.volumes.deadline(), Some(bench.now.after(WATCHED_MS)));
    assert!(matches!(bench.after(WATCHED_MS), Some(Decision::Report { uuid: U, .. })));
    assert_eq!(bench.after(storage::AGAIN_MS), None);
    bench.change(Change::Storage { uuid: U, health: Health::Good });
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    let second = bench.after(WATCHED_MS);
    assert!(matches!(second, Some(Decision::Report { uuid: U, .. })), "a second loss");
}

#[test]
fn storage_counts_only_while_mounted_through_us() {
    let mut bench = region();
    bench.change(Change::Storage { uuid: U, health: failing(60_000) });
    assert_eq!(bench.after(WATCHED_MS), None);
    assert_eq!(bench.view().storage, "unknown");
    let mut bench = mounted();
    bench.change(Change::Storage { uuid: U, health: failing(1_000) });
    bench.mounts(&[]);
    assert_eq!(bench.orders(), ["guard "]);
    assert_eq!(bench.after(60_000), None);
}

#[test]
fn a_device_that_is_gone_is_guarded_by_its_old_name() {
    let mut bench = mounted();
    bench.present(&[]);
    bench.mounts(&[Mount { path: None, ..mount(Some(U), 1, "/srv") }]);
    assert_eq!(bench.orders(), [] as [&str; 0]);
    bench.change(Change::Storage { uuid: U, health: failing(20_000) });
    assert!(matches!(bench.after(WATCHED_MS), Some(Decision::Reset { uuid: U, .. })));
}
