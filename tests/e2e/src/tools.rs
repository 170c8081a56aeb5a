//! Tools on a node: those that mount and unmount through the group API, and strangers that speak to
//! corosync past the daemon.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use o2bridge::client::{Begin, ClientError, GroupId};
use o2bridge_harness::{HarnessError, Proc};

use crate::{Lab, LabError};

/// How long corosync gets for a step.
const STEP_LIMIT: Duration = Duration::from_secs(20);

impl Lab {
    /// Begin and complete, by the new door: the service uses the group when this returns.
    ///
    /// # Errors
    /// The daemon refused, or could not be asked.
    pub fn mount(&self, node: u32, group: &str, service: &str) -> Result<(), LabError> {
        let failed = |source| LabError::Client { node, source };
        let group = group_id(group)?;
        let mut client = self.client(node)?;
        client.begin(&Begin::new(group, service)).map_err(failed)?;
        client.complete(group, service, 0).map_err(failed)
    }

    /// Leave, by the new door.
    ///
    /// # Errors
    /// The daemon refused, or could not be asked.
    pub fn unmount(&self, node: u32, group: &str, service: &str) -> Result<(), LabError> {
        let group = group_id(group)?;
        let left = self.client(node)?.leave(group, service);
        left.map_err(|source| LabError::Client { node, source })
    }

    /// A begin that must be refused: the daemon's word and its sentence.
    ///
    /// # Errors
    /// It was not refused, or the daemon could not be asked.
    pub fn refused(
        &self,
        node: u32,
        group: &str,
        service: &str,
    ) -> Result<(String, String), LabError> {
        let begun = self.client(node)?.begin(&Begin::new(group_id(group)?, service));
        match begun {
            Err(ClientError::Refused(refused)) => Ok((refused.code, refused.message)),
            Err(source) => Err(LabError::Client { node, source }),
            Ok(begun) => {
                Err(LabError::Record(format!("node {node}: the begin went well: {begun:?}")))
            }
        }
    }

    /// Puts a process into a corosync group of this name that is no daemon of ours.
    ///
    /// # Errors
    /// The example `cpgclient` of o2bridge-cpg is not built, or corosync did not let it in.
    pub fn stranger(&self, node: u32, group: &str) -> Result<Stranger, LabError> {
        let program = self.program("examples/cpgclient")?;
        let name = format!("stranger-{}", group.replace(':', "-"));
        let proc = self.cluster().node(node).spawn(&name, Command::new(program).arg(group))?;
        let mut stranger = Stranger { proc, node };
        stranger.wait("\"confchg\"")?;
        Ok(stranger)
    }

    /// A program of the workspace.
    ///
    /// # Errors
    /// It is not built.
    pub fn program(&self, name: &'static str) -> Result<PathBuf, LabError> {
        program(name)
    }
}

/// A program of the workspace.
pub(crate) fn program(name: &'static str) -> Result<PathBuf, LabError> {
    let place = std::env::current_exe()
        .map_err(|source| LabError::Io { path: "current_exe".to_owned(), source })?;
    let found = place.ancestors().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or(LabError::NotBuilt { program: name, place })
}

fn group_id(group: &str) -> Result<GroupId, LabError> {
    group.parse().map_err(|error| LabError::Record(format!("group {group}: {error:?}")))
}

/// A process in a corosync group that is no daemon of ours.
#[derive(Debug)]
pub struct Stranger {
    proc: Proc,
    node: u32,
}

impl Stranger {
    /// Its process.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// Multicasts these bytes to its group. Returns when they are on their way to the process.
    ///
    /// # Errors
    /// The process ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), LabError> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("standard input of the stranger on node {}", self.node);
        let written = self.proc.write_line(&format!("send {hex}"));
        written.map_err(|source| LabError::Io { path, source })
    }

    /// Waits until it has said a line with this text.
    ///
    /// # Errors
    /// Not so in time.
    pub fn wait(&mut self, text: &str) -> Result<String, HarnessError> {
        self.proc.wait_line(text, STEP_LIMIT)
    }

    /// The messages that it has heard so far: from which node, and the bytes.
    #[must_use]
    pub fn heard(&self) -> Vec<(u32, Vec<u8>)> {
        let parse = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let node = line["node"].as_u64().and_then(|node| u32::try_from(node).ok())?;
            Some((node, unhex(line["hex"].as_str()?)?))
        };
        self.proc.stdout().lines().filter_map(parse).collect()
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}
