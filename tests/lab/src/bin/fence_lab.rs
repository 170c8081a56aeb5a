//! Fence agent of the lab: runs in a guest and has another guest's power cut from outside.
//!
//! The convention of fence-agents: `key=value` lines on standard input, or `--key=value` arguments.
//! Keys: `action` (off, reboot, status, monitor, metadata; default reboot), `plug` or `nodename` (the
//! victim's name or number), others are ignored. Exit status 0: done, the guest is off.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use o2bridge_lab::wire::SOCKET;

const METADATA: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Fence agent of the o2bridge lab">
<parameters>
<parameter name="action"><content type="string" default="reboot"/></parameter>
<parameter name="plug"><content type="string"/></parameter>
</parameters>
<actions>
<action name="off"/><action name="reboot"/><action name="status"/>
<action name="monitor"/><action name="metadata"/>
</actions>
</resource-agent>
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let lines = if arguments.is_empty() {
        std::io::stdin().lock().lines().map_while(Result::ok).collect()
    } else {
        arguments
    };
    let value = |key: &str| {
        let mut pairs =
            lines.iter().filter_map(|line| line.trim_start_matches('-').split_once('='));
        pairs.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    let action = value("action").unwrap_or_else(|| "reboot".to_owned());
    let node = value("plug").or_else(|| value("nodename")).or_else(|| value("port"));
    match (action.as_str(), node) {
        ("metadata", _) => {
            print!("{METADATA}");
            ExitCode::SUCCESS
        }
        ("monitor" | "list", _) => ExitCode::SUCCESS,
        (_, Some(node)) => ask(&action, &node),
        (_, None) => refuse("no plug given"),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("fence_lab: {why}");
    ExitCode::FAILURE
}

fn ask(action: &str, node: &str) -> ExitCode {
    let answer = UnixStream::connect(SOCKET).and_then(|mut stream| {
        writeln!(stream, "{action} {node}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    });
    match answer.map(|line| line.trim().parse::<u8>()) {
        Ok(Ok(exit)) => ExitCode::from(exit),
        Ok(Err(_)) => refuse("the lab's agent ended without an answer"),
        Err(error) => refuse(&format!("{SOCKET}: {error}")),
    }
}
