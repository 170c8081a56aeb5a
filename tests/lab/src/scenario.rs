//! All scenarios.

mod basic;
mod bridge;
mod classic;
mod control;
mod cuts;
mod death;
mod dlm;
mod early;
mod module;
mod moment;
mod nodetable;
mod observe;
mod ordinary;
mod restart;
mod seen;
mod stock;
mod storage;
mod symlink;
mod volumes;
mod watchdog;

use crate::run::Scenario;

/// Every scenario, in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        basic::ALL,
        classic::ALL,
        module::ALL,
        nodetable::ALL,
        ordinary::ALL,
        early::ALL,
        death::ALL,
        restart::ALL,
        cuts::ALL,
        storage::ALL,
        volumes::ALL,
        watchdog::ALL,
        symlink::ALL,
        control::ALL,
        observe::ALL,
    ]
    .concat()
}
