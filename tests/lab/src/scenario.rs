//! All scenarios.

mod basic;
mod bridge;
mod classic;
mod cuts;
mod death;
mod module;
mod moment;
mod ordinary;
mod restart;
mod seen;
mod stock;
mod storage;
mod symlink;
mod volumes;

use crate::run::Scenario;

/// Every scenario, in the order in which they are run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        basic::ALL,
        classic::ALL,
        module::ALL,
        ordinary::ALL,
        death::ALL,
        restart::ALL,
        cuts::ALL,
        storage::ALL,
        volumes::ALL,
        symlink::ALL,
    ]
    .concat()
}
