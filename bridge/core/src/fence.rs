//! Fencing of one lost node.

/// How it is known that a lost node writes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The policy is `none`.
    NotRequired,
    /// A fence agent ended with 0.
    Agent,
    /// The administrator said so.
    Ack,
    /// The node was seen in another boot.
    Reboot,
}
