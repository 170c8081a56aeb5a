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

    /// When rings may form next, one-way cables waver, or the quorum service speaks.
    pub(crate) fn next_forming(&self) -> Option<Micros> {
        self.next_change()
    }

    /// Lets time pass until something comes of it, at the latest to the last of what is planned.
    pub(crate) fn form_next(&mut self, mut now: Micros) -> Micros {
        let seen = |it: &Self| (it.told.len(), it.flights.len(), it.ended.len(), it.rings_formed);
        let before = seen(self);
        while let Some(at) = self.next_forming() {
            let wavers = self.wavers_at.is_some_and(|it| it <= at);
            now = now.max(at);
            self.change_what_is_due(now);
            if wavers || before != seen(self) {
                break;
            }
        }
        now
    }

    /// Whatever decides what it does next. Of times, how many milliseconds are left; of what is on
    /// its way, the order in each ring.
    pub(crate) fn digest(&self, now: Micros, state: &mut impl Hasher) {
        let Self { configured: _, votes: _, pace: _, dice: _, ends: _, .. } = self;
        let Self { births, ring_seqs, engines, chosen, decides_at, .. } = self;
        let Self {
            first,
            segments,
            flaky,
            wavers_at,
            flights,
            stalled,
            deadlines,
            told,
            ended,
            ..
        } = self;
        (births, ring_seqs, first, segments, flaky, told.len(), ended, chosen).hash(state);
        for (node, engine) in engines {
            node.hash(state);
            engine.digest(now, state);
        }
        for on_the_way in [flights, stalled] {
            let mut flights: Vec<&Flight> = on_the_way.iter().collect();
            flights.sort_by_key(|flight| flight.ring);
            flights.len().hash(state);
            for Flight { at: _, ring, sender, entry, heard } in flights {
                (ring, sender, entry, heard).hash(state);
            }
        }
        let times = deadlines.iter().chain(wavers_at).chain(decides_at);
        times.for_each(|at| at.ms_until(now).hash(state));
    }
}

impl Engine {
    fn digest(&self, now: Micros, state: &mut impl Hasher) {
        let Self { birth, ring, nodes, paused, seen_all, alone_until, lost_at, settles_at, .. } =
            self;
        let Self { speaks_at, ends_at, lists, clients, outbox, haunts, spoken, left, .. } = self;
        (birth, ring, nodes, paused, seen_all).hash(state);
        (lists, clients, outbox, haunts, spoken, left).hash(state);
        for at in [Some(alone_until), Some(settles_at), lost_at.as_ref(), speaks_at.as_ref()] {
            at.map(|at| at.ms_until(now)).hash(state);
        }
        ends_at.map(|at| at.ms_until(now)).hash(state);
    }
}
