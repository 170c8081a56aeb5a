//! The power switch that the fence agent in the guests asks for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::{Agent, OnFence};
use crate::guest::Guest;
use crate::power::lock;
use crate::wire::ToGuest;

/// How the power switch behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Switch {
    /// The victim is killed; the answer comes once it is gone.
    #[default]
    Works,
    /// As that, this much later.
    Slow(Duration),
    /// The victim lives, and the agent says that it failed.
    Fails,
    /// The victim lives, and the agent never ends by itself.
    Hangs,
}

/// One request to the power switch.
#[derive(Debug, Clone)]
pub struct Fenced {
    /// Who asked.
    pub by: String,
    /// The victim, as it was called.
    pub victim: String,
    /// `off`, `reboot` or `status`.
    pub action: String,
    /// When it was asked for.
    pub asked: Instant,
    /// When the answer was given; none if the switch hangs.
    pub answered: Option<Instant>,
    /// The agent's exit status.
    pub exit: i32,
}

/// All guests' power switch, and what it was asked for.
#[derive(Debug, Default)]
pub struct Fencing {
    switch: Mutex<Switch>,
    guests: Mutex<BTreeMap<String, Weak<Guest>>>,
    log: Mutex<Vec<Fenced>>,
}

impl Fencing {
    /// How the switch behaves from now on.
    pub fn set(&self, switch: Switch) {
        *lock(&self.switch) = switch;
    }

    /// All requests so far.
    #[must_use]
    pub fn log(&self) -> Vec<Fenced> {
        lock(&self.log).clone()
    }

    pub(crate) fn add(&self, guest: &Arc<Guest>) {
        let mut guests = lock(&self.guests);
        guests.insert(guest.name().to_owned(), Arc::downgrade(guest));
        guests.insert(guest.number().to_string(), Arc::downgrade(guest));
    }

    /// What an agent's line calls for requests; on a thread of its own each.
    pub(crate) fn door(self: &Arc<Self>, by: &str) -> Arc<OnFence> {
        let (fencing, by) = (Arc::clone(self), by.to_owned());
        Arc::new(move |agent: Arc<Agent>, id, action: String, victim: String| {
            let asked = Instant::now();
            let exit = fencing.act(&action, &victim);
            let answered = exit.is_some().then(Instant::now);
            let by = by.clone();
            let exit_or = exit.unwrap_or(-1);
            lock(&fencing.log).push(Fenced { by, victim, action, asked, answered, exit: exit_or });
            if let Some(exit) = exit {
                let _ = agent.say(&ToGuest::Fenced { id, exit });
            }
        })
    }

    /// `reboot` is `off` here: the scenario decides whether and when the victim comes back.
    fn act(&self, action: &str, victim: &str) -> Option<i32> {
        let guest = lock(&self.guests).get(victim).and_then(Weak::upgrade);
        let Some(guest) = guest else { return Some(1) };
        if action == "status" {
            return Some(if guest.is_on() { 0 } else { 2 });
        }
        let switch = *lock(&self.switch);
        match switch {
            Switch::Works => guest.kill(),
            Switch::Slow(delay) => {
                thread::sleep(delay);
                guest.kill();
            }
            Switch::Fails => return Some(1),
            Switch::Hangs => return None,
        }
        Some(0)
    }
}
