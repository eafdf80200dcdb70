//! Which numbers were seen: sets per (gateway, epoch, chunk of 65,536 numbers).
//!
//! A publication brings what it saw as one compressed bitmap per kind and chunk ([`SeenBuilder`]);
//! folding adds those to the chunk's row ([`ChunkSets`]). Adding is a union, so a number that
//! arrives twice, or is folded twice, changes nothing. A chunk of which every number was seen
//! keeps only its counts and what is not plainly raw.

use std::collections::HashMap;
use std::ops::Range;

use penstock_common::event::{Epoch, Provenance};
use roaring::RoaringBitmap;

/// How many numbers a chunk has.
pub const CHUNK_NUMBERS: u64 = 65_536;
/// Names longer than this are no gateway's.
const GATEWAY_BYTES_MAX: usize = 200;

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It is in a raw file.
    Raw,
    /// It is a dead letter.
    Dead,
    /// It was in a raw file, and compaction dropped it because another number has the same event.
    Duplicate,
}

impl Kind {
    /// Its name in the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Dead => "dead",
            Self::Duplicate => "duplicate",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Dead, Self::Duplicate].into_iter().find(|kind| kind.name() == name)
    }
}

/// Bytes of the catalog that are no set of numbers of a chunk.
#[derive(Debug, thiserror::Error)]
#[error("a set of numbers in the ledger can't be read: {0}")]
pub struct BitsError(String);

/// A set of numbers of one chunk, counted from its beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bits(RoaringBitmap);

impl Bits {
    /// The numbers in any order.
    pub fn of(mut numbers: Vec<u16>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers.into_iter().map(u32::from).collect())
    }

    /// All numbers of a chunk.
    fn all() -> Self {
        Self((0..CHUNK_NUMBERS as u32).collect())
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the standard format of roaring bitmaps.
    pub fn encode(&self) -> Vec<u8> {
        let mut compact = self.0.clone();
        compact.optimize();
        let mut out = Vec::with_capacity(compact.serialized_size());
        // Writing to memory does not fail.
        let _ = compact.serialize_into(&mut out);
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, BitsError> {
        let set =
            RoaringBitmap::deserialize_from(bytes).map_err(|error| BitsError(error.to_string()))?;
        match set.max() {
            Some(max) if u64::from(max) >= CHUNK_NUMBERS => {
                Err(BitsError(format!("it holds {max}, a chunk ends before {CHUNK_NUMBERS}")))
            }
            _ => Ok(Self(set)),
        }
    }

    fn range_len(&self, part: &Range<u32>) -> u64 {
        match (part.is_empty(), part.start) {
            (true, _) => 0,
            (false, 0) => self.0.rank(part.end - 1),
            (false, start) => self.0.rank(part.end - 1) - self.0.rank(start - 1),
        }
    }
}

/// What became of the numbers of one chunk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChunkSets {
    raw: Bits,
    /// Without those that are in `raw`.
    dead: Bits,
    duplicate: Bits,
}

/// How many numbers are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In raw files, one number for each event as far as compaction has come.
    pub stored: u64,
    /// Further copies of the same events.
    pub duplicates: u64,
    /// Dead letters that are not stored as well.
    pub dead: u64,
}

impl Counts {
    /// How many were seen.
    pub const fn seen(&self) -> u64 {
        self.stored + self.duplicates + self.dead
    }
}

/// A chunk as it stands in its row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredChunk {
    /// Its counts.
    pub counts: Counts,
    /// The raw ones; none when every number was seen: then they are all that are not `dead`.
    pub raw: Option<Vec<u8>>,
    /// The dead ones.
    pub dead: Option<Vec<u8>>,
    /// Those that compaction dropped.
    pub duplicate: Option<Vec<u8>>,
}

impl ChunkSets {
    /// Adds numbers.
    pub fn add(&mut self, kind: Kind, bits: &Bits) {
        match kind {
            Kind::Raw => {
                self.raw.0 |= &bits.0;
                self.dead.0 -= &bits.0;
            }
            Kind::Dead => self.dead.0 |= &bits.0 - &self.raw.0,
            Kind::Duplicate => self.duplicate.0 |= &bits.0,
        }
    }

    /// How many are what.
    pub fn counts(&self) -> Counts {
        let duplicates = self.raw.0.intersection_len(&self.duplicate.0);
        Counts { stored: self.raw.len() - duplicates, duplicates, dead: self.dead.len() }
    }

    /// How many of a part of the chunk are what.
    pub fn counts_of(&self, part: &Range<u32>) -> Counts {
        let duplicate = Bits(&self.raw.0 & &self.duplicate.0);
        let duplicates = duplicate.range_len(part);
        let stored = self.raw.range_len(part) - duplicates;
        Counts { stored, duplicates, dead: self.dead.range_len(part) }
    }

    /// Calls `each` with the ranges of a part of the chunk that were not seen, in order.
    pub fn unseen(&self, part: &Range<u32>, mut each: impl FnMut(Range<u32>)) {
        let mut unseen = RoaringBitmap::new();
        unseen.insert_range(part.clone());
        unseen -= &self.raw.0;
        unseen -= &self.dead.0;
        let mut numbers = unseen.iter();
        while let Some(range) = numbers.next_range() {
            each(*range.start()..*range.end() + 1);
        }
    }

    /// The greatest number that was seen.
    pub fn max_seen(&self) -> Option<u32> {
        self.raw.0.max().max(self.dead.0.max())
    }

    /// Its row.
    pub fn store(&self) -> StoredChunk {
        let counts = self.counts();
        let set = |bits: &Bits| (!bits.is_empty()).then(|| bits.encode());
        let raw = if counts.seen() == CHUNK_NUMBERS { None } else { set(&self.raw) };
        StoredChunk { counts, raw, dead: set(&self.dead), duplicate: set(&self.duplicate) }
    }

    /// From its row.
    ///
    /// # Errors
    /// When a set can't be read.
    pub fn load(row: &StoredChunk) -> Result<Self, BitsError> {
        let set =
            |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(Ok(Bits::default()), Bits::decode);
        let dead = set(&row.dead)?;
        let raw = if row.raw.is_none() && row.counts.seen() == CHUNK_NUMBERS {
            Bits(&Bits::all().0 - &dead.0)
        } else {
            set(&row.raw)?
        };
        Ok(Self { raw, dead, duplicate: set(&row.duplicate)? })
    }
}

/// What a publication saw of one chunk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The gateway.
    pub gateway: String,
    /// The epoch.
    pub epoch: i64,
    /// The numbers' quotient by [`CHUNK_NUMBERS`].
    pub chunk: i64,
    /// What became of them.
    pub kind: Kind,
    /// The numbers' remainders, see [`Bits`].
    pub bits: Vec<u8>,
}

/// Collects what a publication saw: fed with each record, in any order.
#[derive(Debug, Default)]
pub struct SeenBuilder {
    gateways: HashMap<String, u32>,
    names: Vec<String>,
    places: HashMap<(Kind, u32, u64, u64), usize>,
    numbers: Vec<Vec<u16>>,
    /// The last one's key and place: records of a gateway mostly come in a row.
    last: Option<((Kind, u32, u64, u64), usize)>,
}

impl SeenBuilder {
    /// Notes what became of a number. What can't be a gateway's is passed over: epoch 0, and
    /// numbers beyond 63 bits.
    pub fn add(&mut self, kind: Kind, gateway: &str, epoch: Epoch, seq: u64) {
        let is_real = (1..=i64::MAX as u64).contains(&epoch.0)
            && seq < i64::MAX as u64
            && (1..=GATEWAY_BYTES_MAX).contains(&gateway.len());
        if !is_real {
            return;
        }
        let gateway = self.gateway(gateway);
        let key = (kind, gateway, epoch.0, seq / CHUNK_NUMBERS);
        let place = match self.last {
            Some((last, place)) if last == key => place,
            _ => *self.places.entry(key).or_insert_with(|| {
                self.numbers.push(Vec::new());
                self.numbers.len() - 1
            }),
        };
        self.last = Some((key, place));
        self.numbers[place].push((seq % CHUNK_NUMBERS) as u16);
    }

    /// As [`Self::add`].
    pub fn add_provenance(&mut self, kind: Kind, provenance: &Provenance) {
        self.add(kind, &provenance.gateway, provenance.epoch, provenance.seq);
    }

    fn gateway(&mut self, name: &str) -> u32 {
        if let Some(((_, last, ..), _)) = self.last
            && self.names[last as usize] == name
        {
            return last;
        }
        if let Some(number) = self.gateways.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.gateways.insert(name.to_owned(), number);
        number
    }

    /// What was seen, in order.
    pub fn finish(self) -> Vec<Seen> {
        let Self { names, places, mut numbers, .. } = self;
        let mut seen: Vec<Seen> = places
            .into_iter()
            .map(|((kind, gateway, epoch, chunk), place)| Seen {
                gateway: names[gateway as usize].clone(),
                // Both were checked to fit.
                epoch: epoch as i64,
                chunk: chunk as i64,
                kind,
                bits: Bits::of(std::mem::take(&mut numbers[place])).encode(),
            })
            .collect();
        seen.sort_unstable();
        seen
    }
}

#[cfg(test)]
mod tests;
