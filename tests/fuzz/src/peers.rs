//! What the daemons of other nodes say: well formed or not, true or not.

use o2bridge_core::proto::{self, Body, Fate, Hello, State, Testimony, Uses};
use o2bridge_core::{
    BootId, Event, GroupId, Incarnation, Locking, LockingProtocol, NodeId, RingId, User, Users,
};

use crate::node::{GROUPS, NODES, Node, daemon, member};

impl Node<'_> {
    /// Something from a node that is not ourselves, or from another process here.
    pub(crate) fn hear_peer(&mut self) {
        let channel = self.channel();
        let node = 1 + self.below(NODES as usize) as u32;
        let from = if node == self.me || self.below(8) == 0 {
            member(node, 100 * node + 1)
        } else {
            daemon(node)
        };
        let mut bytes = match self.below(8) {
            0 => {
                let len = self.below(256).min(self.input.len());
                self.input.bytes(len).unwrap_or_default().to_vec()
            }
            1 => proto::encode(1, self.below(2) == 0, &Body::Refuse(self.node_id())),
            2..=3 => proto::encode(1, true, &Body::State(self.state(node))),
            _ => proto::encode(1, true, &Body::Hello(self.hello(node))),
        };
        if self.below(8) == 0 {
            self.damage(&mut bytes);
        }
        self.handle(Event::Message { channel, from, bytes });
    }

    /// One byte is another: among others the versions, which stand at 5 to 8 and 10 to 11.
    fn damage(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len().clamp(1, 64));
        let byte = self.below(256) as u8;
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }

    fn node_id(&mut self) -> NodeId {
        NodeId(self.below(NODES as usize + 3) as u32)
    }

    fn boot(&mut self, node: u32) -> BootId {
        let usual = BootId(u128::from(node));
        self.one_of(&[
            usual,
            usual,
            usual,
            BootId(u128::from(node) + 100),
            BootId::UNSEEN,
            self.boot,
        ])
    }

    fn incarnation(&mut self, node: u32) -> Incarnation {
        let usual = 1_000 * u64::from(node);
        Incarnation(self.one_of(&[usual, usual, usual + 1, 0, u64::MAX]))
    }

    fn ring_said(&mut self) -> Option<RingId> {
        let ring = self.ring_id();
        let old = RingId { seq: ring.seq.saturating_sub(4), ..ring };
        self.one_of(&[Some(ring), Some(ring), Some(ring), Some(old), None])
    }

    fn uses(&mut self, node: u32) -> Uses {
        let all = [GROUPS[0], GROUPS[1], GroupId(0xC)];
        let which = self.below(64);
        if which == 63 {
            return self.many_uses(node);
        }
        let used = all.iter().enumerate().filter(|(bit, _)| which & (1 << bit) != 0);
        let used: Vec<GroupId> = used.map(|(_, group)| *group).collect();
        used.into_iter().map(|group| (group, self.incarnation(node))).collect()
    }

    /// As many as a message may name, from any number on.
    fn many_uses(&mut self, node: u32) -> Uses {
        let (first, count) = (self.below(1 << 16), self.below(proto::GROUPS_MAX + 1));
        let (count, incarnation) = (self.afford(count, 1), self.incarnation(node));
        (first..first + count).map(|number| (GroupId(number as u128), incarnation)).collect()
    }

    /// So many of these, or as many as are left.
    fn afford(&mut self, count: usize, entries_each: usize) -> usize {
        let count = count.min(self.entries_left / entries_each);
        self.entries_left -= count * entries_each;
        count
    }

    fn hello(&mut self, node: u32) -> Hello {
        let count = self.below(4);
        let testimony = match self.below(64) {
            63 => self.many_testimonies(),
            _ => (0..count).map(|_| self.testimony()).collect(),
        };
        Hello {
            boot: self.boot(node),
            memory_from: self.one_of(&[Incarnation(0), Incarnation(u64::MAX), Incarnation(2_000)]),
            witness: self.below(4) != 0,
            ring: self.ring_said(),
            uses: self.uses(node),
            locking: Locking {
                highest: self.locking(),
                running: self.locking(),
                choice: self.one_of(&[0, 1, u16::MAX]),
            },
            testimony,
        }
    }

    fn locking(&mut self) -> Option<LockingProtocol> {
        let version = |major, minor| Some(LockingProtocol { major, minor });
        self.one_of(&[None, version(1, 0), version(1, 1), version(2, 0), version(u8::MAX, u8::MAX)])
    }

    fn testimony(&mut self) -> Testimony {
        let node = self.node_id();
        Testimony { node, boot: self.boot(node.0), fate: self.fate(), uses: self.uses(node.0) }
    }

    fn fate(&mut self) -> Fate {
        let turn = self.one_of(&[0, 1, u32::MAX]);
        self.one_of(&[Fate::Missing, Fate::Condemned { turn }, Fate::Fenced])
    }

    /// As many as a message may hold, of any nodes.
    fn many_testimonies(&mut self) -> Vec<Testimony> {
        let (first, count) = (self.below(1 << 10), self.below(proto::NODES_MAX + 1));
        let (fate, uses) = (self.fate(), self.uses(9));
        let count = self.afford(count, 1 + uses.len());
        let of = |node: usize| {
            let (node, boot) = (NodeId(node as u32), BootId(node as u128));
            Testimony { node, boot, uses: uses.clone(), fate }
        };
        (first..first + count).map(of).collect()
    }

    fn state(&mut self, node: u32) -> State {
        let told: Users = (0..self.below(4))
            .map(|_| {
                let node = self.node_id();
                let (incarnation, boot) = (self.incarnation(node.0), self.boot(node.0));
                (node, User { incarnation, boot })
            })
            .collect();
        State { incarnation: self.incarnation(node), boot: self.boot(node), told }
    }
}
