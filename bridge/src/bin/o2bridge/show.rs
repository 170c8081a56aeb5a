//! How humans see the status.

use o2bridge::status::{Group, Node, Service, Status, Use};

use crate::table::{Cell, Paint, Tone, table};

/// The whole status.
pub(crate) fn status(paint: Paint, status: &Status) -> String {
    let mut text = summary(paint, status);
    if !status.nodes.is_empty() {
        text.push('\n');
        text += &nodes(paint, &status.nodes);
    }
    text.push('\n');
    text += &groups(paint, &status.groups);
    for hint in hints(status) {
        text += &format!("\n{}\n", paint.text(Tone::Bad, &hint));
    }
    text
}

/// The cluster, the daemon, and its warnings.
fn summary(paint: Paint, status: &Status) -> String {
    let node = status.node.map_or("?".to_owned(), |node| node.to_string());
    let ring = status.ring.as_deref().unwrap_or("?");
    let quorum = match (status.connected, status.quorate, status.settled) {
        (false, _, _) => paint.text(Tone::Bad, "corosync does not answer"),
        (true, false, _) => paint.text(Tone::Bad, "not quorate"),
        (true, true, false) => paint.text(Tone::Uneasy, "quorate, settling"),
        (true, true, true) => paint.text(Tone::Good, "quorate"),
    };
    let mut text = format!(
        "node {node} of cluster '{}': {quorum}, ring {ring}, protocol {}\n",
        status.cluster, status.protocol
    );
    text += &format!(
        "o2bridged {}, up {}; shim {} ({}); fencing {}; log level {}; memory {}\n",
        status.version,
        duration(status.uptime_s),
        status.shim.name,
        status.shim.reason,
        status.fencing,
        status.log_level,
        if status.memory_locked { "locked" } else { "not locked" },
    );
    if status.garbage_messages > 0 {
        text += &format!("{} foreign messages dropped\n", status.garbage_messages);
    }
    for warning in &status.warnings {
        text += &format!("{} {warning}\n", paint.text(Tone::Uneasy, "warning:"));
    }
    text
}

fn nodes(paint: Paint, nodes: &[Node]) -> String {
    let row = |node: &Node| {
        let daemon = match (node.daemon.as_str(), node.in_debt) {
            (word, true) => Cell::new(Tone::Uneasy, format!("{word}, awaited")),
            ("speaking", false) => Cell::new(Tone::Good, "speaking"),
            (word, false) => Cell::new(Tone::Uneasy, word),
        };
        let fencing = match node.fencing.as_str() {
            "none" => "-".into(),
            "fenced" => "fenced".into(),
            word => Cell::new(Tone::Bad, word),
        };
        let ring = if node.in_ring { "in".into() } else { Cell::new(Tone::Bad, "out") };
        [node.node.into(), ring, daemon, node.groups.into(), fencing]
    };
    table(paint, ["NODE", "RING", "DAEMON", "GROUPS", "FENCING"], nodes.iter().map(row))
}

fn groups(paint: Paint, groups: &[Group]) -> String {
    if groups.is_empty() {
        return "no group in use\n".to_owned();
    }
    let row = |group: &Group| {
        [
            group.group.as_str().into(),
            state(&group.state),
            group.waiting.as_deref().unwrap_or("-").into(),
            group.device.as_deref().unwrap_or("-").into(),
            group.members.iter().map(|member| member.node.to_string()).collect::<Vec<_>>()[..]
                .join(",")
                .into(),
            services(&group.services).into(),
        ]
    };
    let head = ["GROUP", "STATE", "WAITING FOR", "DEVICE", "NODES", "SERVICES"];
    table(paint, head, groups.iter().map(row))
}

/// The groups in use and who uses them.
pub(crate) fn list(paint: Paint, uses: &[Use]) -> String {
    let row =
        |one: &Use| [one.group.as_str().into(), state(&one.state), services(&one.services).into()];
    table(paint, ["GROUP", "STATE", "SERVICES"], uses.iter().map(row))
}

/// Which nodes use which groups.
pub(crate) fn members(paint: Paint, groups: &[Group]) -> String {
    let row = |group: &Group, member: &o2bridge::status::Member| {
        let tone = match member.state.as_str() {
            "member" => Tone::Good,
            "joining" | "absent" => Tone::Uneasy,
            _ => Tone::Bad,
        };
        [
            group.group.as_str().into(),
            member.node.into(),
            Cell::new(tone, &member.state),
            member.incarnation.as_str().into(),
        ]
    };
    let rows =
        groups.iter().flat_map(|group| group.members.iter().map(move |member| row(group, member)));
    table(paint, ["GROUP", "NODE", "STATE", "USE"], rows)
}

/// What an administrator should do.
fn hints(status: &Status) -> Vec<String> {
    let awaited = status.nodes.iter().filter(|node| node.fencing == "waiting for ack");
    awaited
        .map(|node| {
            let node = node.node;
            format!(
                "node {node} is to be fenced by hand: see that it is off or was reset, then run \
                 'o2bridge fence-ack {node}'"
            )
        })
        .collect()
}

fn state(state: &str) -> Cell {
    let tone = match state {
        "ready" => Tone::Good,
        "expelled" => Tone::Bad,
        _ => Tone::Uneasy,
    };
    Cell::new(tone, state)
}

fn services(services: &[Service]) -> String {
    if services.is_empty() {
        return "-".to_owned();
    }
    let words = services.iter().map(|one| match one.state.as_str() {
        "live" => one.service.clone(),
        state => format!("{} ({state})", one.service),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}
