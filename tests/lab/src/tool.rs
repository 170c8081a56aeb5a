//! Programs of the host.

use std::process::{Command, Stdio};

use crate::error::{LabError, Result};

/// Runs a program to its end and gives back its standard output.
///
/// # Errors
/// It cannot be started or fails; the error holds the last lines of what it said.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| LabError::Setup(format!("{program} cannot be started: {e}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Setup(format!("{program} failed ({}): {}", output.status, last_lines(&said, 3))))
}

/// As [`run`], as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?).into_owned())
}

/// The last lines that are not empty, joined with ` / `.
pub(crate) fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" / ")
}
