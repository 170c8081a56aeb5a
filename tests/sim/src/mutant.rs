//! Mutants: the core with one thing in it made wrong, which the checkers must notice.
//!
//! A mutant is a file for a person to read. Its head says `name` (that of the file), `why` (the disaster
//! that it would be), `caught_by` (the checkers of which one has to see it, `a or b`) and `seeds_max` (so many
//! seeds, from 0, have to be enough); a line that is indented goes on with the one before. Then come the changes,
//! each of whole lines that stand in the source exactly once, so that no mutant can rot unnoticed:
//!
//! ```text
//! name: quorum-not-asked
//! why: A node that is cut off buries all others.
//! caught_by: gate
//! seeds_max: 20
//!
//! file: bridge/core/src/node.rs
//! --- find
//!         self.is_consistent() && self.is_quorate()
//! --- replace
//!         self.is_consistent()
//! --- end
//! ```

use std::path::{Path, PathBuf};

/// A change of one source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file, from the root of the repository.
    pub file: String,
    /// Whole lines that stand in it once.
    pub find: String,
    /// What takes their place.
    pub replace: String,
}

/// A core with a mistake in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// What it is called.
    pub name: String,
    /// Why it would be a disaster.
    pub why: String,
    /// The checkers of which one must catch it.
    pub caught_by: Vec<String>,
    /// How many seeds must be enough for that.
    pub seeds_max: u64,
    /// What is different in it.
    pub changes: Vec<Change>,
}

/// What the lines of a file are about.
enum Part {
    Head,
    Find,
    Replace,
}

impl Mutant {
    /// Reads all mutants of a folder, in the order of their names.
    ///
    /// # Errors
    /// Which file cannot be read or understood, and why.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, String> {
        let entries =
            std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|it| it == "mutant")).collect();
        paths.sort_unstable();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let mutant = text.and_then(|text| Self::parse(&text));
        let stem = path.file_stem().map(|it| it.to_string_lossy().into_owned());
        mutant
            .and_then(|it| match Some(&it.name) == stem.as_ref() {
                true => Ok(it),
                false => Err(format!("it calls itself '{}'", it.name)),
            })
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// The line that cannot be understood, or what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut mutant = Self {
            name: String::new(),
            why: String::new(),
            caught_by: vec![],
            seeds_max: 0,
            changes: vec![],
        };
        let mut part = Part::Head;
        for (index, line) in text.lines().enumerate() {
            let understood = match (part, line) {
                (Part::Head, "--- find") => Ok(Part::Find),
                (Part::Find, "--- replace") => Ok(Part::Replace),
                (Part::Replace, "--- end") => Ok(Part::Head),
                (Part::Head, line) => mutant.read_head(line).map(|()| Part::Head),
                (Part::Find, line) => mutant.add(line, |it| &mut it.find).map(|()| Part::Find),
                (Part::Replace, line) => {
                    mutant.add(line, |it| &mut it.replace).map(|()| Part::Replace)
                }
            };
            part = understood.map_err(|error| format!("line {}: {error}", index + 1))?;
        }
        match part {
            Part::Head => mutant.whole(),
            Part::Find | Part::Replace => Err("'--- end' is missing".to_owned()),
        }
    }

    fn read_head(&mut self, line: &str) -> Result<(), String> {
        if let Some(more) = line.strip_prefix("  ") {
            self.why = format!("{} {}", self.why, more.trim());
            return Ok(());
        }
        if line.trim().is_empty() {
            return Ok(());
        }
        let (key, value) = line.split_once(": ").ok_or(format!("'{line}' is no 'key: value'"))?;
        match key {
            "name" => self.name = value.to_owned(),
            "why" => self.why = value.to_owned(),
            "caught_by" => self.caught_by = value.split(" or ").map(str::to_owned).collect(),
            "seeds_max" => {
                self.seeds_max = value.parse().map_err(|_| format!("'{value}' is no number"))?;
            }
            "file" => self.changes.push(Change {
                file: value.to_owned(),
                find: String::new(),
                replace: String::new(),
            }),
            _ => return Err(format!("'{key}' is none of name, why, caught_by, seeds_max, file")),
        }
        Ok(())
    }

    /// One more line of the last change.
    fn add(&mut self, line: &str, to: fn(&mut Change) -> &mut String) -> Result<(), String> {
        let change = self.changes.last_mut().ok_or("'file' must come before '--- find'")?;
        let text = to(change);
        text.push_str(line);
        text.push('\n');
        Ok(())
    }

    fn whole(self) -> Result<Self, String> {
        let is_empty = self.changes.iter().any(|it| it.find.is_empty() || it.find == it.replace);
        let is_named = !self.name.is_empty() && !self.why.is_empty();
        if !is_named || self.caught_by.is_empty() || self.seeds_max == 0 {
            return Err("name, why, caught_by or seeds_max is missing".to_owned());
        }
        if self.changes.is_empty() || is_empty {
            return Err("it changes nothing".to_owned());
        }
        Ok(self)
    }
}

impl Change {
    /// The source with this change.
    ///
    /// # Errors
    /// It does not stand there exactly once: the source has changed, and the mutant must follow.
    pub fn apply(&self, source: &str) -> Result<String, String> {
        match source.matches(&self.find).count() {
            1 => Ok(source.replacen(&self.find, &self.replace, 1)),
            count => Err(format!(
                "{}: these lines stand there {count} times, not once; the mutant must follow the \
                 source:\n{}",
                self.file, self.find
            )),
        }
    }
}
