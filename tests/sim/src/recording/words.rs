//! The words of a line, and the names in it.

use std::str::FromStr;

use o2bridge_core::{Channel, GroupId, Member, NodeId, Pid, Reason, RingId};

/// What is left of a line.
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.trim() }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.is_at_end() { Ok(()) } else { Err(format!("'{}' is too much", self.rest)) }
    }

    pub(super) fn word(&mut self) -> Result<&'a str, String> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        if word.is_empty() {
            return Err("the line is too short".to_owned());
        }
        self.rest = rest.trim_start();
        Ok(word)
    }

    /// A word that must be this one.
    pub(super) fn skip(&mut self, wanted: &str) -> Result<&mut Self, String> {
        match self.word()? {
            word if word == wanted => Ok(self),
            other => Err(format!("'{wanted}' was to stand where '{other}' is")),
        }
    }

    /// Words between brackets.
    pub(super) fn list(&mut self) -> Result<Vec<&'a str>, String> {
        let inner = self.rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (list, rest) = inner.ok_or_else(|| format!("no [list] in '{}'", self.rest))?;
        self.rest = rest.trim_start();
        Ok(list.split_whitespace().collect())
    }
}

pub(super) fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("'{word}' is no number"))
}

/// `n3`.
pub(super) fn node(word: &str) -> Result<NodeId, String> {
    let id = word.strip_prefix('n').ok_or_else(|| format!("'{word}' is no node"))?;
    number(id).map(NodeId)
}

/// `3a`: node 3, and 1 for `a` in place of the pid.
pub(super) fn client(word: &str) -> Result<Member, String> {
    let bad = || format!("'{word}' is no client; one is named like 3a");
    let letter = word.chars().last().filter(char::is_ascii_lowercase).ok_or_else(bad)?;
    let id = word.get(..word.len() - 1).unwrap_or_default();
    let node = id.parse().map(NodeId).map_err(|_| bad())?;
    Ok(Member { node, pid: Pid(u32::from(letter) - u32::from('a') + 1) })
}

/// The other way round. There are 26 letters.
#[must_use]
pub fn client_name(client: Member) -> String {
    let rank = u8::try_from(client.pid.0.saturating_sub(1)).unwrap_or(u8::MAX);
    format!("{}{}", client.node, char::from(b'a'.saturating_add(rank)))
}

/// `A` to `F`, or `control`.
pub(super) fn channel(word: &str) -> Result<Channel, String> {
    let digit = match word.as_bytes() {
        [letter @ b'A'..=b'F'] => letter - b'A' + 10,
        b"control" => return Ok(Channel::Control),
        _ => return Err(format!("'{word}' is no channel; there are A to F, and control")),
    };
    Ok(Channel::Group(GroupId(digit.into())))
}

/// The other way round.
#[must_use]
pub fn channel_name(channel: Channel) -> String {
    match channel {
        Channel::Control => "control".to_owned(),
        Channel::Group(group) => format!("{:X}", group.0),
    }
}

/// `1.1c`, as corosync's tools print it.
pub(super) fn ring(word: &str) -> Result<RingId, String> {
    let bad = || format!("'{word}' is no ring id; one looks like 1.1c");
    let (node, seq) = word.split_once('.').ok_or_else(bad)?;
    let node = node.parse().map(NodeId).map_err(|_| bad())?;
    let seq = u64::from_str_radix(seq, 16).map_err(|_| bad())?;
    Ok(RingId { seq, node })
}

pub(super) fn reason(word: &str) -> Result<Reason, String> {
    Ok(match word {
        "JOIN" => Reason::Join,
        "LEAVE" => Reason::Leave,
        "NODEDOWN" => Reason::NodeDown,
        "NODEUP" => Reason::NodeUp,
        "PROCDOWN" => Reason::ProcDown,
        _ => return Err(format!("'{word}' is no reason")),
    })
}

/// The text of a message: one word of letters, digits and dashes.
pub(super) fn message(word: &str) -> Result<&[u8], String> {
    if word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        Ok(word.as_bytes())
    } else {
        Err(format!("'{word}' is no message; one has letters, digits and dashes"))
    }
}
