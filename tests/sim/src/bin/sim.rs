//! Runs the simulator: many seeds, one seed with its trace, or a scenario. See `--help`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};

use o2bridge_sim::options::Options;
use o2bridge_sim::plan;
use o2bridge_sim::report::Report;
use o2bridge_sim::run::{self, Run};
use o2bridge_sim::scenario::Scenario;
use o2bridge_sim::shrink::shrink;

const HELP: &str = "\
Clusters in one thread, each under a seed: the real core, models of everything else.

usage: sim [--seeds N] [--from SEED] [--jobs N] [--list FILE] [--complete]
       sim --seed SEED [--trace]
       sim --scenario FILE [--trace]

  --seeds N        so many seeds (1000)
  --from SEED      the first of them (0)
  --list FILE      and the seeds of this file: one a line, # begins a comment
  --jobs N         processes (one for each processor)
  --complete       fail also if a move of the core's tables was made by no seed
                   (always from 1000000 seeds on)
  --seed SEED      one seed; if it fails, the shortest schedule that still fails
  --scenario FILE  a schedule that a person wrote
  --trace          print all that happens
  --max-failures N stop after so many (5)

Ends with 0: nothing is wrong; 1: something is; 2: a wrong command line.
";

/// From so many seeds on, a move that none of them made is a failure.
const LONG_RUN: u64 = 1_000_000;
/// A process tells that it lives after so many runs.
const TELLS_EVERY: u64 = 500;

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: u64,
    jobs: Option<u64>,
    list: Option<String>,
    complete: bool,
    seed: Option<u64>,
    scenario: Option<String>,
    trace: bool,
    worker: bool,
    failures_max: Option<usize>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("sim: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    run::keep_panics();
    let good = match (&args.scenario, args.seed) {
        (Some(path), _) => scenario(path, args.trace),
        (None, Some(seed)) => one(seed, args.trace),
        (None, None) if args.worker => work(&args),
        (None, None) => many(&args),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number =
            |text: String| text.parse::<u64>().map_err(|_| format!("'{text}' is no number"));
        match word.as_str() {
            "--seeds" => args.seeds = Some(number(value()?)?),
            "--from" => args.from = number(value()?)?,
            "--jobs" => args.jobs = Some(number(value()?)?.max(1)),
            "--list" => args.list = Some(value()?),
            "--seed" => args.seed = Some(number(value()?)?),
            "--scenario" => args.scenario = Some(value()?),
            "--max-failures" => {
                args.failures_max = usize::try_from(number(value()?)?).ok();
            }
            "--complete" => args.complete = true,
            "--trace" => args.trace = true,
            "--worker" => args.worker = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("'{other}' is no option")),
        }
    }
    Ok(Some(args))
}

/// The seeds of one process.
fn work(args: &Args) -> bool {
    let mut report = Report::default();
    let most = args.failures_max.unwrap_or(usize::MAX);
    let stdout = std::io::stdout();
    for seed in args.from..args.from.saturating_add(args.seeds.unwrap_or(1000)) {
        let known = report.failures.len();
        report.add(seed, &run::seed(seed, false));
        // At once: whoever listens may not wait for the end.
        for failure in report.failures.iter().skip(known) {
            println!("{}", Report::failure_line(failure));
        }
        if report.runs % TELLS_EVERY == 0 {
            // Whoever listened is gone: nobody wants the rest.
            if writeln!(stdout.lock(), "done {}", report.runs).is_err() {
                return false;
            }
        }
        if report.failures.len() >= most {
            break;
        }
    }
    report.failures.clear();
    print!("{}", report.to_lines());
    true
}

/// All seeds, in several processes.
fn many(args: &Args) -> bool {
    let seeds = args.seeds.unwrap_or(1000);
    let jobs = args.jobs.unwrap_or_else(processors).min(seeds.max(1));
    let most = args.failures_max.unwrap_or(5);
    let mut report = Report::default();
    for seed in listed(args.list.as_deref()) {
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
            (count > 0).then(|| start_worker(from, count, most))
        })
        .collect();
    let listed_runs = report.runs;
    for worker in workers {
        let part = listen(worker, seeds / jobs, &began);
        report.merge(&part);
    }
    let good = finish(&report, args, most);
    let seconds = began.seconds().max(0.001);
    let runs = (report.runs - listed_runs) as f64;
    println!("sim: {:.0} seeds a second in {jobs} processes, {seconds:.0} s", runs / seconds);
    let complete = report.runs >= seeds + listed_runs || report.failures.len() >= most;
    if !complete {
        println!("sim: a process ended before its time");
    }
    good && complete
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
fn finish(report: &Report, args: &Args, most: usize) -> bool {
    println!("{report}");
    let mut good = report.failures.is_empty();
    for (seed, failure) in report.failures.iter().take(most) {
        println!("sim: seed {seed} FAILED: {failure}");
        println!("sim:   again, with the shortest schedule: {}", again(*seed));
    }
    let missing = report.coverage.missing();
    let complete = args.complete || args.seeds.is_some_and(|seeds| seeds >= LONG_RUN);
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

fn scenario(path: &str, trace: bool) -> bool {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            println!("sim: {path}: {error}");
            return false;
        }
    };
    let scenario = match Scenario::parse(&text) {
        Ok(scenario) => scenario,
        Err(error) => {
            println!("sim: {path}: {error}");
            return false;
        }
    };
    let (run, result) = scenario.run(trace);
    show(&run);
    match &result {
        Ok(()) => println!("sim: {path}: nothing is wrong"),
        Err(text) => println!("sim: {path} FAILED: {text}"),
    }
    result.is_ok()
}

fn show(run: &Run) {
    run.world.trace.lines().iter().for_each(|line| println!("{line}"));
}

fn listed(path: Option<&str>) -> Vec<u64> {
    let Some(path) = path else { return Vec::new() };
    let seed = |(index, line): (usize, &str)| {
        let word = line.split('#').next().unwrap_or_default().trim();
        let wrong = |_| format!("{path}:{}: '{word}' is no seed", index + 1);
        (!word.is_empty()).then(|| word.parse().map_err(wrong))
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let seeds = text.and_then(|text| text.lines().enumerate().filter_map(seed).collect());
    seeds.unwrap_or_else(|error| {
        eprintln!("sim: {error}");
        std::process::exit(2)
    })
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
