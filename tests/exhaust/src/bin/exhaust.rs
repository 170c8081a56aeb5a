//! Runs the searches of tests/exhaust. See `--help`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use o2bridge_exhaust::search::{Search, replay};
use o2bridge_exhaust::start::{self, Start};
use o2bridge_sim::world::World;

/// Every order of what comes next in a small cluster, from each start.
#[derive(Debug, Parser)]
#[command(after_help = "Ends with 0: nothing is wrong; 1: something is; 2: a wrong command line.")]
struct Args {
    /// One of the starts (all in tests/exhaust/starts)
    #[arg(long = "start", value_name = "FILE")]
    starts: Vec<PathBuf>,
    /// Look so many choices ahead (what each start says)
    #[arg(long, value_name = "N")]
    depth: Option<u8>,
    /// Leave each K-th end to itself; 0: none
    #[arg(long, value_name = "K", default_value_t = 200)]
    settle_every: u64,
    /// Go one way ("0 2 1 0"), and print all that happens
    #[arg(long, value_name = "CHOICES", value_delimiter = ' ')]
    replay: Option<Vec<usize>>,
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.starts.is_empty() {
        args.starts = match start::all(Path::new(env!("CARGO_MANIFEST_DIR"))) {
            Ok(starts) => starts,
            Err(error) => {
                eprintln!("exhaust: {error}");
                return ExitCode::from(2);
            }
        };
    }
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

fn search(path: &Path, args: &Args) -> Result<(), String> {
    let start = Start::read(path)?;
    let depth = args.depth.unwrap_or(start.depth);
    let began = Clock::start();
    let mut search = Search::new(&World::choose, args.settle_every);
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
