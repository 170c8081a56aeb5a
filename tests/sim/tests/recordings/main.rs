//! The model of corosync can tell whatever real corosync was recorded to tell.
//!
//! Each recording's script is done to the model, as often as it takes until chance has it tell every
//! client the same: in each source the same words in the same order, with the same rings. A script is
//! done in pieces, from one `quiet` to the next: the first try that tells what was recorded of a piece
//! is where the next one starts.

mod replay;
mod script;

use o2bridge_core::{Event, Member, Reason};
use o2bridge_sim::recording::{Line, Recording, Told};
use replay::{Mismatch, Replay};

/// So often a piece is tried before the model is said not to tell it. The hardest one takes a third.
const TRIES: u64 = 20_000;

/// Steps, up to a `quiet`, and what was told.
struct Piece {
    steps: Vec<Line>,
    told: Vec<Told>,
}

fn pieces(recording: &Recording) -> Vec<Piece> {
    let script: Vec<Line> = recording.script.concat();
    let steps = script.split(|line| *line == Line::Quiet);
    let lines = recording.lines.split(|line| *line == Line::Quiet);
    let told = lines.map(|lines| {
        let told = |line: &Line| match line {
            Line::Told(told) => Some(told.clone()),
            Line::Step(_) | Line::Wait { .. } | Line::Quiet | Line::Done { .. } => None,
        };
        lines.iter().filter_map(told).collect()
    });
    steps.zip(told).map(|(steps, told)| Piece { steps: steps.to_vec(), told }).collect()
}

/// How many tries the hardest piece took; or what was nearest to the one that none told.
fn search(nodes: u32, pieces: &[Piece], tries: u64) -> Result<u64, String> {
    let mut state = Replay::new(nodes);
    let mut most = 0;
    for (index, Piece { steps, told }) in pieces.iter().enumerate() {
        let mut nearest: Option<Box<Mismatch>> = None;
        let found = (0..tries).find_map(|seed| {
            let mut replay = state.clone();
            let Err(mismatch) = replay.play(steps, told, seed) else { return Some((seed, replay)) };
            if nearest.as_ref().is_none_or(|nearest| nearest.matched < mismatch.matched) {
                nearest = Some(mismatch);
            }
            None
        });
        let Some((seed, replay)) = found else {
            let nearest = nearest.map(|it| it.to_string()).unwrap_or_default();
            return Err(format!("piece {}: {nearest}", index + 1));
        };
        (state, most) = (replay, most.max(seed + 1));
    }
    Ok(most)
}

fn recording(path: &std::path::Path) -> Recording {
    let text = std::fs::read_to_string(path).unwrap();
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recordings");

#[test]
fn the_model_can_tell_what_was_recorded() {
    let entries = std::fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    assert!(paths.len() >= 58, "only {} recordings", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let recording = recording(&path);
        let name = path.file_stem().unwrap().to_string_lossy();
        match search(recording.nodes, &pieces(&recording), TRIES) {
            Ok(tries) => println!("{name:28} told, in {tries} tries at most for a piece"),
            Err(missing) => wrong.push(format!("{name}: {missing}")),
        }
    }
    assert!(wrong.is_empty(), "the model does not tell\n{}", wrong.join("\n"));
}

/// Of a recording that the model tells at the first try, anything else is not told.
#[test]
fn what_corosync_does_not_tell_the_model_does_not_either() {
    let recording = recording(&std::path::Path::new(FOLDER).join("in_turn.txt"));
    assert_eq!(search(recording.nodes, &pieces(&recording), 1), Ok(1));
    let count = pieces(&recording).iter().map(|piece| piece.told.len()).sum();
    let mut forged = 0;
    for index in 0..count {
        for forge in [lose, lie] {
            let mut pieces = pieces(&recording);
            if forge(&mut pieces, index) {
                forged += 1;
                let result = search(recording.nodes, &pieces, 20);
                assert!(result.is_err(), "word {index} of {count} was forged, and is told");
            }
        }
    }
    assert!(forged > count, "only {forged} of {count} words could be forged");
}

/// The word is not told.
fn lose(pieces: &mut [Piece], index: usize) -> bool {
    let Some((piece, index)) = locate(pieces, index) else { return false };
    piece.told.remove(index);
    true
}

/// The word says something else.
fn lie(pieces: &mut [Piece], index: usize) -> bool {
    let Some((piece, index)) = locate(pieces, index) else { return false };
    match &mut piece.told[index].event {
        Event::Confchg { left, joined, .. } => {
            let other = |list: &mut Vec<(Member, Reason)>| {
                for (_, why) in list {
                    let is_leave = *why == Reason::Leave;
                    *why = if is_leave { Reason::ProcDown } else { Reason::Leave };
                }
            };
            other(left);
            other(joined);
        }
        Event::Totem { nodes, .. } => nodes.truncate(nodes.len() - 1),
        Event::Quorum { quorate, .. } => *quorate = !*quorate,
        Event::Message { bytes, .. } => bytes.push(b'x'),
        _ => return false,
    }
    true
}

fn locate(pieces: &mut [Piece], mut index: usize) -> Option<(&mut Piece, usize)> {
    for piece in pieces {
        if index < piece.told.len() {
            return Some((piece, index));
        }
        index -= piece.told.len();
    }
    None
}
