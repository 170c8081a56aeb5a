//! The cluster in the kernel: prepare, online, update, offline.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cluster_conf::{self, ClusterConf};
use crate::compare::{self, Compared};
use crate::configfs::{Attribute, Configfs, Entry, Table};
use crate::drivers::{self, Prepared};
use crate::error::Error;
use crate::kernel::{Kernel, Running};
use crate::plan::{self, Goal, Plan, Step, Users, Waiting, Why};
use crate::run;
use crate::slots::SlotMap;
use crate::wanted::Wanted;

/// Where things are. The default is where a Linux system has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Where configfs is mounted, or is to be.
    pub configfs: PathBuf,
    /// Where debugfs is mounted, or is to be.
    pub debugfs: PathBuf,
    /// Where `ocfs2_dlmfs` is mounted, or is to be. The directory is made if it is missing.
    pub dlmfs: PathBuf,
    /// `/sys/fs`, with `ocfs2` and `o2cb` in it.
    pub sys_fs: PathBuf,
    /// What the oldest drivers say of themselves: `/sys/o2cb`.
    pub old_sys_o2cb: PathBuf,
    /// Which file systems the kernel has: `/proc/filesystems`.
    pub filesystems: PathBuf,
    /// What is mounted: `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
    /// The classic tools' node table. It may be missing.
    pub cluster_conf: PathBuf,
    /// The program that loads modules.
    pub modprobe: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            configfs: "/sys/kernel/config".into(),
            debugfs: "/sys/kernel/debug".into(),
            dlmfs: "/dlm".into(),
            sys_fs: "/sys/fs".into(),
            old_sys_o2cb: "/sys/o2cb".into(),
            filesystems: "/proc/filesystems".into(),
            mountinfo: "/proc/self/mountinfo".into(),
            cluster_conf: "/etc/ocfs2/cluster.conf".into(),
            modprobe: "/sbin/modprobe".into(),
        }
    }
}

/// A cluster that is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    /// The slot of each node that is in the kernel's table.
    pub slots: SlotMap,
    /// The slot of this node.
    pub local: u8,
    /// The TCP port of o2net.
    pub port: u16,
    /// What was changed, for the log. Empty if the table was there already: it was adopted.
    pub done: Vec<String>,
    /// Nodes of the kernel's table that corosync does not have, by name and slot. They may be
    /// in use; [`O2cb::update`] takes them away.
    pub stale: Vec<(String, u8)>,
    /// Nodes that an update adds when a stale one is gone.
    pub waiting: Vec<Waiting>,
    /// What an administrator should know.
    pub heads_up: Vec<String>,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The slot of each node that is in the kernel's table. Nodes that are to go are in it until
    /// their directory is gone, nodes that wait to come are not.
    pub slots: SlotMap,
    /// What was changed, for the log.
    pub done: Vec<String>,
    /// What could not be done yet. If this is not empty, call [`O2cb::update`] again after the
    /// membership of those nodes is down, and every second or so while the kernel says busy.
    pub waiting: Vec<Waiting>,
    /// What an administrator should know.
    pub heads_up: Vec<String>,
}

/// What is remembered between calls.
#[derive(Debug, Default)]
struct Memory {
    cluster: Option<String>,
    slots: SlotMap,
}

/// The kernel's cluster. Its calls block, for milliseconds as a rule; they are for a worker thread.
pub struct O2cb {
    paths: Paths,
    kernel: Box<dyn Kernel>,
    memory: Mutex<Memory>,
}

impl O2cb {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        let modprobe = paths.modprobe.clone();
        Self::with_kernel(paths, Box::new(Running { modprobe }))
    }

    pub(crate) fn with_kernel(paths: Paths, kernel: Box<dyn Kernel>) -> Self {
        Self { paths, kernel, memory: Mutex::default() }
    }

    /// Loads the drivers, mounts configfs, debugfs and dlmfs, and chooses the stack `o2cb`. What is
    /// so already is left alone.
    ///
    /// A kernel with the user-heartbeat driver has another tree, and ours would take its place:
    /// there only configfs and debugfs are mounted, and the drivers are taken as they are.
    ///
    /// # Errors
    /// A module is missing, another stack is in use, or the kernel's interface is not known. Mounts
    /// that the call made are undone, modules stay loaded.
    pub fn prepare(&self) -> Result<Prepared, Error> {
        drivers::prepare(&self.paths, self.kernel.as_ref())
    }

    /// Loads the drivers of a user stack, and nothing else: whoever mounts chooses the stack, and its node
    /// table is not ours.
    ///
    /// # Errors
    /// A module is missing.
    pub fn prepare_user_stack(&self) -> Result<Prepared, Error> {
        drivers::prepare_user_stack(&self.paths, self.kernel.as_ref())
    }

    /// Brings the node table into the kernel, or adopts the one that is there.
    ///
    /// Nodes too many in a table that has active regions stay (see [`Online::stale`]), because they
    /// may be in use; without regions the table is corrected.
    ///
    /// # Errors
    /// See [`Error`]. Nothing is left behind, except with [`Error::Undo`].
    pub fn online(&self, wanted: &Wanted) -> Result<Online, Error> {
        let ready = self.validate(wanted)?;
        let fs = self.configfs();
        let found = fs.read()?;
        let Plan { steps, stale, mut heads_up, mut waiting } = self.plan(&ready, found.as_ref())?;
        heads_up.extend(self.judge(ready.compared, found.as_ref(), &steps)?);
        let outcome = run::run(&fs, &ready.goal.cluster, &steps)?;
        waiting.extend(outcome.waiting);
        heads_up.extend(lacking(&fs, &ready.goal.cluster));
        let slots = self.remember(&ready.goal.cluster, ready.slots, &waiting, &stale);
        Ok(Online {
            local: slots.slot(wanted.local).unwrap_or(u8::MAX),
            slots,
            port: wanted.port,
            done: outcome.done.iter().map(Step::to_string).collect(),
            stale: stale.into_iter().map(|node| (node.name, node.slot)).collect(),
            waiting,
            heads_up,
        })
    }

    /// The node list changed: adds who is new, removes who is gone. Attributes stay as they are
    /// while regions are active. `in_use` are the slots that are members of anything now: their
    /// directories wait until they are not.
    ///
    /// A node whose address changed is removed and added again. A node is to be added on all nodes
    /// before any of them mounts anew.
    ///
    /// # Errors
    /// See [`Error`]; a node that is in use under another slot or port is refused.
    pub fn update(&self, wanted: &Wanted, in_use: &BTreeSet<u8>) -> Result<Pending, Error> {
        let ready = self.validate(wanted)?;
        let fs = self.configfs();
        let found = fs.read()?;
        let Some(table) = found.as_ref().filter(|table| table.cluster == ready.goal.cluster) else {
            return Err(Error::NotOnline(ready.goal.cluster));
        };
        let plan = plan::plan(Some(table), &ready.goal, Users::Known(in_use));
        let Plan { steps, mut waiting, mut heads_up, stale: _ } =
            plan.map_err(|list| Error::Table(fs.cluster_path(&table.cluster), list))?;
        heads_up.extend(self.judge(ready.compared, Some(table), &steps)?);
        let outcome = run::run(&fs, &ready.goal.cluster, &steps)?;
        waiting.extend(outcome.waiting);
        let slots = self.remember(&ready.goal.cluster, ready.slots, &waiting, &[]);
        let done = outcome.done.iter().map(Step::to_string).collect();
        Ok(Pending { slots, done, waiting, heads_up })
    }

    /// Takes away the table that [`Self::online`] made or adopted. Whether there was one.
    ///
    /// # Errors
    /// [`Error::NotOurs`] if it did neither, as where an earlier process did; [`Error::InUse`] while there are regions;
    /// [`Error::Teardown`] with all that is left behind.
    pub fn offline(&self) -> Result<bool, Error> {
        let mut memory = self.memory();
        let fs = self.configfs();
        let found = fs.read()?;
        if let Some(table) = &found {
            let path = fs.cluster_path(&table.cluster);
            if memory.cluster.as_ref() != Some(&table.cluster) {
                return Err(Error::NotOurs(path));
            }
            if !table.regions.is_empty() {
                return Err(Error::InUse { cluster: path, regions: table.regions.clone() });
            }
            let errors = run::run_all(&fs, &table.cluster, &plan::teardown(table));
            if !errors.is_empty() {
                return Err(Error::Teardown(errors));
            }
        }
        *memory = Memory::default();
        Ok(found.is_some())
    }

    fn configfs(&self) -> Configfs<'_> {
        let may_lack = drivers::has_user_heartbeat(&self.paths, self.kernel.as_ref());
        Configfs::new(self.kernel.as_ref(), &self.paths.configfs, may_lack)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that can be known to be wrong without a look at the kernel's table.
    fn validate(&self, wanted: &Wanted) -> Result<Ready, Error> {
        let conf = self.read_cluster_conf()?;
        let mut wanted = wanted.clone();
        let file = conf.as_ref().map(|conf| conf.nodes_of(&wanted.cluster)).unwrap_or_default();
        compare::name_nodes(&mut wanted, &file);
        let problems = wanted.problems();
        if !problems.is_empty() {
            return Err(Error::Wanted(problems));
        }
        let slots = SlotMap::assign(&wanted, &file)?;
        let compared = conf.map(|conf| compare::compare(&conf, &wanted, &slots));
        let goal = goal(&wanted, &slots);
        Ok(Ready { goal, slots, compared: compared.unwrap_or_default() })
    }

    fn read_cluster_conf(&self) -> Result<Option<ClusterConf>, Error> {
        let path = &self.paths.cluster_conf;
        let text = match self.kernel.read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::step("read", path, error)),
        };
        let conf = cluster_conf::parse(&text);
        conf.map(Some).map_err(|error| Error::ClusterConf(path.clone(), error))
    }

    fn plan(&self, ready: &Ready, found: Option<&Table>) -> Result<Plan, Error> {
        plan::plan(found, &ready.goal, Users::Unknown).map_err(|list| {
            let name = found.map_or(&ready.goal.cluster, |table| &table.cluster);
            Error::Table(self.configfs().cluster_path(name), list)
        })
    }

    /// The map of what is in the table: without those who wait to come, and with those who are
    /// still there. Of the latter only the former map knows the nodeids.
    fn remember(
        &self,
        cluster: &str,
        mut slots: SlotMap,
        waiting: &[Waiting],
        stale: &[Entry],
    ) -> SlotMap {
        let mut memory = self.memory();
        let (behind, there): (Vec<&Waiting>, Vec<&Waiting>) =
            waiting.iter().partition(|it| matches!(it.why, Why::Behind(_)));
        let there: BTreeSet<u8> =
            there.iter().map(|it| it.slot).chain(stale.iter().map(|it| it.slot)).collect();
        for it in behind {
            // The same node under its former address keeps its slot until that is gone.
            let is_there = there.contains(&it.slot) && memory.slots.node(it.slot).is_none();
            if let Some(node) = slots.node(it.slot).filter(|_| !is_there) {
                slots.remove(node);
            }
        }
        for slot in there {
            if let Some(node) = memory.slots.node(slot) {
                slots.keep(node, slot);
            }
        }
        *memory = Memory { cluster: Some(cluster.to_owned()), slots: slots.clone() };
        slots
    }

    /// What cluster.conf says against is an error, unless the table is in use and stays as it is.
    fn judge(
        &self,
        compared: Compared,
        found: Option<&Table>,
        steps: &[Step],
    ) -> Result<Vec<String>, Error> {
        let Compared { errors, mut heads_up } = compared;
        let is_adopted = steps.is_empty() && found.is_some_and(|it| !it.regions.is_empty());
        if !errors.is_empty() && !is_adopted {
            return Err(Error::Contradiction(self.paths.cluster_conf.clone(), errors));
        }
        let path = self.paths.cluster_conf.display();
        heads_up.extend(errors.iter().map(|it| format!("{path} contradicts: {it}")));
        Ok(heads_up)
    }
}

/// What was validated.
struct Ready {
    goal: Goal,
    slots: SlotMap,
    compared: Compared,
}

fn goal(wanted: &Wanted, slots: &SlotMap) -> Goal {
    let attributes = Attribute::ALL.map(|attribute| (attribute, attribute.of(wanted))).to_vec();
    let entry = |node: &crate::Node| {
        Some(Entry {
            name: node.name.clone(),
            slot: slots.slot(node.id)?,
            address: node.address,
            port: wanted.port,
            is_local: node.id == wanted.local,
        })
    };
    let nodes = wanted.nodes.iter().filter_map(entry).collect();
    Goal { cluster: wanted.cluster.clone(), attributes, nodes }
}

/// What is configured and has no place in this kernel.
fn lacking(fs: &Configfs<'_>, cluster: &str) -> Option<String> {
    let lacking = fs.lacking(cluster);
    let paths: Vec<&str> = lacking.into_iter().map(Attribute::path).collect();
    let said = "the user-heartbeat driver has no attributes";
    (!paths.is_empty()).then(|| format!("{said} {}: they cannot be set", paths.join(", ")))
}

#[cfg(test)]
mod tests;
