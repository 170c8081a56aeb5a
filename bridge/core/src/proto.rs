//! What daemons say to each other.
//!
//! Every message is a full statement of its sender's state, so a lost, repeated or late one does
//! no harm. The envelope is frozen: daemons of all versions read it, so that two that cannot
//! understand each other can still say so.
//!
//! ```text
//! envelope  "O2BR" | kind u8 | lowest u16 | highest u16 | in use u8 | body version u16 | body
//! Hello     boot u128 | memory from u64 | witness u8 | ring opt(u64 u32) | uses | locking | n u16 × testimony
//! testimony node u32 | boot u128 | fate u8 | turn u32 | uses
//! uses      n u16 × (group u128 | incarnation u64)
//! locking   highest (major u8 minor u8) | running (major u8 minor u8), 0 0 for none | choice u16
//! State     incarnation u64 | boot u128 | n u16 × (node u32 | incarnation u64 | boot u128)
//! Refuse    node u32
//! ```
//! Integers are little-endian. The body of a Hello is frozen too, or daemons whose versions overlap
//! only in part could not be introduced. Of one whose version we do not speak at all the boot is read, or a node that
//! comes back with it would not be known to have died. A State is written in the highest version that all daemons of
//! the ring speak.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::locking::{Locking, LockingProtocol};
use crate::saved::{User, Users};
use crate::types::{BootId, GroupId, Incarnation, NodeId, RingId};

/// The protocol versions that this daemon speaks, lowest and highest.
pub const SPEAKS: (u16, u16) = (1, 1);

/// The most nodes that a message may name: OCFS2 has 255 node numbers.
pub const NODES_MAX: usize = 255;

/// The most mountgroups that one node may use: each costs corosync a connection, and its default
/// limit of open files ends at about 960 of them (measured with corosync 3.1.7).
pub const GROUPS_MAX: usize = 256;

/// The most uses that one Hello tells of nodes that cannot speak: 128 nodes with as many groups as they
/// may have. With them the largest Hello stays below the 1,047,552 bytes that corosync takes at once.
pub const TESTIMONY_USES_MAX: usize = 32_768;

const MAGIC: [u8; 4] = *b"O2BR";
const KIND_HELLO: u8 = 1;
const KIND_STATE: u8 = 2;
const KIND_REFUSE: u8 = 3;

/// The groups that a node uses.
pub type Uses = BTreeMap<GroupId, Incarnation>;

/// The frozen part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The versions that the sender speaks, lowest and highest.
    pub speaks: (u16, u16),
    /// Whether the sender's node uses any group.
    pub in_use: bool,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In the control group: who I am, what I use, whom I speak for.
    Hello(Hello),
    /// In a mountgroup: my use of it and whom my shim knows.
    State(State),
    /// In the control group: this node's daemon speaks a version that we cannot work with.
    Refuse(NodeId),
    /// The sender speaks no version that we speak: only the envelope counts, and of a Hello the sender's boot.
    Foreign(Option<BootId>),
}

/// A daemon's statement about its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The boot of the node.
    pub boot: BootId,
    /// Uses with smaller incarnations are not remembered; of all others, those that are not listed
    /// have ended cleanly.
    pub memory_from: Incarnation,
    /// Whether the sender knows all users there are: it has been in the quorate ring since every
    /// configured node was seen or fenced.
    pub witness: bool,
    /// The last ring whose quorum notification the sender has seen and drawn its conclusions from.
    pub ring: Option<RingId>,
    /// The groups in use.
    pub uses: Uses,
    /// What the sender's kernel knows of OCFS2's locking protocol, and what it runs.
    pub locking: Locking,
    /// What the sender knows of nodes that cannot speak for themselves.
    pub testimony: Vec<Testimony>,
}

/// A statement about a node whose daemon is not there to make it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Testimony {
    /// The node.
    pub node: NodeId,
    /// In which boot.
    pub boot: BootId,
    /// What it used.
    pub uses: Uses,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a node that does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// In the ring, without its daemon.
    Missing,
    /// A quorate ring went on without it. So many daemons have used up their fence attempts.
    Condemned {
        /// Whose turn it is to fence, as an index into the sorted daemons of the ring.
        turn: u32,
    },
    /// Condemned, and it has been made sure that it writes no more.
    Fenced,
}

/// A daemon's statement about its use of one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Its use.
    pub incarnation: Incarnation,
    /// The boot of its node.
    pub boot: BootId,
    /// Whom its shim knows.
    pub told: Users,
}

/// Why bytes are no message. Nothing else can be said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Not of our protocol.
    Magic,
    /// Ends too early, or goes on after the end.
    Length,
    /// A value that is never sent.
    Value,
    /// More entries than the limits.
    TooMany,
}

/// The version that two daemons use together, if any.
#[must_use]
pub fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let version = ours.1.min(theirs.1);
    (version >= ours.0 && version >= theirs.0).then_some(version)
}

/// Writes a message in this version of the body; [`Body::Foreign`] becomes an envelope alone, which
/// nobody sends.
#[must_use]
pub fn encode(version: u16, in_use: bool, body: &Body) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&MAGIC);
    out.push(match body {
        Body::Hello(_) => KIND_HELLO,
        Body::State(_) => KIND_STATE,
        Body::Refuse(_) | Body::Foreign(_) => KIND_REFUSE,
    });
    out.extend_from_slice(&SPEAKS.0.to_le_bytes());
    out.extend_from_slice(&SPEAKS.1.to_le_bytes());
    out.push(u8::from(in_use));
    out.extend_from_slice(&version.to_le_bytes());
    match body {
        Body::Hello(hello) => put_hello(&mut out, hello),
        Body::State(state) => put_state(&mut out, state),
        Body::Refuse(node) => out.extend_from_slice(&node.0.to_le_bytes()),
        Body::Foreign(_) => {}
    }
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn put_uses(out: &mut Vec<u8>, uses: &Uses) {
    put_count(out, uses.len());
    for (group, incarnation) in uses {
        out.extend_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&incarnation.0.to_le_bytes());
    }
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    out.extend_from_slice(&hello.boot.0.to_le_bytes());
    out.extend_from_slice(&hello.memory_from.0.to_le_bytes());
    out.push(u8::from(hello.witness));
    out.push(u8::from(hello.ring.is_some()));
    if let Some(ring) = hello.ring {
        out.extend_from_slice(&ring.seq.to_le_bytes());
        out.extend_from_slice(&ring.node.0.to_le_bytes());
    }
    put_uses(out, &hello.uses);
    for version in [hello.locking.highest, hello.locking.running] {
        out.extend(version.map_or([0, 0], |version| [version.major, version.minor]));
    }
    out.extend_from_slice(&hello.locking.choice.to_le_bytes());
    put_count(out, hello.testimony.len());
    for testimony in &hello.testimony {
        out.extend_from_slice(&testimony.node.0.to_le_bytes());
        out.extend_from_slice(&testimony.boot.0.to_le_bytes());
        let (fate, turn) = match testimony.fate {
            Fate::Missing => (0, 0),
            Fate::Condemned { turn } => (1, turn),
            Fate::Fenced => (2, 0),
        };
        out.push(fate);
        out.extend_from_slice(&turn.to_le_bytes());
        put_uses(out, &testimony.uses);
    }
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    out.extend_from_slice(&state.incarnation.0.to_le_bytes());
    out.extend_from_slice(&state.boot.0.to_le_bytes());
    put_count(out, state.told.len());
    for (node, user) in &state.told {
        out.extend_from_slice(&node.0.to_le_bytes());
        out.extend_from_slice(&user.incarnation.0.to_le_bytes());
        out.extend_from_slice(&user.boot.0.to_le_bytes());
    }
}

/// Reads a message.
///
/// # Errors
/// The bytes are no message of ours.
pub fn decode(bytes: &[u8]) -> Result<(Envelope, Body), Garbage> {
    let mut input = Input { rest: bytes };
    if input.array::<4>()? != MAGIC {
        return Err(Garbage::Magic);
    }
    let kind = input.byte()?;
    let speaks = (input.u16()?, input.u16()?);
    if speaks.0 > speaks.1 {
        return Err(Garbage::Value);
    }
    let in_use = input.flag()?;
    let version = input.u16()?;
    let envelope = Envelope { speaks, in_use };
    // A Hello has one body in all versions: who cannot read the rest yet must still be introduced.
    let readable = kind == KIND_HELLO || (SPEAKS.0..=SPEAKS.1).contains(&version);
    if common_version(SPEAKS, speaks).is_none() || !readable {
        let body = match kind {
            KIND_REFUSE => Body::Refuse(input.node()?),
            KIND_HELLO => Body::Foreign(input.boot().ok()),
            _ => Body::Foreign(None),
        };
        return Ok((envelope, body));
    }
    let body = match kind {
        KIND_HELLO => Body::Hello(input.hello()?),
        KIND_STATE => Body::State(input.state()?),
        KIND_REFUSE => Body::Refuse(input.node()?),
        _ => return Err(Garbage::Value),
    };
    if input.rest.is_empty() { Ok((envelope, body)) } else { Err(Garbage::Length) }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbage> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Garbage::Length)?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Garbage> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, Garbage> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage::Value),
        }
    }

    fn u16(&mut self) -> Result<u16, Garbage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Garbage> {
        self.array().map(u64::from_le_bytes)
    }

    /// The boot of whoever speaks: it knows it.
    fn boot(&mut self) -> Result<BootId, Garbage> {
        let boot = BootId(self.u128()?);
        if boot == BootId::UNSEEN { Err(Garbage::Value) } else { Ok(boot) }
    }

    fn u128(&mut self) -> Result<u128, Garbage> {
        self.array().map(u128::from_le_bytes)
    }

    fn node(&mut self) -> Result<NodeId, Garbage> {
        self.array().map(|bytes| NodeId(u32::from_le_bytes(bytes)))
    }

    fn count(&mut self, max: usize) -> Result<usize, Garbage> {
        let count = usize::from(self.u16()?);
        if count > max { Err(Garbage::TooMany) } else { Ok(count) }
    }

    fn uses(&mut self) -> Result<Uses, Garbage> {
        let count = self.count(GROUPS_MAX)?;
        (0..count).map(|_| Ok((GroupId(self.u128()?), Incarnation(self.u64()?)))).collect()
    }

    fn hello(&mut self) -> Result<Hello, Garbage> {
        let boot = self.boot()?;
        let memory_from = Incarnation(self.u64()?);
        let witness = self.flag()?;
        let ring = match self.flag()? {
            true => Some(RingId { seq: self.u64()?, node: self.node()? }),
            false => None,
        };
        let uses = self.uses()?;
        let (highest, running) = (self.locking()?, self.locking()?);
        let locking = Locking { highest, running, choice: self.u16()? };
        let count = self.count(NODES_MAX)?;
        let testimony = (0..count).map(|_| self.testimony()).collect::<Result<_, _>>()?;
        Ok(Hello { boot, memory_from, witness, ring, uses, locking, testimony })
    }

    fn locking(&mut self) -> Result<Option<LockingProtocol>, Garbage> {
        match self.array::<2>()? {
            [0, 0] => Ok(None),
            [0, _] => Err(Garbage::Value),
            [major, minor] => Ok(Some(LockingProtocol { major, minor })),
        }
    }

    fn testimony(&mut self) -> Result<Testimony, Garbage> {
        let node = self.node()?;
        let boot = BootId(self.u128()?);
        let (fate, turn) = (self.byte()?, u32::from_le_bytes(self.array()?));
        let fate = match fate {
            0 => Fate::Missing,
            1 => Fate::Condemned { turn },
            2 => Fate::Fenced,
            _ => return Err(Garbage::Value),
        };
        Ok(Testimony { node, boot, uses: self.uses()?, fate })
    }

    fn state(&mut self) -> Result<State, Garbage> {
        let incarnation = Incarnation(self.u64()?);
        let boot = self.boot()?;
        let count = self.count(NODES_MAX)?;
        let told = (0..count)
            .map(|_| {
                let node = self.node()?;
                let incarnation = Incarnation(self.u64()?);
                Ok((node, User { incarnation, boot: BootId(self.u128()?) }))
            })
            .collect::<Result<_, Garbage>>()?;
        Ok(State { incarnation, boot, told })
    }
}

#[cfg(test)]
mod tests;
