//! What a guest has said, and what is kept of it.

use std::fs;
use std::time::Duration;

use super::Guest;
use crate::error::Result;

impl Guest {
    /// Everything that its consoles said in this scenario, boots one after the other.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = fs::read(self.machine.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A log that its services have written to `/lab/share/log`; empty if there is none.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.share().join("log").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its kernel's messages of this boot.
    ///
    /// # Errors
    /// It is off or does not answer.
    pub fn dmesg(&self) -> Result<String> {
        self.ok_within("dmesg", Duration::from_secs(10))
    }

    /// Leaves what only the running guest knows beside its logs.
    pub(crate) fn collect(&self) {
        let command = "dmesg >/lab/share/log/dmesg; ps -eo pid,stat,wchan:30,args >/lab/share/log/ps; \
                       cat /proc/mounts >/lab/share/log/mounts";
        if self.is_on() {
            let _ = self.thaw();
            let _ = self.run(command, Duration::from_secs(8));
        }
    }
}
