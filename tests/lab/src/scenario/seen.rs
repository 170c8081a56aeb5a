//! What a guest shows of its volumes, and its kernel of deaths.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bridge;
use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::lab::Lab;

/// How long a volume may take to be seen, judged and served.
const VOLUME_LIMIT: Duration = Duration::from_secs(90);

/// A volume's UUID as the kernel and our daemon write it.
pub(super) fn uuid(guest: &Guest, device: &str) -> Result<String> {
    guest.ok(&format!("blkid -p -o value -s UUID {device} | tr -d - | tr a-f A-F"))
}

/// All that the daemon says of itself.
pub(super) fn status(guest: &Guest) -> Result<Value> {
    let text = guest.ok("o2bridge status --format json")?;
    serde_json::from_str(&text).map_err(|error| LabError::Expect(format!("{text}: {error}")))
}

/// What the machine allows.
pub(super) fn machine(guest: &Guest) -> Result<Value> {
    let text = guest.ok("o2bridge status --kernel --format json")?;
    serde_json::from_str(&text).map_err(|error| LabError::Expect(format!("{text}: {error}")))
}

/// What status shows of a volume; empty if it does not show the volume.
pub(super) fn volume(guest: &Guest, uuid: &str, key: &str) -> Result<String> {
    let status = status(guest)?;
    let volumes = status["volumes"].as_array().into_iter().flatten();
    let mut found = volumes.filter(|volume| volume["uuid"] == uuid);
    Ok(found.next().and_then(|volume| volume[key].as_str()).unwrap_or_default().to_owned())
}

/// Waits until status shows something of a volume that begins like this.
pub(super) fn wait_volume(guest: &Guest, uuid: &str, key: &str, wanted: &str) -> Result<()> {
    let end = Instant::now() + VOLUME_LIMIT;
    loop {
        let found = volume(guest, uuid, key)?;
        if found.starts_with(wanted) {
            return Ok(());
        }
        let name = guest.name();
        ensure!(Instant::now() < end, "{name}: {key} of {uuid} is '{found}', not '{wanted}'");
        thread::sleep(Duration::from_millis(300));
    }
}

/// The first line in which a kernel says that it recovers from a death.
pub(super) fn recovery(kernel: &str) -> Option<&str> {
    const WORDS: [&str; 3] = ["has evicted node", "Begin recovery on domain", "Begin replay"];
    kernel.lines().find(|line| WORDS.iter().any(|words| line.contains(words)))
}

/// Every survivor's kernel has recovered from this node's death once in this volume, and from nobody
/// else's; one of them has replayed its journal, once. A kernel may say the eviction twice: once by its own
/// heartbeat, and once because another survivor leads the recovery.
pub(super) fn buried_once(lab: &Lab, dead: u8, survivors: &[u8], device: &str) -> Result<()> {
    let (mut replays, replay) = (0, format!("Begin replay journal (node {dead},"));
    for number in survivors {
        let guest = lab.guest(*number);
        let (uuid, device) = (uuid(guest, device)?, number_of(guest, device)?);
        let dmesg = guest.dmesg()?;
        let begun = format!("Begin recovery on domain {uuid} for node");
        let deaths: Vec<&str> = dmesg.lines().filter(|line| line.contains(&begun)).collect();
        let once = deaths.len() == 1 && deaths[0].ends_with(&format!(" node {dead}"));
        ensure!(once, "recoveries on {}: {deaths:?}", guest.name());
        replays += dmesg.lines().filter(|l| l.contains(&replay) && l.contains(&device)).count();
    }
    ensure!(replays == 1, "the journal of n{dead} was replayed {replays} times");
    Ok(())
}

/// A volume that nobody has mounted is without fault.
pub(super) fn sound(guest: &Guest, device: &str) -> Result<()> {
    guest.ok_within(&format!("fsck.ocfs2 -fn {device}"), VOLUME_LIMIT).map(drop)
}

/// As the kernel names a device: `(254,0)`.
fn number_of(guest: &Guest, device: &str) -> Result<String> {
    let number =
        guest.ok(&format!("cat /sys/class/block/{}/dev", device.trim_start_matches("/dev/")))?;
    Ok(format!("({})", number.replace(':', ",")))
}

/// Switches a guest on that was a member of all, and waits until everybody has it back.
pub(super) fn comes_back(lab: &Lab, number: u8, config: &str) -> Result<()> {
    let (guest, all) = (lab.guest(number), u8::try_from(lab.guests().count()).unwrap_or(u8::MAX));
    guest.start()?;
    guest.start_corosync(&bridge::corosync(all))?;
    guest.wait_members(&(1..=all).collect::<Vec<u8>>(), Duration::from_secs(40))?;
    guest.start_o2bridged(config)?;
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, all.into()))?;
    lab.step(&format!("{} is back", guest.name()));
    Ok(())
}
