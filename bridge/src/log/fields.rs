//! Keys and values of a record as text.

use std::fmt::{self, Write};
use std::time::SystemTime;

use slog::{KV, OwnedKVList, Record};

/// Collects keys and values in the order in which they were written.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<(slog::Key, String)>);

impl slog::Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push((key, value.to_string()));
        Ok(())
    }
}

impl Fields {
    pub(super) fn of(record: &Record<'_>, values: &OwnedKVList) -> Self {
        let mut fields = Self::default();
        // Collecting into memory cannot fail.
        let _ = record.kv().serialize(record, &mut fields);
        let _ = values.serialize(record, &mut fields);
        // slog hands them over last one first.
        fields.0.reverse();
        fields
    }

    /// The message with its keys behind it, on one line.
    pub(super) fn sentence(&self, record: &Record<'_>) -> String {
        let mut text = record.msg().to_string();
        for (key, value) in &self.0 {
            let quote = if value.contains(' ') { "\"" } else { "" };
            // Writing into a String cannot fail.
            let _ = write!(text, " {key}={quote}{value}{quote}");
        }
        text.replace('\n', " | ")
    }
}

/// One line of the ring: seconds of the wall clock, level, sentence.
pub(super) fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let sentence = Fields::of(record, values).sentence(record);
    let level = record.level().as_short_str();
    format!("{}.{:06} {level} {sentence}", time.as_secs(), time.subsec_micros())
}
