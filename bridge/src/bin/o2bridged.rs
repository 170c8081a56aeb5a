//! The daemon of a node. Runs in the foreground, under a service manager.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Keeps OCFS2 on this node informed of who is in the cluster.
///
/// Runs in the foreground. SIGTERM ends it, unless a volume is mounted or a tool uses a group; SIGHUP
/// rereads the configuration; SIGUSR1 writes the state and the recent past to o2bridged.dump in the
/// run directory.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration; without it /etc/o2bridge/o2bridge.toml, which may be missing.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration: 0 it is good, 1 it is not.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.check_config {
        o2bridge::start::check_config(args.config.as_deref()).map(|good| println!("{good}"))
    } else {
        o2bridge::start::run(args.config)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("o2bridged: {error}");
            ExitCode::FAILURE
        }
    }
}
