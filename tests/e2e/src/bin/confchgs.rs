//! `make recordings`: performs the script of each recording again on real corosync, and writes what
//! the clients were told this time. Usage: `confchgs FILE...`. For a new one, write a file with the
//! comment, the header and the script.

use std::process::ExitCode;
use std::time::Instant;

use o2bridge_e2e::recorder::record_wanted;
use o2bridge_e2e::recording::Recording;

/// How often a run is repeated until it shows what is wanted of it.
const TRIES: u32 = 40;

fn main() -> ExitCode {
    let mut failed = 0;
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        match record_file(&path) {
            Ok(tries) => {
                println!("{path}: try {tries}, {:.1} s", start.elapsed().as_secs_f64());
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn record_file(path: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let script: Recording = std::fs::read_to_string(path)?.parse()?;
    let Some((tries, text)) = record_wanted(&script, TRIES)? else {
        let wants = script.wants.join("', '");
        return Err(format!("no run of {TRIES} told '{wants}'; the file is as it was").into());
    };
    std::fs::write(path, text)?;
    Ok(tries)
}
