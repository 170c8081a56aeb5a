//! The recent past, debug lines included, in bounded memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is kept at most. A line of 200 bytes makes about 2,600 of them.
const BYTES_MAX: usize = 512 * 1024;

/// Recent lines; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Ring(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Ring {
    pub(super) fn push(&self, line: String) {
        let mut ring = self.lock();
        ring.bytes += line.len();
        ring.lines.push_back(line);
        while ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.len();
        }
    }

    /// All lines, oldest first, each with its newline.
    #[must_use]
    pub fn text(&self) -> String {
        let ring = self.lock();
        let mut text = String::with_capacity(ring.bytes + ring.lines.len());
        for line in &ring.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_go_first() {
        let ring = Ring::default();
        for number in 0..10_000 {
            ring.push(format!("{number:0100}"));
        }
        let text = ring.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), BYTES_MAX / 100);
        assert!(lines[0].ends_with(&format!("{}", 10_000 - lines.len())));
        assert!(lines[lines.len() - 1].ends_with("9999"));
        ring.push("x".repeat(BYTES_MAX + 1));
        assert_eq!(ring.text(), "", "a line beyond the limit is not kept");
    }
}
