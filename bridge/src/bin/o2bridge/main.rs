//! `o2bridge`: the operator's command. It asks `o2bridged` over the new door and prints the answer;
//! all it knows of the protocol is in the client library.
#![forbid(unsafe_code)]

mod cli;
mod show;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use o2bridge::client::{Begin, Begun, Client, ClientError, GroupId, NodeId};
use o2bridge::machine::Machine;
use o2bridge::status::Group;
use serde::Serialize;

use cli::{Cli, Color, Command, Format, Service};
use table::Paint;

/// How the command ends; the help text says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Failed = 1,
    NotRunning = 3,
    TimedOut = 4,
    NotPermitted = 5,
}

/// Why it does not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("nobody on this node uses the group {0}")]
    NoGroup(GroupId),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    fn exit(&self) -> Exit {
        let Self::Client(error) = self else { return Exit::Failed };
        match error {
            ClientError::NotRunning { .. } | ClientError::Lost { .. } => Exit::NotRunning,
            ClientError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NotPermitted
            }
            ClientError::TimedOut { .. } => Exit::TimedOut,
            ClientError::Refused(refused) => match refused.code.as_str() {
                "TimedOut" => Exit::TimedOut,
                "PermissionDenied" => Exit::NotPermitted,
                _ => Exit::Failed,
            },
            ClientError::Unreachable { .. } | ClientError::Strange { .. } | ClientError::Dead => {
                Exit::Failed
            }
        }
    }

    /// Where the reason is that a refusal has no room for.
    fn whole_reason(&self) -> Option<String> {
        let Self::Client(ClientError::Refused(refused)) = self else { return None };
        let error = io::Error::from_raw_os_error(refused.errno);
        (refused.code == "Failed").then(|| {
            format!(
                "{error}; the whole reason is in 'journalctl -u o2bridged' and 'o2bridge status'"
            )
        })
    }

    /// Whether the daemon may still go on with the call.
    fn leaves_something(&self) -> bool {
        matches!(self, Self::Client(ClientError::TimedOut { .. } | ClientError::Lost { .. }))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let hint = hint(&cli.command);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("o2bridge: {failure}");
            if let Some(reason) = failure.whole_reason() {
                eprintln!("{reason}");
            }
            if let Some(hint) = hint.filter(|_| failure.leaves_something()) {
                eprintln!("{hint}");
            }
            ExitCode::from(failure.exit() as u8)
        }
    }
}

/// What a call that got no answer may leave behind.
fn hint(command: &Command) -> Option<String> {
    match command {
        Command::Begin { service: Service { group, service }, .. } => {
            Some(format!("'o2bridge leave {group} {service}' takes it back"))
        }
        Command::Leave { .. }
        | Command::Complete { .. }
        | Command::List { .. }
        | Command::Status { .. }
        | Command::Members { .. }
        | Command::Dump
        | Command::FenceAck { .. }
        | Command::LogLevel { .. } => None,
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let paint = Paint(match cli.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
        }
    });
    if let Command::Status { format, kernel: true, .. } = &cli.command {
        return print(format.format, &Machine::here(), |machine| show::machine(paint, machine));
    }
    let mut client = Client::connect(&cli.socket)?;
    client.set_timeout(cli.timeout);
    match cli.command {
        Command::Begin { service, cluster, device } => begin(client, service, cluster, device),
        Command::Complete { service: Service { group, service }, code } => {
            client.complete(group, &service, code)?;
            Ok(())
        }
        Command::Leave { service: Service { group, service } } => {
            client.leave(group, &service)?;
            Ok(())
        }
        Command::List { format } => {
            let uses = client.list()?;
            print(format.format, &uses, |uses| show::list(paint, uses))
        }
        Command::Status { format, watch: true, .. } => watch(client, format.format, paint),
        Command::Status { format, watch: false, .. } => {
            let status = client.status()?;
            print(format.format, &status, |status| show::status(paint, status))
        }
        Command::Members { group, format } => {
            let groups = members(client, group)?;
            print(format.format, &groups, |groups| show::members(paint, groups))
        }
        Command::Dump => write(client.dump()?.as_bytes()),
        Command::FenceAck { node } => {
            client.fence_ack(NodeId(node))?;
            Ok(())
        }
        Command::LogLevel { level } => {
            client.set_log_level(level)?;
            Ok(())
        }
    }
}

fn begin(
    mut client: Client,
    Service { group, service }: Service,
    cluster: Option<String>,
    device: Option<String>,
) -> Result<(), Failure> {
    let mut begin = Begin::new(group, &service);
    if let Some(cluster) = cluster {
        begin = begin.cluster(&cluster);
    }
    if let Some(device) = device {
        begin = begin.device(&device);
    }
    match client.begin(&begin)? {
        Begun::Ready => write(b"ready\n"),
        Begun::Already => write(b"already\n"),
    }
}

fn members(mut client: Client, only: Option<GroupId>) -> Result<Vec<Group>, Failure> {
    let mut groups = client.status()?.groups;
    if let Some(only) = only {
        let name = only.to_string();
        groups.retain(|group| group.group == name);
        if groups.is_empty() {
            return Err(Failure::NoGroup(only));
        }
    }
    Ok(groups)
}

/// Prints the status after each change, over the last one on a terminal.
fn watch(client: Client, format: Format, paint: Paint) -> Result<(), Failure> {
    let between = if io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "\n" };
    let mut is_first = !io::stdout().is_terminal();
    for status in client.watch()? {
        let status = status?;
        match format {
            Format::Json => write(format!("{}\n", serde_json::to_string(&status)?).as_bytes())?,
            Format::Text => {
                let before = if is_first { "" } else { between };
                write(format!("{before}{}", show::status(paint, &status)).as_bytes())?;
            }
        }
        is_first = false;
    }
    Ok(())
}

fn print<T: Serialize>(
    format: Format,
    what: &T,
    show: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Text => write(show(what).as_bytes()),
        Format::Json => write(format!("{}\n", serde_json::to_string_pretty(what)?).as_bytes()),
    }
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use o2bridge::client::Refused;

    use super::*;

    #[test]
    fn what_failed_in_the_daemon_is_in_its_log() {
        let refused = |code: &str| {
            let message = "attach failed: errno 111".to_owned();
            Failure::from(ClientError::from(Refused { code: code.into(), errno: 111, message }))
        };
        let reason = refused("Failed").whole_reason().unwrap();
        assert!(reason.starts_with("Connection refused"), "{reason}");
        assert!(reason.contains("journalctl -u o2bridged"), "{reason}");
        assert_eq!(refused("Busy").whole_reason(), None);
    }
}
