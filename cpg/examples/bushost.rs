//! A loop around the bus, driven from standard input, for tests inside a node: one line per event on
//! standard output, with the milliseconds since the start in front.
//!
//! Commands: `connect`, `join OP NAME`, `depart OP NAME`, `send NAME TEXT`, `flood NAME COUNT`,
//! `kill OP NODE`, `shm`, `quit`. NAME is `control`, or a number that becomes a group's UUID.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use mio::{Events, Poll, Token, Waker};
use o2bridge_core::types::{Channel, GroupId, NodeId, OpId};
use o2bridge_cpg::{Bus, BusEvent, Options};

const WAKE: Token = Token(0);
const LIMIT_VARIABLE: &str = "BUS_CALL_LIMIT_MS";

fn main() {
    let mut poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
    let commands = read_commands(Arc::clone(&waker));
    let mut options = Options { channels_warn: 2, ..Options::default() };
    if let Some(limit) = std::env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok()) {
        options.call_limit = std::time::Duration::from_millis(limit);
    }
    let mut bus = Bus::new(poll.registry(), 1..2000, waker, options).unwrap();
    let start = Instant::now();
    let mut events = Events::with_capacity(64);
    let mut out = Vec::new();
    loop {
        let timeout = bus.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = poll.poll(&mut events, timeout) {
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        }
        for event in &events {
            if bus.is_token(event.token()) {
                bus.ready(event.token());
            }
        }
        for command in commands.try_iter() {
            if !obey(&mut bus, &command) {
                return;
            }
        }
        bus.tick(Instant::now());
        bus.drain(&mut out);
        let count = out.len();
        for event in out.drain(..) {
            println!("{:.3} {}", start.elapsed().as_secs_f64() * 1e3, line(&event));
        }
        if count > 0 {
            println!("-- {count}");
        }
    }
}

fn read_commands(waker: Arc<Waker>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            sender.send(line).unwrap();
            waker.wake().unwrap();
        }
        sender.send("quit".to_owned()).unwrap();
        waker.wake().unwrap();
    });
    receiver
}

fn obey(bus: &mut Bus, command: &str) -> bool {
    let words: Vec<&str> = command.splitn(3, ' ').collect();
    let op = |text: &str| OpId(text.parse().unwrap());
    match *words {
        ["connect"] => bus.connect(),
        ["join", id, name] => bus.join(op(id), channel_of(name)),
        ["depart", id, name] => bus.depart(op(id), channel_of(name)),
        ["send", name, text] => bus.mcast(channel_of(name), text.as_bytes().to_vec()),
        ["flood", name, count] => {
            for number in 0..count.parse::<u32>().unwrap() {
                bus.mcast(channel_of(name), number.to_string().into_bytes());
            }
        }
        ["kill", id, node] => bus.kill_node(op(id), NodeId(node.parse().unwrap())),
        ["shm"] => println!("shm {} {}", bus.channels().count(), bus.shm_bytes()),
        ["quit"] => return false,
        _ => panic!("unknown command '{command}'"),
    }
    true
}

fn channel_of(name: &str) -> Channel {
    match name {
        "control" => Channel::Control,
        number => Channel::Group(GroupId(number.parse().unwrap())),
    }
}

fn name_of(channel: Channel) -> String {
    match channel {
        Channel::Control => "control".to_owned(),
        Channel::Group(group) => group.0.to_string(),
    }
}

fn line(event: &BusEvent) -> String {
    match event {
        BusEvent::Confchg { channel, members, left, joined } => {
            let members: Vec<String> =
                members.iter().map(|m| format!("{}/{}", m.node, m.pid.0)).collect();
            let with_reason = |list: &[(o2bridge_core::types::Member, _)]| {
                let show = |(m, r): &(o2bridge_core::types::Member, _)| {
                    format!("{}/{}:{:?}", m.node, m.pid.0, r as &o2bridge_core::types::Reason)
                };
                list.iter().map(show).collect::<Vec<_>>().join(" ")
            };
            format!(
                "confchg {} [{}] left [{}] joined [{}]",
                name_of(*channel),
                members.join(" "),
                with_reason(left),
                with_reason(joined)
            )
        }
        BusEvent::Totem { channel, ring, nodes } => {
            format!("totem {} {ring} {:?}", name_of(*channel), ids(nodes))
        }
        BusEvent::Quorum { quorate, ring, nodes, .. } => {
            format!("quorum {quorate} {ring} {:?}", ids(nodes))
        }
        BusEvent::Message { channel, from, bytes } => format!(
            "message {} {}/{} {} {}",
            name_of(*channel),
            from.node,
            from.pid.0,
            bytes.len(),
            String::from_utf8_lossy(bytes.get(..40).unwrap_or(bytes))
        ),
        BusEvent::Done { op, result } => format!("done {} {result:?}", op.0),
        BusEvent::Connected(connected) => format!("connected {connected:?}"),
        BusEvent::Refused(why) => format!("refused {why:?} {why}"),
        BusEvent::Lost(cause) => format!("lost {cause:?} {cause}"),
        BusEvent::Nodelist(list) => format!("nodelist {list:?}"),
        BusEvent::Notice(notice) => format!("notice {notice:?} {notice}"),
    }
}

fn ids(nodes: &[NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}
