//! The keeper's decisions under any order of commands and any passing of time.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use o2bridge_keeper::clock::Millis;
use o2bridge_keeper::record::Status;
use o2bridge_keeper::state::{Beat, Due, State};
use o2bridge_keeper::{Area, BEATS_MAX, Generation, Line, Settings, Slot};

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let mut keeper = Keeper::new();
    while !input.is_empty() && !keeper.has_ended && keeper.step(&mut input).is_ok() {
        keeper.check();
    }
});

/// The state, and what the daemon should believe of it.
struct Keeper {
    state: State,
    now: Millis,
    heard: Millis,
    beats: BTreeMap<(Area, Slot), Generation>,
    line: Option<Line>,
    was_resetting: bool,
    has_ended: bool,
}

fn settings() -> Settings {
    Settings {
        program: PathBuf::new(),
        socket: PathBuf::new(),
        device: None,
        control: None,
        block_bytes: 512,
        dead_threshold: 31,
        beat_ms: 2_000,
        daemon_back_ms: 20_000,
        silence_max_ms: 40_000,
        sysrq: PathBuf::new(),
        watchdog: None,
        lock_memory: false,
        realtime_priority: 0,
        log: None,
    }
}

impl Keeper {
    fn new() -> Self {
        let now = Millis(1_000_000);
        let state = State::new(&settings(), now);
        Self {
            state,
            now,
            heard: now,
            beats: BTreeMap::new(),
            line: None,
            was_resetting: false,
            has_ended: false,
        }
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let area = Area(input.int_in_range(0..=3)?);
        let slot = Slot(input.int_in_range(0..=254)?);
        match input.int_in_range(0..=11)? {
            0..=2 => self.beat(area, slot, input.int_in_range(1..=3)?),
            3 => self.fill(area),
            4 if self.state.accepting().is_ok() => {
                let known = self.beats.remove(&(area, slot)).is_some();
                assert_eq!(self.state.forget(area, slot).is_some(), known);
            }
            5 if self.state.accepting().is_ok() => {
                self.state.forget_area(area);
                self.beats.retain(|(of, _), _| *of != area);
            }
            6 => self.state.seen(self.now),
            7 => self.state.lost(self.now),
            8 => self.hold(input.int_in_range(1..=2)?),
            9 if self.state.accepting().is_ok() => {
                self.state.let_go();
                self.line = None;
            }
            10 => {
                if input.ratio(1, 32)? {
                    self.state.reset(self.now);
                }
            }
            _ => {
                self.now = self.now.plus(input.int_in_range(0..=30_000)?);
                // A keeper that was stopped between listening and acting heard nothing meanwhile.
                if !input.ratio(1, 8)? {
                    self.heard = self.now;
                }
                self.act(input)?;
            }
        }
        Ok(())
    }

    fn beat(&mut self, area: Area, slot: Slot, number: u64) {
        let generation = Generation::new(number).expect("not 0");
        let known = self.beats.get(&(area, slot)).copied();
        let expected = match known {
            _ if self.state.is_resetting() => Err(Status::Resetting),
            Some(known) if known == generation => Ok(false),
            Some(_) => Err(Status::OtherGeneration),
            None if self.beats.len() >= BEATS_MAX => Err(Status::Full),
            None => Ok(true),
        };
        assert_eq!(self.state.admit(area, slot, generation), expected);
        if expected == Ok(true) {
            self.state.insert(Beat { area, slot, generation, seq: 1 }, self.now);
            self.beats.insert((area, slot), generation);
        }
    }

    fn hold(&mut self, node: u32) {
        let line = Line { node, major: 1, minor: 0 };
        let expected = match self.line {
            _ if self.state.is_resetting() => Err(Status::Resetting),
            Some(held) if held == line => Ok(false),
            Some(_) => Err(Status::OtherLine),
            None => Ok(true),
        };
        assert_eq!(self.state.admit_line(line), expected);
        if expected == Ok(true) {
            self.state.keep(line, self.now);
            self.line = Some(line);
        }
    }

    fn fill(&mut self, area: Area) {
        for slot in 0..=254 {
            self.beat(area, Slot(slot), 1);
        }
    }

    /// Does what is due, until nothing is.
    fn act(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        for longest_ms in [3_000, 0, 0, 0] {
            match self.state.due(self.now, self.heard) {
                Due::Nothing => return Ok(()),
                Due::Round => {
                    assert!(
                        self.state.may_beat(self.now),
                        "a round after the kernel may have buried"
                    );
                    // With a line alone a round writes nothing, and a reset has no use for it.
                    let guards = self.line.is_some() && !self.state.is_resetting();
                    assert!(guards || !self.beats.is_empty());
                    self.now = self.now.plus(input.int_in_range(0..=longest_ms)?);
                    if !input.ratio(1, 8)? {
                        self.state.round_completed(self.now);
                    }
                }
                Due::Reset(_) => assert!(self.state.is_resetting()),
                Due::End => {
                    assert!(self.beats.is_empty(), "it ends while slots would fall silent");
                    assert_eq!(self.line, None, "its end would reset the node");
                    self.has_ended = true;
                    return Ok(());
                }
            }
        }
        assert_eq!(self.state.due(self.now, self.heard), Due::Nothing, "it never comes to rest");
        Ok(())
    }

    fn check(&mut self) {
        let beats = self.state.beats();
        let found: Vec<_> =
            beats.iter().map(|beat| ((beat.area, beat.slot), beat.generation)).collect();
        assert_eq!(found, self.beats.clone().into_iter().collect::<Vec<_>>());
        assert!(!self.was_resetting || self.state.is_resetting(), "no way out of a reset");
        self.was_resetting = self.state.is_resetting();
        assert_eq!(self.state.line(), self.line);
        let is_free = self.beats.is_empty() && self.line.is_none();
        assert_eq!(self.state.stop().is_ok(), is_free && !self.was_resetting);
    }
}
