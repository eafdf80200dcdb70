//! The group: entries on their way into a record, and out of one.

/// The length field before each entry.
pub const FRAME_BYTES: usize = 4;
/// Buffers above this are not kept between groups.
pub(super) const KEPT_BYTES_MAX: usize = 8 << 20;

/// Entries to be written as one record: in order, all or none.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub(super) body: Vec<u8>,
    pub(super) count: u32,
}

impl Group {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: &[u8]) {
        frame(&mut self.body, |out| out.extend_from_slice(entry));
        self.count += 1;
    }

    /// Adds `count` entries that [`frame`] wrote.
    pub fn push_framed(&mut self, framed: &[u8], count: u32) {
        self.body.extend_from_slice(framed);
        self.count += count;
    }

    /// Removes all entries, keeping the memory unless it is large.
    pub fn clear(&mut self) {
        self.body.clear();
        self.body.shrink_to(KEPT_BYTES_MAX);
        self.count = 0;
    }

    /// How many entries it has.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its uncompressed length with the length fields.
    pub const fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Appends one entry to `out`, written by `write`, with its length before it.
///
/// Entries are far below 4 GiB: a group of more than [`super::GROUP_BYTES_MAX`] is refused when it
/// is appended to the log.
pub fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_BYTES]);
    write(out);
    let length = u32::try_from(out.len() - at - FRAME_BYTES).unwrap_or(u32::MAX);
    out[at..at + FRAME_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// The entries of an uncompressed body; ends early where it is malformed.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The entries of `body`.
    pub const fn of(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<FRAME_BYTES>()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(entry)
    }
}
