//! What a whole lab was told: every line of every record file.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use o2bridge_harness::wait_until;

use crate::{Lab, LabError, Told};

/// Three groups.
pub const GROUPS: [&str; 3] = [
    "19D19F8ECA01475EBA67AFD6D84C3B45",
    "2A00000000000000000000000000002A",
    "F3000000000000000000000000000001",
];

/// How long the log gets to say something.
const LIMIT: Duration = Duration::from_secs(20);

impl Lab {
    /// [`Self::expect`] of each of these groups; and the record files hold no line of another one.
    ///
    /// # Errors
    /// The shims were told something else, less, or more.
    pub fn expect_all(&self, groups: &[&str], expected: &Told) -> Result<(), LabError> {
        groups.iter().try_for_each(|group| self.expect(group, expected))?;
        let mut strange = BTreeSet::new();
        for node in self.cluster().nodes() {
            strange.extend(self.records(node.id())?.into_iter().map(|record| record.group));
        }
        strange.retain(|group| !groups.contains(&group.as_str()));
        if strange.is_empty() {
            return Ok(());
        }
        Err(LabError::Record(format!("the shims were told of {strange:?} too")))
    }

    /// The record files hold exactly this for so long.
    ///
    /// # Errors
    /// The shims were told something else, less, or more.
    pub fn expect_still(
        &self,
        groups: &[&str],
        expected: &Told,
        how_long: Duration,
    ) -> Result<(), LabError> {
        let end = Instant::now() + how_long;
        loop {
            for group in groups {
                let told = self.told(group)?;
                if told != *expected {
                    return Err(LabError::Record(format!(
                        "group {group}: the shims were to have been told only\n{expected}and were \
                         told\n{told}"
                    )));
                }
            }
            if Instant::now() >= end {
                return self.expect_all(groups, expected);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the log of a node's daemon holds this text.
    ///
    /// # Errors
    /// It does not, in time.
    pub fn wait_logged(&self, node: u32, text: &str) -> Result<(), LabError> {
        let what = format!("o2bridged of node {node} was to log '{text}'");
        Ok(wait_until(&what, LIMIT, || self.log(node).contains(text))?)
    }
}
