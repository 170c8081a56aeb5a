//! Daemons in a guest.

use std::fmt::Write as _;
use std::time::Duration;

use crate::error::Result;
use crate::guest::Guest;
use crate::net;

/// corosync.conf of a cluster in the lab.
#[derive(Debug, Clone)]
pub struct Corosync {
    /// Numbers of the guests in the nodelist.
    pub members: Vec<u8>,
    /// Votes of each member; default 1 each.
    pub votes: Vec<u8>,
    /// Two nodes that may each go on alone. Then fencing alone decides, as in any real cluster of
    /// two; `wait_for_all` is off, so that a survivor can be restarted.
    pub two_node: bool,
    /// `totem.token`, in milliseconds.
    pub token_ms: u32,
}

impl Corosync {
    /// One vote each; `two_node` if there are two; token 1000 ms.
    #[must_use]
    pub fn new(members: &[u8]) -> Self {
        Self {
            members: members.to_vec(),
            votes: vec![1; members.len()],
            two_node: members.len() == 2,
            token_ms: 1000,
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let two_node = if self.two_node { "    two_node: 1\n    wait_for_all: 0\n" } else { "" };
        let mut text = format!(
            "totem {{\n    version: 2\n    cluster_name: lab\n    transport: udpu\n    \
             crypto_cipher: none\n    crypto_hash: none\n    token: {}\n    \
             token_coefficient: 0\n}}\n\
             quorum {{\n    provider: corosync_votequorum\n{two_node}}}\n\
             logging {{\n    to_stderr: yes\n    to_syslog: no\n    timestamp: hires\n}}\n\
             nodelist {{\n",
            self.token_ms
        );
        for (number, votes) in self.members.iter().zip(&self.votes) {
            let address = net::address(*number);
            let _ = write!(
                text,
                "    node {{\n        nodeid: {number}\n        name: n{number}\n        \
                 ring0_addr: {address}\n        quorum_votes: {votes}\n    }}\n"
            );
        }
        text + "}\n"
    }
}

impl Guest {
    /// Starts a daemon that stays in the foreground, detached from the agent; what it says is added
    /// to `/lab/share/log/<name>.log`, which survives the guest.
    ///
    /// # Errors
    /// The guest is off.
    pub fn daemon(&self, name: &str, command: &str) -> Result<()> {
        let log = format!("/lab/share/log/{name}.log");
        self.ok(&format!("setsid {command} </dev/null >>{log} 2>&1 &")).map(drop)
    }

    /// Writes corosync.conf and starts corosync.
    ///
    /// # Errors
    /// The guest is off, or corosync does not answer within 30 seconds.
    pub fn start_corosync(&self, settings: &Corosync) -> Result<()> {
        self.put("/etc/corosync/corosync.conf", &settings.text())?;
        self.daemon("corosync", "corosync -f")?;
        let limit = Duration::from_secs(30);
        self.wait_until("corosync answers", limit, "corosync-cfgtool -s").map(drop)
    }

    /// Waits until corosync is quorate and has exactly these members.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub fn wait_members(&self, members: &[u8], limit: Duration) -> Result<()> {
        let mut want: Vec<String> = members.iter().map(u8::to_string).collect();
        want.sort();
        let command = format!(
            "out=$(corosync-quorumtool -l -i); rc=$?; \
             have=$(awk '$1 ~ /^[0-9]+$/ {{ print $1 }}' <<<\"$out\" | sort | tr '\\n' ' '); \
             echo \"members $have, status $rc\" >&2; [ \"$have\" = \"{} \" ]",
            want.join(" ")
        );
        self.wait_until(&format!("corosync has {members:?}"), limit, &command).map(drop)
    }

    /// Writes the configuration and starts o2bridged, from the lab's own build.
    ///
    /// # Errors
    /// The guest is off, or the daemon does not answer its command within 30 seconds.
    pub fn start_o2bridged(&self, config: &str) -> Result<()> {
        self.put("/etc/o2bridge/o2bridge.toml", config)?;
        self.daemon("o2bridged", "o2bridged --config /etc/o2bridge/o2bridge.toml")?;
        let limit = Duration::from_secs(30);
        self.wait_until("o2bridged answers", limit, "o2bridge status").map(drop)
    }

    /// Kills all processes of a program, by its exact name.
    ///
    /// # Errors
    /// The guest is off, or there was no such process.
    pub fn kill_program(&self, program: &str) -> Result<()> {
        self.ok(&format!("killall -KILL {program} || busybox killall -KILL {program}")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_go_on_alone_unless_votes_say_otherwise() {
        let mut settings = Corosync::new(&[1, 2]);
        let text = settings.text();
        assert!(text.contains("two_node: 1\n    wait_for_all: 0\n"), "{text}");
        assert!(
            text.contains("nodeid: 2\n        name: n2\n        ring0_addr: 10.7.0.2\n"),
            "{text}"
        );
        settings.two_node = false;
        settings.votes = vec![2, 1];
        let text = settings.text();
        assert!(!text.contains("two_node"), "{text}");
        assert!(text.contains("quorum_votes: 2"), "{text}");
        assert!(!Corosync::new(&[1, 2, 3]).two_node);
    }
}
