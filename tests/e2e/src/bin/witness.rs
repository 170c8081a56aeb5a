//! A process that sits in a corosync group of its own and says, with the wall clock in microseconds,
//! when it hears that a member is gone: the earliest that any client of this corosync could know of
//! a death. Its group sorts before all others, and corosync tells the groups in that order.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use o2bridge_core::{Channel, GroupId, OpId};
use o2bridge_cpg::{Bus, BusEvent, Options};

const GROUP: Channel = Channel::Group(GroupId(0));
const WAKER: Token = Token(0);
const HANDLES: std::ops::Range<usize> = 1..16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut bus = Bus::new(poll.registry(), HANDLES, waker, Options::default())?;
    let mut ready = Events::with_capacity(16);
    let mut heard = Vec::new();
    bus.connect();
    loop {
        let patience = bus.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut ready, patience) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            Ok(()) | Err(_) => {}
        }
        let at_us = wall().as_micros();
        for event in &ready {
            bus.ready(event.token());
        }
        bus.tick(Instant::now());
        bus.drain(&mut heard);
        for event in heard.drain(..) {
            match event {
                BusEvent::Connected(_) => bus.join(OpId(1), GROUP),
                BusEvent::Confchg { left, .. } if !left.is_empty() => println!("left {at_us}"),
                BusEvent::Confchg { members, .. } => println!("members {}", members.len()),
                BusEvent::Lost(cause) => return Err(cause.to_string().into()),
                BusEvent::Refused(cause) => return Err(cause.to_string().into()),
                BusEvent::Quorum { .. }
                | BusEvent::Totem { .. }
                | BusEvent::Nodelist(_)
                | BusEvent::Message { .. }
                | BusEvent::Done { .. }
                | BusEvent::Notice(_) => {}
            }
        }
        std::io::stdout().flush()?;
    }
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
