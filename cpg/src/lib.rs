//! Corosync, as events for a mio loop.
//!
//! One [`Bus`] holds every handle. It never blocks: whatever corosync may leave unanswered runs on
//! helper threads under a watchdog, and what the loop calls itself returns at once, also when corosync
//! is stopped. It decides nothing; it says what corosync said, in an order that can be relied on.
//!
//! # How a loop uses it
//!
//! ```no_run
//! # use std::{sync::Arc, time::Instant};
//! # use o2bridge_core::types::{Channel, OpId};
//! # use o2bridge_cpg::{Bus, BusEvent, Options};
//! let mut poll = mio::Poll::new()?;
//! let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0))?);
//! let mut bus = Bus::new(poll.registry(), 1..2000, waker, Options::default())?;
//! bus.connect();
//! let (mut ready, mut events) = (mio::Events::with_capacity(64), Vec::new());
//! loop {
//!     let left = bus.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
//!     poll.poll(&mut ready, left)?;
//!     for event in &ready {
//!         if bus.is_token(event.token()) {
//!             bus.ready(event.token());
//!         }
//!     }
//!     bus.tick(Instant::now());
//!     bus.drain(&mut events);
//!     for event in events.drain(..) {
//!         match event {
//!             BusEvent::Connected(_) => bus.join(OpId(1), Channel::Control),
//!             BusEvent::Lost(_) => bus.connect(),
//!             other => println!("{other:?}"),
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Call [`Bus::tick`] and [`Bus::drain`] after every poll, also when no token of the bus was ready:
//! helper threads report through the waker. What the bus is asked to do is answered in a later
//! `drain`, never inside the call; the waker sees to it that one comes.
//!
//! # The traps, and what is done about them
//!
//! Each is a measured fact about corosync 3.1.7, libcpg or rust-corosync 3.2.0. The tests are in
//! `tests/traps.rs` and run against real corosync.
//!
//! | trap | answer | test |
//! |---|---|---|
//! | 1. NODEDOWN misses deaths: a clean stop of corosync arrives as PROCDOWN | reasons are handed over as they are, and [`BusEvent::Totem`] says who is in the ring | `trap_1_a_clean_stop_is_seen_in_the_ring` |
//! | 2. NODEDOWN invents deaths: a cut-off node hears it of everyone before it hears that it is inquorate | [`BusEvent::Quorum`] carries the ring id to compare with the group's last totem; nothing is ever polled | `trap_2_the_losing_side_gets_quorum_with_the_ring_id` |
//! | 3. ghosts: CPG members whose node is not in the ring | the totem event after each confchg of a ring change lists the living | `trap_3_a_ghost_is_not_in_the_totem_list` |
//! | 4. a handle is good for one join; a leave before the own JOIN spins; closing without a leave looks like a crash | a new handle for each join; leave waits for the own JOIN, closing for the own LEAVE (table in `link.rs`) | `trap_4_one_handle_for_one_join` |
//! | 5. most calls block as long as corosync is stopped; many sends spin inside libqb | helper threads with a watchdog; at most 32 messages on their way per channel | `trap_5_a_stopped_corosync_stops_nothing_here` and the unit tests of `crew.rs` |
//! | 6. the own corosync's death loses queued events, closing is slow then, and `qb_ipc_type: socket` says nothing | one [`BusEvent::Lost`], all handles closed on a helper; socket is refused | `trap_6_the_death_of_corosync_is_one_event`, `trap_6_socket_ipc_is_refused` |
//! | 7. in a callback nothing of rust-corosync may be called, and a panic aborts; names and contexts are garbage; dropping a handle blocks | callbacks only copy onto a list of the thread (`sink.rs`); names are known from the handle; handles are never dropped, only closed (`calls.rs`) | `trap_7_opening_and_closing_during_callbacks` shows the absence of deadlock. That a callback cannot panic is not testable (it would end the test); `sink.rs` has no panicking call |
//! | 8. `cmap::get` fails for strings of 16 bytes, `membership_get` overflows, statistics crash, trackers swap | the iterator is used for strings; a tracker is a bell only, its callback is never called (`bus/nodelist.rs`); the rest is not called | `trap_8_long_strings_are_read_and_bad_calls_are_not_made` |
//! | 9. with edges, one dispatch per edge strands events; dispatch writes 1 MiB onto the stack unasked | everything is dispatched to the bottom; [`Bus::new`] refuses a thread with less than 1.25 MiB of stack left, and the bus cannot change threads | `trap_9_one_edge_many_events`, and the unit test of `stack.rs` |
//! | 10. a group costs 3.05 MiB of `/dev/shm`, and corosync a descriptor and a third more | [`Bus::shm_bytes`], [`Notice::ManyGroups`] | `trap_10_memory_is_told`. Not tested, because it would only test corosync: 2 ms per handle, about 960 handles at 1024 descriptors, and that `token: 1000` means 1650 ms for three nodes unless `token_coefficient` is 0 |
//!
//! Two gaps are left that a wrapper cannot close. A process that corosync lets in may join one of our groups more than
//! 128 times, and libcpg breaks. And rust-corosync copies the group name of every message
//! with `CStr::from_ptr`, and a foreign client whose name fills all 128 bytes makes it read past the
//! field. Corosync lets only root and the configured users in.
//!
//! # Why shared memory is told, not reduced
//!
//! libcpg asks libqb for three ring buffers of 1 MiB for each handle. A process can define
//! `qb_ipcc_connect` itself and ask for less (with 32 KiB a group costs 22 times less and opens seven
//! times faster). This crate does not. An event larger than the ring can never be delivered and blocks
//! all behind it for ever, and the size of events is not ours to choose: any CPG client on any node
//! may send up to 1 MiB into the group. It would also replace a symbol for every library in the
//! process. With many groups, give `/dev/shm` 3.1 MiB and corosync one descriptor (`LimitNOFILE=`) for
//! each.

mod bus;
mod calls;
mod config;
mod crew;
mod event;
mod link;
mod sink;
mod stack;

pub use bus::{Bus, NewError, Options, SHM_BYTES_PER_CHANNEL};
pub use config::Map;
pub use event::{BusEvent, Connected, LostCause, NodeEntry, Notice, Unsuitable};
pub use stack::StackTooSmall;
