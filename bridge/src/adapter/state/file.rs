//! The state files as bytes: JSON, with a version.

use std::collections::BTreeMap;

use o2bridge_core::saved::SavedService;
use o2bridge_core::{BootId, DeviceId, Incarnation, NodeId, SavedGroup, ServiceName, User};
use serde::{Deserialize, Serialize};

/// Version of the files' format. Another one is refused.
const VERSION: u32 = 1;

/// Since when there is a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The boot of the daemon that wrote it.
    pub boot: BootId,
    /// The first incarnation that the remembering daemons of that boot gave out.
    pub memory_from: Incarnation,
    /// The first incarnation that the last of them gave out.
    pub last_first: Incarnation,
}

/// The part of every file that every version must keep.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn read<T: for<'de> Deserialize<'de>>(text: &[u8]) -> Result<T, String> {
    let version: Version = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if version.version != VERSION {
        return Err(format!("it has version {}, this daemon writes {VERSION}", version.version));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Plain data of strings and numbers: it cannot fail, and if it ever did, an empty file is one that
/// stops the next start.
fn write(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).unwrap_or_default()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryFile {
    version: u32,
    boot: Hex128,
    memory_from: Hex64,
    last_first: Hex64,
}

impl Memory {
    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        write(&MemoryFile {
            version: VERSION,
            boot: Hex128(self.boot.0),
            memory_from: Hex64(self.memory_from.0),
            last_first: Hex64(self.last_first.0),
        })
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// Why it cannot be understood.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let file: MemoryFile = read(text)?;
        Ok(Self {
            boot: BootId(file.boot.0),
            memory_from: Incarnation(file.memory_from.0),
            last_first: Incarnation(file.last_first.0),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    version: u32,
    boot: Hex128,
    incarnation: Hex64,
    services: Vec<ServiceRecord>,
    device: Option<u64>,
    told: BTreeMap<u32, UserRecord>,
    unfinished: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceRecord {
    name: String,
    live: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRecord {
    incarnation: Hex64,
    boot: Hex128,
}

/// The file of a group, as it is kept.
#[must_use]
pub fn encode_group(boot: BootId, image: &SavedGroup) -> Vec<u8> {
    write(&GroupFile::new(boot, image))
}

/// Reads the file of a group: the boot that it was written in, and the group.
///
/// # Errors
/// Why it cannot be understood.
pub fn decode_group(text: &[u8]) -> Result<(BootId, SavedGroup), String> {
    let file: GroupFile = read(text)?;
    Ok((BootId(file.boot.0), file.image()?))
}

impl GroupFile {
    fn new(boot: BootId, image: &SavedGroup) -> Self {
        let services = image.services.iter().map(|service| ServiceRecord {
            name: service.name.as_str().into(),
            live: service.live,
        });
        let told = image.told.iter().map(|(node, user)| {
            let record =
                UserRecord { incarnation: Hex64(user.incarnation.0), boot: Hex128(user.boot.0) };
            (node.0, record)
        });
        Self {
            version: VERSION,
            boot: Hex128(boot.0),
            incarnation: Hex64(image.incarnation.0),
            services: services.collect(),
            device: image.device.map(|device| device.0),
            told: told.collect(),
            unfinished: image.unfinished,
        }
    }

    fn image(self) -> Result<SavedGroup, String> {
        let services = self.services.into_iter().map(|service| {
            let name = ServiceName::new(&service.name).map_err(|bad| bad.to_string())?;
            Ok(SavedService { name, live: service.live })
        });
        let told = self.told.into_iter().map(|(node, user)| {
            let incarnation = Incarnation(user.incarnation.0);
            (NodeId(node), User { incarnation, boot: BootId(user.boot.0) })
        });
        Ok(SavedGroup {
            incarnation: Incarnation(self.incarnation.0),
            services: services.collect::<Result<_, String>>()?,
            device: self.device.map(DeviceId),
            told: told.collect(),
            unfinished: self.unfinished,
        })
    }
}

/// Numbers that JSON readers would round, as hex texts.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex64(u64);

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex128(u128);

impl From<Hex64> for String {
    fn from(number: Hex64) -> Self {
        format!("{:x}", number.0)
    }
}

impl TryFrom<String> for Hex64 {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

impl From<Hex128> for String {
    fn from(number: Hex128) -> Self {
        format!("{:032x}", number.0)
    }
}

impl TryFrom<String> for Hex128 {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}
