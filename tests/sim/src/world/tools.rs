//! Tools: what they ask, what they do with the answer, and what becomes of them when somebody dies.
//!
//! | tool \ event | told to go ahead | refused, or hung up on | in the kernel | told "done" | dies |
//! |---|---|---|---|---|---|
//! | asking    | → mounting | ends | - | - | hung up |
//! | mounting  | - | goes on | mounted or not; says so: → reporting, a mute one ends | - | mounted or not; hung up |
//! | reporting | - | ends | - | ends; a check: → checking | hung up |
//! | checking  | - | - | done: → leaving | - | nobody says that it left |
//! | unmounted | - | - | → leaving | - | nobody says that it left |
//! | leaving   | - | ends, or tries again | - | ends | hung up |

use o2bridge_core::{Begin, ClientId, Event, GroupId, NodeId, Reply, RequestId, ServiceName};

use o2bridge_wire::varlink::Method;

use super::{Job, World};
use crate::doors::{self, CLUSTER, Door, Read};
use crate::machine::{Doing, Machine, Power, Tool};
use crate::options::ShimKind;
use crate::step::How;
use crate::volume::Journal;

/// A leave that is refused because something else is under way is tried so often.
const LEAVES_MAX: u64 = 5;

impl World {
    /// A number that nothing else has.
    pub(super) fn fresh(&mut self, node: NodeId) -> u64 {
        self.machines.get_mut(&node).map_or(0, crate::machine::Machine::fresh_number)
    }

    /// Somebody starts to mount.
    pub(super) fn mount(&mut self, node: NodeId, group: GroupId, how: How) {
        let name = match how {
            How::Again => ServiceName::OCFS2.to_owned(),
            How::Held | How::Free | How::Plain | How::Mute => {
                format!("/mnt{}", self.dice.below(2))
            }
        };
        let door = match how {
            How::Held | How::Mute => Door::Old,
            How::Free | How::Again => Door::New,
            How::Plain => Door::Inside,
        };
        self.start_tool(node, group, (how, door), &name);
    }

    pub(super) fn fsck(&mut self, node: NodeId, group: GroupId) {
        self.start_tool(node, group, (How::Held, Door::Old), "fsck.ocfs2");
    }

    fn start_tool(&mut self, node: NodeId, group: GroupId, (how, door): (How, Door), name: &str) {
        let Ok(service) = ServiceName::new(name) else { return };
        let id = self.fresh(node);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let taken = machine.tools.values().any(|it| it.group == group && it.service == service);
        let rival = taken && self.dice.one_in(3);
        if machine.power != Power::On || (taken && !rival) {
            return;
        }
        let boot = machine.boot;
        let doing = if how == How::Plain { Doing::Mounting } else { Doing::Asking };
        let (client, how_) = (ClientId(id), Some(how));
        let tool = Tool { client, door, how: how_, group, service: service.clone(), doing };
        machine.tools.insert(id, tool);
        self.counts.tools += 1;
        if doing == Doing::Mounting {
            self.soon(20_000, Job::Tool(node, boot, id));
            return;
        }
        let held = match how {
            How::Held | How::Mute => true,
            How::Again => self.dice.one_in(2),
            How::Free | How::Plain => false,
        };
        let request = RequestId(self.fresh(node));
        let begin = Begin {
            request,
            client: ClientId(id),
            group,
            service,
            cluster: Some(CLUSTER.into()),
            device: None,
            held,
        };
        self.ask(node, id, request, Event::Begin(begin));
    }

    /// Says something to the daemon. Without one, the tool is told so at once.
    fn ask(&mut self, node: NodeId, tool: u64, request: RequestId, event: Event) {
        let machine = self.machines.get_mut(&node);
        let Some(machine) = machine else { return };
        let life = machine.life;
        let door = machine.tools.get(&tool).map_or(Door::Inside, |it| it.door);
        let Some(event) = doors::through(door, event.clone()) else {
            return self.violate("door", || format!("n{node}: {door:?} does not take {event:?}"));
        };
        match machine.daemon.as_mut() {
            Some(daemon) => {
                daemon.requests.insert(request, tool);
                self.tell(node, life, event);
            }
            None => self.refused(node, tool, false),
        }
    }

    /// Somebody unmounts a volume and says so.
    pub(super) fn umount(&mut self, node: NodeId, group: GroupId) {
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.power == Power::On) else {
            return;
        };
        let mounts = machine.kernel.mounts.get(&group);
        let Some(service) = mounts.and_then(|mounts| mounts.first().cloned()) else { return };
        if machine.tools.values().any(|it| it.group == group && it.service == service) {
            return;
        }
        let door = if self.dice.one_in(2) { Door::Old } else { Door::New };
        let boot = machine.boot;
        self.unmount(node, group, &service);
        // The kernel is done, and the tool takes a while to say so. Meanwhile it may be mounted anew, and under
        // the record shim nothing would keep the group from going then.
        if self.options.shim != ShimKind::Record && self.dice.one_in(4) {
            let id = self.fresh(node);
            let client = ClientId(id);
            let doing = Doing::Unmounted;
            let tool = Tool { client, door, how: None, group, service, doing };
            self.machines.get_mut(&node).map(|it| it.tools.insert(id, tool));
            return self.soon(200_000, Job::Tool(node, boot, id));
        }
        self.leave(node, group, service, (door, 0));
    }

    /// An administrator ends a service, whatever it is at.
    pub(super) fn leave_by_hand(&mut self, node: NodeId, group: GroupId) {
        if let Some(service) = self.any_service(node, group) {
            self.leave(node, group, service, (Door::New, LEAVES_MAX));
        }
    }

    /// Somebody says how a service went, and has nothing to do with it. But not of a mount that it stands when
    /// it does not: that is believed, whoever says so.
    pub(super) fn complete_by_hand(&mut self, node: NodeId, group: GroupId) {
        let Some(service) = self.any_service(node, group) else { return };
        let mounts = self.machines[&node].kernel.mounts.get(&group);
        let stands = !service.is_mount() || mounts.is_some_and(|it| it.contains(&service));
        let code = if self.dice.one_in(2) && stands { 0 } else { 5 };
        let (id, request) = (self.fresh(node), RequestId(self.fresh(node)));
        let (client, doing) = (ClientId(id), Doing::Reporting { code });
        let tool =
            Tool { client, door: Door::New, how: None, group, service: service.clone(), doing };
        self.machines.get_mut(&node).map(|it| it.tools.insert(id, tool));
        self.ask(node, id, request, Event::Complete { request, client, group, service, code });
    }

    /// A service of this group, whatever it is at.
    fn any_service(&mut self, node: NodeId, group: GroupId) -> Option<ServiceName> {
        let machine = &self.machines[&node];
        let in_use = machine.kernel.is_mounted(group)
            || machine.tools.values().any(|tool| tool.group == group);
        if machine.power != Power::On {
            return None;
        }
        if self.options.shim == ShimKind::Record && in_use {
            // Nothing would keep the group from going under the mount, as a kernel does.
            return None;
        }
        let groups = machine.daemon.iter().flat_map(|daemon| daemon.core.snapshot().groups);
        let services: Vec<ServiceName> = groups
            .filter(|it| it.group == group)
            .flat_map(|it| it.services.into_iter().map(|it| it.service))
            .collect();
        self.dice.pick(&services).cloned()
    }

    fn leave(
        &mut self,
        node: NodeId,
        group: GroupId,
        service: ServiceName,
        (door, tries): (Door, u64),
    ) {
        let id = self.fresh(node);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let client = ClientId(id);
        let doing = Doing::Leaving { tries };
        let tool = Tool { client, door, how: None, group, service: service.clone(), doing };
        machine.tools.insert(id, tool);
        let request = RequestId(self.fresh(node));
        self.ask(node, id, request, Event::Leave { request, client, group, service });
    }

    /// The answer to a request.
    pub(crate) fn reply(&mut self, node: NodeId, request: RequestId, reply: &Reply) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let daemon = machine.daemon.as_mut();
        let Some(id) = daemon.and_then(|daemon| daemon.requests.remove(&request)) else {
            self.violate("reply", || format!("n{node} answers {request:?} twice: {reply:?}"));
            return;
        };
        let Some(tool) = machine.tools.get(&id).cloned() else { return };
        let boot = machine.boot;
        let method = match tool.doing {
            Doing::Asking | Doing::Mounting => Method::Begin,
            Doing::Reporting { .. } | Doing::Checking => Method::Complete,
            Doing::Unmounted | Doing::Leaving { .. } => Method::Leave,
        };
        let read = doors::read(tool.door, method, reply);
        if read != Read::Good {
            self.counts.refusals += 1;
            self.refused(node, id, read == Read::Busy);
            return;
        }
        match tool.doing {
            Doing::Asking => {
                self.counts.grants += 1;
                self.check_granted(node, tool.group, &tool.service);
                self.become_tool(node, id, Doing::Mounting);
                self.soon(60_000, Job::Tool(node, boot, id));
            }
            Doing::Reporting { code } => {
                self.check_reported(node, tool.group, &tool.service, code);
                if code == 0 && tool.how.is_some() && !tool.service.is_mount() {
                    self.become_tool(node, id, Doing::Checking);
                    return self.soon(20_000_000, Job::Tool(node, boot, id));
                }
                self.end_tool(node, id);
            }
            Doing::Leaving { .. } => {
                self.check_left(node, tool.group, &tool.service);
                self.end_tool(node, id);
            }
            Doing::Mounting | Doing::Checking | Doing::Unmounted => {
                self.violate("reply", || format!("n{node} answers a tool that did not ask"));
            }
        }
    }

    fn become_tool(&mut self, node: NodeId, id: u64, doing: Doing) {
        let tool = self.machines.get_mut(&node).and_then(|it| it.tools.get_mut(&id));
        if let Some(tool) = tool {
            tool.doing = doing;
        }
    }

    fn end_tool(&mut self, node: NodeId, id: u64) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let life = machine.life;
        if let Some(tool) = machine.tools.remove(&id) {
            self.soon(
                2_000,
                Job::Tell(node, life, Box::new(Event::ClientGone { client: tool.client })),
            );
        }
    }

    /// What a tool does when it is refused, or its daemon is not there.
    fn refused(&mut self, node: NodeId, id: u64, again: bool) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(tool) = machine.tools.get(&id).cloned() else { return };
        match tool.doing {
            // The mount stands; that nobody heard of it is for the daemon to find out.
            Doing::Asking
            | Doing::Mounting
            | Doing::Checking
            | Doing::Unmounted
            | Doing::Reporting { .. } => self.end_tool(node, id),
            Doing::Leaving { tries } => {
                self.end_tool(node, id);
                if again && tries < LEAVES_MAX {
                    self.leave(node, tool.group, tool.service, (tool.door, tries + 1));
                }
            }
        }
    }

    /// The daemon is gone, and with it every connection.
    pub(super) fn hang_up(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let is_at_work = |doing: &Doing| match doing {
            Doing::Mounting | Doing::Checking | Doing::Unmounted => true,
            Doing::Asking | Doing::Reporting { .. } | Doing::Leaving { .. } => false,
        };
        machine.tools.retain(|_, tool| is_at_work(&tool.doing));
    }

    /// A tool comes back from the kernel, or from its own work.
    pub(super) fn tool(&mut self, node: NodeId, boot: u128, id: u64) {
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.boot == boot) else {
            return;
        };
        let Some(tool) = machine.tools.get(&id).cloned() else { return };
        match tool.doing {
            Doing::Mounting => {}
            Doing::Checking | Doing::Unmounted => {
                self.end_tool(node, id);
                return self.leave(node, tool.group, tool.service, (tool.door, 0));
            }
            Doing::Asking | Doing::Reporting { .. } | Doing::Leaving { .. } => return,
        }
        let flaky = self.options.faults.tools && self.dice.one_in(8);
        let mounted = !flaky && self.try_mount(node, &tool);
        match tool.how {
            Some(How::Plain) if mounted => {
                // The daemon's own eyes on the mount table say begin and complete for it.
                self.end_tool(node, id);
                self.noticed(node, tool.group, tool.service);
            }
            Some(How::Plain | How::Mute) | None => self.end_tool(node, id),
            Some(How::Held | How::Free | How::Again) => {
                let code = if mounted { 0 } else { 5 };
                self.become_tool(node, id, Doing::Reporting { code });
                let request = RequestId(self.fresh(node));
                let (group, service) = (tool.group, tool.service);
                let client = tool.client;
                let event = Event::Complete { request, client, group, service, code };
                self.ask(node, id, request, event);
            }
        }
    }

    /// One of the node's tools dies; if it was in the kernel, what it was at may still happen.
    pub(super) fn tool_dies(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.power == Power::On) else {
            return;
        };
        let ids: Vec<u64> = machine.tools.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids).copied() else { return };
        let Some(tool) = machine.tools.get(&id).cloned() else { return };
        self.counts.tool_deaths += 1;
        if tool.doing == Doing::Mounting && self.dice.one_in(2) {
            self.try_mount(node, &tool);
        }
        self.end_tool(node, id);
    }

    /// A mount that nobody announced: the daemon's watcher begins and completes for it.
    fn noticed(&mut self, node: NodeId, group: GroupId, service: ServiceName) {
        self.start_tool(node, group, (How::Free, Door::Inside), service.as_str());
    }

    /// The daemon's eyes on the mount table: a mount without a service gets one, a service without a
    /// mount is left.
    pub(super) fn watch(&mut self, node: NodeId, boot: u128) {
        let machine = &self.machines[&node];
        if machine.boot != boot || machine.power == Power::Off {
            return;
        }
        let us = 500_000 + self.dice.below(1_500_000);
        self.after_us(us, Job::Watch(node, boot));
        self.connect(node);
        let machine = &self.machines[&node];
        let Some(daemon) = &machine.daemon else { return };
        if machine.kernel.mounts.is_empty() && machine.saved.groups.is_empty() {
            return;
        }
        let snapshot = daemon.core.snapshot();
        let mut served = std::collections::BTreeSet::new();
        for group in &snapshot.groups {
            for it in &group.services {
                if it.state != "leaving" {
                    served.insert((group.group, it.service.clone(), it.state == "live"));
                }
            }
        }
        let mounts = &self.machines[&node].kernel.mounts;
        let mounted: std::collections::BTreeSet<(GroupId, ServiceName)> = mounts
            .iter()
            .flat_map(|(group, mounts)| mounts.iter().map(|it| (*group, it.clone())))
            .collect();
        let unserved = mounted
            .iter()
            .filter(|(group, service)| !served.iter().any(|it| it.0 == *group && it.1 == *service));
        let stale = served.iter().filter(|(group, service, live)| {
            *live && service.is_mount() && !mounted.contains(&(*group, service.clone()))
        });
        let unserved: Vec<_> = unserved.cloned().collect();
        let stale: Vec<_> = stale.cloned().collect();
        for (group, service) in unserved {
            self.noticed(node, group, service);
        }
        for (group, service, _) in stale {
            let machine = &self.machines[&node];
            let busy = machine.tools.values().any(|it| it.group == group && it.service == service);
            if !busy {
                self.leave(node, group, service, (Door::Inside, 0));
            }
        }
    }

    /// The system call. Whether it works is the kernel's to say; what it may find is checked.
    fn try_mount(&mut self, node: NodeId, tool: &Tool) -> bool {
        let Tool { group, service, .. } = tool;
        let group = *group;
        let Some(owner) = self.owner(node, group) else { return false };
        if !service.is_mount() {
            return true;
        }
        let region = &self.machines[&node].kernel.regions[&group];
        let already = self.machines[&node].kernel.is_mounted(group);
        // The lock manager of each mounted peer must know us, or it does not let us in; nor does it if we do not
        // know all those whom it knows. Those of o2cb ask whoever they know, mounted or not.
        let is_in = |peer: &Machine| {
            peer.id != node && peer.power != Power::Off && peer.kernel.is_mounted(group)
        };
        let asks_all = self.options.shim == ShimKind::UserHeartbeat;
        let unknown =
            |third: &NodeId| is_in(&self.machines[third]) && !region.known.contains_key(third);
        let strangers = region.known.keys().map(|peer| &self.machines[peer]).any(|peer| {
            let theirs = peer.kernel.regions.get(&group).filter(|_| peer.power != Power::Off);
            let answers = is_in(peer) || asks_all && peer.id != node && theirs.is_some();
            answers && !peer.kernel.knows(group, node, owner.incarnation)
                || is_in(peer) && theirs.is_some_and(|it| it.known.keys().any(unknown))
        });
        if region.suspended || (strangers && self.options.shim != ShimKind::Record) {
            return false;
        }
        if !already {
            self.check_mount(node, group);
        }
        let machine = self.machines.get_mut(&node);
        let mounts = machine.map(|it| it.kernel.mounts.entry(group).or_default());
        mounts.map(|mounts| mounts.insert(service.clone()));
        let volume = self.volumes.entry(group).or_default();
        volume.journals.insert(owner, Journal::Dirty);
        self.counts.mounts += 1;
        self.trace.say(self.now, || format!("n{node} mounts {group} at {service}"));
        self.check_known(group);
        true
    }

    fn unmount(&mut self, node: NodeId, group: GroupId, service: &ServiceName) {
        let owner = self.owner(node, group);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if let Some(mounts) = machine.kernel.mounts.get_mut(&group) {
            mounts.remove(service);
        }
        self.trace.say(self.now, || format!("n{node} unmounts {group} at {service}"));
        if !self.machines[&node].kernel.is_mounted(group) {
            let volume = self.volumes.entry(group).or_default();
            owner.into_iter().for_each(|owner| volume.clean(owner));
            self.grant_lock(group);
        }
    }

    /// A file system wants the volume's lock for a moment.
    pub(super) fn write(&mut self, node: NodeId, group: GroupId) {
        let Some(owner) = self.owner(node, group) else { return };
        if self.machines[&node].power == Power::On && self.machines[&node].kernel.is_mounted(group)
        {
            let volume = self.volumes.entry(group).or_default();
            if volume.lock != Some(owner) && !volume.waiting.contains(&owner) {
                volume.waiting.push(owner);
            }
            self.grant_lock(group);
        }
    }

    /// Gives the lock to the first who waits and whose kernel grants: one that knows neither who holds it nor
    /// who died with it.
    pub(crate) fn grant_lock(&mut self, group: GroupId) {
        let volume = self.volumes.entry(group).or_default();
        let grants = |it: &&crate::volume::Owner| {
            let machine = &self.machines[&it.node];
            let knows =
                |it: crate::volume::Owner| machine.kernel.knows(group, it.node, it.incarnation);
            machine.boot == it.boot
                && machine.power == Power::On
                && machine.kernel.is_mounted(group)
                && !machine.kernel.regions.get(&group).is_none_or(|region| region.suspended)
                && !volume.lock.is_some_and(knows)
                && !volume.died_with_it.is_some_and(knows)
        };
        let Some(owner) = volume.waiting.iter().find(grants).copied() else { return };
        self.check_lock(group, owner);
        let volume = self.volumes.entry(group).or_default();
        volume.waiting.retain(|it| *it != owner);
        volume.lock = Some(owner);
        self.counts.locks += 1;
        let us = 1_000 + self.dice.skewed(3_000_000);
        self.after_us(us, Job::Unlock(owner.node, owner.boot, group));
    }

    pub(super) fn unlock(&mut self, node: NodeId, boot: u128, group: GroupId) {
        let volume = self.volumes.entry(group).or_default();
        if volume.lock.is_some_and(|owner| owner.node == node && owner.boot == boot)
            && self.machines[&node].boot == boot
            && self.machines[&node].power == Power::On
        {
            volume.lock = None;
            self.grant_lock(group);
        }
    }
}
