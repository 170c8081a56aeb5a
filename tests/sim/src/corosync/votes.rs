//! Who is quorate, by votequorum(5); only the first way was measured here.
//!
//! A quorum device gives its vote to one of two halves. It takes its time, so the other corosyncs hear first that
//! they are not quorate, and then, in the same ring, that they are; it takes the vote back from nobody who is still
//! there.

use super::{Corosync, Engine};
use crate::time::Micros;

/// How votes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Votes {
    /// More than half of the nodes are quorate.
    Most,
    /// `two_node: 1`: each of two nodes, once it has seen the other one.
    TwoNode,
    /// The same with `wait_for_all: 0`: each at once.
    EachOfTwo,
    /// One of two halves, too, as a device decides.
    Device,
}

/// The longest time that a device takes.
const DECIDES_US: u64 = 3_000_000;

impl Corosync {
    pub(super) fn is_quorate(&self, engine: &Engine) -> bool {
        let nodes = engine.nodes.len();
        let is_most = nodes * 2 > self.configured;
        match self.votes {
            Votes::Most => is_most,
            Votes::TwoNode => is_most || engine.seen_all,
            Votes::EachOfTwo => true,
            Votes::Device => is_most || (self.is_half(engine) && self.chosen == Some(engine.ring)),
        }
    }

    fn is_half(&self, engine: &Engine) -> bool {
        engine.nodes.len() * 2 == self.configured
    }

    /// Lets the device look around, if somebody needs its vote and nobody has it.
    pub(super) fn ask_device(&mut self, now: Micros) {
        if self.votes != Votes::Device || self.decides_at.is_some() {
            return;
        }
        let mut here = self.engines.values().filter(|engine| !engine.paused);
        let is_free = !here.clone().any(|engine| self.chosen == Some(engine.ring));
        if is_free && here.any(|engine| self.is_half(engine)) {
            self.decides_at = Some(now.plus_us(self.dice.skewed(DECIDES_US)));
        }
    }

    /// It gives its vote to one ring, whose nodes hear of it unless they have yet to hear of the ring at all.
    pub(super) fn decide(&mut self, now: Micros) {
        if self.decides_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let here = self.engines.values().filter(|engine| !engine.paused && self.is_half(engine));
        let rings: Vec<_> = here.map(|engine| engine.ring).collect();
        self.chosen = self.dice.pick(&rings).copied();
        for engine in self.engines.values_mut().filter(|it| self.chosen == Some(it.ring)) {
            engine.speaks_at.get_or_insert(now);
        }
    }
}
