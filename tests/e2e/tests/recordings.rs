//! Corosync tells today what it told when the recordings were made.

use std::collections::BTreeMap;

use o2bridge_core::{Event, Member};
use o2bridge_e2e::recorder::record;
use o2bridge_e2e::recording::{Line, Recording, Source};

const IN_TURN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/recordings/in_turn.txt");

/// What each source told each client. Left out is what differs from run to run: the numbers of rings,
/// rings of the same nodes once more, and the order of those who come with a ring.
fn shape(recording: &Recording) -> BTreeMap<(Member, Source), Vec<Event>> {
    let mut shape: BTreeMap<_, Vec<Event>> = BTreeMap::new();
    for line in &recording.lines {
        let Line::Told(told) = line else { continue };
        let mut event = told.event.clone();
        if let Event::Quorum { ring, .. } | Event::Totem { ring, .. } = &mut event {
            ring.seq = 0;
        }
        if let Event::Confchg { joined, .. } = &mut event {
            joined.sort_by_key(|(member, _)| *member);
        }
        let events = shape.entry((told.client, told.source)).or_default();
        if events.last() != Some(&event) {
            events.push(event);
        }
    }
    shape
}

#[test]
fn corosync_tells_what_was_recorded() {
    let text = std::fs::read_to_string(IN_TURN).unwrap();
    let recorded: Recording = text.parse().unwrap();
    let text = record(&recorded).unwrap();
    let anew: Recording = text.parse().unwrap();
    let (recorded, anew) = (shape(&recorded), shape(&anew));
    assert!(recorded.len() > 10, "{recorded:?}");
    let sources = |shape: &BTreeMap<_, _>| shape.keys().copied().collect::<Vec<_>>();
    assert_eq!(sources(&recorded), sources(&anew), "\n{text}");
    for (source, events) in &recorded {
        assert_eq!(anew.get(source), Some(events), "{source:?}, now left, recorded right\n{text}");
    }
}
