//! The network between the guests: a hub in the lab's process, whose cables can be cut.
//!
//! QEMU exchanges Ethernet frames as datagrams on Unix sockets; no privileges are needed, and the host
//! cannot be reached from the guests.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{LabError, Result};
use crate::power::lock;

/// Frames kept for a guest that does not take them; more are lost, as on a real network.
const QUEUE_MAX: usize = 2000;
const FRAME_MAX: usize = 65_536;

/// The hub. Guests are numbered from 1.
#[derive(Debug)]
pub struct Net {
    ports: Vec<PathBuf>,
    cut: Arc<Mutex<BTreeSet<(u8, u8)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A guest's hardware address.
pub(crate) fn mac(number: u8) -> String {
    format!("52:54:00:6c:62:{number:02x}")
}

/// A guest's IPv4 address.
#[must_use]
pub fn address(number: u8) -> String {
    format!("10.7.0.{number}")
}

impl Net {
    /// A hub for guests 1 to `guests`, with its sockets in `directory`.
    pub(crate) fn new(guests: u8, directory: &Path) -> Result<Self> {
        let mut ports = Vec::new();
        let mut sockets = Vec::new();
        for number in 1..=guests {
            let path = directory.join(format!("hub{number}"));
            let socket = UnixDatagram::bind(&path).map_err(LabError::at(&path))?;
            socket.set_nonblocking(true).map_err(LabError::at(&path))?;
            sockets.push(Port {
                socket,
                guest: directory.join(format!("net{number}")),
                queue: VecDeque::new(),
            });
            ports.push(path);
        }
        let cut: Arc<Mutex<BTreeSet<(u8, u8)>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (cuts, stopped) = (Arc::clone(&cut), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && turn(&mut sockets, &cuts).is_ok() {}
        });
        Ok(Self { ports, cut, stop, thread: Some(thread) })
    }

    /// QEMU's argument for a guest's end.
    pub(crate) fn argument(&self, number: u8) -> String {
        let hub = &self.ports[usize::from(number - 1)];
        let guest = hub.with_file_name(format!("net{number}"));
        // QEMU does not start on a socket that a killed predecessor has left.
        let _ = std::fs::remove_file(&guest);
        format!(
            "dgram,id=net,local.type=unix,local.path={},remote.type=unix,remote.path={}",
            guest.display(),
            hub.display()
        )
    }

    fn guests(&self) -> impl Iterator<Item = u8> + use<> {
        1..=u8::try_from(self.ports.len()).unwrap_or(u8::MAX)
    }

    /// Frames from one guest to another are lost from now on; the other direction is untouched.
    pub fn cut_one_way(&self, from: u8, to: u8) {
        lock(&self.cut).insert((from, to));
    }

    /// Two guests do not hear each other any more.
    pub fn cut(&self, one: u8, other: u8) {
        lock(&self.cut).extend([(one, other), (other, one)]);
    }

    /// Undoes [`Net::cut`] and [`Net::cut_one_way`] of these two.
    pub fn heal(&self, one: u8, other: u8) {
        lock(&self.cut).retain(|pair| *pair != (one, other) && *pair != (other, one));
    }

    /// One guest hears nobody and is not heard.
    pub fn unplug(&self, guest: u8) {
        self.guests().filter(|other| *other != guest).for_each(|other| self.cut(guest, other));
    }

    /// Undoes every cut of this guest.
    pub fn plug(&self, guest: u8) {
        self.guests().for_each(|other| self.heal(guest, other));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Port {
    socket: UnixDatagram,
    guest: PathBuf,
    queue: VecDeque<Arc<[u8]>>,
}

impl Port {
    /// Gives the guest what it takes; whatever a guest that is off would get is lost.
    fn flush(&mut self) {
        while let Some(frame) = self.queue.front() {
            match self.socket.send_to(frame, &self.guest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) => drop(self.queue.pop_front()),
                Err(_) => self.queue.clear(),
            }
        }
    }
}

fn turn(ports: &mut [Port], cut: &Mutex<BTreeSet<(u8, u8)>>) -> io::Result<()> {
    let waiting = ports.iter().any(|port| !port.queue.is_empty());
    let limit = PollTimeout::from(if waiting { 1u8 } else { 100 });
    let mut fds: Vec<PollFd<'_>> =
        ports.iter().map(|port| PollFd::new(port.socket.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, limit) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = vec![0; FRAME_MAX];
    for from in 0..ports.len() {
        while let Ok(length) = ports[from].socket.recv(&mut buffer) {
            forward(ports, from, &buffer[..length], cut);
        }
    }
    ports.iter_mut().for_each(Port::flush);
    Ok(())
}

fn forward(ports: &mut [Port], from: usize, frame: &[u8], cut: &Mutex<BTreeSet<(u8, u8)>>) {
    let cut = lock(cut);
    let frame: Arc<[u8]> = frame.into();
    for (to, port) in ports.iter_mut().enumerate() {
        let pair = (number(from), number(to));
        let wanted = to != from && is_for(&frame, pair.1) && !cut.contains(&pair);
        if wanted && port.queue.len() < QUEUE_MAX {
            port.queue.push_back(Arc::clone(&frame));
        }
    }
}

fn number(index: usize) -> u8 {
    u8::try_from(index + 1).unwrap_or(u8::MAX)
}

/// Broadcast and multicast are for everybody, all else for the one whose address it bears.
fn is_for(frame: &[u8], guest: u8) -> bool {
    match frame.first_chunk::<6>() {
        Some(to) => to[0] & 1 == 1 || *to == [0x52, 0x54, 0, 0x6c, 0x62, guest],
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: [u8; 6]) -> Vec<u8> {
        [&to[..], &[0; 54]].concat()
    }

    fn got(socket: &UnixDatagram) -> bool {
        socket.recv(&mut [0; 128]).is_ok()
    }

    #[test]
    fn frames_go_where_they_should_and_cuts_stop_them() {
        let directory = tempfile::tempdir().unwrap();
        let net = Net::new(3, directory.path()).unwrap();
        let guests: Vec<UnixDatagram> = (1..=3)
            .map(|number| {
                let socket =
                    UnixDatagram::bind(directory.path().join(format!("net{number}"))).unwrap();
                socket.connect(directory.path().join(format!("hub{number}"))).unwrap();
                socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
                socket
            })
            .collect();
        guests[0].send(&frame([255; 6])).unwrap();
        assert!(got(&guests[1]) && got(&guests[2]));
        let to_two = frame([0x52, 0x54, 0, 0x6c, 0x62, 2]);
        guests[0].send(&to_two).unwrap();
        assert!(got(&guests[1]) && !got(&guests[2]));
        net.cut_one_way(1, 2);
        guests[0].send(&to_two).unwrap();
        guests[2].send(&to_two).unwrap();
        assert!(got(&guests[1]) && !got(&guests[1]), "only the one of guest 3 arrives");
        net.unplug(3);
        net.heal(1, 2);
        guests[0].send(&frame([255; 6])).unwrap();
        assert!(got(&guests[1]) && !got(&guests[2]));
        net.plug(3);
        guests[0].send(&frame([255; 6])).unwrap();
        assert!(got(&guests[1]) && got(&guests[2]));
    }
}
