//! From a file to settings, or to sentences that say what to change.

use std::path::{Path, PathBuf};

use super::Settings;

/// Where the configuration is without `--config`.
pub const DEFAULT_PATH: &str = "/etc/o2bridge/o2bridge.toml";

/// How unlike the nearest known key a misspelt one may be (0 nothing alike, 1 the same).
const LIKENESS_MIN: f64 = 0.75;

/// The configuration cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is not TOML, or holds a key or value that is not known here.
    #[error("{}, {message}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// Its values do not fit together.
    #[error("{}: {}", path.display(), problems.join("\n  "))]
    Problems {
        /// Which.
        path: PathBuf,
        /// One sentence each.
        problems: Vec<String>,
    },
}

/// Reads the file. Without a path it is [`DEFAULT_PATH`], which may be missing: all defaults.
///
/// # Errors
/// The file cannot be read or used.
pub fn load(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let file = path.unwrap_or(Path::new(DEFAULT_PATH));
    match std::fs::read_to_string(file) {
        Ok(text) => parse(file, &text),
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Settings::default())
        }
        Err(source) => Err(ConfigError::Read { path: file.into(), source }),
    }
}

/// Reads a text; the path is for the errors.
///
/// # Errors
/// The text cannot be used.
pub fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    let settings: Settings = toml::from_str(text).map_err(|error| ConfigError::Parse {
        path: path.into(),
        message: explain(text, &error),
    })?;
    let mut problems = settings.fencing.problems();
    if let Err(error) = o2bridge_shim::check_kind(&settings.shim.kind) {
        problems.push(format!("shim.kind: {error}"));
    }
    problems.extend(settings.o2cb.problems());
    problems.extend(settings.user_heartbeat.problems());
    problems.extend(settings.keeper.problems());
    if settings.record.path.as_ref().is_some_and(|path| !path.is_absolute()) {
        problems.push("record.path: needs its full path".into());
    }
    if !settings.paths.run_dir.is_absolute() {
        problems.push("paths.run_dir: needs its full path".into());
    }
    if problems.is_empty() {
        return Ok(settings);
    }
    Err(ConfigError::Problems { path: path.into(), problems })
}

fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    let key = error.span().and_then(|span| key_of_line(text, span.start)).unwrap_or_default();
    let message = error.message();
    format!("line {line}: {key}{message}{}", did_you_mean(message).unwrap_or_default())
}

/// The key that a value belongs to, so that "out of range" says of what.
fn key_of_line(text: &str, at: usize) -> Option<String> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let (key, _) = text[start..at].split_once('=')?;
    Some(format!("{}: ", key.trim()))
}

/// The nearest of the names that the message lists (serde puts each of them into backticks, the
/// unknown one first).
fn did_you_mean(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let likeness = |name: &&str| strsim::jaro_winkler(unknown, name);
    let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) >= LIKENESS_MIN).then(|| format!("; did you mean `{nearest}`?"))
}
