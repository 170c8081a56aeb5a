//! What real corosync told its clients in a scripted run: the format, and its reader.
//!
//! Text, one entry per line; what follows a `#` at the start of a line is a comment, and a time in
//! milliseconds at a line's end (`@123`) is for people.
//!
//! ```text
//! # The first comment says what the run is about.
//! corosync 3.1.7                   the header, in this order
//! transport udpu
//! nodes 3
//! want 3a NODEDOWN                 optional: the run was repeated until some line held this text
//! script n3 kill; wait 20; quiet   what was to be done, in as many lines as it takes
//! ring r1 = 1.8                    the ring ids, in the order in which they were first told of
//!
//! step n3 start                    its corosync starts; ends cleanly (SIGTERM); is killed (SIGKILL);
//! step n3 stop | kill              is stopped and continued (SIGSTOP, SIGCONT)
//! step n3 pause | resume
//! step n3 start outdated           with an older configuration: when it meets the others it ends
//! step n3 ends                     itself, which is this step
//! step split 1,2 3                 the network falls into parts
//! step mute n1 n2                  whatever node 1 sends to node 2 is lost, and nothing else
//! step heal                        the network is whole again
//! step 3a start                    the first client of node 3 starts (and connects until it can);
//! step 3a kill                     dies (SIGKILL)
//! step 3a join A                   its calls stand where it made them: when corosync was there
//! step 3a leave A
//! step 3a mcast A hello            the bus sends it when the own JOIN was told
//! step 3a killnode n2
//! step 3a finalize                 closes all its handles without a leave, and connects again
//! wait 20                          the script waited so many milliseconds
//! quiet                            all that the steps so far caused has been told
//!
//! 1a connected                     corosync answers client 1a
//! 1a disconnected                  corosync is gone, or the client closed all its handles
//! 1a quorum yes r3 [1 2]
//! 1a A confchg [1a 2a] left [3a NODEDOWN] joined []
//! 1a A totem r3 [1 2]
//! 1a A message 2a hello
//! 1a done join A                   the call ended well; or `done join A error 6`, `... timeout`
//! ```
//!
//! A client is named by its node and a letter: the how-manieth process of that node it is. Groups are
//! `A` to `F` (the UUID is the digit, so they sort like this) and `control`, which sorts after them.
//!
//! The order of the lines is exact for one client and one source (a channel; quorum). Between sources
//! it is the order in which the bus handed them over: quorum, control, groups from F to A, when it had
//! several at once. Between clients, and between steps and what was told, it is that of the clock, as exact as
//! processes that share a machine are punctual.

mod reader;
mod step;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use o2bridge_core::{Channel, Event, Member, OpError};

pub use step::{Call, Deed, Step};
pub use words::{channel_name, client_name};

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The comment at the top.
    pub about: Vec<String>,
    /// Its version.
    pub corosync: String,
    /// Totem's transport.
    pub transport: String,
    /// How many nodes corosync.conf lists, from 1.
    pub nodes: u32,
    /// Each of these texts is part of some line.
    pub wants: Vec<String>,
    /// What the run was to be: steps and waits, in lines as a person likes to read them. Done as
    /// fast as possible, so that in [`Self::lines`] the steps of several clients may stand in another
    /// order.
    pub script: Vec<Vec<Line>>,
    /// What happened.
    pub lines: Vec<Line>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The script did something.
    Step(Step),
    /// The script waited for so long, whatever came.
    Wait {
        /// How long.
        ms: u64,
    },
    /// The script waited until nothing came any more.
    Quiet,
    /// A client was told something.
    Told(Told),
    /// A client's call ended.
    Done {
        /// Whose. The pid is the letter: 1 for `a`.
        client: Member,
        /// Which.
        call: Call,
        /// How.
        result: Result<(), OpError>,
    },
}

/// What a client was told. Pids are letters: 1 for `a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The client.
    pub client: Member,
    /// Who said it.
    pub source: Source,
    /// Connected (the cluster's name is not recorded), Disconnected, Quorum, Confchg, Totem or Message.
    pub event: Event,
}

/// Who speaks. What one source tells one client has an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The connection itself.
    Connection,
    /// The quorum service.
    Quorum,
    /// A group.
    Channel(Channel),
}

/// A text that is no recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecording {
    /// The line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: '{}'", self.line, self.why, self.text)
    }
}

impl std::error::Error for BadRecording {}
