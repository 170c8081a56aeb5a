//! A line of the daemon's memory, as `o2bridge dump` prints it.

/// One line: when, how grave, what, and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Wall clock in microseconds.
    pub at_us: i64,
    /// `ERRO`, `WARN`, `INFO` or `DEBG`.
    pub level: String,
    /// What happened, without the keys.
    pub sentence: String,
    /// `key=value` pairs, as they were written.
    pub keys: Vec<(String, String)>,
}

impl Line {
    /// Reads a line; `None` if it is not one of the log.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (stamp, rest) = text.split_once(' ')?;
        let (level, message) = rest.split_once(' ')?;
        let (seconds, micros) = stamp.split_once('.')?;
        if micros.len() != 6 || level.len() != 4 {
            return None;
        }
        let at_us = seconds.parse::<i64>().ok()? * 1_000_000 + micros.parse::<i64>().ok()?;
        let mut words: Vec<&str> = message.split(' ').collect();
        let keys_from = words.iter().position(|word| is_pair(word)).unwrap_or(words.len());
        let keys = words.split_off(keys_from);
        let pair = |word: &&str| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        };
        Some(Self {
            at_us,
            level: level.to_owned(),
            sentence: words.join(" "),
            keys: keys.iter().filter_map(pair).collect(),
        })
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

fn is_pair(word: &str) -> bool {
    word.split_once('=').is_some_and(|(key, _)| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = Line::parse("17.000005 WARN node died; it is told group=AB node=3 state=x");
        let line = line.unwrap();
        assert_eq!((line.at_us, line.level.as_str()), (17_000_005, "WARN"));
        assert_eq!(line.sentence, "node died; it is told");
        assert_eq!(line.value("node"), Some("3"));
        assert_eq!(line.value("group"), Some("AB"));
        assert_eq!(line.value("pid"), None);
    }

    #[test]
    fn other_text_is_no_line() {
        for text in ["", "Snapshot {", "    node: Some(", "o2bridged 0.1.0, now 5 ms"] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
