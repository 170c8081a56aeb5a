//! Where a search begins: a scenario of the simulator, and the moment up to which it is run in the
//! order of time.
//!
//! ```text
//! # why this is here
//! explore_from 20000
//! depth 7
//! moments 12
//! stride 3
//! nodes 3
//! 5000 n1 mount A held
//! 20000 n3 power off
//! expect mounts 1
//! ```
//! The steps from that moment on are one of the things to choose. The other lines are as in
//! [`o2bridge_sim::scenario`]; what is expected has been counted by that moment.

use std::path::{Path, PathBuf};

use o2bridge_sim::scenario::Scenario;
use o2bridge_sim::time::Micros;
use o2bridge_sim::world::World;

/// A start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The cluster, and all that happens to it from outside.
    pub scenario: Scenario,
    /// When orders begin to matter.
    pub from: Micros,
    /// How many choices are looked ahead.
    pub depth: u8,
    /// From how many moments.
    pub moments: usize,
    /// How many choices in the order of time are between two moments.
    pub stride: usize,
}

impl Start {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scenario = String::new();
        let (mut from_ms, mut depth, mut moments, mut stride) = (None, 6, 1, 1);
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "explore_from" => from_ms = Some(number(line, rest)?),
                "depth" => depth = number(line, rest)?,
                "moments" => moments = number(line, rest)?,
                "stride" => stride = number(line, rest)?,
                _ => scenario.push_str(line),
            }
            // A line that is ours stays as an empty one: what is wrong is said by the line's number.
            scenario.push('\n');
        }
        let from_ms: u64 = from_ms.ok_or("it does not say 'explore_from MS'")?;
        let scenario = Scenario::parse(&scenario).map_err(|bad| bad.to_string())?;
        Ok(Self { scenario, from: Micros::of_ms(from_ms), depth, moments, stride })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no start.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
    }

    /// The world at the first moment: of what is due then, nothing has happened.
    ///
    /// # Errors
    /// Something is wrong before anybody chooses, or not as expected.
    pub fn world(&self, trace: bool) -> Result<World, String> {
        let Scenario { options, schedule, expected } = &self.scenario;
        let mut world = World::without_chance(options.clone(), schedule, trace);
        let result = world.run_until(Micros(self.from.0.saturating_sub(1)));
        result.map_err(|violation| violation.to_string())?;
        for (label, least, most) in expected {
            let counts = world.counts.list();
            let count = counts.iter().find(|(name, _)| name.replace(' ', "-") == *label);
            let count = count.map(|(_, count)| *count).ok_or(format!("nothing counts {label}"))?;
            if count < *least || count > *most {
                return Err(format!("{label} is {count} at the first moment"));
            }
        }
        Ok(world)
    }
}

/// The files of all starts of this package, which is in this folder.
///
/// # Errors
/// The folder cannot be read.
pub fn all(package: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = package.join("starts");
    let files = std::fs::read_dir(&folder).map_err(|it| format!("{}: {it}", folder.display()))?;
    let mut files: Vec<PathBuf> = files.flatten().map(|it| it.path()).collect();
    files.sort_unstable_by_key(|path| path.file_stem().map(std::ffi::OsStr::to_owned));
    Ok(files)
}

fn number<T: std::str::FromStr>(line: &str, text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("'{line}': '{text}' is no number"))
}
