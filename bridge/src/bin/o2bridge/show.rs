//! How humans see the status.

use o2bridge::machine::{Machine, Verdict};
use o2bridge::status::{Group, Kernel, Node, Region, Service, Status, Use};
use o2bridge::views::Views;
use o2bridge::volumes::VolumeView;

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
    if !status.volumes.is_empty() {
        text.push('\n');
        text += &volumes(paint, &status.volumes);
    }
    if !status.views.is_empty() {
        text.push('\n');
        text += &views(paint, &status.views);
    }
    if let Some(kernel) = &status.kernel {
        text.push('\n');
        text += &self::kernel(paint, kernel);
    }
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

/// The volumes that were found, ours or not.
fn volumes(paint: Paint, volumes: &[VolumeView]) -> String {
    let row = |volume: &VolumeView| {
        let state = match volume.state.as_str() {
            word @ ("region" | "ready" | "in use") => Cell::new(Tone::Good, word),
            "not in use" => Cell::new(Tone::Plain, "not in use"),
            word => Cell::new(Tone::Uneasy, word),
        };
        let or_dash = |list: &[String]| {
            if list.is_empty() { "-".to_owned() } else { list.join(",") }
        };
        [
            volume.uuid.as_str().into(),
            or_dash(&volume.devices).into(),
            volume.cluster.as_deref().unwrap_or("-").into(),
            state,
            or_dash(&volume.mountpoints).into(),
            volume.storage.as_str().into(),
        ]
    };
    let head = ["VOLUME", "DEVICES", "CLUSTER", "STATE", "MOUNTED ON", "STORAGE"];
    let mut text = table(paint, head, volumes.iter().map(row));
    for (volume, warning) in volumes.iter().filter_map(|it| Some((it, it.warning.as_ref()?))) {
        text += &format!("{} {}: {warning}\n", paint.text(Tone::Bad, "warning:"), volume.uuid);
    }
    text
}

/// Who uses what, side by side.
fn views(paint: Paint, views: &[Views]) -> String {
    let list = |nodes: &[u32]| {
        let words: Vec<String> = nodes.iter().map(u32::to_string).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(",") }
    };
    let row = |one: &Views| {
        let verdict = match &one.disagreement {
            None => Cell::new(Tone::Good, "yes"),
            Some(why) => Cell::new(Tone::Bad, format!("NO: {why}")),
        };
        [
            one.group.as_str().into(),
            list(&one.daemons).into(),
            one.lockspace.as_deref().map_or("none".to_owned(), list).into(),
            list(&one.ring).into(),
            verdict,
        ]
    };
    let head = ["GROUP", "O2BRIDGE", "LOCKSPACE", "RING", "AGREED"];
    table(paint, head, views.iter().map(row))
}

/// What is in the kernel.
fn kernel(paint: Paint, kernel: &Kernel) -> String {
    let keeper = kernel.keeper.map_or("none".to_owned(), |pid| format!("process {pid}"));
    if kernel.carrier == "line" {
        let line = kernel.line.as_deref().unwrap_or("not held: no group is in use");
        return format!("line to the kernel: {line}; keeper {keeper}\n");
    }
    let device = kernel.device.as_deref().unwrap_or("-");
    let mut text = format!("carrier {}, device {device}, keeper {keeper}\n", kernel.carrier);
    let list = |slots: &[u8]| slots.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let row = |region: &Region| {
        let live = region.live.as_deref().map_or("?".to_owned(), list);
        [region.name.as_str().into(), list(&region.up).into(), live.into()]
    };
    if !kernel.regions.is_empty() {
        text += &table(paint, ["REGION", "PEERS UP", "LIVE"], kernel.regions.iter().map(row));
    }
    for name in &kernel.disk_heartbeats {
        text += &format!("region {name} beats on a disk and is left alone\n");
    }
    text
}

/// What the machine allows.
pub(crate) fn machine(paint: Paint, machine: &Machine) -> String {
    let known = |known: Option<bool>, yes: &str, no: &str| match known {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => "not known".to_owned(),
    };
    let stack = match (&machine.stack, machine.stack_in_use) {
        (None, _) => "OCFS2 is not loaded".to_owned(),
        (Some(stack), true) => format!("stack {stack}, in use"),
        (Some(stack), false) => format!("stack {stack}, not in use"),
    };
    let fortify = known(machine.fortify, "yes", "no");
    let config = machine.config.as_ref().map_or(String::new(), |path| format!(" ({path})"));
    let there = |is_there| if is_there { "there" } else { "not there" };
    let mut text =
        format!("kernel {}: {stack}; FORTIFY_SOURCE {fortify}{config}\n", machine.release);
    text += &format!(
        "/dev/ocfs2_control {}, dlm_controld {}, fs/dlm tells OCFS2 of deaths: {}\n",
        there(machine.control_device),
        there(machine.dlm_controld),
        known(machine.recover_callbacks, "yes", "no"),
    );
    let tone = if machine.down == "safe" { Tone::Good } else { Tone::Bad };
    text += &format!("DOWN {}: {}\n\n", paint.text(tone, &machine.down), machine.down_reason);
    let row = |one: &Verdict| {
        let tone = match one.verdict.as_str() {
            "possible" => Tone::Good,
            "harmful" => Tone::Bad,
            _ => Tone::Uneasy,
        };
        let verdict = Cell::new(tone, &one.verdict);
        [one.shim.as_str().into(), verdict, one.reason.as_str().into()]
    };
    text + &table(paint, ["SHIM", "VERDICT", "REASON"], machine.shims.iter().map(row))
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
