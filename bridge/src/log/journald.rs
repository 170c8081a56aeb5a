//! The journal's own socket: a datagram per record, keys as fields
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL). `journalctl O2BRIDGE_GROUP=...` finds all lines of a group.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use slog::{Level, OwnedKVList, Record};

use super::fields::Fields;

const SOCKET: &str = "/run/systemd/journal/socket";

/// An open way to the journal.
#[derive(Debug)]
pub(super) struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
    lost: AtomicU64,
}

impl Journald {
    pub(super) fn open() -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET))
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // Found out now, so that the log can go elsewhere. Later the journal may come and go.
        socket.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.into(), lost: AtomicU64::new(0) })
    }

    /// Writes a record. What the journal does not take at once is lost, counted, and said with the
    /// next record that it takes.
    pub(super) fn write(&self, record: &Record<'_>, values: &OwnedKVList) {
        let fields = Fields::of(record, values);
        let mut datagram = Vec::with_capacity(512);
        let lost = self.lost.load(Ordering::Relaxed);
        let mut message = fields.sentence(record);
        if lost > 0 {
            message.push_str(&format!(" (the journal did not take {lost} lines before this one)"));
        }
        put(&mut datagram, "MESSAGE", &message);
        put(&mut datagram, "PRIORITY", priority(record.level()));
        put(&mut datagram, "SYSLOG_IDENTIFIER", "o2bridged");
        for (key, value) in &fields.0 {
            put(&mut datagram, &format!("O2BRIDGE_{}", field_name(key)), value);
        }
        match self.socket.send_to(&datagram, &self.path) {
            Ok(_) => self.lost.store(0, Ordering::Relaxed),
            Err(_) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// syslog(3) numbers.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Critical => "2",
        Level::Error => "3",
        Level::Warning => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    }
}

/// Field names are upper-case letters, digits and underscores.
fn field_name(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    key.chars().map(allowed).collect()
}

/// A field, in the form with a length if its value has several lines.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend((value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::{Drain, Logger, Never, o, warn};

    struct Direct(Journald);

    impl Drain for Direct {
        type Ok = ();
        type Err = Never;
        fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
            self.0.write(record, values);
            Ok(())
        }
    }

    #[test]
    fn a_record_becomes_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let logger = Logger::root(Direct(Journald::open_at(&path).unwrap()).fuse(), o!());
        warn!(logger, "node {} died", 3; "node" => 3, "group" => "A B", "since-ms" => 5);
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&buffer[..length]).unwrap().lines().collect();
        assert_eq!(
            lines,
            [
                "MESSAGE=node 3 died node=3 group=\"A B\" since-ms=5",
                "PRIORITY=4",
                "SYSLOG_IDENTIFIER=o2bridged",
                "O2BRIDGE_NODE=3",
                "O2BRIDGE_GROUP=A B",
                "O2BRIDGE_SINCE_MS=5"
            ]
        );
    }

    #[test]
    fn a_journal_that_does_not_read_costs_lines_and_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_nonblocking(true).unwrap();
        let logger = Logger::root(Direct(Journald::open_at(&path).unwrap()).fuse(), o!());
        for _ in 0..5_000 {
            warn!(logger, "again");
        }
        let mut buffer = [0; 4096];
        while journal.recv(&mut buffer).is_ok() {}
        warn!(logger, "last");
        let length = journal.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with("MESSAGE=last (the journal did not take "), "{text}");
        warn!(logger, "after");
        let length = journal.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"MESSAGE=after\n"));
    }

    #[test]
    fn no_journal_is_an_error_at_once() {
        assert!(Journald::open_at(Path::new("/no/such/socket")).is_err());
    }

    #[test]
    fn values_with_newlines_carry_their_length() {
        let mut datagram = Vec::new();
        put(&mut datagram, "X", "a\nb");
        assert_eq!(datagram, b"X\n\x03\0\0\0\0\0\0\0a\nb\n");
    }
}
