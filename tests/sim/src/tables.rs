//! The core's state × event tables as data: every move that there is. A move that is not here is a
//! violation; a move here that no seed of a long run makes is a hole in the simulator, unless it is
//! marked as rare, with the reason beside it.
//!
//! Moves of one event may run through a state without stopping there; those are listed as one.

/// One move of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Which machine: a file of the core.
    pub table: &'static str,
    /// From where.
    pub from: &'static str,
    /// What happened.
    pub on: &'static str,
    /// To where.
    pub to: &'static str,
}

/// All moves. Each line is `from, event, to`; a long run has to make each of them.
pub const MOVES: &[(&str, &[[&str; 3]])] = &[
    ("handle", LINK),
    ("group", PRESENCE),
    ("group: user", USER),
    ("lane", LANE),
    ("service", SERVICE),
    ("fence", STAGE),
    ("node", DAEMON),
    ("outvoted", CLOCK),
    ("locking", LOCKING),
];

/// Moves that the tables have, and that no run has to make.
pub const RARE: &[(&str, &[[&str; 3]])] = &[
    ("handle", LINK_RARE),
    ("group", PRESENCE_RARE),
    ("group: user", USER_RARE),
    ("service", SERVICE_RARE),
    ("fence", STAGE_RARE),
    ("node", DAEMON_RARE),
    ("locking", LOCKING_RARE),
];

const LINK: &[[&str; 3]] = &[
    ["down", "connected", "joining"],
    ["down", "stop", "exit"],
    ["down", "stop", "down"],
    ["joining", "disconnected", "down"],
    ["joining", "join ok", "joining"],
    ["joining", "join failed", "pausing"],
    ["joining", "in the confchg", "up"],
    ["joining", "in the confchg", "leaving"],
    ["joining", "stop", "exit"],
    ["joining", "stop", "joining"],
    ["pausing", "disconnected", "down"],
    ["pausing", "timer", "joining"],
    ["pausing", "stop", "exit"],
    ["pausing", "stop", "pausing"],
    ["up", "disconnected", "down"],
    ["up", "stop", "leaving"],
    ["leaving", "disconnected", "exit"],
    ["leaving", "disconnected", "down"],
    ["leaving", "depart done", "exit"],
    ["leaving", "depart failed", "exit"],
    ["leaving", "depart failed", "pausing"],
];
const LINK_RARE: &[[&str; 3]] = &[];

const PRESENCE: &[[&str; 3]] = &[
    ["out", "wanted, announced", "joining"],
    ["joining", "join ok", "entering"],
    ["joining", "join failed", "pausing"],
    ["joining", "in the confchg", "in"],
    ["joining", "disconnected", "out"],
    ["entering", "in the confchg", "in"],
    ["entering", "closing or expelled", "departing"],
    ["entering", "disconnected", "out"],
    ["in", "closing or expelled", "departing"],
    ["in", "disconnected", "out"],
    ["departing", "depart done", "out"],
    ["departing", "disconnected", "out"],
    ["pausing", "timer", "joining"],
    ["pausing", "disconnected", "out"],
    ["pausing", "closing or expelled", "out"],
    ["joining", "join ok", "departing"],
    ["joining", "in the confchg", "departing"],
    ["joining", "join failed", "out"],
];
const PRESENCE_RARE: &[[&str; 3]] = &[
    // Through a state without a stop.
    ["entering", "in the confchg", "departing"],
    // A group that is wanted again after it was given up.
    ["departing", "depart done", "joining"],
    // The pause is over, and the group is not wanted or not announced any more.
    ["pausing", "timer", "out"],
];

const USER: &[[&str; 3]] = &[
    ["none", "state", "user"],
    ["user", "a hello without the use", "none"],
    ["user", "its process or node went", "user"],
    ["user", "condemned", "dead"],
    ["dead", "told, or never known", "none"],
    ["dead", "told, or never known", "user"],
    ["user", "condemned", "none"],
];
const USER_RARE: &[[&str; 3]] = &[
    // The use died in another boot, and its successor speaks in the same event.
    ["user", "another use", "user"],
    // The same, and our shim did not know the use that died.
    ["user", "condemned", "user"],
    ["dead", "another use", "dead"],
];

const LANE: &[[&str; 3]] = &[
    ["detached", "save ahead", "busy"],
    ["detached", "attach", "busy"],
    ["detached", "forget", "busy"],
    ["granting", "save ahead", "busy"],
    ["granting", "suspend", "busy"],
    ["granting", "save", "busy"],
    ["granting", "detach", "busy"],
    ["suspended", "node_down", "busy"],
    ["suspended", "save ahead", "busy"],
    ["suspended", "resume", "busy"],
    ["suspended", "detach", "busy"],
    ["unresumed", "resume", "busy"],
    ["unresumed", "suspend", "busy"],
    ["unresumed", "save", "busy"],
    ["unresumed", "detach", "busy"],
    ["unfinished", "suspend", "busy"],
    ["unfinished", "save", "busy"],
    ["unfinished", "detach", "busy"],
    ["save", "failed", "pausing"],
    ["attach", "failed", "pausing"],
    ["suspend", "failed", "pausing"],
    ["node_down", "failed", "pausing"],
    ["resume", "failed", "pausing"],
    ["detach", "failed", "pausing"],
];

const SERVICE: &[[&str; 3]] = &[
    ["none", "begin", "beginning"],
    ["live", "begin", "additional"],
    ["live", "begin", "live"],
    ["beginning", "begin", "beginning"],
    ["granted", "begin", "granted"],
    ["completing", "begin", "completing"],
    ["additional", "begin", "additional"],
    ["looking", "begin", "looking"],
    ["leaving", "begin", "leaving"],
    ["leaving", "begin", "beginning"],
    ["live", "inherited", "granted"],
    ["beginning", "ready, saved", "granted"],
    ["beginning", "client gone", "leaving"],
    ["beginning", "timer", "leaving"],
    ["granted", "complete 0", "completing"],
    ["granted", "complete not 0", "leaving"],
    ["granted", "leave", "leaving"],
    ["granted", "leave", "granted"],
    ["granted", "client gone", "looking"],
    ["granted", "timer", "looking"],
    ["granted", "timer", "live"],
    ["completing", "saved", "live"],
    ["completing", "leave", "completing"],
    ["live", "leave", "leaving"],
    ["additional", "complete 0", "live"],
    ["additional", "complete not 0", "live"],
    ["additional", "leave", "additional"],
    ["additional", "client gone", "live"],
    ["additional", "timer", "live"],
    ["looking", "leave", "looking"],
    ["looking", "looked: mounted", "live"],
    ["looking", "looked: not mounted", "leaving"],
    ["leaving", "leave", "leaving"],
    ["leaving", "saved", "none"],
    ["beginning", "leave", "beginning"],
    ["beginning", "refused", "leaving"],
    ["beginning", "refused", "none"],
    ["beginning", "client gone", "none"],
    ["beginning", "timer", "none"],
    ["beginning", "complete 0", "beginning"],
    ["beginning", "complete not 0", "beginning"],
    ["live", "complete 0", "live"],
    ["live", "complete not 0", "live"],
    ["leaving", "complete 0", "leaving"],
    ["leaving", "complete not 0", "leaving"],
    ["leaving", "client gone", "none"],
    ["completing", "complete 0", "completing"],
    ["completing", "complete not 0", "completing"],
    ["additional", "complete 0", "completing"],
];
const SERVICE_RARE: &[[&str; 3]] = &[
    // A stranger's word, in the moment in which the mount table is read.
    ["looking", "complete 0", "looking"],
    ["looking", "complete not 0", "looking"],
    // Through a state without a stop.
    ["none", "begin", "granted"],
    ["none", "begin", "leaving"],
    ["none", "begin", "none"],
    ["beginning", "ready, saved", "none"],
    ["granted", "complete 0", "live"],
    // The first of the mounts is not saved yet.
    ["additional", "complete not 0", "completing"],
    ["granted", "complete not 0", "none"],
    ["granted", "leave", "none"],
    ["live", "leave", "none"],
    ["looking", "looked: not mounted", "none"],
    // Another service of the same client went first, and with it the reason to wait.
    ["completing", "client gone", "live"],
];

const STAGE: &[[&str; 3]] = &[
    ["none", "lost", "needed"],
    ["none", "lost", "running"],
    ["none", "lost", "fenced"],
    ["needed", "our turn", "running"],
    ["needed", "proof", "fenced"],
    ["running", "agent ok", "fenced"],
    ["running", "agent failed", "retrying"],
    ["running", "agent ok, out of date", "needed"],
    ["running", "agent ok, out of date", "running"],
    ["running", "proof", "fenced"],
    ["running", "used more", "running"],
    ["retrying", "pause over", "running"],
    ["retrying", "pause over", "needed"],
    ["retrying", "proof", "fenced"],
    ["fenced", "out of date, or used more", "needed"],
    ["fenced", "another boot, or all ended", "none"],
    ["needed", "another boot, or all ended", "none"],
    ["running", "another boot, or all ended", "none"],
    ["retrying", "another boot, or all ended", "none"],
    ["fenced", "out of date, or used more", "running"],
    ["retrying", "pause over", "retrying"],
];
const STAGE_RARE: &[[&str; 3]] = &[
    // What a node uses becomes known in the middle of its fencing.
    ["running", "used more", "needed"],
    ["retrying", "used more", "needed"],
    ["retrying", "used more", "running"],
];

const DAEMON: &[[&str; 3]] = &[
    ["absent", "came", "silent"],
    ["silent", "hello", "speaking"],
    ["silent", "foreign hello", "incompatible"],
    ["silent", "left", "absent"],
    ["silent", "grace over", "silent"],
    ["speaking", "hello", "speaking"],
    ["speaking", "left", "absent"],
    ["incompatible", "foreign hello", "incompatible"],
    ["incompatible", "left", "absent"],
    ["absent", "grace over", "absent"],
    ["absent", "grace over", "ignored"],
    ["ignored", "came", "silent"],
    ["speaking", "left", "silent"],
    ["silent", "grace over", "ignored"],
    ["speaking", "grace over", "ignored"],
    ["speaking", "grace over", "speaking"],
    ["ignored", "left", "absent"],
    ["ignored", "hello", "speaking"],
    ["incompatible", "left", "silent"],
];
const DAEMON_RARE: &[[&str; 3]] = &[
    // A node changes its version without leaving: not while its process is the same.
    ["incompatible", "hello", "speaking"],
    ["speaking", "foreign hello", "incompatible"],
    ["ignored", "foreign hello", "incompatible"],
    // The ring and the group's members come in one event.
    ["absent", "left", "silent"],
    ["speaking", "came", "silent"],
];

const CLOCK: &[[&str; 3]] = &[
    ["stopped", "not in force, something attached", "running"],
    ["running", "in force, or nothing attached", "stopped"],
    ["running", "overdue", "running"],
];

const LOCKING: &[[&str; 3]] = &[
    ["none", "to be used", "chosen"],
    ["chosen", "our word came back", "heard"],
    ["chosen", "not in use, or not all have spoken", "none"],
    ["heard", "not in use, or not all have spoken", "none"],
    ["chosen", "another one", "chosen"],
];
const LOCKING_RARE: &[[&str; 3]] = &[
    // Two chose in the same moment, and one of them gives way.
    ["heard", "another one", "chosen"],
];
