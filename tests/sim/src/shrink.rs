//! Cuts a failing schedule down: whatever can be left out without losing the failure is left out, in
//! ever smaller pieces; the cluster is made smaller, and the time between two steps shorter.

use crate::options::Options;
use crate::run::run;
use crate::step::Timed;

/// More runs than this are not worth the wait.
const RUNS_MAX: usize = 4_000;

/// Steps that are closer than this are left where they are.
const GAP_US_MIN: u64 = 100_000;

/// What is left of a failure.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The cluster.
    pub options: Options,
    /// What has to happen to it.
    pub schedule: Vec<Timed>,
    /// How many runs that took.
    pub runs: usize,
}

/// Cuts down a schedule that makes this checker speak.
#[must_use]
pub fn shrink(options: &Options, schedule: &[Timed], checker: &str) -> Shrunk {
    let mut shrunk = Shrunk { options: options.clone(), schedule: schedule.to_vec(), runs: 0 };
    shrunk.drop_steps(checker);
    while shrunk.options.nodes > 1 {
        let mut smaller = shrunk.options.clone();
        smaller.nodes -= 1;
        let schedule = shrunk.schedule.clone();
        if names_more(&schedule, smaller.nodes) || !shrunk.try_this(smaller, schedule, checker) {
            break;
        }
    }
    shrunk.drop_steps(checker);
    shrunk.tighten(checker);
    shrunk
}

fn names_more(schedule: &[Timed], nodes: u32) -> bool {
    let name = format!("n{}", nodes + 1);
    schedule.iter().any(|(_, step)| step.to_string().split(' ').any(|word| word == name))
}

impl Shrunk {
    fn try_this(&mut self, options: Options, schedule: Vec<Timed>, checker: &str) -> bool {
        self.runs += 1;
        let fails = run(options.clone(), &schedule, false).result;
        let same = fails.is_err_and(|violation| violation.checker == checker);
        if same {
            (self.options, self.schedule) = (options, schedule);
        }
        same
    }

    /// Halves the time from each step to the next, as often as that loses nothing.
    fn tighten(&mut self, checker: &str) {
        self.schedule.sort_by_key(|(at, _)| *at);
        for index in 1..self.schedule.len() {
            while self.runs < RUNS_MAX {
                let gap_us = self.schedule[index].0.us_since(self.schedule[index - 1].0);
                if gap_us < GAP_US_MIN {
                    break;
                }
                let mut sooner = self.schedule.clone();
                for (at, _) in sooner.iter_mut().skip(index) {
                    *at = at.minus_us(gap_us / 2);
                }
                if !self.try_this(self.options.clone(), sooner, checker) {
                    break;
                }
            }
        }
    }

    fn drop_steps(&mut self, checker: &str) {
        let mut size = self.schedule.len();
        while size > 0 {
            let mut start = 0;
            while start < self.schedule.len() && self.runs < RUNS_MAX {
                let end = (start + size).min(self.schedule.len());
                let mut fewer = self.schedule.clone();
                fewer.drain(start..end);
                if !self.try_this(self.options.clone(), fewer, checker) {
                    start = end;
                }
            }
            size /= 2;
        }
    }
}
