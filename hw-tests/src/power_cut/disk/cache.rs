//! A disk with a volatile write cache, free of any protocol: what is written can be read at once,
//! and only a flush (or a write that asks for it) makes it survive [`VolatileDisk::lose_power`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rand::{Rng, RngExt};

/// What is kept or lost as a whole: the block of ext4, of flash, and of today's disks.
pub const PIECE_BYTES: u64 = 4096;
/// The most contents of one piece that the cache remembers between two flushes.
const CONTENTS_MAX: usize = 8;
/// A full cache writes back, as a real one does: 64 MiB.
const PIECES_MAX: usize = 16 * 1024;

type Piece = Box<[u8; PIECE_BYTES as usize]>;

/// The medium, and the cache in front of it.
pub struct VolatileDisk {
    medium: File,
    bytes: u64,
    /// By number: what each piece has held since the last flush, oldest first. A disk may have
    /// written down any of these by the time the power goes.
    cache: BTreeMap<u64, Vec<Piece>>,
}

/// What a power cut did to what was not flushed, in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// On the medium as last written.
    pub kept: u64,
    /// On the medium as they were some writes earlier.
    pub kept_older: u64,
    /// As they were at the last flush.
    pub dropped: u64,
}

impl Loss {
    /// All that was at stake.
    pub const fn pieces(&self) -> u64 {
        self.kept + self.kept_older + self.dropped
    }

    pub(in crate::power_cut) const fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.kept_older += other.kept_older;
        self.dropped += other.dropped;
    }
}

impl VolatileDisk {
    /// A disk with this medium, whose length must be a multiple of [`PIECE_BYTES`].
    ///
    /// # Errors
    /// When the medium can't be used.
    pub fn new(medium: File) -> io::Result<Self> {
        let bytes = medium.metadata()?.len();
        if bytes == 0 || bytes % PIECE_BYTES != 0 {
            return Err(io::Error::other(format!("a medium of {bytes} bytes")));
        }
        Ok(Self { medium, bytes, cache: BTreeMap::new() })
    }

    /// Its size.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pieces that a power cut could lose.
    pub fn unflushed(&self) -> usize {
        self.cache.len()
    }

    /// Reads what was written last, flushed or not.
    ///
    /// # Errors
    /// Outside of the disk, or when the medium can't be read.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len())?;
        self.medium.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        let pieces = offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES);
        for (number, contents) in self.cache.range(pieces) {
            let Some(newest) = contents.last() else { continue };
            let begin = number * PIECE_BYTES;
            let (from, to) = (offset.max(begin), end.min(begin + PIECE_BYTES));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&newest[(from - begin) as usize..(to - begin) as usize]);
        }
        Ok(())
    }

    /// Takes a write into the cache; with `through` it is on the medium when this returns.
    ///
    /// # Errors
    /// Outside of the disk, or when the medium fails.
    pub fn write(&mut self, offset: u64, data: &[u8], through: bool) -> io::Result<()> {
        self.check(offset, data.len())?;
        let end = offset + data.len() as u64;
        for number in offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            let begin = number * PIECE_BYTES;
            let (from, to) = (offset.max(begin), end.min(begin + PIECE_BYTES));
            let mut piece: Piece = Box::new([0; PIECE_BYTES as usize]);
            if to - from < PIECE_BYTES {
                self.read(begin, &mut piece[..])?;
            }
            piece[(from - begin) as usize..(to - begin) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            if through {
                self.cache.remove(&number);
                self.medium.write_all_at(&piece[..], begin)?;
                continue;
            }
            let contents = self.cache.entry(number).or_default();
            if contents.len() == CONTENTS_MAX {
                contents.remove(0);
            }
            contents.push(piece);
        }
        while self.cache.len() > PIECES_MAX {
            self.write_back_one()?;
        }
        Ok(())
    }

    /// Everything written so far survives from now on.
    ///
    /// # Errors
    /// When the medium fails.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.cache.is_empty() {
            self.write_back_one()?;
        }
        Ok(())
    }

    /// The power goes: each piece that was not flushed is kept with a chance of `keep_share`, in
    /// one of the states it was in, or is as it was at the last flush.
    ///
    /// # Errors
    /// When the medium fails.
    pub fn lose_power(&mut self, rng: &mut impl Rng, keep_share: f64) -> io::Result<Loss> {
        let mut loss = Loss::default();
        for (number, contents) in std::mem::take(&mut self.cache) {
            if !rng.random_bool(keep_share) {
                loss.dropped += 1;
                continue;
            }
            let newest = contents.len() - 1;
            let kept = if rng.random_bool(0.5) { newest } else { rng.random_range(0..=newest) };
            self.medium.write_all_at(&contents[kept][..], number * PIECE_BYTES)?;
            if kept == newest {
                loss.kept += 1;
            } else {
                loss.kept_older += 1;
            }
        }
        Ok(loss)
    }

    fn write_back_one(&mut self) -> io::Result<()> {
        let Some((number, contents)) = self.cache.pop_first() else { return Ok(()) };
        let newest = contents.last().map(|piece| &piece[..]).unwrap_or_default();
        self.medium.write_all_at(newest, number * PIECE_BYTES)
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<()> {
        let end = offset.checked_add(length as u64);
        if end.is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let what = format!("{length} bytes at {offset} of a disk of {} bytes", self.bytes);
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }
}
