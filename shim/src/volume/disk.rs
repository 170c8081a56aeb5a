//! Reading from a disk that others write at the same time: past the page cache, which would go on
//! showing what was there when it was first asked.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::{EINVAL, O_DIRECT};

use super::superblock::{self, Bad, HEAD_BYTES, Superblock};

/// What O_DIRECT wants offsets, lengths and memory to be a multiple of, on every disk there is.
pub(super) const ALIGN: usize = 4096;

/// The most that is ever read in one go: 255 heartbeat blocks of 4 KiB.
const READ_BYTES_MAX: usize = 1 << 20;

/// A volume could not be read or understood. Nothing was changed: nothing here writes.
#[derive(Debug)]
pub enum VolumeError {
    /// The operating system refused.
    Io {
        /// `open` or `read`.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was read is no superblock.
    NoVolume(Bad),
    /// The volume's heartbeat area cannot be found, for this reason.
    NoHeartbeat(&'static str),
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { step, path, source } => {
                write!(f, "cannot {step} {}: {source}", path.display())
            }
            Self::NoVolume(bad) => bad.fmt(f),
            Self::NoHeartbeat(why) => write!(f, "the heartbeat area cannot be found: {why}"),
        }
    }
}

impl std::error::Error for VolumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NoVolume(_) | Self::NoHeartbeat(_) => None,
        }
    }
}

/// An open disk, or an image of one in a file.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: PathBuf,
    /// The file's filesystem cannot read past the cache; what is cached is dropped instead.
    is_cached: bool,
}

impl Disk {
    /// Opens for reading only: the end of a write access would make udev look at the device anew.
    pub(super) fn open(path: &Path) -> Result<Self, VolumeError> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let (file, is_cached) = match open(O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(EINVAL) => (open(0), true),
            direct => (direct, false),
        };
        let file =
            file.map_err(|source| VolumeError::Io { step: "open", path: path.into(), source })?;
        Ok(Self { file, path: path.into(), is_cached })
    }

    pub(super) fn superblock(&self) -> Result<Superblock, VolumeError> {
        let head = self.read_some(0, HEAD_BYTES)?;
        superblock::parse(head.bytes()).map_err(VolumeError::NoVolume)
    }

    /// Reads exactly this many bytes.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, VolumeError> {
        let skip = (offset % ALIGN as u64) as usize;
        let whole = self.read_some(offset - skip as u64, skip.saturating_add(len))?;
        match whole.bytes().get(skip..skip.saturating_add(len)) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(self.error(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads from an aligned offset, up to the end of the disk.
    fn read_some(&self, offset: u64, len: usize) -> Result<Aligned, VolumeError> {
        if len > READ_BYTES_MAX + ALIGN {
            return Err(self.error(io::ErrorKind::InvalidInput.into()));
        }
        if self.is_cached {
            // Advice; if it is not taken, the bytes are merely older.
            let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        let mut buffer = Aligned::new(len);
        while buffer.filled < buffer.len {
            let at = offset.saturating_add(buffer.filled as u64);
            match self.file.read_at(buffer.rest(), at) {
                Ok(0) => break,
                Ok(got) => buffer.filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The end of a file that no whole sector ends at.
                Err(error) if buffer.filled % ALIGN != 0 && is_misaligned(&error) => break,
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(buffer)
    }

    fn error(&self, source: io::Error) -> VolumeError {
        VolumeError::Io { step: "read", path: self.path.clone(), source }
    }
}

fn is_misaligned(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EINVAL)
}

/// Memory that begins and ends where O_DIRECT wants it to.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
    filled: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let len = len.next_multiple_of(ALIGN);
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().addr().wrapping_neg() % ALIGN;
        Self { memory, start, len, filled: 0 }
    }

    fn rest(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start + self.filled..self.start + self.len).unwrap_or_default()
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.filled).unwrap_or_default()
    }
}
