//! What the lab and the agent in a guest say to each other: one JSON object per line.

use serde::{Deserialize, Serialize};

/// Name of the virtio port on which agent and lab meet.
pub const PORT: &str = "lab.agent";
/// Socket in the guest on which the agent takes requests that are for the lab.
pub const SOCKET: &str = "/run/lab-agent.sock";
/// The most of each of a command's outputs that is sent, in bytes; the end is what is kept.
pub const OUTPUT_MAX: usize = 1 << 20;

/// From the lab to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGuest {
    /// Run a shell command in a process group of its own; answered with [`FromGuest::Exit`].
    Run {
        /// Chosen by the lab.
        id: u64,
        /// Given to `bash -c`.
        command: String,
    },
    /// Kill a command's process group; not answered.
    Kill {
        /// The command's id.
        id: u64,
    },
    /// Write a file, directories included; answered with [`FromGuest::Exit`].
    Put {
        /// Chosen by the lab.
        id: u64,
        /// Absolute path.
        path: String,
        /// The whole content.
        text: String,
        /// Permission bits.
        mode: u32,
    },
    /// Set the clock to the host's time; the machine's own clock tells only seconds. Not answered.
    Clock {
        /// Since 1970.
        seconds: i64,
        /// And these.
        nanoseconds: i64,
    },
    /// The answer to [`FromGuest::Fence`].
    Fenced {
        /// As in the request.
        id: u64,
        /// The exit status that the fence agent shall have.
        exit: i32,
    },
}

/// From the agent to the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGuest {
    /// The guest is up. Said once.
    Hello {
        /// The kernel's boot id.
        boot_id: String,
        /// The kernel's release.
        release: String,
    },
    /// A command or a write has ended.
    Exit {
        /// As in the request.
        id: u64,
        /// Exit status; 128 + signal for a killed command, 127 if it could not be started.
        exit: i32,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// A fence agent in the guest asks for a peer's power.
    Fence {
        /// Chosen by the agent.
        id: u64,
        /// `off`, `reboot` or `status`.
        action: String,
        /// The peer's name.
        node: String,
    },
}
