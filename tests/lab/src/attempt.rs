//! Guests for a quick look: booted for some shell commands, without a scenario.

use std::fs;
use std::time::Duration;

use crate::error::Result;
use crate::guest::{Corosync, Guest};
use crate::kernel::Kernel;
use crate::lab::{Lab, Plan};
use crate::run::Runner;

const COMMAND_LIMIT: Duration = Duration::from_secs(300);

impl Runner {
    /// Boots guests with a disk, a watchdog and a corosync.conf, and runs commands in them one after
    /// the other: `2:COMMAND` on the second guest, `COMMAND` on all. Whether all succeeded.
    ///
    /// # Errors
    /// The kernel cannot be had, or a guest does not come up or goes off.
    pub fn attempt(&self, kernel: &str, guests: u8, commands: &[String]) -> Result<bool> {
        let _alone = self.alone()?;
        let kernel = Kernel::get(kernel, &self.directory.join("kernels"))?;
        let mut places = self.places(&kernel)?;
        places.directory.push("try");
        let _ = fs::remove_dir_all(&places.directory);
        let lab = Lab::boot(&Plan::new(guests).disk("shared", 512).watchdog(), &kernel, &places)?;
        let numbers: Vec<u8> = (1..=guests).collect();
        for guest in lab.guests() {
            guest.put("/etc/corosync/corosync.conf", &Corosync::new(&numbers).text())?;
        }
        let mut good = true;
        for (only, command) in commands.iter().map(|text| addressed(text)) {
            for guest in lab.guests().filter(|guest| only.is_none_or(|n| guest.number() == n)) {
                good &= one(&lab, guest, command)?;
            }
        }
        Ok(good)
    }
}

fn one(lab: &Lab, guest: &Guest, command: &str) -> Result<bool> {
    lab.step(&format!("{}: {command}", guest.name()));
    let output = guest.run(command, COMMAND_LIMIT)?;
    print!("{}{}", output.stdout, output.stderr);
    lab.step(&format!("exit {}", output.exit));
    Ok(output.exit == 0)
}

fn addressed(text: &str) -> (Option<u8>, &str) {
    let split = text.split_once(':').and_then(|(n, rest)| Some((n.parse().ok()?, rest)));
    split.map_or((None, text), |(number, command)| (Some(number), command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_before_the_colon_is_a_guest() {
        assert_eq!(addressed("2:ls /"), (Some(2), "ls /"));
        assert_eq!(addressed("ls a:b"), (None, "ls a:b"));
        assert_eq!(addressed("true"), (None, "true"));
    }
}
