//! What comes from outside, done to the cluster.

use std::collections::BTreeMap;

use o2bridge_core::{Channel, Event, Member, NodeId, Pid};

use super::World;
use crate::machine::Power;
use crate::step::{Step, Turn};

impl World {
    pub(super) fn take_step(&mut self, step: &Step) {
        self.trace.say(self.now, || format!("== {step}"));
        self.counts.steps += 1;
        match step {
            Step::Mount(node, group, how) => self.mount(*node, *group, *how),
            Step::Umount(node, group) => self.umount(*node, *group),
            Step::Leave(node, group) => self.leave_by_hand(*node, *group),
            Step::Complete(node, group) => self.complete_by_hand(*node, *group),
            Step::Fsck(node, group) => self.fsck(*node, *group),
            Step::Write(node, group) => self.write(*node, *group),
            Step::ToolDies(node) => self.tool_dies(*node),
            Step::KillDaemon(node) => self.kill_daemon(*node),
            Step::HangDaemon(node) => self.hang(*node, true),
            Step::WakeDaemon(node) => self.hang(*node, false),
            Step::KillKeeper(node) => self.kill_keeper(*node),
            Step::StopDaemon(node) => self.tell_daemon(*node, Event::Stop),
            Step::Reload(node) => self.reload(*node),
            Step::PowerOff(node) => self.power_off(*node),
            Step::Freeze(node) => self.freeze(*node),
            Step::Thaw(node) => self.thaw(*node),
            Step::Corosync(node, turn) => self.turn(*node, *turn),
            Step::Split(nodes) => {
                self.counts.partitions += 1;
                let segments = nodes.iter().map(|node| (*node, 1)).collect();
                self.corosync.wire(segments, self.now);
            }
            Step::Shatter => {
                self.counts.partitions += 1;
                let ids = self.machines.keys();
                let segments = ids.zip(1..).map(|(node, segment)| (*node, segment)).collect();
                self.corosync.wire(segments, self.now);
            }
            Step::OneWay(a, b) => {
                self.counts.partitions += 1;
                self.corosync.cut_one_way(*a, *b, self.now);
            }
            Step::Heal => self.corosync.wire(BTreeMap::new(), self.now),
            Step::Fences(mood) => self.fences = *mood,
            Step::Kernel(node, mood) => {
                self.machines.entry(*node).and_modify(|it| it.kernel_mood = *mood);
            }
            Step::Disk(node, mood) => {
                self.machines.entry(*node).and_modify(|it| it.disk_mood = *mood);
            }
            Step::Garbage(node) => self.garbage(*node),
        }
    }

    /// A configuration is read again: another one, if nodes differ at all. And corosync's node list is, which is
    /// the same.
    fn reload(&mut self, node: NodeId) {
        if self.options.mixed {
            let tunables = super::tunables(&self.options, &mut self.dice);
            self.machines.entry(node).and_modify(|it| it.tunables = tunables);
        }
        let tunables = self.machines[&node].tunables.clone();
        self.tell_daemon(node, Event::Reconfigure(tunables));
        let nodes = self.machines.keys().copied().collect();
        self.tell_daemon(node, Event::Nodelist(nodes));
    }

    fn tell_daemon(&mut self, node: NodeId, event: Event) {
        let machine = &self.machines[&node];
        if machine.power == Power::On {
            self.tell(node, machine.life, event);
        }
    }

    pub(super) fn turn(&mut self, node: NodeId, turn: Turn) {
        let (power, boot) = (self.machines[&node].power, self.machines[&node].boot);
        if power != Power::On {
            return;
        }
        match turn {
            Turn::Start => self.start_corosync(node, boot),
            Turn::Kill => self.stop_engine(node, false),
            Turn::Stop => self.stop_engine(node, true),
            Turn::Pause => self.corosync.pause(node, self.now),
            Turn::Resume => self.corosync.resume(node, self.now),
            Turn::Haunt => {
                self.corosync.kill(node, self.now);
                self.corosync.start(node, self.now);
                self.corosync.haunt(node);
                self.connect(node);
            }
        }
    }

    /// Something that is not ours talks in a channel, from a process that is in it.
    fn garbage(&mut self, node: NodeId) {
        let length = self.dice.below(64);
        let mut bytes: Vec<u8> =
            (0..length).map(|_| u8::try_from(self.dice.below(256)).unwrap_or(0)).collect();
        if self.dice.one_in(2) {
            bytes.splice(..0, *b"O2BR");
        }
        let stranger = Member { node, pid: Pid(9) };
        let channel = if self.dice.one_in(2) {
            Channel::Control
        } else {
            Channel::Group(crate::step::volume(0))
        };
        if self.corosync.connect(node, stranger.pid, self.now) {
            self.corosync.join(node, stranger.pid, channel, self.now);
            self.corosync.mcast(stranger, channel, bytes, self.now);
        }
    }
}
