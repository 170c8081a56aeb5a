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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Figure;

    #[test]
    fn one_line_each_with_figures_or_the_reason() {
        let mut outcome = Outcome {
            kernel: "6.1".into(),
            release: "6.1.0".into(),
            scenario: "classic".into(),
            verdict: Verdict::Passed,
            why: None,
            seconds: 113.6,
            figures: vec![Figure { name: "kill to first access".into(), ms: 69_161 }],
        };
        let text = table(&[outcome.clone()]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("6.1 ") && line.contains(" passed "), "{line}");
        assert!(line.ends_with("114 s  kill to first access 69161 ms"), "{line}");
        outcome.verdict = Verdict::Failed;
        outcome.why = Some("n1 is gone".into());
        assert!(table(&[outcome]).contains("FAILED     114 s  n1 is gone\n"));
    }
}
