//! Runs the simulator: many seeds, one seed with its trace, or a scenario. See `--help`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Parser;
use o2bridge_sim::options::Options;
use o2bridge_sim::plan;
use o2bridge_sim::report::Report;
use o2bridge_sim::run::{self, Run};
use o2bridge_sim::scenario::Scenario;
use o2bridge_sim::shrink::shrink;

/// From so many seeds on, a move that none of them made is a failure.
const LONG_RUN: u64 = 100_000;
/// A process tells that it lives after so many runs.
const TELLS_EVERY: u64 = 500;

/// Clusters in one thread, each under a seed: the real core, models of everything else.
#[derive(Debug, Parser)]
#[command(after_help = "Ends with 0: nothing is wrong; 1: something is; 2: a wrong command line.")]
struct Args {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// And the seeds of this file: one a line, # begins a comment
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// How many processes (one for each processor)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: Option<u64>,
    /// Fail also if a move of the core's tables was made by no seed (always from 100000 seeds on)
    #[arg(long)]
    complete: bool,
    /// One seed; if it fails, the shortest schedule that still fails
    #[arg(long, value_name = "SEED", conflicts_with = "scenario")]
    seed: Option<u64>,
    /// A schedule that a person wrote
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Print all that happens
    #[arg(long)]
    trace: bool,
    /// Stop after so many
    #[arg(long, value_name = "N", default_value_t = 5)]
    max_failures: usize,
    /// One of several processes
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let good = match (&args.scenario, args.seed) {
        (Some(path), _) => scenario(path, args.trace),
        (None, Some(seed)) => Ok(one(seed, args.trace)),
        (None, None) if args.worker => Ok(work(&args)),
        (None, None) => many(&args),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// The seeds of one process.
fn work(args: &Args) -> bool {
    let mut report = Report::default();
    let stdout = std::io::stdout();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        report.add(seed, &run::seed(seed, false));
        if report.runs % TELLS_EVERY == 0 {
            // Whoever listened is gone: nobody wants the rest.
            if writeln!(stdout.lock(), "done {}", report.runs).is_err() {
                return false;
            }
        }
        if report.failures.len() >= args.max_failures {
            break;
        }
    }
    print!("{}", report.to_lines());
    true
}

/// All seeds, in several processes.
fn many(args: &Args) -> Result<bool, String> {
    let seeds = args.seeds;
    let jobs = args.jobs.unwrap_or_else(processors).min(seeds.max(1));
    let mut report = Report::default();
    for seed in listed(args.list.as_deref())? {
        report.add(seed, &run::seed(seed, false));
    }
    println!(
        "sim: {} listed seeds, and seeds {} to {} in {jobs} processes",
        report.runs,
        args.from,
        args.from.saturating_add(seeds.saturating_sub(1))
    );
    let began = Clock::start();
    let share = seeds.div_ceil(jobs);
    let workers: Vec<Child> = (0..jobs)
        .filter_map(|job| {
            let from = args.from.saturating_add(job * share);
            let count = share.min(seeds.saturating_sub(job * share));
            (count > 0).then(|| start_worker(from, count, args.max_failures))
        })
        .collect();
    let listed_runs = report.runs;
    for worker in workers {
        let part = listen(worker, seeds / jobs, &began);
        report.merge(&part);
    }
    let good = finish(&report, args);
    let seconds = began.seconds().max(0.001);
    let runs = (report.runs - listed_runs) as f64;
    println!("sim: {:.0} seeds a second in {jobs} processes, {seconds:.0} s", runs / seconds);
    let complete = report.runs >= seeds + listed_runs || !report.failures.is_empty();
    if !complete {
        println!("sim: a process ended before its time");
    }
    Ok(good && complete)
}

fn start_worker(from: u64, count: u64, most: usize) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    Command::new(program)
        .args(["--worker", "--from", &from.to_string(), "--seeds", &count.to_string()])
        .args(["--max-failures", &most.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started again")
}

/// Reads what a process says to its end.
fn listen(mut worker: Child, share: u64, began: &Clock) -> Report {
    let mut report = Report::default();
    let stdout = worker.stdout.take().expect("it was piped");
    let mut told = 0.0;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(done) = line.strip_prefix("done ") {
            if began.seconds() - told >= 10.0 {
                told = began.seconds();
                println!("sim: {told:.0} s, about {done} of {share} seeds in each process");
            }
        }
        report.read_line(&line);
    }
    let _ = worker.wait();
    report
}

/// Prints the sum, and what failed.
fn finish(report: &Report, args: &Args) -> bool {
    println!("{report}");
    let mut good = report.failures.is_empty();
    for (seed, failure) in report.failures.iter().take(args.max_failures) {
        println!("sim: seed {seed} FAILED: {failure}");
        println!("sim:   again, with the shortest schedule: {}", again(*seed));
    }
    let missing = report.coverage.missing();
    let complete = args.complete || args.seeds >= LONG_RUN;
    if complete && !missing.is_empty() {
        good = false;
        for it in &missing {
            println!("sim: no seed made {}: {} -> {} on \"{}\"", it.table, it.from, it.to, it.on);
        }
    }
    println!("sim: {} runs, {} failed", report.runs, report.failures.len());
    good
}

fn again(seed: u64) -> String {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    format!("make sim SEED={seed} TRACE=1   (at {})", commit.unwrap_or_default())
}

/// One seed. If it fails it is cut down, and printed as a scenario.
fn one(seed: u64, trace: bool) -> bool {
    let options = Options::of(seed);
    let schedule = plan::schedule(&options);
    let run = run::run(options.clone(), &schedule, false);
    let Err(violation) = &run.result else {
        let run = run::run(options.clone(), &schedule, trace);
        show(&run);
        println!("# seed {seed}: nothing is wrong");
        return true;
    };
    let shrunk = shrink(&options, &schedule, violation.checker);
    let run = run::run(shrunk.options.clone(), &shrunk.schedule, trace);
    show(&run);
    println!("# seed {seed}, cut down from {} steps in {} runs", schedule.len(), shrunk.runs);
    print!("{}", Scenario::of(&shrunk.options, &shrunk.schedule));
    println!("# {}", run.result.err().map_or_else(String::new, |it| it.to_string()));
    false
}

fn scenario(path: &Path, trace: bool) -> Result<bool, String> {
    let scenario = Scenario::parse(&read(path)?);
    let (run, result) =
        scenario.map_err(|error| format!("{}: {error}", path.display()))?.run(trace);
    show(&run);
    match &result {
        Ok(()) => println!("sim: {}: nothing is wrong", path.display()),
        Err(text) => println!("sim: {} FAILED: {text}", path.display()),
    }
    Ok(result.is_ok())
}

fn show(run: &Run) {
    run.world.trace.lines().iter().for_each(|line| println!("{line}"));
}

fn listed(path: Option<&Path>) -> Result<Vec<u64>, String> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let seed = |(index, line): (usize, &str)| {
        let word = line.split('#').next().unwrap_or_default().trim();
        let wrong = |_| format!("{}:{}: '{word}' is no seed", path.display(), index + 1);
        (!word.is_empty()).then(|| word.parse().map_err(wrong))
    };
    read(path)?.lines().enumerate().filter_map(seed).collect()
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |it| it.get() as u64)
}

/// How long the runs take; nothing that happens in one depends on it.
struct Clock(#[allow(clippy::disallowed_types, reason = "see above")] std::time::SystemTime);

impl Clock {
    #[allow(clippy::disallowed_types, reason = "see above")]
    fn start() -> Self {
        Self(std::time::SystemTime::now())
    }

    fn seconds(&self) -> f64 {
        self.0.elapsed().map_or(0.0, |it| it.as_secs_f64())
    }
}
