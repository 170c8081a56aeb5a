//! A number for what a world is, so that who has seen it once knows it again.
//!
//! Two worlds of one digest do the same whatever is chosen in them ([`World::choose`]); how likely two
//! different ones are to share one is said by its 64 bits. What is left out:
//!
//! * What was counted, said and covered: nothing is decided by it.
//! * What time it is, and how long overdue a thing is: a core looks at its clock only to say when a
//!   timer is to fire. Of all that is due later, the milliseconds that are left count.
//! * When corosync told what a daemon has not read: whoever chooses chooses how much is read. The
//!   order counts.
//! * The looks of keepers, watchers and the administrator, which nobody chooses. After the choices,
//!   when a world is left to itself, two worlds of one digest may still come to rest differently.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::explore::Lane;
use super::{Job, World};

impl World {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut state = DefaultHasher::new();
        let Self { volumes, fences, spared, healed, corosync, machines, .. } = self;
        (volumes, fences, spared, healed).hash(&mut state);
        corosync.digest(self.now, &mut state);
        machines.values().for_each(|machine| machine.digest(&mut state));
        self.held.values().for_each(|(_, jobs)| jobs.hash(&mut state));
        let mut lanes: BTreeMap<Lane, Vec<(u64, &Job)>> = BTreeMap::new();
        for ((at, _), job) in &self.queue {
            if let Some(lane) = job.lane() {
                lanes.entry(lane).or_default().push((at.ms_until(self.now), job));
            }
        }
        lanes.hash(&mut state);
        state.finish()
    }
}
