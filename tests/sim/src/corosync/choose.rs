//! Corosync one thing at a time, for who chooses what comes first.

use std::hash::{Hash, Hasher};

use o2bridge_core::RingId;

use super::{Corosync, Engine, Flight};
use crate::time::Micros;

impl Corosync {
    /// The rings with something on its way, each with the time when the first of it is due.
    pub(crate) fn turning(&self) -> Vec<(Micros, RingId)> {
        let mut first: Vec<(Micros, RingId)> = Vec::new();
        for flight in &self.flights {
            if first.iter().all(|(_, ring)| *ring != flight.ring) {
                first.push((flight.at, flight.ring));
            }
        }
        first
    }

    /// Delivers what comes next in a ring to all of it.
    pub(crate) fn land_next(&mut self, ring: RingId, now: Micros) {
        if let Some(index) = self.flights.iter().position(|flight| flight.ring == ring) {
            let flight = self.flights.remove(index);
            self.land(flight, now);
        }
    }

    /// When rings may form next, or one-way cables waver.
    pub(crate) fn next_forming(&self) -> Option<Micros> {
        self.deadlines.first().copied().into_iter().chain(self.wavers_at).min()
    }

    /// Lets time pass until something comes of it, at the latest to the last of what is planned.
    pub(crate) fn form_next(&mut self, mut now: Micros) -> Micros {
        let before = (self.told.len(), self.flights.len(), self.rings_formed);
        while let Some(at) = self.next_forming() {
            now = now.max(at);
            if self.wavers_at.is_some_and(|at| at <= now) {
                self.waver(now);
                break;
            }
            self.deadlines = self.deadlines.split_off(&now.plus_us(1));
            self.reform(now);
            if before != (self.told.len(), self.flights.len(), self.rings_formed) {
                break;
            }
        }
        now
    }

    /// Whatever decides what it does next. Of times, how many milliseconds are left; of what is on
    /// its way, the order in each ring.
    pub(crate) fn digest(&self, now: Micros, state: &mut impl Hasher) {
        let Self { configured: _, pace: _, dice: _, births, ring_seq, engines, .. } = self;
        let Self { segments, flaky, wavers_at, flights, deadlines, told, .. } = self;
        (births, ring_seq, segments, flaky, told.len()).hash(state);
        for (node, engine) in engines {
            node.hash(state);
            engine.digest(now, state);
        }
        let mut flights: Vec<&Flight> = flights.iter().collect();
        flights.sort_by_key(|flight| flight.ring);
        for Flight { at: _, ring, sender, entry } in flights {
            (ring, sender, entry).hash(state);
        }
        let times = deadlines.iter().chain(wavers_at);
        times.for_each(|at| at.ms_until(now).hash(state));
    }
}

impl Engine {
    fn digest(&self, now: Micros, state: &mut impl Hasher) {
        let Self { birth, ring, nodes, paused, alone_until, settles_at, .. } = self;
        let Self { lists, clients, outbox, clock: _, haunts, .. } = self;
        (birth, ring, nodes, paused, lists, clients, outbox, haunts).hash(state);
        (alone_until.ms_until(now), settles_at.ms_until(now)).hash(state);
    }
}
