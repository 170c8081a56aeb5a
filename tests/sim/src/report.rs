//! What many runs did together, and how one process tells another.

use crate::counts::Counts;
use crate::coverage::Coverage;
use crate::run::Run;
use crate::tables::{MOVES, RARE};

/// The sum of many runs.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many.
    pub runs: u64,
    /// What they did.
    pub counts: Counts,
    /// The moves that they made.
    pub coverage: Coverage,
    /// The seeds that failed, and how.
    pub failures: Vec<(u64, String)>,
}

impl Report {
    /// Adds a run.
    pub fn add(&mut self, seed: u64, run: &Run) {
        self.runs += 1;
        self.counts.add(&run.world.counts);
        self.coverage.add(&run.world.coverage);
        if let Err(violation) = &run.result {
            self.failures.push((seed, violation.to_string()));
        }
    }

    /// Adds what another process found.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        self.counts.add(&other.counts);
        self.coverage.add(&other.coverage);
        self.failures.extend(other.failures.iter().cloned());
    }

    /// For another process: lines of numbers, in an order that both know.
    #[must_use]
    pub fn to_lines(&self) -> String {
        let join =
            |numbers: Vec<u64>| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        let moves: Vec<u64> = crate::coverage::all(MOVES)
            .chain(crate::coverage::all(RARE))
            .map(|it| self.coverage.seen.get(&it).copied().unwrap_or(0))
            .collect();
        let mut text = format!("runs {}\n", self.runs);
        text += &format!("counts {}\nmoves {}\n", join(self.counts.numbers()), join(moves));
        for failure in &self.failures {
            text += &Self::failure_line(failure);
            text += "\n";
        }
        text
    }

    /// One of those lines.
    #[must_use]
    pub fn failure_line((seed, failure): &(u64, String)) -> String {
        format!("failure {seed} {}", failure.replace('\n', " "))
    }

    /// The other way. Lines that are something else are left out.
    pub fn read_line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut numbers = rest.split(' ').map(|it| it.parse().unwrap_or(0));
        match word {
            "runs" => self.runs = numbers.next().unwrap_or(0),
            "counts" => self.counts.set(&mut numbers),
            "moves" => {
                let moves = crate::coverage::all(MOVES).chain(crate::coverage::all(RARE));
                let made = moves.zip(numbers).filter(|(_, count)| *count > 0);
                self.coverage.seen = made.collect();
            }
            "failure" => {
                if let Some((seed, text)) = rest.split_once(' ') {
                    self.failures.push((seed.parse().unwrap_or(0), text.to_owned()));
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.counts.list();
        for row in counts.chunks(4) {
            let cells: Vec<String> =
                row.iter().map(|(label, count)| format!("{label:>16} {count:<10}")).collect();
            writeln!(f, "sim: {}", cells.join(" ").trim_end())?;
        }
        let (made, all) = self.coverage.share();
        let rare: Vec<u64> = crate::coverage::all(RARE)
            .map(|it| self.coverage.seen.get(&it).copied().unwrap_or(0))
            .collect();
        let met = rare.iter().filter(|count| **count > 0).count();
        write!(f, "sim: {made} of {all} moves of the core's tables made")?;
        write!(f, ", and {met} of {} that no run has to make", rare.len())
    }
}
