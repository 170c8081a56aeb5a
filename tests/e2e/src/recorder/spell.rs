//! From what the processes printed to the text of a recording: letters for process ids, ordinals for
//! ring ids, one order for all lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use super::{Stage, unlike};
use crate::LabError;
use crate::recording::{Line, Recording, client_name};

/// The numbers of this run, and their names.
struct Names {
    /// `3:17` -> `3a`.
    clients: BTreeMap<String, String>,
    /// In the order in which they were told of.
    rings: Vec<String>,
}

impl Stage {
    /// The recording of all that happened so far.
    pub(super) fn spell(&self, script: &Recording) -> Result<String, LabError> {
        let clients = self.clients.iter();
        let numbers = clients
            .map(|(client, on)| (format!("{}:{}", client.node, on.pid.0), client_name(*client)));
        let mut names = Names { clients: numbers.collect(), rings: Vec::new() };
        let entries = self.entries()?;
        let start_us = entries.first().map_or(0, |entry| entry.0);
        let mut body = String::new();
        for (at_us, text) in entries {
            let text: Result<Vec<_>, _> = text.split(' ').map(|word| names.spell(word)).collect();
            let _ = writeln!(body, "{} @{}", text?.join(" "), (at_us - start_us) / 1000);
        }
        let mut text: String = script.about.iter().map(|line| format!("# {line}\n")).collect();
        let version = corosync_version()?;
        let _ = write!(text, "corosync {version}\ntransport udpu\nnodes {}\n", script.nodes);
        text.extend(script.wants.iter().map(|want| format!("want {want}\n")));
        text.extend(script.script.iter().map(|parts| script_line(parts)));
        let rings = names.rings.iter().enumerate();
        text.extend(rings.map(|(index, ring)| format!("ring r{} = {ring}\n", index + 1)));
        text = format!("{text}\n{body}");
        match text.parse::<Recording>() {
            Ok(_) => Ok(text),
            Err(error) => Err(unlike(format!("what was recorded cannot be read: {error}\n{text}"))),
        }
    }

    /// Everything that was done and told, by the clock; each process's words in their order.
    fn entries(&self) -> Result<Vec<(u128, String)>, LabError> {
        let mut entries = self.deeds.clone();
        for (client, on) in &self.clients {
            let name = client_name(*client);
            let mut latest_us = 0;
            for line in on.proc.stdout().lines() {
                let parts = line.split_once(' ');
                let parts = parts.and_then(|(at, text)| Some((at.parse::<u128>().ok()?, text)));
                let Some((at_us, text)) = parts else {
                    return Err(unlike(format!("client {name} said '{line}'")));
                };
                latest_us = at_us.max(latest_us);
                let is_step = text.starts_with("step ");
                let text = if is_step { text.to_owned() } else { format!("{name} {text}") };
                entries.push((latest_us, text));
            }
        }
        entries.sort_by_key(|(at_us, _)| *at_us);
        Ok(entries)
    }
}

impl Names {
    fn spell(&mut self, word: &str) -> Result<String, LabError> {
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        let name = if bare.contains(':') {
            let name = self.clients.get(bare).cloned();
            name.ok_or_else(|| unlike(format!("corosync told of process {bare}, not one of ours")))?
        } else if bare.contains('.') {
            let known = self.rings.iter().position(|ring| ring == bare);
            let index = known.unwrap_or_else(|| {
                self.rings.push(bare.to_owned());
                self.rings.len() - 1
            });
            format!("r{}", index + 1)
        } else {
            return Ok(word.to_owned());
        };
        Ok(word.replace(bare, &name))
    }
}

fn script_line(parts: &[Line]) -> String {
    let spell = |part: &Line| match part {
        Line::Step(step) => step.to_string(),
        Line::Wait { ms } => format!("wait {ms}"),
        Line::Quiet => "quiet".to_owned(),
        // These are in no script.
        Line::Told(_) | Line::Done { .. } => String::new(),
    };
    format!("script {}\n", parts.iter().map(spell).collect::<Vec<_>>().join("; "))
}

fn corosync_version() -> Result<String, LabError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("corosync");
    command.arg("-v").env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let io = |source| LabError::Io { path: "corosync -v".to_owned(), source };
    let output = command.output().map_err(io)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split('\'').nth(1).map(str::to_owned);
    version.ok_or_else(|| unlike(format!("corosync -v said '{text}'")))
}
