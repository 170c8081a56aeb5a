//! A tool that speaks to the daemon of its node and can be killed at any step. Usage:
//! `tool old|new GROUP SERVICE`. Commands on standard input: `begin`, `begin-unheld`, `complete`,
//! `leave`. It prints `sent COMMAND` when the daemon can read it, and then `answer ...`. The client
//! library is not used: it cannot say when a call is on its way.

use std::error::Error;
use std::io::{BufRead as _, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use o2bridge::door::{LEGACY_NAME, VARLINK_PATH};
use o2bridge_wire::legacy::MESSAGE_BYTES;
use serde_json::json;

/// The clusters of the lab have this name.
const CLUSTER: &str = "lab";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [door, group, service] = arguments.as_slice() else {
        return Err("usage: tool old|new GROUP SERVICE".into());
    };
    let is_old = door == "old";
    let mut daemon = if is_old {
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(LEGACY_NAME)?)?
    } else {
        UnixStream::connect(VARLINK_PATH)?
    };
    for command in std::io::stdin().lock().lines() {
        let command = command?;
        let call = if is_old {
            old_call(&command, group, service)
        } else {
            new_call(&command, group, service)
        };
        daemon.write_all(&call.ok_or("unknown command")?)?;
        println!("sent {command}");
        let answer = if is_old { old_answer(&mut daemon)? } else { new_answer(&mut daemon)? };
        println!("answer {answer}");
    }
    Ok(())
}

fn old_call(command: &str, group: &str, service: &str) -> Option<Vec<u8>> {
    let text = match command {
        "begin" => format!("MOUNT ocfs2 {group} {CLUSTER} /dev/null {service}"),
        "complete" => format!("MRESULT ocfs2 {group} 0 {service}"),
        "leave" => format!("UNMOUNT ocfs2 {group} {service}"),
        _ => return None,
    };
    let mut message = text.into_bytes();
    message.resize(MESSAGE_BYTES, 0);
    Some(message)
}

fn old_answer(daemon: &mut UnixStream) -> std::io::Result<String> {
    let mut message = [0; MESSAGE_BYTES];
    daemon.read_exact(&mut message)?;
    let text = message.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn new_call(command: &str, group: &str, service: &str) -> Option<Vec<u8>> {
    let who = json!({ "group": group, "service": service });
    let mut call = match command {
        "begin" | "begin-unheld" => json!({ "method": "io.o2bridge.Begin", "parameters": who }),
        "complete" => json!({ "method": "io.o2bridge.Complete", "parameters": who }),
        "leave" => json!({ "method": "io.o2bridge.Leave", "parameters": who }),
        _ => return None,
    };
    if command == "begin" {
        call["parameters"]["hold"] = json!(true);
    }
    if command == "complete" {
        call["parameters"]["code"] = json!(0);
    }
    let mut message = call.to_string().into_bytes();
    message.push(0);
    Some(message)
}

fn new_answer(daemon: &mut UnixStream) -> std::io::Result<String> {
    let mut message = Vec::new();
    let mut byte = [0];
    loop {
        daemon.read_exact(&mut byte)?;
        if byte == [0] {
            return Ok(String::from_utf8_lossy(&message).into_owned());
        }
        message.extend(byte);
    }
}
