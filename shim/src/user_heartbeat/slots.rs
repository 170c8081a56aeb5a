//! Which heartbeat slot a node has: the number that the o2cb node table gives it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use o2bridge_core::NodeId;

/// The slots of all nodes, filled in by whoever made the node table. Clones share one table.
#[derive(Clone, Default)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    filled: Condvar,
}

#[derive(Debug, Clone, Default)]
struct Table {
    slots: BTreeMap<NodeId, u8>,
    local: Option<NodeId>,
}

impl Slots {
    /// Replaces the table. Whoever waits looks again.
    pub fn set(&self, slots: BTreeMap<NodeId, u8>, local: NodeId) {
        *self.lock() = Table { slots, local: Some(local) };
        self.shared.filled.notify_all();
    }

    /// The slot of a node, waiting for it for at most so long.
    #[must_use]
    pub fn wait(&self, node: NodeId, timeout: Duration) -> Option<u8> {
        self.wait_for(timeout, |table| table.slots.get(&node).copied())
    }

    /// This node and its slot, waiting for them for at most so long.
    #[must_use]
    pub fn wait_local(&self, timeout: Duration) -> Option<(NodeId, u8)> {
        self.wait_for(timeout, |table| {
            let local = table.local?;
            Some((local, *table.slots.get(&local)?))
        })
    }

    /// The node of a slot, as far as known now.
    #[must_use]
    pub fn node(&self, slot: u8) -> Option<NodeId> {
        self.lock().slots.iter().find(|(_, of)| **of == slot).map(|(node, _)| *node)
    }

    fn wait_for<T>(&self, timeout: Duration, look: impl Fn(&Table) -> Option<T>) -> Option<T> {
        let end = Instant::now() + timeout;
        let mut table = self.lock();
        loop {
            if let Some(found) = look(&table) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.shared.filled.wait_timeout(table, left);
            table = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A table is replaced in one step, so a panic cannot have left it half done.
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_the_node_has_a_slot() {
        let slots = Slots::default();
        assert_eq!(slots.wait(NodeId(7), Duration::from_millis(1)), None);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| slots.wait(NodeId(7), Duration::from_secs(10)));
            slots.set(BTreeMap::from([(NodeId(5), 1)]), NodeId(5));
            slots.set(BTreeMap::from([(NodeId(5), 1), (NodeId(7), 2)]), NodeId(5));
            assert_eq!(waiter.join().unwrap(), Some(2));
        });
        assert_eq!(slots.wait_local(Duration::ZERO), Some((NodeId(5), 1)));
        assert_eq!(slots.node(2), Some(NodeId(7)));
        assert_eq!(slots.node(3), None);
    }
}
