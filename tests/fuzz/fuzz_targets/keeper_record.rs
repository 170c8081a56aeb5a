//! What comes through the keeper's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_keeper::Line;
use o2bridge_keeper::record::{RECORD_BYTES, Record, Status};

fuzz_target!(|data: &[u8]| {
    let Some(record) = Record::decode(data) else { return };
    assert_eq!(record.encode().as_slice(), data, "nothing but what is written is a record");
    if let Some(line) = Line::from_bits(record.generation) {
        assert_eq!(line.to_bits(), record.generation, "nothing but what is written is a line");
    }
    let answer = record.answer(Status::Busy).encode();
    assert_eq!(answer.len(), RECORD_BYTES);
    let answer = Record::decode(&answer).expect("an answer is a record");
    assert_eq!((answer.id, answer.op, answer.status), (record.id, record.op, Status::Busy));
});
