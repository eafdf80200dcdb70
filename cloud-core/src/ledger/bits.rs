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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Raw), Just(Kind::Dead), Just(Kind::Duplicate)]
    }

    /// Numbers in runs and scattered, some at the ends of the chunk.
    fn numbers() -> impl Strategy<Value = Vec<u16>> {
        let run = (any::<u16>(), 0..3_000u16)
            .prop_map(|(from, n)| (from..from.saturating_add(n)).collect::<Vec<_>>());
        let ends = Just(vec![0, u16::MAX]);
        let scattered = prop::collection::vec(any::<u16>(), 0..200);
        let all = Just((0..=u16::MAX).collect::<Vec<_>>());
        let one = prop_oneof![4 => run, 1 => ends, 4 => scattered, 1 => all];
        prop::collection::vec(one, 0..3).prop_map(|runs| runs.concat())
    }

    type Naive = BTreeMap<Kind, BTreeSet<u16>>;

    fn naive_counts(naive: &Naive, part: &Range<u32>) -> Counts {
        let set = |kind| naive.get(&kind).cloned().unwrap_or_default();
        let (raw, dead, duplicate) = (set(Kind::Raw), set(Kind::Dead), set(Kind::Duplicate));
        let count =
            |is: &dyn Fn(&u16) -> bool| part.clone().filter(|n| is(&(*n as u16))).count() as u64;
        Counts {
            stored: count(&|n| raw.contains(n) && !duplicate.contains(n)),
            duplicates: count(&|n| raw.contains(n) && duplicate.contains(n)),
            dead: count(&|n| dead.contains(n) && !raw.contains(n)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is added in whatever order, stored and loaded in between, is what a naive
        /// set says.
        #[test]
        fn chunks_are_what_naive_sets_are(
            added in prop::collection::vec((kinds(), numbers()), 0..6),
            ends in (0..=65_536u32, 0..=65_536u32),
        ) {
            let mut sets = ChunkSets::default();
            let mut naive = Naive::new();
            for (kind, numbers) in added {
                sets.add(kind, &Bits::of(numbers.clone()));
                naive.entry(kind).or_default().extend(numbers);
                let row = sets.store();
                prop_assert_eq!(row.counts, naive_counts(&naive, &(0..65_536)));
                sets = ChunkSets::load(&row).unwrap();
            }
            let part = ends.0.min(ends.1)..ends.0.max(ends.1);
            prop_assert_eq!(sets.counts_of(&part), naive_counts(&naive, &part));
            prop_assert_eq!(sets.counts_of(&(0..65_536)), sets.counts());
            let mut unseen = Vec::new();
            sets.unseen(&part, |range| unseen.extend(range));
            let is_seen = |n: &u32| [Kind::Raw, Kind::Dead].iter().any(|kind| {
                naive.get(kind).is_some_and(|set| set.contains(&(*n as u16)))
            });
            prop_assert_eq!(unseen, part.filter(|n| !is_seen(n)).collect::<Vec<_>>());
        }

        #[test]
        fn a_builder_notes_every_number_under_its_chunk(
            records in prop::collection::vec(
                (kinds(), 0..3usize, 1..4u64, prop_oneof![0..200_000u64, any::<u64>()]), 0..300),
        ) {
            let gateways = ["a", "b", "c"];
            let mut builder = SeenBuilder::default();
            let mut expected: BTreeSet<(Kind, &str, i64, i64)> = BTreeSet::new();
            for (kind, gateway, epoch, seq) in records {
                builder.add(kind, gateways[gateway], Epoch(epoch), seq);
                if let Ok(seq) = i64::try_from(seq) && seq < i64::MAX {
                    expected.insert((kind, gateways[gateway], epoch as i64, seq));
                }
            }
            let seen = builder.finish();
            prop_assert!(seen.is_sorted());
            let mut found = BTreeSet::new();
            for one in &seen {
                let gateway = gateways.iter().find(|name| **name == one.gateway).unwrap();
                for number in Bits::decode(&one.bits).unwrap().0 {
                    let seq = one.chunk * CHUNK_NUMBERS as i64 + i64::from(number);
                    found.insert((one.kind, *gateway, one.epoch, seq));
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn bytes_that_are_no_set_are_refused_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Bits::decode(&bytes);
        }
    }

    #[test]
    fn a_full_chunk_keeps_only_its_counts() {
        let mut sets = ChunkSets::default();
        sets.add(Kind::Raw, &Bits::of((0..=u16::MAX).collect()));
        let row = sets.store();
        assert_eq!((&row.raw, &row.dead, &row.duplicate), (&None, &None, &None));
        assert_eq!(row.counts, Counts { stored: 65_536, duplicates: 0, dead: 0 });
        // A dead letter among them, stored after all later.
        let mut sets = ChunkSets::default();
        sets.add(Kind::Raw, &Bits::of((1..=u16::MAX).collect()));
        sets.add(Kind::Dead, &Bits::of(vec![0]));
        let row = sets.store();
        assert!(row.raw.is_none() && row.dead.as_ref().is_some_and(|dead| dead.len() < 30));
        let mut sets = ChunkSets::load(&row).unwrap();
        sets.add(Kind::Raw, &Bits::of(vec![0]));
        assert_eq!(sets.counts().stored, 65_536);
    }

    #[test]
    fn a_set_beyond_its_chunk_is_refused() {
        let mut bytes = Vec::new();
        RoaringBitmap::from([65_536]).serialize_into(&mut bytes).unwrap();
        assert!(Bits::decode(&bytes).is_err());
    }

    #[test]
    fn what_is_no_gateways_is_passed_over() {
        let mut builder = SeenBuilder::default();
        builder.add(Kind::Dead, "g", Epoch(0), 1);
        builder.add(Kind::Dead, "", Epoch(1), 1);
        builder.add(Kind::Dead, "g", Epoch(u64::MAX), 1);
        builder.add(Kind::Dead, "g", Epoch(1), u64::MAX);
        assert_eq!(builder.finish(), []);
    }
}
