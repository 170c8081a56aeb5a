use o2bridge_core::{GroupId, NodeId, Pid, Reason, RingId};

use super::*;

const HEADER: &str = "corosync 3.1.7\ntransport udpu\nnodes 3\nring r1 = 1.8\nring r2 = 2.1c\n";

fn member(node: u32, letter: u32) -> Member {
    Member { node: NodeId(node), pid: Pid(letter) }
}

fn read(lines: &str) -> Vec<Line> {
    format!("{HEADER}{lines}").parse::<Recording>().unwrap().lines
}

fn told(node: u32, letter: u32, source: Source, event: Event) -> Line {
    Line::Told(Told { client: member(node, letter), source, event })
}

#[test]
fn the_header() {
    let text = format!(
        "# What it\n# is about.\n{HEADER}want 3a NODEDOWN\nscript heal; wait 5\nscript quiet\n\n\
         # not this\nquiet @7\n"
    );
    let recording: Recording = text.parse().unwrap();
    assert_eq!(recording.about, ["What it", "is about."]);
    assert_eq!((recording.corosync.as_str(), recording.transport.as_str()), ("3.1.7", "udpu"));
    assert_eq!(recording.nodes, 3);
    assert_eq!(recording.wants, ["3a NODEDOWN"]);
    let script = [vec![Line::Step(Step::Heal), Line::Wait { ms: 5 }], vec![Line::Quiet]];
    assert_eq!(recording.script, script);
    assert_eq!(recording.lines, [Line::Quiet]);
}

#[test]
fn what_is_told() {
    let a = Channel::Group(GroupId(0xA));
    let ring = RingId { seq: 0x1c, node: NodeId(2) };
    let nodes = vec![NodeId(1), NodeId(2)];
    let lines = read(
        "1a connected @20\n1b quorum no r2 [1 2] left [3]\n\
         2a A confchg [1a 2a] left [3b NODEDOWN 3c PROCDOWN] joined [] @12.5\n\
         2a control confchg [2a] left [] joined [2a JOIN]\n1a A totem r2 [1 2]\n\
         1a A message 2a on-my-way @3\n1a disconnected\n",
    );
    let connected = Event::Connected {
        node: NodeId(1),
        cluster: String::new(),
        nodelist: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    let left = vec![(member(3, 2), Reason::NodeDown), (member(3, 3), Reason::ProcDown)];
    let members = vec![member(1, 1), member(2, 1)];
    let confchg = Event::Confchg { channel: a, members, left, joined: vec![] };
    let own = Event::Confchg {
        channel: Channel::Control,
        members: vec![member(2, 1)],
        left: vec![],
        joined: vec![(member(2, 1), Reason::Join)],
    };
    let quorum =
        Event::Quorum { quorate: false, ring, nodes: nodes.clone(), left: vec![NodeId(3)] };
    let message = Event::Message { channel: a, from: member(2, 1), bytes: b"on-my-way".to_vec() };
    let group = Source::Channel(a);
    let expected = [
        told(1, 1, Source::Connection, connected),
        told(1, 2, Source::Quorum, quorum),
        told(2, 1, group, confchg),
        told(2, 1, Source::Channel(Channel::Control), own),
        told(1, 1, group, Event::Totem { channel: a, ring, nodes }),
        told(1, 1, group, message),
        told(1, 1, Source::Connection, Event::Disconnected),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_done_reads_as_it_is_written() {
    let steps = "step n3 start\nstep n3 start outdated\nstep n3 ends\nstep n3 stop\nstep n3 kill\n\
                 step n3 pause\nstep n3 resume\nstep split 1,2 3\nstep mute n1 n2\nstep heal\nstep 3b start\n\
                 step 3b kill\nstep 3b join A\nstep 3b leave control\nstep 3b mcast F hello-1\n\
                 step 3b killnode n2\nstep 3b finalize\n";
    let written: Vec<String> = read(steps)
        .iter()
        .map(|line| match line {
            Line::Step(step) => format!("step {step}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(written, steps.lines().collect::<Vec<_>>());
    assert_eq!(read("wait 20 @4\nquiet"), [Line::Wait { ms: 20 }, Line::Quiet]);
}

#[test]
fn how_calls_end() {
    let client = member(3, 1);
    let join = Call::Join(Channel::Control);
    let done = |call, result| Line::Done { client, call, result };
    let lines = read(
        "3a done join control @5\n3a done join control error 6\n3a done leave F timeout\n\
         3a done killnode n2\n",
    );
    let expected = [
        done(join, Ok(())),
        done(join, Err(OpError::Corosync(6))),
        done(Call::Leave(Channel::Group(GroupId(0xF))), Err(OpError::TimedOut)),
        done(Call::KillNode(NodeId(2)), Ok(())),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        ("3a A totem r9 [1]", "no line 'ring r9 = ...' before"),
        ("3a A totem r1 1 2", "no [list] in '1 2'"),
        ("3a A totem r1 [1] more", "'more' is too much"),
        ("3a A totem", "the line is too short"),
        ("3a G totem r1 [1]", "'G' is no channel; there are A to F, and control"),
        ("3a A view r1", "a channel tells of confchg, totem, message; not 'view'"),
        ("3A connected", "'3A' is no client; one is named like 3a"),
        ("3a A confchg [] left [1a] joined []", "each member in 'left' and 'joined' has a reason"),
        ("3a A confchg [] left [1a GONE] joined []", "'GONE' is no reason"),
        ("3a A confchg [] joined []", "'left' was to stand where 'joined' is"),
        ("3a A message 1a a.b", "'a.b' is no message; one has letters, digits and dashes"),
        ("3a quorum maybe r1 [1]", "'maybe' is neither yes nor no"),
        ("3a done dance", "'dance' is no call"),
        ("3a done join A well", "a call ends with 'timeout', 'error CODE' or nothing; not 'well'"),
        ("step n3 dance", "'dance' is no step"),
        ("step 3a stop", "'stop' is for a node's corosync"),
        ("step n4 kill", "there is no node 4"),
        ("script n1 kill; n2 dance", "'dance' is no step"),
        ("step split 1,2 3,4", "there is no node 4"),
        ("wait long", "'long' is no number"),
        ("ring r1 = 17", "'17' is no ring id; one looks like 1.1c"),
    ];
    for (text, why) in cases {
        let error = format!("{HEADER}{text}").parse::<Recording>().unwrap_err();
        assert_eq!((error.line, error.text.as_str(), error.why.as_str()), (6, text, why));
    }
    let error = "# nothing\ncorosync 3.1.7\nnodes 3\n".parse::<Recording>().unwrap_err();
    assert_eq!(error.why, "the header has no line 'transport NAME'");
}

#[test]
fn all_recordings_can_be_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/recordings");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let recording: Recording =
            text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let told = recording.lines.iter().filter(|line| matches!(line, Line::Told(_))).count();
        assert!(told > 0, "{} is a script without a recording", path.display());
        assert!(recording.about.iter().any(|line| !line.is_empty()), "{}", path.display());
        count += 1;
    }
    assert!(count >= 10, "only {count} recordings");
}
