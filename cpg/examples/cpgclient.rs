//! A CPG client that is no o2bridge: joins any group, prints what it hears as one JSON object per
//! line, and sends what it is told. Usage: `cpgclient GROUP`. Commands on standard input: `send HEX`
//! (an empty HEX sends an empty message), `leave`, `quit`. The end of standard input is `quit`. When
//! corosync is not there it tries every millisecond; when corosync dies it ends with 1.

use std::io::BufRead;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use corosync::cpg::{self, Address, Guarantee, Handle, Model1Data, Model1Flags, ModelData};
use corosync::{CsError, DispatchFlags, NodeId};
use rust_corosync as corosync;

fn main() {
    let group = std::env::args().nth(1).expect("usage: cpgclient GROUP");
    let model = ModelData::ModelV1(Model1Data {
        flags: Model1Flags::None,
        deliver_fn: Some(on_deliver),
        confchg_fn: Some(on_confchg),
        totem_confchg_fn: Some(on_totem),
    });
    let handle = patiently(|| match cpg::initialize(&model, 0) {
        Err(CsError::CsErrLibrary) => Err(CsError::CsErrTryAgain),
        result => result,
    });
    patiently(|| cpg::join(&handle, &group));
    println!(r#"{{"event":"ready","pid":{}}}"#, std::process::id());
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            sender.send(line).unwrap();
        }
    });
    loop {
        if let Err(error) = cpg::dispatch(&handle, DispatchFlags::All) {
            println!(r#"{{"event":"lost","error":"{error}"}}"#);
            std::process::exit(1);
        }
        let command = match commands.try_recv() {
            Ok(command) => command,
            Err(TryRecvError::Disconnected) => "quit".to_owned(),
            Err(TryRecvError::Empty) => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
        };
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("send", hex) => {
                let bytes = unhex(hex);
                patiently(|| cpg::mcast_joined(&handle, Guarantee::TypeAgreed, &bytes));
            }
            ("leave", _) => patiently(|| cpg::leave(&handle, &group)),
            // Without a leave: the others see PROCDOWN.
            ("quit", _) => std::process::exit(0),
            _ => panic!("unknown command '{command}'"),
        }
    }
}

fn patiently<T>(mut call: impl FnMut() -> Result<T, CsError>) -> T {
    loop {
        match call() {
            Ok(value) => return value,
            Err(CsError::CsErrTryAgain) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("corosync: {error}"),
        }
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|c| u8::try_from(c.to_digit(16).expect("hex")).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

fn on_deliver(_: &Handle, _: String, node: NodeId, pid: u32, bytes: &[u8], _: usize) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    println!(r#"{{"event":"message","node":{node},"pid":{pid},"hex":"{hex}"}}"#);
}

fn on_confchg(
    _: &Handle,
    _: &str,
    members: Vec<Address>,
    left: Vec<Address>,
    joined: Vec<Address>,
) {
    let list = |addresses: &[Address]| {
        let one = |a: &Address| {
            format!(r#"{{"node":{},"pid":{},"reason":"{}"}}"#, a.nodeid, a.pid, a.reason)
        };
        addresses.iter().map(one).collect::<Vec<_>>().join(",")
    };
    println!(
        r#"{{"event":"confchg","members":[{}],"left":[{}],"joined":[{}]}}"#,
        list(&members),
        list(&left),
        list(&joined)
    );
}

fn on_totem(_: &Handle, ring: cpg::RingId, nodes: Vec<NodeId>) {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    println!(
        r#"{{"event":"totem","ring":"{}.{:x}","nodes":[{}]}}"#,
        ring.nodeid,
        ring.seq,
        nodes.join(",")
    );
}
