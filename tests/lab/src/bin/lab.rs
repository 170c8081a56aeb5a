//! Runs scenarios on real kernels in QEMU.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use o2bridge_lab::run::{Asked, Outcome, Runner, USUAL, Verdict, table};
use o2bridge_lab::{Kernel, LabError, Result, Scenario, kernel, scenario};

/// Runs scenarios on real kernels in QEMU, and prints a table kernel x scenario.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this kernel; may be repeated [default: those that each scenario is for]
    #[arg(long)]
    kernel: Vec<String>,
    /// Only this scenario; may be repeated [default: all that are for the kernel]
    #[arg(long)]
    scenario: Vec<String>,
    /// QEMU's accelerator [default: kvm if it works here, else tcg]
    #[arg(long)]
    accel: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists kernels and scenarios
    List,
    /// Downloads a kernel's headers and prints the directory for `make -C`
    Headers {
        /// As in `lab list`
        kernel: String,
    },
    /// Boots guests with a disk and corosync.conf and runs shell commands in them, for a quick look
    Try {
        /// How many guests
        #[arg(long, default_value_t = 1)]
        guests: u8,
        /// As in `lab list`
        kernel: String,
        /// One after the other: `COMMAND` on all guests, `2:COMMAND` on the second only
        commands: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    o2bridge_lab::end_with_signals()?;
    let binaries = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let binaries = binaries.ok_or_else(|| LabError::Setup("where am I?".into()))?;
    // target/debug or target/release: the rest is beside it.
    let target = binaries.parent().map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = target.join("lab");
    match &arguments.command {
        Some(Command::List) => {
            list();
            Ok(true)
        }
        Some(Command::Headers { kernel }) => {
            let cache = directory.join("kernels");
            println!("{}", Kernel::get(kernel, &cache)?.headers(&cache)?.display());
            Ok(true)
        }
        Some(Command::Try { guests, kernel, commands }) => {
            runner(binaries, directory, arguments).attempt(kernel, *guests, commands)
        }
        None => {
            let runner = runner(binaries, directory, arguments);
            let outcomes = runner.run(&Asked {
                kernels: known(&arguments.kernel)?,
                scenarios: chosen(&arguments.scenario)?,
                by_name: !arguments.scenario.is_empty(),
            })?;
            report(&outcomes, arguments.format)
        }
    }
}

fn runner(binaries: PathBuf, directory: PathBuf, arguments: &Arguments) -> Runner {
    Runner { binaries, directory, accelerator: arguments.accel.clone() }
}

fn list() {
    println!("kernels: {}", kernel::names().join(" "));
    for scenario in scenario::all() {
        let own = if scenario.kernels.is_empty() { &USUAL[..] } else { scenario.kernels };
        let (name, guests, kernels) = (scenario.name, scenario.guests, own.join(", "));
        println!("{name:<18} {guests} guests on {kernels}: {}", scenario.text);
    }
}

fn known(wanted: &[String]) -> Result<Vec<String>> {
    match wanted.iter().find(|name| !kernel::names().contains(&name.as_str())) {
        Some(name) => Err(LabError::Setup(format!("no kernel {name}; see `lab list`"))),
        None => Ok(wanted.to_vec()),
    }
}

fn chosen(wanted: &[String]) -> Result<Vec<Scenario>> {
    let all = scenario::all();
    if wanted.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.iter().find(|scenario| scenario.name == name).copied();
        found.ok_or_else(|| LabError::Setup(format!("no scenario {name}; see `lab list`")))
    };
    wanted.iter().map(find).collect()
}

fn report(outcomes: &[Outcome], format: Format) -> Result<bool> {
    match format {
        Format::Text => print!("\n{}", table(outcomes)),
        Format::Json => {
            let text = serde_json::to_string_pretty(outcomes);
            println!("{}", text.map_err(|e| LabError::Setup(e.to_string()))?);
        }
    }
    Ok(!outcomes.iter().any(|outcome| outcome.verdict == Verdict::Failed))
}
