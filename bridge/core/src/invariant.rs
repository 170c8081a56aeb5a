//! What must always hold. Checked after every event, in tests and in the release.

use crate::handle::Core;

impl Core {
    /// Checks what must always hold; a sentence says what does not.
    ///
    /// # Errors
    /// An invariant is broken: a bug of ours, and no reason that came from outside.
    pub fn check(&self) -> Result<(), &'static str> {
        let me = self.nodes.me;
        if me.is_some_and(|me| self.nodes.lost.contains_key(&me)) {
            return Err("we hold ourselves for dead");
        }
        for group in self.groups.values() {
            if me.is_some_and(|me| group.dead.contains_key(&me)) {
                return Err("a group holds ourselves for dead");
            }
            let same = |node| match (group.dead.get(node), group.users.get(node)) {
                (Some(death), Some(using)) => death.user == using.user,
                (Some(_) | None, None) | (None, Some(_)) => false,
            };
            if group.dead.keys().any(same) {
                return Err("a use is dead and alive");
            }
            if group.services.is_empty() && group.is_gone() {
                return Err("a group without services is kept");
            }
        }
        Ok(())
    }
}
