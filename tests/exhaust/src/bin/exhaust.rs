//! Runs the searches of tests/exhaust. See `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use o2bridge_exhaust::search::{Search, replay};
use o2bridge_exhaust::start::{self, Start};
use o2bridge_sim::world::World;

const HELP: &str = "\
Every order of what comes next in a small cluster, from each start.

usage: exhaust [--start FILE]... [--depth N] [--settle-every K]
       exhaust --start FILE --replay \"0 2 1 0\"

  --start FILE      one of them (all in tests/exhaust/starts)
  --depth N         look so many choices ahead (what each start says)
  --settle-every K  leave each K-th end to itself; 0: none (200)
  --replay CHOICES  go one way, and print all that happens

Ends with 0: nothing is wrong; 1: something is; 2: a wrong command line.
";

#[derive(Default)]
struct Args {
    starts: Vec<PathBuf>,
    depth: Option<u8>,
    settle_every: Option<u64>,
    replay: Option<Vec<usize>>,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("exhaust: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    let mut good = true;
    for path in &args.starts {
        let result = match &args.replay {
            Some(way) => again(path, way),
            None => search(path, &args),
        };
        if let Err(error) = result {
            println!("exhaust: {}: {error}", path.display());
            good = false;
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--start" => args.starts.push(value()?.into()),
            "--depth" => args.depth = Some(number(&value()?)?),
            "--settle-every" => args.settle_every = Some(number(&value()?)?),
            "--replay" => {
                let way: Result<_, String> = value()?.split_whitespace().map(number).collect();
                args.replay = Some(way?);
            }
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("'{other}' is no option")),
        }
    }
    if args.starts.is_empty() {
        args.starts = start::all(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    }
    Ok(Some(args))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is no number"))
}

fn search(path: &Path, args: &Args) -> Result<(), String> {
    let start = Start::read(path)?;
    let depth = args.depth.unwrap_or(start.depth);
    let began = Clock::start();
    let mut search = Search::new(&World::choose, args.settle_every.unwrap_or(200));
    let result = search.run(start.world(false)?, &start, depth);
    println!(
        "exhaust: {:<20} depth {depth} from {} moments: {}, {} violations, {:.1} s",
        path.file_stem().unwrap_or_default().to_string_lossy(),
        start.moments,
        search.tally,
        u8::from(result.is_err()),
        began.seconds(),
    );
    result.map_err(|finding| finding.to_string())
}

fn again(path: &Path, way: &[usize]) -> Result<(), String> {
    let start = Start::read(path)?;
    let wrong = replay(&start, &World::choose, way, &mut |line| println!("{line}"))?;
    wrong.map_or(Ok(()), |violation| Err(violation.to_string()))
}

/// How long a search takes; nothing that happens in one depends on it.
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
