//! The keeper's program; see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    o2bridge_keeper::process::run(std::env::args_os(), || ())
}
