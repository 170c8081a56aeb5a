//! What happened, readable, if somebody wants it.

use crate::time::Micros;

/// The lines of a run, or nothing at all: making them costs more than the run.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

/// Nobody reads more.
const LINES_MAX: usize = 1_000_000;

impl Trace {
    /// One that keeps lines, or not.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(Vec::new) }
    }

    /// Whether anybody wants it.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line.
    pub fn say(&mut self, at: Micros, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() < LINES_MAX {
                lines.push(format!("{at:>10} {}", line()));
            }
        }
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
