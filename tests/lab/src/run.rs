//! Runs scenarios on kernels, keeps what a failure left, and prints the table.

mod asked;
mod table;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use crate::accel;
use crate::error::{LabError, Result};
use crate::kernel::{self, Kernel};
use crate::lab::{Lab, Places, Plan};
use crate::power::lock;

pub use asked::{AND_NEWEST, Asked, USUAL};
pub use table::table;

/// A script with steps and expectations.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// How many guests it boots.
    pub guests: u8,
    /// What it shows, in one line.
    pub text: &'static str,
    /// The kernels it is run on unless it is asked for by name; empty means [`USUAL`]. The newest is for
    /// the few scenarios that tell most; a scenario can be asked for on any kernel.
    pub kernels: &'static [&'static str],
    /// The script.
    pub run: fn(&Context) -> Result<()>,
}

/// What a scenario gets.
#[derive(Debug)]
pub struct Context {
    /// The kernel that the guests run.
    pub kernel: Kernel,
    places: Places,
    lab: Mutex<Option<Arc<Lab>>>,
    figures: Mutex<Vec<Figure>>,
}

/// A time that a scenario has measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// From what to what.
    pub name: String,
    /// How long that took, in milliseconds.
    pub ms: u64,
}

impl Context {
    /// Boots the guests.
    ///
    /// # Errors
    /// As [`Lab::boot`].
    pub fn boot(&self, plan: &Plan) -> Result<Arc<Lab>> {
        let lab = Arc::new(Lab::boot(plan, &self.kernel, &self.places)?);
        *lock(&self.lab) = Some(Arc::clone(&lab));
        Ok(lab)
    }

    /// A time for the table.
    pub fn figure(&self, name: &str, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        eprintln!("  {name}: {ms} ms");
        lock(&self.figures).push(Figure { name: name.to_owned(), ms });
    }
}

/// How a scenario has ended on a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every expectation was fulfilled.
    Passed,
    /// One was not.
    Failed,
    /// It could not be run.
    Skipped,
}

/// One cell of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The kernel's name.
    pub kernel: String,
    /// The kernel's release; empty if it could not be had.
    pub release: String,
    /// The scenario's name.
    pub scenario: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it failed or was skipped.
    pub why: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What it measured.
    pub figures: Vec<Figure>,
}

/// The directories of a whole run.
#[derive(Debug, Clone)]
pub struct Runner {
    /// As in [`Places`].
    pub binaries: PathBuf,
    /// `target/lab`.
    pub directory: PathBuf,
    /// QEMU's `-accel`; found out if not given.
    pub accelerator: Option<String>,
}

impl Runner {
    /// Runs what was asked for, kernel by kernel.
    ///
    /// # Errors
    /// The directory of the run cannot be made.
    pub fn run(&self, asked: &Asked) -> Result<Vec<Outcome>> {
        let _alone = self.alone()?;
        let mut outcomes = Vec::new();
        for name in kernel::names() {
            let wanted = asked.scenarios.iter().filter(|scenario| asked.wants(scenario, name));
            let scenarios: Vec<&Scenario> = wanted.collect();
            if scenarios.is_empty() {
                continue;
            }
            let kernel = Kernel::get(name, &self.directory.join("kernels"));
            if let Err(error) = &kernel {
                eprintln!("SKIPPED kernel {name}: {error}");
            }
            let kernel = kernel.and_then(|kernel| Ok((self.places(&kernel)?, kernel)));
            for scenario in scenarios {
                outcomes.push(match &kernel {
                    Ok((places, kernel)) => self.one(kernel, scenario, places),
                    Err(error) => skipped(name, scenario, &error.to_string()),
                });
            }
        }
        Ok(outcomes)
    }

    /// One run at a time has the directory, and the machine's processors.
    pub(crate) fn alone(&self) -> Result<Flock<File>> {
        fs::create_dir_all(&self.directory).map_err(LabError::at(&self.directory))?;
        let path = self.directory.join("lock");
        let file = File::create(&path).map_err(LabError::at(&path))?;
        let busy = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, _)) => file,
        };
        eprintln!("lab: another run is under way; waiting for its end");
        Flock::lock(busy, FlockArg::LockExclusive)
            .map_err(|(_, error)| LabError::at(&path)(error.into()))
    }

    /// The binaries are copied, so that a build does not change them under guests that run.
    pub(crate) fn places(&self, kernel: &Kernel) -> Result<Places> {
        let directory = self.directory.join("run");
        let binaries = directory.join("bin");
        let _ = fs::remove_dir_all(&binaries);
        for part in ["", "examples"] {
            copy_programs(&self.binaries.join(part), &binaries.join(part))?;
        }
        let accelerator = match &self.accelerator {
            Some(given) => given.clone(),
            None => accel::choose(kernel, &self.directory)?,
        };
        Ok(Places { binaries, directory, accelerator })
    }

    fn one(&self, kernel: &Kernel, scenario: &Scenario, places: &Places) -> Outcome {
        let (name, release) = (scenario.name, &kernel.release);
        eprintln!("\n=== {name} on {} ({release}): {}", kernel.name, scenario.text);
        let title = format!("{name}-{}", kernel.name);
        let directory = places.directory.join(&title);
        let _ = fs::remove_dir_all(&directory);
        let places = Places { directory, ..places.clone() };
        let context = Context {
            kernel: kernel.clone(),
            places,
            lab: Mutex::default(),
            figures: Mutex::default(),
        };
        let begin = Instant::now();
        let done = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&context)));
        let done = done.unwrap_or_else(|_| Err(LabError::Expect("the scenario panicked".into())));
        let seconds = begin.elapsed().as_secs_f64();
        let (verdict, why) = self.judge(done, &title, &context);
        Outcome {
            kernel: kernel.name.clone(),
            release: kernel.release.clone(),
            scenario: scenario.name.to_owned(),
            verdict,
            why,
            seconds,
            figures: lock(&context.figures).clone(),
        }
    }

    /// Also ends the guests, and keeps or drops what they have left.
    fn judge(&self, done: Result<()>, title: &str, context: &Context) -> (Verdict, Option<String>) {
        let lab = lock(&context.lab).take();
        if matches!(done, Err(ref error) if !matches!(error, LabError::Skip(_))) {
            if let Some(lab) = &lab {
                lab.step("FAILED; collecting what the guests know");
                lab.collect();
            }
        }
        let said = lab.as_ref().and_then(|lab| complaint(lab));
        drop(lab);
        let done = done.and_then(|()| said.map_or(Ok(()), |line| Err(LabError::Expect(line))));
        let run = &context.places.directory;
        match done {
            Ok(()) => {
                eprintln!("  passed");
                drop_images(run);
                let _ = fs::remove_dir_all(self.directory.join("failed").join(title));
                (Verdict::Passed, None)
            }
            Err(LabError::Skip(why)) => {
                eprintln!("SKIPPED {title}: {why}");
                (Verdict::Skipped, Some(why))
            }
            Err(error) => {
                let kept = self.directory.join("failed").join(title);
                let _ = fs::remove_dir_all(&kept);
                let _ = fs::create_dir_all(self.directory.join("failed"));
                let moved = fs::rename(run, &kept).is_ok();
                eprintln!("  FAILED: {error}");
                eprintln!("  kept: {}", if moved { &kept } else { run }.display());
                (Verdict::Failed, Some(error.to_string()))
            }
        }
    }
}

/// cargo leaves each example also under a name with a hash; those are not wanted.
fn copy_programs(from: &Path, to: &Path) -> Result<()> {
    let Ok(found) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to).map_err(LabError::at(to))?;
    for entry in found.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let hashed = name.rsplit_once('-').is_some_and(|(_, hash)| hash.len() == 16);
        let is_program =
            entry.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if is_program && !hashed && !name.contains('.') {
            fs::copy(entry.path(), to.join(name)).map_err(LabError::at(to))?;
        }
    }
    Ok(())
}

/// What no kernel may say, whatever the scenario does to it.
fn complaint(lab: &Lab) -> Option<String> {
    const BAD: [&str; 4] = ["kernel BUG at", "] BUG: ", "Oops: ", "general protection fault"];
    lab.guests().find_map(|guest| {
        let console = guest.console();
        let line = console.lines().find(|line| BAD.iter().any(|bad| line.contains(bad)))?;
        Some(format!("the kernel of {}: {line}", guest.name()))
    })
}

/// Disks are of use only after a failure.
fn drop_images(run: &Path) {
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".disk") || name.starts_with("initramfs") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn skipped(kernel: &str, scenario: &Scenario, why: &str) -> Outcome {
    Outcome {
        kernel: kernel.to_owned(),
        release: String::new(),
        scenario: scenario.name.to_owned(),
        verdict: Verdict::Skipped,
        why: Some(why.to_owned()),
        seconds: 0.0,
        figures: Vec::new(),
    }
}
