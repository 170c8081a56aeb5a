//! A write load whose losses can be told: numbered files, each fsynced before its number is reported.
//!
//!     lab-load DIRECTORY NAME REPORT         writes DIRECTORY/NAME-<number> for ever
//!     lab-load check DIRECTORY NAME REPORT   whether every reported file is there and whole
//!
//! The report belongs outside the volume, as `/lab/share/load`, where it survives the guest.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Files older than this many are removed, so that a small volume suffices.
const KEPT: u64 = 200;
/// Bytes in a file: a few clusters of the volume.
const LINES: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["check", directory, name, report] => check(Path::new(directory), name, Path::new(report)),
        [directory, name, report] => load(Path::new(directory), name, Path::new(report)),
        _ => Err(io::Error::other("usage: lab-load [check] DIRECTORY NAME REPORT")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn file(directory: &Path, name: &str, number: u64) -> PathBuf {
    directory.join(format!("{name}-{number:06}"))
}

fn content(name: &str, number: u64) -> String {
    format!("{name} {number:06}\n").repeat(LINES)
}

fn load(directory: &Path, name: &str, report: &Path) -> io::Result<()> {
    let parent = File::open(directory)?;
    let mut reports = OpenOptions::new().create(true).append(true).open(report)?;
    for number in 1.. {
        let path = file(directory, name, number);
        let mut new = File::create(&path)?;
        new.write_all(content(name, number).as_bytes())?;
        new.sync_all()?;
        parent.sync_all()?;
        writeln!(reports, "{number}")?;
        if number > KEPT {
            fs::remove_file(file(directory, name, number - KEPT))?;
        }
    }
    Ok(())
}

/// The file after the last reported one may be there or not, and whole or not.
fn check(directory: &Path, name: &str, report: &Path) -> io::Result<()> {
    let reported = fs::read_to_string(report)?;
    let last: u64 = reported.lines().filter_map(|line| line.parse().ok()).max().unwrap_or(0);
    // One file may have been removed ahead of its number's report.
    let first = last.saturating_sub(KEPT).saturating_add(2).max(1);
    if last == 0 {
        return Err(io::Error::other("nothing was reported"));
    }
    for number in first..=last {
        let path = file(directory, name, number);
        let found = fs::read_to_string(&path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        if found != content(name, number) {
            let path = path.display();
            return Err(io::Error::other(format!("{path} is not what was written")));
        }
    }
    println!("{last} reported, {first} to {last} are whole");
    Ok(())
}
