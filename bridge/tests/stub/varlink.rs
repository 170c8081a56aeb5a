//! The new door's messages, written by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::{Stub, UUID};

pub(crate) fn say(stream: &mut UnixStream, message: &Value) {
    stream.write_all(format!("{message}\0").as_bytes()).unwrap();
}

pub(crate) fn hear(stream: &mut UnixStream) -> Value {
    let mut message = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).unwrap();
        if byte == [0] {
            return serde_json::from_slice(&message).unwrap();
        }
        message.push(byte[0]);
    }
}

pub(crate) fn hear_end(stream: &mut UnixStream) {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?} is not the end"),
    }
}

pub(crate) fn call(method: &str, parameters: Value) -> Value {
    json!({ "method": format!("io.o2bridge.{method}"), "parameters": parameters })
}

pub(crate) fn ask(stream: &mut UnixStream, method: &str, parameters: Value) -> Value {
    say(stream, &call(method, parameters));
    hear(stream)
}

pub(crate) fn begin() -> Value {
    call("Begin", json!({ "group": UUID, "service": "/mnt/x" }))
}

pub(crate) fn watch(stub: &Stub) -> UnixStream {
    let mut tool = stub.varlink();
    say(&mut tool, &json!({ "method": "io.o2bridge.Status", "more": true }));
    tool
}
