//! What a kernel does around a death, in its own order and with its own clock: probes on the functions
//! that dlm_controld and the control device lead to, and the kernel's messages among them.

use std::time::Duration;

use crate::ensure;
use crate::error::{LabError, Result};
use crate::guest::Guest;
use crate::scenario::moment::Moment;

const TRACING: &str = "/sys/kernel/debug/tracing";

/// dlm_controld stops a lockspace.
pub(in crate::scenario) const STOP: &str = "stop:";
/// OCFS2 hears that a node is dead.
pub(in crate::scenario) const DOWN: &str = "down:";
/// dlm_controld starts a lockspace.
pub(in crate::scenario) const START: &str = "start:";
/// Somebody opens the control device.
pub(in crate::scenario) const OPEN: &str = "open:";
/// OCFS2 replays a journal.
pub(in crate::scenario) const REPLAY: &str = "Begin replay journal";

const PROBES: [(&str, &str); 5] = [
    ("stop", "dlm:dlm_ls_stop"),
    ("start", "dlm:dlm_ls_start"),
    ("down", "ocfs2:ocfs2_do_node_down node=%di:u32"),
    ("open", "ocfs2_stack_user:ocfs2_control_open"),
    ("write", "ocfs2_stack_user:ocfs2_control_write"),
];

/// Begins to trace; the modules must be loaded.
pub(in crate::scenario) fn start(guest: &Guest) -> Result<()> {
    for (name, place) in PROBES {
        guest.ok(&format!("echo 'p:lab/{name} {place}' >>{TRACING}/kprobe_events"))?;
    }
    guest.ok(&format!("echo 1 >{TRACING}/events/lab/enable")).map(drop)?;
    guest.ok(&format!("echo 1 >{TRACING}/events/printk/console/enable"))?;
    mark(guest)
}

/// Ties the trace's clock to the time of day, and begins anew.
pub(in crate::scenario) fn mark(guest: &Guest) -> Result<()> {
    guest.ok(&format!("echo >{TRACING}/trace")).map(drop)?;
    guest.ok(&format!("bash -c 'echo \"lab $EPOCHREALTIME\" >{TRACING}/trace_marker'")).map(drop)
}

/// What was traced since the last [`mark`].
#[derive(Debug)]
pub(in crate::scenario) struct Trace {
    lines: Vec<(Moment, String)>,
}

impl Trace {
    pub(in crate::scenario) fn of(guest: &Guest) -> Result<Self> {
        let text = guest.ok(&format!("cat {TRACING}/trace"))?;
        let trace = Self::parse(&text);
        trace.ok_or_else(|| LabError::Expect(format!("{}: no mark in {text}", guest.name())))
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<(f64, &str)> = text.lines().filter_map(entry).collect();
        let (at, marked) = lines.iter().find_map(|(at, line)| {
            let time: f64 = line.split_once("lab ")?.1.trim().parse().ok()?;
            Some((*at, time))
        })?;
        let moment = |seconds: f64| {
            let since = Duration::try_from_secs_f64(marked + seconds - at).ok()?;
            Some(Moment::in_day(since))
        };
        let lines = lines.iter().filter_map(|(at, line)| Some((moment(*at)?, (*line).to_owned())));
        Some(Self { lines: lines.collect() })
    }

    /// Lines with this word, in order.
    pub(in crate::scenario) fn all(&self, word: &str) -> Vec<&str> {
        self.lines.iter().filter(|(_, line)| line.contains(word)).map(|(_, line)| &**line).collect()
    }

    fn place(&self, word: &str, from: usize) -> Option<usize> {
        let rest = self.lines.get(from..)?;
        rest.iter().position(|(_, line)| line.contains(word)).map(|place| from + place)
    }

    /// The times of these words, which must come one after the other.
    pub(in crate::scenario) fn in_order<const N: usize>(
        &self,
        words: [&str; N],
    ) -> Result<[Moment; N]> {
        let mut from = 0;
        let mut times = Vec::new();
        for word in words {
            let place = self.place(word, from);
            ensure!(place.is_some(), "no '{word}' in this order: {words:?} in {:#?}", self.lines);
            let place = place.unwrap_or_default();
            times.push(self.lines[place].0);
            from = place + 1;
        }
        times.try_into().map_err(|_| LabError::Expect("as many times as words".into()))
    }
}

/// `<task>-<pid> [000] d..1 12.345678: what happened`.
fn entry(line: &str) -> Option<(f64, &str)> {
    let (_, rest) = line.split_once("] ")?;
    let (before, what) = rest.split_once(": ")?;
    Some((before.split_whitespace().last()?.parse().ok()?, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_times_of_day() {
        let text = "# tracer: nop\n\
            bash-1  [000] ....  10.000000: tracing_mark_write: lab 1793491201.500000\n\
            dlm_cont-2 [000] d..1  11.000000: stop: (dlm_ls_stop+0x0/0x1 [dlm])\n\
            o2b-3 [000] d..1  11.250000: down: (ocfs2_do_node_down+0x0/0x1 [ocfs2]) node=2\n\
            k-4 [000] d..1  11.500000: console: [  11.4] ocfs2: Begin replay journal (node 2\n";
        let trace = Trace::parse(text).unwrap();
        let [stop, down, replay] = trace.in_order([STOP, DOWN, REPLAY]).unwrap();
        assert_eq!(down.since(stop), Some(Duration::from_millis(250)));
        assert_eq!(replay.since(down), Some(Duration::from_millis(250)));
        assert_eq!(trace.all(DOWN).len(), 1);
        assert!(trace.in_order([DOWN, STOP]).is_err());
        assert!(Trace::parse("bash-1 [000] .... 1.0: x\n").is_none());
    }
}
