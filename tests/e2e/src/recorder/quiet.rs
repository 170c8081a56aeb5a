//! When everything that the steps caused has been told.

use std::time::{Duration, Instant};

use o2bridge_core::{Member, NodeId};
use o2bridge_harness::HarnessError;

use super::{Client, LIMIT, Stage};
use crate::LabError;
use crate::recording::client_name;

/// It is quiet when nobody said a word for so long, and all is as it should be.
const QUIET: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);

/// What a client's words say of its state.
#[derive(Default)]
struct View {
    connected: bool,
    ring: String,
    obeyed: usize,
    calls: usize,
    done: usize,
}

impl Stage {
    /// Waits until every ring is what it should be, every client knows that and has nothing more to
    /// do, and nobody has spoken for a while.
    pub(super) fn wait_quiet(&mut self) -> Result<(), LabError> {
        for node in self.up.difference(&self.paused) {
            if !self.clients.iter().any(|(client, on)| client.node == *node && on.is_alive) {
                let ring: Vec<u32> = self.ring_of(*node).iter().map(|node| node.0).collect();
                self.cluster.wait_members(&[node.0], &ring, LIMIT)?;
            }
        }
        let deadline = Instant::now() + LIMIT;
        let (mut words, mut since) = (0, Instant::now());
        loop {
            let said: Vec<String> = self.clients.values().map(|on| on.proc.stdout()).collect();
            let now = said.iter().map(String::len).sum();
            if now != words {
                (words, since) = (now, Instant::now());
            }
            let open = self.clients.iter().find(|(client, on)| !self.is_settled(**client, on));
            if open.is_none() && since.elapsed() >= QUIET {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!("client {:?} was to settle", open.map(|(c, _)| client_name(*c)));
                let detail = said.join("---\n");
                return Err(HarnessError::TimedOut { what, limit: LIMIT, detail }.into());
            }
            std::thread::sleep(POLL);
        }
    }

    fn is_settled(&self, client: Member, on: &Client) -> bool {
        if !on.is_alive || self.paused.contains(&client.node) {
            return true;
        }
        let view = View::of(&on.proc.stdout());
        if !self.up.contains(&client.node) {
            return !view.connected;
        }
        let ring: Vec<String> = self.ring_of(client.node).iter().map(NodeId::to_string).collect();
        view.connected
            && view.ring == format!("[{}]", ring.join(" "))
            && view.obeyed == on.sent
            && view.done == view.calls
    }

    /// The nodes that should be a ring with this one.
    fn ring_of(&self, node: NodeId) -> Vec<NodeId> {
        let part = |node: &NodeId| self.parts.iter().position(|part| part.contains(node));
        let own = part(&node).unwrap_or(0);
        let answering = self.up.difference(&self.paused);
        answering.filter(|other| part(other).unwrap_or(0) == own).copied().collect()
    }
}

impl View {
    fn of(said: &str) -> Self {
        let mut view = Self::default();
        for line in said.lines() {
            let mut words = line.splitn(4, ' ').skip(1);
            match (words.next(), words.next()) {
                (Some("connected"), _) => view.connected = true,
                (Some("disconnected"), _) => view.connected = false,
                (Some("quorum"), _) => {
                    let list = line.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
                    view.ring = format!("[{}]", list.map_or("", |(nodes, _)| nodes));
                }
                (Some("done"), _) => view.done += 1,
                (Some("step"), _) => {
                    view.obeyed += 1;
                    let is_call = [" join ", " leave ", " killnode "];
                    view.calls += usize::from(is_call.iter().any(|call| line.contains(call)));
                }
                (_, _) => {}
            }
        }
        view
    }
}
