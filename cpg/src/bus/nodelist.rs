//! Changes of corosync's node list at run time (`corosync-cfgtool -R`).
//!
//! A cmap handle with a tracker is used as a bell: when its descriptor is ready, something below
//! `nodelist.` changed. It is never dispatched, because rust-corosync's callback swaps what it says
//! and can abort the process; instead the bell is thrown away, and after a quiet moment a helper
//! hangs up a new one and then reads the map. Whatever changes after that rings again.

use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rust_corosync::CsError;

use super::{Bus, Phase, Purpose};
use crate::calls::{self, Bell, Handle};
use crate::crew::Outcome;
use crate::event::{BusEvent, NodeEntry, Notice};

/// Which of the bus's tokens is the bell's.
pub(super) const SLOT: usize = 1;
/// A reload changes many keys; the list is read when this long none changed.
const QUIET: Duration = Duration::from_millis(200);

/// What is known of the node list.
#[derive(Debug, Default)]
pub(super) struct Nodelist {
    known: Vec<NodeEntry>,
    bell: Option<Bell>,
    /// When it is read again.
    pub(super) read_at: Option<Instant>,
    /// Whether it was said that it cannot be read.
    is_told: bool,
}

impl Nodelist {
    /// The bell rang.
    pub(super) fn ring(&mut self) {
        if self.bell.is_some() {
            self.read_at = Some(Instant::now() + QUIET);
        }
    }
}

impl Bus {
    /// Corosync is there and said `known`.
    pub(super) fn watch_nodelist(&mut self, known: Vec<NodeEntry>) {
        self.nodelist = Nodelist { known, ..Nodelist::default() };
        self.read_nodelist();
    }

    /// Has a helper hang up a new bell and read the map.
    pub(super) fn read_nodelist(&mut self) {
        self.nodelist.read_at = None;
        if !matches!(self.phase, Phase::Up(..)) {
            return;
        }
        if let Some(bell) = self.take_bell() {
            self.close(vec![bell], None);
        }
        self.call("nodelist", Purpose::Nodelist, |_| Outcome::Nodelist(calls::nodelist()));
    }

    pub(super) fn take_bell(&mut self) -> Option<Handle> {
        let bell = self.nodelist.bell.take()?;
        let _ = self.registry.deregister(&mut SourceFd(&bell.fd()));
        Some(Handle::Bell(bell))
    }

    /// The list was read, or (`None`) corosync was in the middle of a reload. Failures are tried
    /// again slowly: nobody dies of a node list that is late.
    pub(super) fn handle_nodelist(
        &mut self,
        result: Result<(Bell, Option<Vec<NodeEntry>>), CsError>,
    ) {
        let (bell, list) = match result {
            Ok(read) => read,
            Err(error) => {
                if !std::mem::replace(&mut self.nodelist.is_told, true) {
                    self.pending.push(BusEvent::Notice(Notice::NodelistUnread(error as u32)));
                }
                return self.read_nodelist_later();
            }
        };
        self.nodelist.is_told = false;
        let token = Token(self.tokens.start + SLOT);
        let watched = self.registry.register(&mut SourceFd(&bell.fd()), token, Interest::READABLE);
        if watched.is_err() {
            self.close(vec![Handle::Bell(bell)], None);
            return self.read_nodelist_later();
        }
        self.nodelist.bell = Some(bell);
        match list {
            None => self.nodelist.read_at = Some(Instant::now() + QUIET),
            Some(list) if list != self.nodelist.known => {
                self.nodelist.known.clone_from(&list);
                self.pending.push(BusEvent::Nodelist(list));
            }
            Some(_) => (),
        }
    }

    pub(super) fn read_nodelist_later(&mut self) {
        self.nodelist.read_at = Some(Instant::now() + self.options.refused_pause);
    }
}
