//! One list of moments from all nodes, and how it is shown.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// Whose moment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// What we did to the nodes.
    Demo,
    /// What a tool on this node asked for.
    Tool(u32),
    /// What the daemon of this node noticed or decided.
    Daemon(u32),
    /// What the fence agent that this node ran did.
    Agent(u32),
    /// What the shim of this node was told.
    Shim(u32),
}

/// What the eye should find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// A chapter begins.
    Title,
    /// Everything else.
    Plain,
    /// A death, or what brings one.
    Death,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Wall clock, microseconds.
    pub(crate) at_us: i64,
    /// Whose.
    pub(crate) who: Who,
    /// How to show it.
    pub(crate) tone: Tone,
    /// What.
    pub(crate) text: String,
}

/// The wall clock that all nodes share, in microseconds.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The moments in their order, times counted from the first.
pub(crate) fn show(moments: &mut [Moment]) -> String {
    moments.sort();
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let start_us = moments.first().map_or(0, |moment| moment.at_us);
    let mut text = String::new();
    for moment in moments {
        let line = line(moment, start_us);
        let code = match (colour, moment.tone) {
            (false, _) | (_, Tone::Plain) => "",
            (true, Tone::Title) => "\x1b[1m",
            (true, Tone::Death) => "\x1b[31m",
        };
        let end = if code.is_empty() { "" } else { "\x1b[0m" };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{code}{line}{end}");
    }
    text
}

fn line(moment: &Moment, start_us: i64) -> String {
    if moment.tone == Tone::Title {
        return format!("\n-- {}", moment.text);
    }
    let since_ms = moment.at_us.saturating_sub(start_us) / 1000;
    let (who, what) = match moment.who {
        Who::Demo => (String::new(), "*"),
        Who::Tool(node) => (format!("node {node}"), "tool"),
        Who::Daemon(node) => (format!("node {node}"), "daemon"),
        Who::Agent(node) => (format!("node {node}"), "agent"),
        Who::Shim(node) => (format!("node {node}"), "shim"),
    };
    format!("{:>4}.{:03} s  {who:<7} {what:<7} {}", since_ms / 1000, since_ms % 1000, moment.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_sorted_and_counted_from_the_first() {
        let moment = |at_us, who, text: &str| Moment {
            at_us,
            who,
            tone: Tone::Plain,
            text: text.to_owned(),
        };
        let mut moments =
            [moment(3_500_999, Who::Shim(2), "node_down 3"), moment(1_000_000, Who::Demo, "go")];
        let expected = "   0.000 s          *       go\n   2.500 s  node 2  shim    node_down 3\n";
        assert_eq!(show(&mut moments), expected);
    }
}
