//! What the mount table says of a service whose tool cannot be asked.

use crate::common::*;

/// The tool of `/mnt` died between begin and complete; the op of the look.
fn looking() -> (Rig, OpId) {
    let mut rig = Rig::granted(Fencing::None, &[1, 2]);
    let op = rig.op(1);
    rig.handle(Event::ClientGone { client: ClientId(1) });
    assert_eq!(rig.service(&mnt()), "looking");
    (rig, op)
}

/// Unknown is taken as mounted: a group that is left under a mount costs a filesystem.
#[test]
fn it_is_mounted() {
    for finding in [Finding::Mounted, Finding::Unknown] {
        let (mut rig, op) = looking();
        let save_op = rig.op(1);
        let saved = save(save_op, image(&[1, 2], true, false));
        expect(rig.handle(Event::Looked { op, finding }), vec![saved]);
        assert_eq!(rig.service(&mnt()), "live");
        expect(rig.handle(done(save_op)), vec![note(Note::GroupReady(G))]);
    }
}

#[test]
fn it_is_not_mounted() {
    let (mut rig, op) = looking();
    let next = |n| rig.op(n);
    let without = SavedGroup { services: vec![], ..image(&[1, 2], false, false) };
    let expected = vec![
        save(next(1), without),
        verb(next(2), Verb::Detach),
        Action::Depart { op: next(3), channel: group_channel() },
        Action::Save { op: next(4), group: G, image: None },
        note(Note::GroupGone(G)),
        say_hello(hello(1, 1)),
    ];
    expect(rig.run(Event::Looked { op, finding: Finding::NotMounted }), expected);
    assert_eq!(rig.state(), "none");
}

/// The end of another look, or of one that nobody waits for.
#[test]
fn another_look() {
    for finding in [Finding::Mounted, Finding::NotMounted, Finding::Unknown] {
        let (mut rig, op) = looking();
        expect_nothing(rig.handle(Event::Looked { op: OpId(op.0 + 1), finding }));
        assert_eq!(rig.service(&mnt()), "looking");
        for mut rig in [
            Rig::new(Fencing::None, Saved::default()),
            Rig::granted(Fencing::None, &[1, 2]),
            Rig::ready(Fencing::None, &[1, 2]),
        ] {
            let before = rig.core.snapshot();
            expect_nothing(rig.handle(Event::Looked { op, finding }));
            assert_eq!(rig.core.snapshot(), before);
        }
    }
}

/// Nobody else may decide about it in between.
#[test]
fn requests_in_between() {
    let (mut rig, _) = looking();
    expect(rig.handle(complete(5, &mnt(), 0)), vec![refused(5, Refusal::Busy)]);
    expect(rig.handle(leave(6, &mnt())), vec![refused(6, Refusal::Busy)]);
    let again = Event::Begin(begin(7, &mnt()));
    expect(rig.handle(again), vec![refused(7, Refusal::Busy)]);
}
