//! The device: one block at a time, past all caches.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use nix::fcntl::OFlag;

use crate::block::{self, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Heartbeat};
use crate::{AREA_BLOCKS, AREA_MAX, Area, SLOT_MAX, Settings, Slot, block_number};

/// O_DIRECT wants its memory aligned.
#[repr(align(4096))]
struct Page([u8; BLOCK_BYTES_MAX]);

/// The open device and the memory for one block of it.
pub(super) struct Device {
    /// Without one there is no slot either.
    file: Option<File>,
    page: Box<Page>,
    block_bytes: usize,
    blocks: u64,
    dead_ms: u32,
}

impl Device {
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let block_bytes = usize::try_from(settings.block_bytes).unwrap_or(BLOCK_BYTES_MIN);
        let dead_ms = u32::try_from(settings.dead_ms()).unwrap_or(u32::MAX);
        let Some(path) = &settings.device else {
            let page = Box::new(Page([0; BLOCK_BYTES_MAX]));
            return Ok(Self { file: None, page, block_bytes, blocks: 0, dead_ms });
        };
        let open = |direct: OFlag| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).custom_flags(direct.bits());
            let mut file = options.open(path)?;
            let blocks = file.seek(SeekFrom::End(0))? / u64::from(settings.block_bytes);
            let page = Box::new(Page([0; BLOCK_BYTES_MAX]));
            let mut device = Self { file: Some(file), page, block_bytes, blocks, dead_ms };
            device.seq(Area(0), Slot(0)).map(|_| device)
        };
        let is_block_device = path.metadata()?.file_type().is_block_device();
        match open(OFlag::O_DIRECT) {
            // A plain file of a test: its file system may not know O_DIRECT, or not for a sector.
            Err(error) if !is_block_device && error.kind() == io::ErrorKind::InvalidInput => {
                open(OFlag::empty())
            }
            opened => opened,
        }
    }

    /// Whether the device has this slot.
    pub(super) fn has(&self, area: Area, slot: Slot) -> bool {
        area.0 <= AREA_MAX && slot.0 <= SLOT_MAX && block_number(area, slot) < self.blocks
    }

    /// The seq that the slot has, whoever wrote it.
    pub(super) fn seq(&mut self, area: Area, slot: Slot) -> io::Result<u64> {
        let at = self.offset(block_number(area, slot));
        let block = block_of(&mut self.page, self.block_bytes);
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(block, at)?;
        Ok(block::seq(block))
    }

    /// Writes the slot.
    pub(super) fn write(
        &mut self,
        area: Area,
        slot: Slot,
        seq: u64,
        generation: u64,
    ) -> io::Result<()> {
        let heartbeat = Heartbeat { seq, node: slot.0, generation, dead_ms: self.dead_ms };
        let at = self.offset(block_number(area, slot));
        let block = block_of(&mut self.page, self.block_bytes);
        block::encode(&heartbeat, block).map_err(|_| io::ErrorKind::InvalidInput)?;
        write_once(self.file.as_ref(), block, at)
    }

    /// Fills the area with zeros, as far as the device goes.
    pub(super) fn wipe(&mut self, area: Area) -> io::Result<()> {
        let first = block_number(area, Slot(0));
        for number in first..(first + AREA_BLOCKS).min(self.blocks) {
            let at = self.offset(number);
            let block = block_of(&mut self.page, self.block_bytes);
            block.fill(0);
            write_once(self.file.as_ref(), block, at)?;
        }
        Ok(())
    }

    fn offset(&self, number: u64) -> u64 {
        number.saturating_mul(self.block_bytes as u64)
    }
}

fn block_of(page: &mut Page, bytes: usize) -> &mut [u8] {
    let (block, _) = page.0.split_at_mut(bytes.min(BLOCK_BYTES_MAX));
    block
}

/// One block in one call, because a kernel may read in between.
fn write_once(file: Option<&File>, block: &[u8], at: u64) -> io::Result<()> {
    let file = file.ok_or(io::ErrorKind::NotFound)?;
    match file.write_at(block, at)? {
        written if written == block.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
