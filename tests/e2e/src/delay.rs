//! How long after the first word of corosync the shim of a survivor hears of a death.

use std::process::Command;
use std::time::{Duration, Instant};

use o2bridge::client::GroupId;

use crate::{Lab, LabError, Record, Verb};

const STEP_LIMIT: Duration = Duration::from_secs(60);
const SERVICE: &str = "/srv/shared";
/// The group of the witnesses. It sorts before those that are measured, and corosync tells the groups
/// in that order: so this is the earliest that any client could know of a death.
const GROUP: &str = "A";

/// Milliseconds from the first confchg readable on node 1 to the lines of its record shim, over all
/// groups.
#[derive(Debug, Clone, Copy)]
pub struct Delay {
    /// The first and the last suspend.
    pub suspend_ms: (f64, f64),
    /// The first and the last node_down.
    pub node_down_ms: (f64, f64),
    /// The last resume.
    pub resume_last_ms: f64,
}

impl Delay {
    /// The titles of [`Self::row`].
    pub const TITLES: &str =
        "groups   suspend first   last   node_down first   last   resume last   [ms]";

    /// Three nodes use so many groups, and node 3 loses its power; the fencing policy is `none`, so
    /// this is the bridge's own time. Gives the lab as it is then, and the groups.
    ///
    /// # Errors
    /// A step failed or took too long.
    pub fn measure(groups: u32) -> Result<(Lab, Vec<String>, Self), LabError> {
        let lab = Lab::builder().nodes(3).start()?;
        let witness = Command::new(lab.program("witness")?);
        let mut on_1 = lab.cluster().node(1).spawn("witness", &witness)?;
        let mut on_3 = lab.cluster().node(3).spawn("witness", &witness)?;
        for (name, proc) in [("1a", &mut on_1), ("3a", &mut on_3)] {
            let path = format!("standard input of witness {name}");
            let written = proc.write_line(&format!("{name} join {GROUP}"));
            written.map_err(|source| LabError::Io { path, source })?;
            proc.wait_line(" JOIN]", STEP_LIMIT)?;
        }
        on_1.wait_line("joined [3:", STEP_LIMIT)?;
        let names = (1..=groups).map(|group| GroupId(u128::from(group) << 96).to_string());
        let names: Vec<String> = names.collect();
        for node in [1, 2, 3] {
            names.iter().try_for_each(|group| lab.mount(node, group, SERVICE))?;
        }
        let before = lab.records(1)?.len();
        lab.cluster().node(3).crash();
        let line = on_1.wait_line("NODEDOWN", STEP_LIMIT)?;
        let confchg_us = line.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let told = lab.records(1)?.split_off(before);
            let is_resume = |record: &&Record| record.verb == Verb::Resume(vec![1, 2]);
            let resumed = told.iter().filter(is_resume).count();
            if resumed >= names.len() {
                return Ok((lab, names, Self::new(&told, confchg_us)));
            }
            if Instant::now() >= deadline {
                return Err(LabError::Record(format!("only {resumed} of {groups} groups resumed")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn new(told: &[Record], confchg_us: i64) -> Self {
        let range = |is: fn(&Verb) -> bool| {
            let times = told.iter().filter(|record| is(&record.verb)).map(|record| record.at_us);
            let ms =
                |at_us: i64| Duration::from_micros(at_us.abs_diff(confchg_us)).as_secs_f64() * 1e3;
            let (first, last) = (times.clone().min(), times.max());
            (first.map_or(f64::NAN, ms), last.map_or(f64::NAN, ms))
        };
        Self {
            suspend_ms: range(|verb| *verb == Verb::Suspend),
            node_down_ms: range(|verb| matches!(verb, Verb::NodeDown(_))),
            resume_last_ms: range(|verb| matches!(verb, Verb::Resume(_))).1,
        }
    }

    /// One line of a table.
    #[must_use]
    pub fn row(&self, groups: u32) -> String {
        format!(
            "{groups:6} {:15.2} {:6.2} {:17.2} {:6.2} {:13.2}",
            self.suspend_ms.0,
            self.suspend_ms.1,
            self.node_down_ms.0,
            self.node_down_ms.1,
            self.resume_last_ms
        )
    }
}
