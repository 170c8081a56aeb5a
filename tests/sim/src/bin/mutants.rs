//! The test of the checkers: mutated cores and codecs (`tests/sim/mutants`) run in the simulator, and each must be
//! caught within its number of seeds. See `--help`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use o2bridge_sim::mutant::Mutant;
use o2bridge_sim::report::Report;

const HELP: &str = "\
Runs mutated cores in the simulator: each must be caught within its number of seeds, by the checker that it is for.

usage: mutants [NAME]...

  NAME    only these (file names of tests/sim/mutants without .mutant)

The source tree is copied to target/mutants and mutated there. Ends with 0: all were caught, and the same
seeds find nothing in the core as it is; 1: not so; 2: a wrong command line or mutant file.
";

/// A mutant may be caught in an endless loop that the simulator does not see.
const SECONDS_MAX: u64 = 900;
/// Built often and run for seconds: what counts is the time to build.
const PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_SIM_LTO", "off"),
    ("CARGO_PROFILE_SIM_OPT_LEVEL", "2"),
    ("CARGO_PROFILE_SIM_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_SIM_INCREMENTAL", "true"),
];

/// What a mutant, or the core as it is, came to.
enum End {
    /// This checker saw it, at this seed.
    Caught(String, u64),
    /// Nothing was wrong.
    Passed,
    /// It could not be tried.
    Broken(String),
}

fn main() -> ExitCode {
    let names: Vec<String> = env::args().skip(1).collect();
    if names.iter().any(|it| it == "--help" || it == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mutants = match choose(&root, &names) {
        Ok(mutants) => mutants,
        Err(error) => {
            eprintln!("mutants: {error}");
            return ExitCode::from(2);
        }
    };
    let lab = match Lab::prepare(&root) {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("mutants: target/mutants: {error}");
            return ExitCode::FAILURE;
        }
    };
    if run(&lab, &mutants) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The mutants to run, all or those that were named.
fn choose(root: &Path, names: &[String]) -> Result<Vec<Mutant>, String> {
    let all = Mutant::read_all(&root.join("tests/sim/mutants"))?;
    if let Some(name) = names.iter().find(|name| !all.iter().any(|it| it.name == **name)) {
        return Err(format!("there is no mutant '{name}'"));
    }
    Ok(all.into_iter().filter(|it| names.is_empty() || names.contains(&it.name)).collect())
}

/// Runs all mutants, then the core as it is with the seeds that they needed; prints a line for each.
fn run(lab: &Lab, mutants: &[Mutant]) -> bool {
    println!("{:<34} {:<14} {:>6} {:>8}", "mutant", "caught by", "seed", "allowed");
    let mut failed = Vec::new();
    let mut judge = |name: &str, allowed: u64, end: End, good: bool| {
        let (by, seed) = match &end {
            End::Caught(checker, seed) => (checker.as_str(), seed.to_string()),
            End::Passed => ("nobody", String::new()),
            End::Broken(_) => ("(not tried)", String::new()),
        };
        println!(
            "{name:<34} {by:<14} {seed:>6} {allowed:>8}{}",
            if good { "" } else { "  FAILED" }
        );
        if let End::Broken(error) = &end {
            println!("{error}");
        }
        if !good {
            failed.push(format!("test mutants::{name} ... FAILED"));
        }
    };
    let mut needed = 1;
    for mutant in mutants {
        let end = lab.mutant(mutant);
        if let End::Caught(_, seed) = end {
            needed = needed.max(seed + 1);
        }
        let good = matches!(&end, End::Caught(by, _) if mutant.caught_by.contains(by));
        judge(&mutant.name, mutant.seeds_max, end, good);
    }
    let end = lab.core_as_it_is(needed);
    let good = matches!(end, End::Passed);
    judge("(the core as it is)", needed, end, good);
    failed.iter().for_each(|line| println!("{line}"));
    let passed = mutants.len() + 1 - failed.len();
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {} failed; 0 ignored", failed.len());
    failed.is_empty()
}

/// A copy of the source tree, and what is built from it.
struct Lab {
    tree: PathBuf,
    build: PathBuf,
}

impl Lab {
    /// Copies the tree anew: whatever an earlier run left there is no part of this one.
    fn prepare(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let lab = root.join("target/mutants");
        let tree = lab.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        copy(&root, &tree)?;
        Ok(Self { tree, build: lab.join("build") })
    }

    fn core_as_it_is(&self, seeds: u64) -> End {
        self.build().and_then(|()| self.simulate(seeds)).unwrap_or_else(End::Broken)
    }

    /// Mutates the tree, runs it, and undoes the mutation whatever came of it.
    fn mutant(&self, mutant: &Mutant) -> End {
        let mut kept = Vec::new();
        let mutated = mutant.changes.iter().try_for_each(|change| {
            let path = self.tree.join(&change.file);
            let source =
                fs::read_to_string(&path).map_err(|it| format!("{}: {it}", change.file))?;
            let changed = change.apply(&source)?;
            fs::write(&path, changed).map_err(|it| format!("{}: {it}", change.file))?;
            kept.push((path, source));
            Ok(())
        });
        let end =
            mutated.and_then(|()| self.build()).and_then(|()| self.simulate(mutant.seeds_max));
        // The last change first: two may be of one file.
        for (path, source) in kept.into_iter().rev() {
            if let Err(error) = fs::write(&path, source) {
                return End::Broken(format!("{}: {error}", path.display()));
            }
        }
        end.unwrap_or_else(End::Broken)
    }

    fn build(&self) -> Result<(), String> {
        let mut cargo = Command::new("cargo");
        cargo.args([
            "build",
            "--quiet",
            "--profile",
            "sim",
            "--package",
            "o2bridge-sim",
            "--bin",
            "sim",
        ]);
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build).envs(PROFILE);
        let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs seeds up to the first that fails.
    fn simulate(&self, seeds: u64) -> Result<End, String> {
        let mut sim = Command::new("timeout");
        sim.arg(SECONDS_MAX.to_string()).arg(self.build.join("sim/sim"));
        sim.args(["--worker", "--from", "0", "--max-failures", "1"]);
        let output = sim.args(["--seeds", &seeds.to_string()]).output();
        let output = output.map_err(|error| format!("timeout: {error}"))?;
        let mut report = Report::default();
        String::from_utf8_lossy(&output.stdout).lines().for_each(|line| report.read_line(line));
        if !output.status.success() && report.failures.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("the simulator ended with {}\n{said}", output.status));
        }
        let caught = |(seed, failure): &(u64, String)| {
            let checker = failure.split(" at ").next().unwrap_or_default();
            End::Caught(checker.to_owned(), *seed)
        };
        Ok(report.failures.first().map_or(End::Passed, caught))
    }
}

/// Copies all but what was built, and what git keeps.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let target = to.join(&name);
        if entry.file_type()?.is_dir() {
            if name != "target" && name != ".git" {
                copy(&entry.path(), &target)?;
            }
        } else if name != ".git" {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
