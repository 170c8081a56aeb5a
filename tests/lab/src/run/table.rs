//! The result for readers.

use super::{Outcome, Verdict};

/// The table of a run, one line for each scenario and kernel, figures included.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text =
        format!("{:<8} {:<22} {:<8} {:>7}  figures\n", "kernel", "scenario", "result", "time");
    for outcome in outcomes {
        let verdict = match outcome.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "SKIPPED",
        };
        let figures: Vec<String> =
            outcome.figures.iter().map(|f| format!("{} {} ms", f.name, f.ms)).collect();
        let last = outcome.why.clone().unwrap_or_else(|| figures.join(", "));
        let line = format!(
            "{:<8} {:<22} {:<8} {:>5.0} s  {last}",
            outcome.kernel, outcome.scenario, verdict, outcome.seconds
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}
