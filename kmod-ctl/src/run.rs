//! Carries a plan out, and undoes what it did when a step fails.

use crate::configfs::{Attribute, Configfs, Removed};
use crate::error::Error;
use crate::plan::{Step, Waiting, Why};

/// What became of a plan.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What was really changed.
    pub(crate) done: Vec<Step>,
    /// What the kernel put off.
    pub(crate) waiting: Vec<Waiting>,
}

/// How to take back a step that was done.
enum Inverse {
    Step(Step),
    Restore(Attribute, String),
    Nothing,
}

/// Carries out the steps in their order. A node that the kernel calls busy stays, and with it wait
/// those that come in its place. Any other failure undoes all.
pub(crate) fn run(fs: &Configfs<'_>, cluster: &str, steps: &[Step]) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    let mut inverses = Vec::new();
    let mut busy = Vec::new();
    for step in steps {
        if let Step::AddNode(node) = step {
            let is_in_its_way = |it: &&crate::configfs::Entry| {
                it.name == node.name || it.slot == node.slot || it.address == node.address
            };
            if let Some(other) = busy.iter().copied().find(is_in_its_way) {
                let (name, slot) = (node.name.clone(), node.slot);
                let why = Why::Behind(other.name.clone());
                outcome.waiting.push(Waiting { name, slot, why });
                continue;
            }
        }
        match (step, apply(fs, cluster, step)) {
            (_, Ok(Some(inverse))) => {
                outcome.done.push(step.clone());
                inverses.push(inverse);
            }
            (Step::RemoveNode(node), Ok(None)) => {
                let (name, slot) = (node.name.clone(), node.slot);
                outcome.waiting.push(Waiting { name, slot, why: Why::Busy });
                busy.push(node);
            }
            (_, Ok(None)) => (),
            (_, Err(cause)) => return Err(undo(fs, cluster, inverses, cause)),
        }
    }
    Ok(outcome)
}

/// Carries out all steps that can be, and collects what cannot.
pub(crate) fn run_all(fs: &Configfs<'_>, cluster: &str, steps: &[Step]) -> Vec<Error> {
    let mut errors = Vec::new();
    for step in steps {
        match (step, apply(fs, cluster, step)) {
            (Step::RemoveNode(node), Ok(None)) => {
                let path = fs.cluster_path(cluster).join("node").join(&node.name);
                const EBUSY: i32 = 16;
                let busy = std::io::Error::from_raw_os_error(EBUSY);
                errors.push(Error::step("remove", &path, busy));
            }
            (_, Ok(_)) => (),
            (_, Err(error)) => errors.push(error),
        }
    }
    errors
}

/// One step. `None` if there was nothing to do, or the kernel put it off.
fn apply(fs: &Configfs<'_>, cluster: &str, step: &Step) -> Result<Option<Inverse>, Error> {
    Ok(match step {
        Step::MakeCluster => {
            fs.make_cluster(cluster)?;
            Some(Inverse::Step(Step::RemoveCluster))
        }
        Step::RemoveCluster => {
            fs.remove_cluster(cluster)?;
            Some(Inverse::Nothing)
        }
        Step::Set(attribute, value) => {
            fs.set(cluster, *attribute, value)?.map(|was| Inverse::Restore(*attribute, was))
        }
        Step::AddNode(node) => {
            fs.add_node(cluster, node)?;
            Some(Inverse::Step(Step::RemoveNode(node.clone())))
        }
        Step::RemoveNode(node) => match fs.remove_node(cluster, &node.name)? {
            // Half of a node is not worth being made again.
            Removed::Gone if node.is_incomplete() => Some(Inverse::Nothing),
            Removed::Gone => Some(Inverse::Step(Step::AddNode(node.clone()))),
            Removed::Busy => None,
        },
        Step::ConfirmZero(node) => {
            fs.confirm_zero(cluster, node)?;
            None
        }
    })
}

fn undo(fs: &Configfs<'_>, cluster: &str, inverses: Vec<Inverse>, cause: Error) -> Error {
    let steps: Vec<Step> = (inverses.into_iter().rev())
        .filter_map(|inverse| match inverse {
            Inverse::Step(step) => Some(step),
            Inverse::Restore(attribute, value) => Some(Step::Set(attribute, value)),
            Inverse::Nothing => None,
        })
        .collect();
    let left = run_all(fs, cluster, &steps);
    if left.is_empty() { cause } else { Error::Undo(Box::new(cause), left) }
}
