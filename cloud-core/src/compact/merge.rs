//! Merges rows that are sorted as `raw/schema.rs` says, and keeps one copy of each identity.
//!
//! The merger is fed batches and gives batches; it does no I/O. Rows of one device are looked at
//! together: copies whose effective times differ (the device's clock was ahead) are not
//! neighbours. A device with more than [`RUN_ROWS_MAX`] rows in an hour is looked at in parts, and
//! keeps a duplicate that falls into two of them; queries drop it.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::ArrowError;
use arrow_select::interleave::interleave_record_batch;

use crate::raw::schema::column;

/// Rows given out at a time, roughly.
const EMIT_ROWS: usize = 8_192;
/// Rows of one device looked at together.
pub const RUN_ROWS_MAX: usize = 100_000;

/// What the merger wants or gives.
#[derive(Debug)]
pub enum Step {
    /// The next batch of this input, or its end, by [`Merger::feed`].
    Need(usize),
    /// Merged rows.
    Rows(RecordBatch),
    /// There is no more.
    Done,
}

/// A copy that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The gateway that spooled it.
    pub gateway: String,
    /// The opening of its spool.
    pub epoch: i64,
    /// Its number in it.
    pub seq: i64,
    /// Whether the copy kept has the same number: one record that was forwarded twice.
    pub is_repeat: bool,
    /// What is needed for a dead letter, if its bytes differ from those of the copy kept.
    pub conflict: Option<Conflict>,
}

/// A copy whose bytes differ from those of the canonical one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The device.
    pub device: String,
    /// The fleet.
    pub fleet: String,
    /// The event's own bytes.
    pub payload: String,
    /// The schema that admitted it.
    pub schema_version: i32,
    /// Reception, µs.
    pub received_at: i64,
    /// The copy that counts: gateway, epoch, number.
    pub kept: (String, i64, i64),
}

/// Typed columns of a batch.
struct Columns {
    batch: RecordBatch,
    event_id: FixedSizeBinaryArray,
    device: StringArray,
    effective: TimestampMicrosecondArray,
    received: TimestampMicrosecondArray,
    gateway: StringArray,
    epoch: Int64Array,
    seq: Int64Array,
}

/// A row: its batch in the pool, its number in that.
type Place = (usize, usize);

/// The merger.
pub struct Merger {
    pool: Vec<Columns>,
    /// Where each input stands; `None` when it is fed next.
    cursors: Vec<Option<Place>>,
    ended: Vec<bool>,
    /// Inputs by the row they stand at.
    order: Vec<usize>,
    /// Rows of the device that is being read.
    run: Vec<Place>,
    /// Rows that can be given out.
    ready: Vec<Place>,
    dropped: Vec<Dropped>,
}

impl Merger {
    /// For so many inputs of one fleet.
    pub fn new(inputs: usize) -> Self {
        Self {
            pool: Vec::new(),
            cursors: vec![None; inputs],
            ended: vec![false; inputs],
            order: Vec::with_capacity(inputs),
            run: Vec::new(),
            ready: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// The copies left out since the last call.
    pub fn take_dropped(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.dropped)
    }

    /// Gives the next rows of an input; `None` is its end.
    ///
    /// # Errors
    /// When a column is missing or of another type.
    pub fn feed(&mut self, input: usize, batch: Option<RecordBatch>) -> Result<(), ArrowError> {
        match batch {
            None => self.ended[input] = true,
            Some(batch) if batch.num_rows() == 0 => {}
            Some(batch) => {
                self.pool.push(Columns::of(batch)?);
                self.cursors[input] = Some((self.pool.len() - 1, 0));
                self.enqueue(input);
            }
        }
        Ok(())
    }

    /// Goes on until something is wanted or given.
    ///
    /// # Errors
    /// When Arrow refuses the batches.
    pub fn step(&mut self) -> Result<Step, ArrowError> {
        loop {
            let waits = |input: &usize| self.cursors[*input].is_none() && !self.ended[*input];
            if let Some(input) = (0..self.cursors.len()).find(waits) {
                return Ok(Step::Need(input));
            }
            let Some(&input) = self.order.first() else { break };
            self.take(input);
            if self.ready.len() >= EMIT_ROWS {
                return self.emit();
            }
        }
        self.finish_run();
        if self.ready.is_empty() { Ok(Step::Done) } else { self.emit() }
    }

    /// Moves the least rows of the first input into the run, until another input is less.
    fn take(&mut self, input: usize) {
        while let Some(place) = self.cursors[input] {
            if let Some(&other) = self.order.get(1)
                && let Some(least) = self.cursors[other]
                && self.compare(place, least) == Ordering::Greater
            {
                self.order.remove(0);
                self.enqueue(input);
                return;
            }
            let is_same =
                self.run.last().is_none_or(|last| self.device(*last) == self.device(place));
            if !is_same || self.run.len() >= RUN_ROWS_MAX {
                self.finish_run();
            }
            self.run.push(place);
            let (batch, row) = place;
            let has_more = row + 1 < self.pool[batch].batch.num_rows();
            self.cursors[input] = has_more.then_some((batch, row + 1));
            if !has_more || self.ready.len() >= EMIT_ROWS {
                break;
            }
        }
        if self.cursors[input].is_none() {
            self.order.remove(0);
        }
    }

    fn enqueue(&mut self, input: usize) {
        let Some(place) = self.cursors[input] else { return };
        let before = |other: &usize| {
            self.cursors[*other].is_some_and(|at| self.compare(at, place) != Ordering::Greater)
        };
        let at = self.order.partition_point(before);
        self.order.insert(at, input);
    }

    fn device(&self, (batch, row): Place) -> &str {
        self.pool[batch].device.value(row)
    }

    /// The order of the file, within one fleet.
    fn compare(&self, a: Place, b: Place) -> Ordering {
        let (x, y) = (&self.pool[a.0], &self.pool[b.0]);
        x.device
            .value(a.1)
            .cmp(y.device.value(b.1))
            .then_with(|| x.effective.value(a.1).cmp(&y.effective.value(b.1)))
            .then_with(|| x.event_id.value(a.1).cmp(y.event_id.value(b.1)))
            .then_with(|| self.precedence(a).cmp(&self.precedence(b)))
    }

    /// What decides between copies of one identity: the least is canonical.
    fn precedence(&self, (batch, row): Place) -> (i64, &str, i64, i64) {
        let columns = &self.pool[batch];
        let (gateway, epoch) = (columns.gateway.value(row), columns.epoch.value(row));
        (columns.received.value(row), gateway, epoch, columns.seq.value(row))
    }

    /// Keeps the canonical copies of the run, in order.
    fn finish_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        let mut kept: HashMap<&[u8], usize> = HashMap::with_capacity(run.len());
        let mut losers: Vec<(usize, usize)> = Vec::new();
        for (number, &(batch, row)) in run.iter().enumerate() {
            let id = self.pool[batch].event_id.value(row);
            let winner = kept.entry(id).or_insert(number);
            if *winner == number {
                continue;
            }
            let is_less = self.precedence(run[number]) < self.precedence(run[*winner]);
            let loser = if is_less { std::mem::replace(winner, number) } else { number };
            losers.push((loser, 0));
        }
        for (loser, winner) in &mut losers {
            let (batch, row) = run[*loser];
            *winner = kept[self.pool[batch].event_id.value(row)];
        }
        drop(kept);
        let dropped: Vec<Dropped> =
            losers.iter().map(|(loser, winner)| self.dropped(run[*loser], run[*winner])).collect();
        self.dropped.extend(dropped);
        losers.sort_unstable();
        let is_kept =
            |number: usize| losers.binary_search_by_key(&number, |(loser, _)| *loser).is_err();
        let places = run.iter().enumerate().filter(|(number, _)| is_kept(*number));
        self.ready.extend(places.map(|(_, place)| *place));
    }

    fn dropped(&self, loser: Place, winner: Place) -> Dropped {
        let (received_at, gateway, epoch, seq) = self.precedence(loser);
        let (_, kept_gateway, kept_epoch, kept_seq) = self.precedence(winner);
        let text = |(batch, row): Place, name| {
            let column = self.pool[batch].batch.column_by_name(name);
            column.and_then(|c| c.as_string_opt::<i32>()).map_or("", |c| c.value(row)).to_owned()
        };
        let payload = text(loser, column::PAYLOAD);
        let differs = payload != text(winner, column::PAYLOAD);
        let version = self.pool[loser.0].batch.column_by_name(column::SCHEMA_VERSION);
        let version = version.and_then(|c| c.as_primitive_opt::<Int32Type>());
        let conflict = differs.then(|| Conflict {
            device: self.device(loser).to_owned(),
            fleet: text(loser, column::FLEET),
            payload,
            schema_version: version.map_or(0, |c: &Int32Array| c.value(loser.1)),
            received_at,
            kept: (kept_gateway.to_owned(), kept_epoch, kept_seq),
        });
        let is_repeat = (gateway, epoch, seq) == (kept_gateway, kept_epoch, kept_seq);
        Dropped { gateway: gateway.to_owned(), epoch, seq, is_repeat, conflict }
    }

    /// Gives out what is ready, and forgets the batches that nobody points into any more.
    fn emit(&mut self) -> Result<Step, ArrowError> {
        let batches: Vec<&RecordBatch> = self.pool.iter().map(|columns| &columns.batch).collect();
        let rows = interleave_record_batch(&batches, &self.ready)?;
        self.ready.clear();
        let mut places: Vec<&mut Place> =
            self.cursors.iter_mut().flatten().chain(&mut self.run).collect();
        let mut is_used = vec![false; self.pool.len()];
        places.iter().for_each(|place| is_used[place.0] = true);
        let mut moved = vec![0; self.pool.len()];
        let mut next = 0;
        for (from, used) in is_used.iter().enumerate() {
            moved[from] = next;
            next += usize::from(*used);
        }
        places.iter_mut().for_each(|place| place.0 = moved[place.0]);
        let mut used = is_used.iter();
        self.pool.retain(|_| used.next().is_some_and(|used| *used));
        Ok(Step::Rows(rows))
    }
}

impl Columns {
    fn of(batch: RecordBatch) -> Result<Self, ArrowError> {
        let find = |name: &str| {
            let column = batch.column_by_name(name);
            column.ok_or_else(|| ArrowError::SchemaError(format!("column {name:?} is missing")))
        };
        let wrong =
            |name: &str| ArrowError::SchemaError(format!("column {name:?} is of another type"));
        let text = |name| find(name)?.as_string_opt::<i32>().cloned().ok_or_else(|| wrong(name));
        let time = |name| {
            let column = find(name)?.as_primitive_opt::<TimestampMicrosecondType>();
            column.cloned().ok_or_else(|| wrong(name))
        };
        let int =
            |name| find(name)?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(|| wrong(name));
        let ids = find(column::EVENT_ID)?.as_fixed_size_binary_opt().cloned();
        Ok(Self {
            event_id: ids.ok_or_else(|| wrong(column::EVENT_ID))?,
            device: text(column::DEVICE_ID)?,
            effective: time(column::EFFECTIVE_TIME)?,
            received: time(column::RECEIVED_AT)?,
            gateway: text(column::GATEWAY)?,
            epoch: int(column::EPOCH)?,
            seq: int(column::SEQ)?,
            batch,
        })
    }
}

#[cfg(test)]
mod tests;
