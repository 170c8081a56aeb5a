//! The search, depth first.
//!
//! What is left out, and why nothing is lost by it up to the depth:
//!
//! * **Worlds seen before** ([`World::digest`]), if at least as many choices were left then: whatever
//!   can be chosen now could be chosen then, with the same outcome. Most of these are the same things
//!   of different nodes in another order. `tests/pruning.rs` compares with a search that prunes
//!   nothing. Remembered are 64 bits: that among n worlds two are taken for one has a likelihood of
//!   about n²/2⁶⁵ (of a million: 3 in 100 million).
//! * **Jobs that can change nothing any more** (timers set again or voided, what was meant for a daemon
//!   or a boot that is gone) are no choices.
//!
//! What is left out, and is a limit of what is said:
//!
//! * **Chance.** Nothing fails by itself (a scenario's step can make it fail), each draw has its first
//!   outcome ([`World::without_chance`]). A ring that breaks had delivered what was delivered by choice,
//!   to all of its nodes alike.
//! * **Housekeeping.** The looks of keepers, at the mount table and of the administrator are made only
//!   when a world is left to itself: no keeper resets its node among the choices.
//! * **The order inside a lane**: effects on one group, joins and leaves of channels, messages of one
//!   ring, the steps from outside. The driver and corosync promise these orders.
//! * **What a daemon reads at once**: all there is, all but the mountgroups' events, or one event; not
//!   each number of events between one and all.
//! * **Coming to rest** is tried at a sample of the ends, and the depth is from the start's moments on:
//!   between two moments things go in the order of time.

use std::collections::BTreeMap;
use std::fmt;

use o2bridge_sim::check::Violation;
use o2bridge_sim::world::{Choice, World};

use crate::start::Start;

/// How a choice is carried out: [`World::choose`], or something that is broken on purpose.
pub type Rule = dyn Fn(&mut World, Choice) -> Result<(), Violation>;

/// What a search did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Choices carried out.
    pub choices: u64,
    /// Different worlds seen.
    pub states: u64,
    /// Orders run to their end.
    pub orders: u64,
    /// Orders that these stand for, themselves included: at least so many.
    pub covered: u64,
    /// Branches that ended in a world seen before.
    pub pruned: u64,
    /// Ends that were left to themselves.
    pub settled: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { choices, states, orders, covered, pruned, settled } = self;
        write!(f, "{orders} orders run for {covered}, {choices} choices, {states} worlds, ")?;
        write!(f, "{pruned} pruned, {settled} settled")
    }
}

/// What is wrong, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What a checker says.
    pub violation: Violation,
    /// Which of the choices was taken each time, from the start on.
    pub path: Vec<usize>,
    /// Whether it came after the choices, when the world was left to itself.
    pub settling: bool,
}

impl Finding {
    /// The choices, as `--replay` reads them.
    #[must_use]
    pub fn way(&self) -> String {
        self.path.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.settling { ", left to itself after the choices" } else { "" };
        write!(f, "{}{when}; again with --replay \"{}\"", self.violation, self.way())
    }
}

/// A search from one start.
pub struct Search<'a> {
    rule: &'a Rule,
    settle_every: u64,
    /// Whether worlds seen before are left out.
    pub prune: bool,
    /// By digest: with how many choices left it was seen, and how many orders that made.
    seen: BTreeMap<u64, (u8, u64)>,
    path: Vec<usize>,
    ends: u64,
    /// What it did so far.
    pub tally: Tally,
}

impl<'a> Search<'a> {
    /// One that lets every so-many-th end come to rest.
    #[must_use]
    pub fn new(rule: &'a Rule, settle_every: u64) -> Self {
        let (seen, path, tally) = (BTreeMap::new(), Vec::new(), Tally::default());
        Self { rule, settle_every, prune: true, seen, path, ends: 0, tally }
    }

    /// Tries every order of the next choices of this world, and from each of the start's later moments.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn run(&mut self, mut world: World, start: &Start, depth: u8) -> Result<(), Finding> {
        for _ in 0..start.moments {
            self.tally.covered += self.explore(&world, depth)?;
            for _ in 0..start.stride {
                let Some(first) = world.choices().first().copied() else { return Ok(()) };
                self.path.push(0);
                (self.rule)(&mut world, first).map_err(|it| self.finding(it, false))?;
            }
        }
        Ok(())
    }

    /// Which worlds were seen.
    pub fn digests(&self) -> impl Iterator<Item = u64> {
        self.seen.keys().copied()
    }

    /// Says how many orders there are from here.
    fn explore(&mut self, world: &World, left: u8) -> Result<u64, Finding> {
        let choices = world.choices();
        if left == 0 || choices.is_empty() {
            self.end(world)?;
            return Ok(1);
        }
        let mut orders = 0;
        for (index, choice) in choices.into_iter().enumerate() {
            let mut next = world.clone();
            self.path.push(index);
            self.tally.choices += 1;
            (self.rule)(&mut next, choice).map_err(|it| self.finding(it, false))?;
            orders += self.enter(&next, left - 1)?;
            self.path.pop();
        }
        Ok(orders)
    }

    fn enter(&mut self, world: &World, left: u8) -> Result<u64, Finding> {
        let digest = world.digest();
        match self.seen.get(&digest) {
            Some((then, orders)) if self.prune && *then >= left => {
                self.tally.pruned += 1;
                // With more depth left there were more orders; how many there are now is not known.
                return Ok(if *then == left { *orders } else { 1 });
            }
            Some(_) => {}
            None => self.tally.states += 1,
        }
        let orders = self.explore(world, left)?;
        self.seen.insert(digest, (left, orders));
        Ok(orders)
    }

    fn end(&mut self, world: &World) -> Result<(), Finding> {
        self.tally.orders += 1;
        self.ends += 1;
        if self.settle_every == 0 || self.ends % self.settle_every != 0 {
            return Ok(());
        }
        self.tally.settled += 1;
        world.clone().settle().map_err(|violation| self.finding(violation, true))
    }

    fn finding(&self, violation: Violation, settling: bool) -> Finding {
        Finding { violation, path: self.path.clone(), settling }
    }
}

/// Goes a way again, and says each choice. Ends with what is wrong, if anything is: on the way, or
/// after it when the world is left to itself.
///
/// # Errors
/// The way leads nowhere: there was no such choice.
pub fn replay(
    start: &Start,
    rule: &Rule,
    path: &[usize],
    say: &mut dyn FnMut(String),
) -> Result<Option<Violation>, String> {
    let mut world = start.world(true)?;
    for (step, index) in path.iter().enumerate() {
        let choices = world.choices();
        let choice = choices.get(*index).copied();
        let choice = choice.ok_or(format!("step {step}: there is no choice {index}"))?;
        say(format!("{step:>3}: {index} of {}: {}", choices.len(), world.describe(choice)));
        let told = world.trace.lines().len();
        let result = rule(&mut world, choice);
        world.trace.lines()[told..].iter().for_each(|line| say(format!("     {line}")));
        if let Err(violation) = result {
            return Ok(Some(violation));
        }
    }
    let told = world.trace.lines().len();
    let result = world.settle();
    if result.is_err() {
        world.trace.lines()[told..].iter().for_each(|line| say(format!("     {line}")));
    }
    Ok(result.err())
}
