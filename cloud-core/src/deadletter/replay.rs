//! Replays: letters pass admission again, and what passes goes to `replay-events`.
//!
//! In chunks: read the letters from their files, decide, send and wait for the bus, then note it in
//! the index and in the audit, in one transaction. A replay that dies leaves letters open that may
//! have been sent; sent again they are duplicates.
//!
//! Failpoints: `replay_sent`, after a chunk was sent and before it is noted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use penstock_common::clock::Clock;
use penstock_common::schema::SchemaSet;
use penstock_common::schema::tape::Tape;
use uuid::Uuid;

use super::decide::{Refusal, Replayable, Rules, decide};
use super::letter::Letter;
use super::metrics::DeadLetterMetrics;
use super::stored::read_rows;
use crate::bus::{BusError, Producer};
use crate::failpoint::Failpoints;
use crate::store::catalog::Catalog;
use crate::store::dead_letters::find::Find;
use crate::store::dead_letters::{IndexedLetter, Place, State};
use crate::store::object::Objects;

/// Letters of a chunk.
const CHUNK_LETTERS_MAX: usize = 200;
/// Original bytes of a chunk.
pub const CHUNK_BYTES_MAX: i64 = 16 << 20;
/// Events in flight to the bus.
const IN_FLIGHT_MAX: usize = 64;
/// Files read at the same time.
const FILES_AT_ONCE: usize = 8;

/// Which letters are to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Places(Vec<Place>),
    /// A page of these, oldest first.
    Page(Find),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReplayRequest {
    /// The letters.
    pub selection: Selection,
    /// Whether nothing is to be done but deciding.
    pub dry_run: bool,
    /// Who asks, for the audit.
    pub who: String,
    /// The request, for the audit.
    pub text: String,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on `replay-events`; this schema admits it.
    Replayed(u32),
    /// It would be, if this were no dry run.
    WouldReplay(u32),
    /// It is not admitted.
    Refused(Refusal),
    /// Its event is stored already.
    Resolved,
    /// There is no such letter.
    NotFound,
    /// Something was away; nothing is known to have been done, it may be asked for again.
    Failed(&'static str),
}

/// What became of all of them, in the order asked for.
#[derive(Clone, Debug)]
pub struct ReplayReport {
    /// The audit's number; none for a dry run.
    pub replay_id: Option<Uuid>,
    /// By letter.
    pub outcomes: Vec<(Place, Outcome)>,
    /// The last letter of a full page.
    pub last: Option<(i64, i64)>,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReplayError(#[from] pub crate::store::postgres::StoreError);

/// Replays dead letters; cheap to clone.
#[derive(Clone)]
pub struct Replayer {
    /// The catalog.
    pub catalog: Catalog,
    /// Where the letters' files are.
    pub objects: Objects,
    /// To `replay-events`.
    pub producer: Arc<dyn Producer>,
    /// The full name of `replay-events`.
    pub topic: String,
    /// Today's schemas.
    pub schemas: SchemaSet,
    /// Older events are not taken by the raw store, in days.
    pub late_days_max: u32,
    /// When the raw store is asked whether it has a replayed event, ms after the replay.
    pub look_after_ms: u64,
    /// How long a chunk may take to get to the bus.
    pub send_timeout: Duration,
    /// Says what is too old.
    pub clock: Arc<dyn Clock>,
    /// For tests.
    pub failpoints: Failpoints,
    /// Counted here.
    pub metrics: DeadLetterMetrics,
}

impl Replayer {
    /// Replays letters, and says of each what became of it.
    ///
    /// # Errors
    /// When the catalog is away before anything was done.
    pub async fn replay(&self, request: &ReplayRequest) -> Result<ReplayReport, ReplayError> {
        let (letters, mut outcomes, last) = self.select(&request.selection).await?;
        let replay_id = (!request.dry_run).then(Uuid::new_v4);
        if let Some(id) = replay_id {
            self.catalog.begin_replay(id, &request.who, &request.text).await?;
        }
        let mut failed = None;
        for chunk in chunks(&letters) {
            let done = match failed {
                None => self.chunk(chunk, replay_id).await,
                Some(why) => Err(why),
            };
            match done {
                Ok(done) => outcomes.extend(done),
                Err(why) => {
                    failed = Some(why);
                    outcomes.extend(chunk.iter().map(|l| (l.place.clone(), Outcome::Failed(why))));
                }
            }
        }
        if let Some(id) = replay_id {
            if let Err(error) = self.catalog.end_replay(id).await {
                tracing::warn!(%error, replay = %id, "the end of a replay is not in the audit");
            }
            let letters = outcomes.len();
            tracing::info!(replay = %id, who = request.who, letters, "replayed dead letters");
        }
        if let Selection::Places(places) = &request.selection {
            let order: HashMap<&Place, usize> = places.iter().zip(0..).collect();
            outcomes.sort_by_key(|(place, _)| order.get(place).copied());
        }
        Ok(ReplayReport { replay_id, outcomes, last })
    }

    /// The letters to be decided upon, and what is clear without.
    async fn select(&self, selection: &Selection) -> Result<Selected, ReplayError> {
        let mut outcomes = Vec::new();
        let mut last = None;
        let mut letters = match selection {
            Selection::Places(places) => {
                let mut letters = self.catalog.dead_letters_at(places).await?;
                letters.sort_by_key(|letter| letter.letter_id);
                letters.dedup_by_key(|letter| letter.letter_id);
                let known: std::collections::HashSet<&Place> =
                    letters.iter().map(|letter| &letter.place).collect();
                let missing = places.iter().filter(|place| !known.contains(place));
                outcomes.extend(missing.map(|place| (place.clone(), Outcome::NotFound)));
                letters
            }
            Selection::Page(find) => {
                let letters = self.catalog.find_dead_letters(find).await?;
                let is_full = letters.len() == find.limit;
                last = letters.last().filter(|_| is_full).map(|letter| letter.key());
                letters
            }
        };
        let resolved = letters.extract_if(.., |letter| letter.state == State::Resolved);
        outcomes.extend(resolved.map(|letter| (letter.place, Outcome::Resolved)));
        Ok((letters, outcomes, last))
    }

    async fn chunk(
        &self,
        letters: &[IndexedLetter],
        replay_id: Option<Uuid>,
    ) -> Result<Vec<(Place, Outcome)>, &'static str> {
        let stored = read(&self.objects, letters).await.map_err(|error| {
            tracing::error!(%error, "dead letters can't be read for a replay");
            "its file can't be read at the moment"
        })?;
        let rules = Rules {
            schemas: &self.schemas,
            late_days_max: self.late_days_max,
            now: self.clock.now(),
        };
        let mut tape = Tape::new();
        let decided: Vec<_> =
            stored.iter().map(|letter| decide(&rules, letter, &mut tape)).collect();
        if let Some(replay_id) = replay_id {
            self.send(&stored, &decided).await?;
            self.note(replay_id, letters, &decided).await?;
        }
        let outcome = |decision: Result<Replayable, Refusal>| match decision {
            Ok(replayable) if replay_id.is_some() => Outcome::Replayed(replayable.schema_version),
            Ok(replayable) => Outcome::WouldReplay(replayable.schema_version),
            Err(refusal) => Outcome::Refused(refusal),
        };
        let places = letters.iter().map(|letter| letter.place.clone());
        Ok(places.zip(decided.into_iter().map(outcome)).collect())
    }

    /// Returns when the bus has all that are admitted.
    async fn send(
        &self,
        stored: &[Letter],
        decided: &[Result<Replayable, Refusal>],
    ) -> Result<(), &'static str> {
        let sending = stream::iter(0..stored.len())
            .map(|number| self.send_one(&stored[number], decided[number].as_ref().ok()))
            .buffer_unordered(IN_FLIGHT_MAX)
            .try_collect::<()>();
        match tokio::time::timeout(self.send_timeout, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the bus refused a replayed event");
                Err("the bus refused it")
            }
            Err(_) => Err("the bus did not take it in time; it may still arrive"),
        }
    }

    async fn send_one(&self, letter: &Letter, to: Option<&Replayable>) -> Result<(), BusError> {
        let Some(Replayable { key, headers, .. }) = to else { return Ok(()) };
        self.producer.send(&self.topic, Some(key.as_bytes()), &letter.payload, headers).await
    }

    async fn note(
        &self,
        replay_id: Uuid,
        letters: &[IndexedLetter],
        decided: &[Result<Replayable, Refusal>],
    ) -> Result<(), &'static str> {
        let mut sent = Vec::new();
        let mut refused = Vec::new();
        for (letter, decision) in letters.iter().zip(decided) {
            match decision {
                Ok(_) => sent.push(letter.letter_id),
                Err(refusal) => refused.push((letter.letter_id, refusal.to_json())),
            }
        }
        let noted = async {
            self.failpoints.hit("replay_sent").await?;
            self.catalog.replayed(replay_id, &sent, &refused, self.look_after_ms).await
        };
        noted.await.map_err(|error| {
            tracing::error!(%error, "a replay could not be noted: its letters stay as they were");
            "it may have been sent, which could not be noted; sending it again does no harm"
        })?;
        self.metrics.replayed.inc_by(sent.len() as u64);
        self.metrics.refused.inc_by(refused.len() as u64);
        Ok(())
    }
}

type Selected = (Vec<IndexedLetter>, Vec<(Place, Outcome)>, Option<(i64, i64)>);

/// Cuts letters into chunks that fit into memory; a letter alone always does.
fn chunks(letters: &[IndexedLetter]) -> Vec<&[IndexedLetter]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, letter) in letters.iter().enumerate() {
        let size = letter.entry.payload_bytes;
        if at > start && (at - start >= CHUNK_LETTERS_MAX || bytes + size > CHUNK_BYTES_MAX) {
            chunks.push(&letters[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < letters.len() {
        chunks.push(&letters[start..]);
    }
    chunks
}

/// Reads letters from their files, in the order given.
///
/// # Errors
/// When a file can't be read, or does not hold what the index says.
pub async fn read(objects: &Objects, letters: &[IndexedLetter]) -> anyhow::Result<Vec<Letter>> {
    let mut files: BTreeMap<&str, (u64, Vec<usize>)> = BTreeMap::new();
    for letter in letters {
        let (_, rows) = files
            .entry(&letter.at.path)
            .or_insert_with(|| (letter.at.bytes.unsigned_abs(), Vec::new()));
        rows.push(usize::try_from(letter.at.row)?);
    }
    let files: Vec<_> =
        files.into_iter().map(|(path, (bytes, rows))| (path, bytes, rows)).collect();
    let found: Vec<Vec<Letter>> = stream::iter(0..files.len())
        .map(|number| {
            let (path, bytes, rows) = &files[number];
            read_rows(objects, path, *bytes, rows)
        })
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    let mut by_place: HashMap<(String, i32, i64), Letter> = HashMap::new();
    for letter in found.into_iter().flatten() {
        let place = &letter.place;
        by_place.insert((place.topic.clone(), place.partition, place.offset), letter);
    }
    let take = |letter: &IndexedLetter| {
        let Place { topic, partition, offset } = &letter.place;
        let found = by_place.remove(&(topic.clone(), *partition, *offset));
        found.ok_or_else(|| anyhow::anyhow!("{} is not in {}", letter.place, letter.at.path))
    };
    letters.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dead_letters::{IndexEntry, RowPlace};

    fn letter(payload_bytes: i64) -> IndexedLetter {
        let entry = IndexEntry { payload_bytes, ..IndexEntry::default() };
        IndexedLetter {
            letter_id: 0,
            place: Place { topic: "t".into(), partition: 0, offset: 0 },
            at: RowPlace { path: String::new(), bytes: 0, row: 0 },
            entry,
            state: State::Open,
            replays: 0,
            replayed_at: None,
            resolved_at: None,
            refusal: None,
            refused_at: None,
        }
    }

    #[test]
    fn chunks_hold_every_letter_once_within_their_bounds() {
        let sizes = |letters: &[IndexedLetter]| -> Vec<usize> {
            chunks(letters).iter().map(|chunk| chunk.len()).collect()
        };
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&vec![letter(10); 450]), [200, 200, 50]);
        assert_eq!(sizes(&vec![letter(CHUNK_BYTES_MAX / 3); 7]), [3, 3, 1]);
        assert_eq!(sizes(&vec![letter(CHUNK_BYTES_MAX + 1); 3]), [1, 1, 1]);
    }
}
