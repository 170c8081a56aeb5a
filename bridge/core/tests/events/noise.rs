//! Any event at any time: whatever corosync, peers and tools say, in whatever order, no invariant
//! breaks and nothing panics. (A broken invariant ends the daemon, so none may come from outside.)

use crate::common::*;

/// A plain generator (Knuth's MMIX constants): the same choices in each run. What it says is mostly
/// about one ring, so that there is agreement now and then.
struct Noise {
    state: u64,
    ring: (u64, Vec<u32>),
}

impl Noise {
    fn below(&mut self, limit: u32) -> u32 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % u64::from(limit)) as u32
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn node(&mut self) -> u32 {
        1 + self.below(3)
    }

    /// Some of the nodes, ourselves always among them: corosync never shows a ring without its node.
    fn some(&mut self) -> Vec<u32> {
        (1..=3).filter(|n| *n == 1 || self.coin()).collect()
    }

    /// The ring of this while, or now and then another one.
    fn ring(&mut self) -> (u64, Vec<u32>) {
        if self.below(24) == 0 {
            let other = (u64::from(self.below(4)), self.some());
            if self.coin() {
                return other;
            }
            self.ring = other;
        }
        self.ring.clone()
    }

    fn channel(&mut self) -> Channel {
        match self.below(3) {
            0 => Channel::Control,
            1 => group_channel(),
            _ => Channel::Group(H),
        }
    }

    fn reason(&mut self) -> Reason {
        match self.below(5) {
            0 => Reason::Leave,
            1 => Reason::NodeDown,
            2 => Reason::ProcDown,
            3 => Reason::Join,
            _ => Reason::NodeUp,
        }
    }

    fn incarnation(&mut self, n: u32) -> Incarnation {
        let more = if self.below(16) == 0 { self.below(3) } else { 0 };
        Incarnation(inc(n).0 + u64::from(more))
    }

    fn boot(&mut self, n: u32) -> BootId {
        if self.below(24) == 0 { boot(n + 10) } else { boot(n) }
    }

    fn uses(&mut self, n: u32) -> proto::Uses {
        [G, H]
            .into_iter()
            .filter(|_| self.coin())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|group| (group, self.incarnation(n)))
            .collect()
    }

    fn hello(&mut self, n: u32) -> Hello {
        let about_others = if self.below(8) == 0 { self.below(3) } else { 0 };
        let testimony = (0..about_others).map(|_| {
            let about = if self.below(8) == 0 { self.node() } else { 2 + self.below(2) };
            let fate = match self.below(3) {
                0 => Fate::Missing,
                1 => Fate::Condemned { turn: self.below(256) },
                _ => Fate::Fenced,
            };
            let boot = if self.below(6) == 0 { BootId::UNSEEN } else { self.boot(about) };
            Testimony { node: node(about), boot, uses: self.uses(about), fate }
        });
        Hello {
            testimony: testimony.collect(),
            boot: self.boot(n),
            memory_from: self.incarnation(n),
            witness: self.coin(),
            ring: Some(ring(self.ring().0)),
            uses: self.uses(n),
            locking: Locking { highest: self.locking(), running: self.locking(), choice: 0 },
        }
    }

    fn locking(&mut self) -> Option<LockingProtocol> {
        let (major, minor) = (self.below(3) as u8, self.below(3) as u8);
        (major > 0).then_some(LockingProtocol { major, minor })
    }

    /// A word of another node: corosync vouches for the sender, and we know what we say ourselves.
    fn message(&mut self) -> Event {
        let (n, channel) = (2 + self.below(2), self.channel());
        let body = match channel {
            Channel::Control if self.below(6) == 0 => Body::Refuse(node(self.node())),
            Channel::Control => Body::Hello(self.hello(n)),
            Channel::Group(_) => {
                let told = self.some();
                let (incarnation, boot) = (self.incarnation(n), self.boot(n));
                Body::State(State { incarnation, boot, told: users(&told) })
            }
        };
        said(channel, n, proto::encode(1, self.coin(), &body))
    }

    fn tool(&mut self) -> Event {
        let service = if self.coin() { mnt() } else { name("ocfs2") };
        let request = u64::from(self.below(1_000_000));
        let client = ClientId(u64::from(self.below(2)));
        match self.below(5) {
            0 | 1 => {
                let held = self.coin();
                let group = if self.coin() { G } else { H };
                Event::Begin(Begin { client, held, group, ..begin(request, &service) })
            }
            2 => complete(request, &service, self.below(2) as i32),
            3 => leave(request, &service),
            _ if self.coin() => Event::ClientGone { client },
            _ => complete(request, &service, 0),
        }
    }

    /// What corosync says; not what it must have said before.
    fn corosync(&mut self) -> Event {
        let ((seq, list), channel) = (self.ring(), self.channel());
        let (who, reason) = (self.some(), self.reason());
        match self.below(24) {
            0 if self.below(4) == 0 => Event::Disconnected,
            1 if self.below(2) == 0 => connected(&[1, 2, 3]),
            2 | 3 => quorum(self.below(8) > 0, seq, &list),
            4 | 5 => totem(channel, seq, &list),
            6 if self.below(4) == 0 => left(channel, &list, &who, reason),
            7 | 8 => joined(channel, &list, &who, reason),
            _ => self.message(),
        }
    }
}

/// Ends a random one of the effects under way, or fires a random one of the timers.
fn answer(noise: &mut Noise, pending: &mut Vec<Action>) -> Option<Event> {
    if pending.is_empty() {
        return None;
    }
    let action = pending.swap_remove(noise.below(pending.len() as u32) as usize);
    let finding = if noise.coin() { Finding::Mounted } else { Finding::NotMounted };
    let result = if noise.below(4) == 0 { Err(OpError::TimedOut) } else { Ok(()) };
    Some(if let Action::Arm { timer, generation, .. } = action {
        Event::Timer { timer, generation }
    } else if let Action::Mcast { channel, bytes } = action {
        said(channel, 1, bytes)
    } else if let Action::Look { op, .. } = action {
        Event::Looked { op, finding }
    } else {
        Event::Done { op: op_of(&action)?, result }
    })
}

#[test]
fn no_event_breaks_an_invariant() {
    let mut verbs = 0;
    for seed in 0..2_000 {
        let mut noise = Noise { state: seed, ring: (1, vec![1, 2, 3]) };
        let fencing = match seed % 3 {
            0 => Fencing::None,
            1 => Fencing::Ack,
            _ => AGENT,
        };
        // Half of them start from a group in use, which noise alone seldom reaches.
        let mut rig = if seed % 2 == 0 {
            Rig::ready(fencing, &[1, 2, 3])
        } else {
            Rig::joining(fencing, Saved::default(), &[1, 2, 3])
        };
        let mut pending = vec![];
        for _ in 0..150 {
            let event = match noise.below(6) {
                0 | 3 => noise.corosync(),
                1 => noise.tool(),
                2 if noise.below(8) == 0 => Event::FenceAck {
                    request: RequestId(1),
                    client: ClientId(1),
                    node: node(noise.node()),
                },
                _ => match answer(&mut noise, &mut pending) {
                    Some(event) => event,
                    None => continue,
                },
            };
            let actions = rig.handle(event);
            verbs += actions.iter().filter(|act| matches!(act, Action::Verb { .. })).count();
            pending.extend(actions);
        }
    }
    println!("{verbs} verbs");
    assert!(verbs > 1_000, "noise that reaches no verb proves nothing: {verbs}");
}
