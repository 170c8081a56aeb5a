//! What daemons say to each other: whatever bytes a member of a process group sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::proto::{
    Body, GROUPS_MAX, NODES_MAX, SPEAKS, Uses, common_version, decode, encode,
};

fuzz_target!(|data: &[u8]| {
    let Ok((envelope, body)) = decode(data) else { return };
    assert!(envelope.speaks.0 <= envelope.speaks.1);
    let few = |uses: &Uses| assert!(uses.len() <= GROUPS_MAX);
    match &body {
        Body::Hello(hello) => {
            few(&hello.uses);
            assert!(hello.testimony.len() <= NODES_MAX);
            hello.testimony.iter().for_each(|testimony| few(&testimony.uses));
        }
        Body::State(state) => assert!(state.told.len() <= NODES_MAX),
        // A daemon of any version can say that it will not work with us.
        Body::Refuse(_) => {}
        Body::Foreign(_) => return,
    }
    let written = encode(SPEAKS.1, envelope.in_use, &body);
    let (ours, again) = decode(&written).expect("what was read can be written");
    assert_eq!((ours.speaks, ours.in_use, &again), (SPEAKS, envelope.in_use, &body));
    assert!(written.len() <= data.len(), "reading adds nothing");
    if common_version(SPEAKS, envelope.speaks).is_none() {
        assert!(matches!(body, Body::Refuse(_)), "{envelope:?} cannot be understood: {body:?}");
    }
});
