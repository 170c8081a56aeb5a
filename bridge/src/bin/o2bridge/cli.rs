//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use o2bridge::client::{GroupId, parse_group};
use o2bridge::door::VARLINK_PATH;
use o2bridge::status::LogLevel;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  refused by the daemon, or failed; the reason is on standard error
  2  the command line is wrong
  3  o2bridged is not running, or went away before it answered
  4  timed out
  5  not permitted: changing anything, and dump, need root

Examples:
  o2bridge begin 19d19f8e-ca01-475e-ba67-afd6d84c3b45 /mnt/shared --device /dev/sdb1
  o2bridge complete 19d19f8e-ca01-475e-ba67-afd6d84c3b45 /mnt/shared $?
  o2bridge leave 19d19f8e-ca01-475e-ba67-afd6d84c3b45 /mnt/shared
  o2bridge status --watch
  o2bridge status --kernel
  o2bridge status --format json | jq -r '.groups[] | .group + \" \" + .state'

GROUP is the UUID of an OCFS2 volume, with dashes or without, in either case.
SERVICE is who uses it: a mountpoint, or the name of a tool.";

/// Asks o2bridged, the daemon that shares OCFS2 volumes between machines.
#[derive(Debug, Parser)]
#[command(name = "o2bridge", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The daemon's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = VARLINK_PATH)]
    pub(crate) socket: PathBuf,

    /// Colours: on a terminal (unless NO_COLOR is set), always, or never.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,

    /// How long to wait for the daemon's answer. It has time limits of its own, and says what it
    /// waited for.
    #[arg(
        long, global = true, value_name = "SECONDS", default_value = "90",
        value_parser = parse_timeout
    )]
    pub(crate) timeout: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For humans.
    Text,
    /// For programs: the daemon's own words.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say that a service is about to use a group; wait until it may.
    ///
    /// Prints 'ready', or 'already' if the service uses the group already. Mount now, then say what
    /// became of it with 'o2bridge complete'.
    Begin {
        #[command(flatten)]
        service: Service,
        /// Refuse if this node is in another cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// The volume's device; refuse if another one with the same UUID is in use.
        #[arg(long, value_name = "PATH")]
        device: Option<String>,
    },
    /// Say what became of the mount: 0 is good, anything else takes the begin back.
    Complete {
        #[command(flatten)]
        service: Service,
        /// The mount's exit code or error number.
        #[arg(allow_negative_numbers = true)]
        code: i32,
    },
    /// Say that a service does not use a group any more; wait until that is settled.
    Leave {
        #[command(flatten)]
        service: Service,
    },
    /// The groups in use on this node, and who uses them.
    List {
        #[command(flatten)]
        format: FormatArg,
    },
    /// Everything: the cluster, its nodes, the groups, and what they wait for.
    Status {
        #[command(flatten)]
        format: FormatArg,
        /// Go on after each change, until interrupted. With --format json, one line each.
        #[arg(long)]
        watch: bool,
        /// What this machine's kernel allows instead, and which shims would do harm. Needs no daemon,
        /// writes nothing.
        #[arg(long, conflicts_with = "watch")]
        kernel: bool,
    },
    /// Which nodes use a group, or each group in use on this node.
    Members {
        /// The volume's UUID.
        #[arg(value_parser = group)]
        group: Option<GroupId>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// The daemon's memory of what happened, for a report of a problem.
    Dump,
    /// State that a dead node has been reset or is off.
    ///
    /// The survivors then recover what it held. If it still runs, it goes on writing, and the volumes
    /// are lost: look at the node itself before saying this.
    FenceAck {
        /// The node's id, as in 'o2bridge status'.
        node: u32,
    },
    /// Log this much from now on, until the daemon restarts or reads its configuration again.
    LogLevel {
        /// error, warning, info or debug.
        level: LogLevel,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Service {
    /// The volume's UUID.
    #[arg(value_parser = group)]
    pub(crate) group: GroupId,
    /// A mountpoint, or a tool's name.
    pub(crate) service: String,
}

#[derive(Debug, Args)]
pub(crate) struct FormatArg {
    /// How to print it.
    #[arg(long, default_value = "text")]
    pub(crate) format: Format,
}

fn group(text: &str) -> Result<GroupId, String> {
    parse_group(text).ok_or_else(|| "a UUID has 32 hex digits".to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds.into())),
        Ok(_) | Err(_) => Err("1 to 86400 seconds".to_owned()),
    }
}
