//! A cluster and what happens to it, as a text that a person can write and a failure is printed as.
//!
//! ```text
//! # why this is here
//! nodes 3
//! groups 1
//! policy agent
//! shim user-heartbeat
//! seed 7
//! 2000 n1 mount A held
//! 3000 n1 power off
//! expect journals-replayed 1
//! ```
//! Whatever is not said is as in [`Options::quiet`]. `expect LABEL N` is about what the run counted, with
//! dashes for spaces; `expect LABEL N-M` and `expect LABEL N+` are ranges.

use std::fmt;

use crate::corosync::Votes;
use crate::options::{Faults, Options, Policy, ShimKind};
use crate::run::{Run, run};
use crate::step::{Step, Timed};
use crate::time::Micros;

/// A scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The cluster.
    pub options: Options,
    /// What happens to it.
    pub schedule: Vec<Timed>,
    /// What has to be counted, at least and at most.
    pub expected: Vec<(String, u64, u64)>,
}

/// A text that is no scenario: the line, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadScenario {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

impl std::error::Error for BadScenario {}

impl Scenario {
    /// Reads one.
    ///
    /// # Errors
    /// The first line that says nothing.
    pub fn parse(text: &str) -> Result<Self, BadScenario> {
        let options = Options::quiet(3, 1, Policy::Agent, ShimKind::Record);
        let mut scenario = Self { options, schedule: Vec::new(), expected: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                let bad = |text| BadScenario { line: index + 1, text };
                scenario.read(line).map_err(bad)?;
            }
        }
        Ok(scenario)
    }

    fn read(&mut self, line: &str) -> Result<(), String> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(at) = millis(first) {
            let step: Step = rest.parse().map_err(|bad| format!("{bad}"))?;
            self.schedule.push((at, step));
            return Ok(());
        }
        let options = &mut self.options;
        match first {
            "nodes" => options.nodes = number(rest)?,
            "groups" => options.groups = number(rest)?,
            "seed" => options.seed = number(rest)?,
            "policy" => options.policy = named(POLICIES, rest)?,
            "shim" => options.shim = named(SHIMS, rest)?,
            "grace_ms" => options.grace_ms = number(rest)?,
            "inquorate_reset_ms" => options.inquorate_reset_ms = number(rest)?,
            "daemon_back_ms" => options.daemon_back_ms = number(rest)?,
            "detect_ms" => options.detect_ms = number(rest)?,
            "lag_us" => options.lag_us = number(rest)?,
            "restarts" => options.restarts = number::<u8>(rest)? != 0,
            "lasting" => options.lasting = number(rest)?,
            "foreign" => options.foreign = number(rest)?,
            "upgrades" => options.upgrades = number::<u8>(rest)? != 0,
            "watchdog" => options.watchdog = number::<u8>(rest)? != 0,
            "votes" => options.votes = named(VOTES, rest)?,
            "mixed" => options.mixed = number::<u8>(rest)? != 0,
            "lies" => options.faults.lies = number::<u8>(rest)? != 0,
            "flaky_mounts" => options.faults.tools = number::<u8>(rest)? != 0,
            "flaky_joins" => options.faults.corosync = number::<u8>(rest)? != 0,
            "expect" => self.expected.push(expectation(rest)?),
            other => return Err(format!("'{other}' is neither a time nor an option")),
        }
        Ok(())
    }

    /// Runs it, and says what is wrong: a violation, or a count that is not as expected.
    pub fn run(&self, trace: bool) -> (Run, Result<(), String>) {
        let run = run(self.options.clone(), &self.schedule, trace);
        let result = self.judge(&run);
        (run, result)
    }

    fn judge(&self, run: &Run) -> Result<(), String> {
        if let Err(violation) = &run.result {
            return Err(violation.to_string());
        }
        let counts = run.world.at_rest.as_ref().unwrap_or(&run.world.counts).list();
        for (label, least, most) in &self.expected {
            let is_it = |(name, _): &&(&str, u64)| name.replace(' ', "-") == *label;
            let Some((_, count)) = counts.iter().find(is_it) else {
                return Err(format!("nothing counts '{label}'"));
            };
            if count < least || count > most {
                return Err(format!("{label} is {count}, not {least} to {most}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = &self.options;
        let flag = |on: bool| u8::from(on);
        writeln!(f, "nodes {}\ngroups {}\nseed {}", it.nodes, it.groups, it.seed)?;
        writeln!(f, "policy {}\nshim {}", word(POLICIES, &it.policy), word(SHIMS, &it.shim))?;
        writeln!(f, "grace_ms {}\ndaemon_back_ms {}", it.grace_ms, it.daemon_back_ms)?;
        writeln!(f, "inquorate_reset_ms {}", it.inquorate_reset_ms)?;
        writeln!(f, "detect_ms {}\nlag_us {}", it.detect_ms, it.lag_us)?;
        writeln!(f, "restarts {}\nlasting {}", flag(it.restarts), it.lasting)?;
        writeln!(f, "foreign {}\nupgrades {}", it.foreign, flag(it.upgrades))?;
        writeln!(f, "mixed {}", flag(it.mixed))?;
        writeln!(f, "watchdog {}\nvotes {}", flag(it.watchdog), word(VOTES, &it.votes))?;
        writeln!(f, "lies {}\nflaky_joins {}", flag(it.faults.lies), flag(it.faults.corosync))?;
        writeln!(f, "flaky_mounts {}", flag(it.faults.tools))?;
        self.schedule.iter().try_for_each(|(at, step)| writeln!(f, "{at} {step}"))
    }
}

impl Scenario {
    /// What a failure is printed as.
    #[must_use]
    pub fn of(options: &Options, schedule: &[Timed]) -> Self {
        // What the faults were only decided which steps there would be; but these act by themselves.
        let faults = Faults {
            lies: options.faults.lies,
            corosync: options.faults.corosync,
            tools: options.faults.tools,
            ..Faults::default()
        };
        let options = Options { faults, steps: 0, gap_ms: 0, ..options.clone() };
        Self { options, schedule: schedule.to_vec(), expected: Vec::new() }
    }
}

const POLICIES: &[(&str, Policy)] =
    &[("none", Policy::None), ("ack", Policy::Ack), ("agent", Policy::Agent)];
const VOTES: &[(&str, Votes)] = &[
    ("most", Votes::Most),
    ("two-node", Votes::TwoNode),
    ("each-of-two", Votes::EachOfTwo),
    ("device", Votes::Device),
];
const SHIMS: &[(&str, ShimKind)] = &[
    ("record", ShimKind::Record),
    ("user-heartbeat", ShimKind::UserHeartbeat),
    ("control", ShimKind::Control),
    ("fsdlm", ShimKind::FsDlm),
];

fn word<T: PartialEq>(of: &[(&'static str, T)], value: &T) -> &'static str {
    of.iter().find(|(_, it)| it == value).map_or("?", |(word, _)| *word)
}

fn named<T: Copy>(of: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = of.iter().find(|(it, _)| *it == name).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = of.iter().map(|(it, _)| *it).collect();
        format!("'{name}' is none of {}", names.join(", "))
    })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("'{text}' is no number"))
}

/// Reads `1200` or `1200.345`.
fn millis(text: &str) -> Option<Micros> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = if part.is_empty() { 0 } else { format!("{part:0<3}").parse().ok()? };
    Some(Micros(whole * 1_000 + part))
}

fn expectation(text: &str) -> Result<(String, u64, u64), String> {
    let (label, range) = text.rsplit_once(' ').ok_or("what is expected of what?")?;
    let (least, most) = match range.split_once('-') {
        Some((least, most)) => (number(least)?, number(most)?),
        None => match range.strip_suffix('+') {
            Some(least) => (number(least)?, u64::MAX),
            None => (number(range)?, number(range)?),
        },
    };
    Ok((label.trim().to_owned(), least, most))
}
