//! `make bench`: how long after the first word of corosync the shim of a survivor hears of a death,
//! for one group and for many. The fencing policy is `none`, so this is the bridge's own time.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use o2bridge::client::{Begin, GroupId};
use o2bridge_e2e::{Lab, LabError, Record, Verb};
use o2bridge_harness::Proc;

/// How many deaths are measured for each number of groups.
const DEATHS: usize = 3;
const STEP_LIMIT: Duration = Duration::from_secs(60);
const SERVICE: &str = "/srv/shared";

fn main() -> ExitCode {
    println!(
        "From the first confchg readable on node 1 to the lines of its record shim, in ms; node 3 of \
         3 loses its power, policy none, {DEATHS} deaths each.\n"
    );
    println!("groups  death   suspend first   last   node_down first   last   resume last");
    for groups in [1, 64] {
        for death in 1..=DEATHS {
            match measure(groups) {
                Ok(sample) => println!("{groups:6} {death:6}   {}", sample.row()),
                Err(error) => {
                    eprintln!("bench: {groups} groups, death {death}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

/// Milliseconds after the first readable confchg.
struct Sample {
    suspend: (f64, f64),
    node_down: (f64, f64),
    resume_last: f64,
}

impl Sample {
    fn new(told: &[Record], confchg_us: i64) -> Self {
        let range = |is: fn(&Verb) -> bool| {
            let times = told.iter().filter(|record| is(&record.verb)).map(|record| record.at_us);
            let ms =
                |at_us: i64| Duration::from_micros(at_us.abs_diff(confchg_us)).as_secs_f64() * 1e3;
            let (first, last) = (times.clone().min(), times.max());
            (first.map_or(f64::NAN, ms), last.map_or(f64::NAN, ms))
        };
        Self {
            suspend: range(|verb| *verb == Verb::Suspend),
            node_down: range(|verb| matches!(verb, Verb::NodeDown(_))),
            resume_last: range(|verb| matches!(verb, Verb::Resume(_))).1,
        }
    }

    fn row(&self) -> String {
        format!(
            "{:13.2} {:6.2} {:17.2} {:6.2} {:13.2}",
            self.suspend.0, self.suspend.1, self.node_down.0, self.node_down.1, self.resume_last
        )
    }
}

fn measure(groups: u32) -> Result<Sample, LabError> {
    let lab = Lab::builder().nodes(3).start()?;
    let mut witnesses = [witness(&lab, 1)?, witness(&lab, 3)?];
    witnesses[0].wait_line("members 2", STEP_LIMIT)?;
    for node in [1, 2, 3] {
        for group in 1..=groups {
            mount(&lab, node, group)?;
        }
    }
    let before = lab.records(1)?.len();
    lab.cluster().node(3).crash();
    let line = witnesses[0].wait_line("left ", STEP_LIMIT)?;
    let confchg_us = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let rest = Verb::Resume(vec![1, 2]);
    let deadline = Instant::now() + STEP_LIMIT;
    loop {
        let told = lab.records(1)?.split_off(before);
        let resumed = told.iter().filter(|record| record.verb == rest).count();
        if u32::try_from(resumed).is_ok_and(|resumed| resumed >= groups) {
            return Ok(Sample::new(&told, confchg_us));
        }
        if Instant::now() >= deadline {
            return Err(LabError::Record(format!("only {resumed} of {groups} groups resumed")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn witness(lab: &Lab, node: u32) -> Result<Proc, LabError> {
    let own = std::env::current_exe()
        .map_err(|source| LabError::Io { path: "current_exe".to_owned(), source })?;
    let command = Command::new(own.with_file_name("witness"));
    Ok(lab.cluster().node(node).spawn("witness", &command)?)
}

fn mount(lab: &Lab, node: u32, group: u32) -> Result<(), LabError> {
    let group = GroupId(u128::from(group) << 96);
    let failed = |source| LabError::Client { node, source };
    let mut client = lab.client(node)?;
    client.begin(&Begin::new(group, SERVICE)).map_err(failed)?;
    client.complete(group, SERVICE, 0).map_err(failed)
}
