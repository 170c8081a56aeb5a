//! Tables for humans.

use std::fmt::Write;

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Uneasy,
    /// Somebody should look.
    Bad,
    /// A heading.
    Head,
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    pub(crate) fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Uneasy => "33",
            Tone::Bad => "1;31",
            Tone::Head => "1",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    tone: Tone,
    text: String,
}

impl Cell {
    pub(crate) fn new(tone: Tone, text: impl ToString) -> Self {
        Self { tone, text: text.to_string() }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Lays out a table; columns are as wide as their widest field, the last one is not padded.
pub(crate) fn table<const N: usize>(
    paint: Paint,
    head: [&str; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
) -> String {
    let mut lines = vec![head.map(|text| Cell::new(Tone::Head, text))];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().map(|line| line[column].text.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            let painted = paint.text(cell.tone, &cell.text);
            let is_last = column + 1 == N;
            let padding = if is_last { 0 } else { widths[column] - cell.text.chars().count() + 2 };
            // Writing to a string cannot fail.
            let _ = write!(text, "{painted}{:padding$}", "");
        }
        text.push('\n');
    }
    text
}
