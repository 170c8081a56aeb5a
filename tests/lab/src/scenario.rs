//! All scenarios.

mod basic;
mod bridge;
mod classic;
mod death;
mod module;
mod moment;
mod ordinary;
mod restart;
mod stock;
mod symlink;

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
        symlink::ALL,
    ]
    .concat()
}
