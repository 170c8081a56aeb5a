//! What fence agents write, on its way into the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge::adapter::agent::{OUTPUT_BYTES_MAX, keep_end, printable};

fuzz_target!(|data: &[u8]| {
    // The first byte says in how large pieces the pipe gives it.
    let Some((piece, said)) = data.split_first() else { return };
    let mut kept = Vec::new();
    for part in said.chunks(64 * (1 + usize::from(*piece))) {
        keep_end(&mut kept, part);
    }
    let end = said.len().saturating_sub(OUTPUT_BYTES_MAX);
    assert_eq!(kept, said[end..], "the end is kept, whatever the pieces");
    let line = printable(&kept);
    assert!(!line.contains(char::is_control), "{line:?}");
    // A byte that is no text becomes a character of three; an end of a line one of three.
    assert!(line.len() <= 3 * OUTPUT_BYTES_MAX);
    assert_eq!(line, line.trim());
    assert_eq!(printable(line.as_bytes()), line);
});
