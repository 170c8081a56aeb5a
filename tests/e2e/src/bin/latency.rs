//! `make bench`: how long after the first word of corosync the shim of a survivor hears of a death,
//! for one group and for many.

use std::process::ExitCode;

use o2bridge_e2e::Delay;

/// How many deaths are measured for each number of groups.
const DEATHS: usize = 3;

fn main() -> ExitCode {
    println!(
        "From the first confchg readable on node 1 to the lines of its record shim, in ms; node 3 of \
         3 loses its power, policy none, {DEATHS} deaths each.\n"
    );
    println!("{}", Delay::TITLES);
    for groups in [1, 64] {
        for death in 1..=DEATHS {
            match Delay::measure(groups) {
                Ok((_, _, delay)) => println!("{}", delay.row(groups)),
                Err(error) => {
                    eprintln!("bench: {groups} groups, death {death}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}
