//! Events in memory on their way into one file: flat rows over one arena of bytes, so that a
//! batch costs little more than its payloads and is thrown away at once.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use penstock_common::codec::{self, HeaderError};
use penstock_common::event::{EventMeta, Flags, UnixMicros, effective_time};

use super::parse::{ParseError, Parsed, parse};
use crate::bus::Record;

/// Why a record is poison: it will never be stored, however often it is tried.
#[derive(Debug, thiserror::Error)]
pub enum Poison {
    /// Its headers.
    #[error(transparent)]
    Headers(#[from] HeaderError),
    /// Its value.
    #[error(transparent)]
    Event(#[from] ParseError),
    /// A number does not fit its column.
    #[error("{0} does not fit its column")]
    OutOfRange(&'static str),
    /// Older than what is kept (spec P5): it could never be stored as long as promised.
    #[error("the event's time {event_time} is more than {days_max} days before its arrival")]
    TooLate {
        /// Its effective time.
        event_time: String,
        /// The limit.
        days_max: u32,
    },
    /// It made the stage panic.
    #[error("the stage panicked on it {attempts} times")]
    Panic {
        /// How often it was tried.
        attempts: u32,
    },
}

impl Poison {
    /// How often processing was tried.
    pub const fn attempts(&self) -> u32 {
        match self {
            Self::Panic { attempts } => *attempts,
            _ => 1,
        }
    }

    /// A stable code for dead letters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Headers(_) => "unreadable_headers",
            Self::Event(error) => error.reason(),
            Self::OutOfRange(_) => "out_of_range",
            Self::TooLate { .. } => "too_late",
            Self::Panic { .. } => "stage_panic",
        }
    }
}

/// Whether an event is older than what is kept, when the bus appended it. Raw writer and rollups
/// decide by the same rule, so that neither has what the other has not.
pub const fn is_too_late(
    effective_time: UnixMicros,
    append_time: UnixMicros,
    days_max: u32,
) -> bool {
    const DAY_MICROS: i64 = 86_400 * 1_000_000;
    append_time.0.saturating_sub(effective_time.0) > (days_max as i64).saturating_mul(DAY_MICROS)
}

/// The hour since the Unix epoch that a time is in.
pub const fn hour_of(time_micros: i64) -> i64 {
    time_micros.div_euclid(3_600 * 1_000_000)
}

/// A string of the batch, by number.
pub type Symbol = u32;

/// The strings of a batch, each kept once.
#[derive(Debug, Default)]
pub struct Symbols {
    numbers: HashMap<Arc<str>, Symbol, RandomState>,
    names: Vec<Arc<str>>,
    bytes: usize,
}

impl Symbols {
    fn intern(&mut self, name: &str) -> Symbol {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = name.into();
        self.bytes += 2 * name.len() + 64;
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    /// The string of that number.
    pub fn name(&self, symbol: Symbol) -> &str {
        &self.names[symbol as usize]
    }

    /// For each symbol its place in byte order.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<Symbol> = (0..).take(self.names.len()).collect();
        order.sort_unstable_by_key(|symbol| self.name(*symbol));
        let mut ranks = vec![0; order.len()];
        for (rank, symbol) in (0..).zip(order) {
            ranks[symbol as usize] = rank;
        }
        ranks
    }
}

/// One event; times in µs since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Row {
    /// The UUID as a number: its order is that of its bytes.
    pub event_id: u128,
    /// Device.
    pub device: Symbol,
    /// Fleet.
    pub fleet: Symbol,
    /// Firmware version.
    pub firmware: Symbol,
    /// Gateway.
    pub gateway: Symbol,
    /// Schema version.
    pub schema_version: i32,
    /// Flags.
    pub flags: Flags,
    /// The event's timestamp.
    pub event_time: i64,
    /// Reception.
    pub received_at: i64,
    /// Append to the bus.
    pub append_time: i64,
    /// What it is sorted and found by.
    pub effective_time: i64,
    /// Spool epoch.
    pub epoch: i64,
    /// Number in it.
    pub seq: i64,
    metrics: (usize, u32),
    payload: (usize, u32),
}

/// The events of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    rows: Vec<Row>,
    arena: String,
    metrics: Vec<(Symbol, f64)>,
    symbols: Symbols,
}

impl Batch {
    /// Adds a record.
    ///
    /// # Errors
    /// When it is poison; the batch is as before then.
    pub fn push(&mut self, record: &Record, late_days_max: u32) -> Result<(), Poison> {
        let meta = codec::decode_event(record.headers())?;
        let parsed = parse(record.payload())?;
        let time = effective_time(parsed.event_time, meta.received_at, meta.flags);
        if is_too_late(time, record.append_time, late_days_max) {
            let event_time = time.to_rfc3339();
            return Err(Poison::TooLate { event_time, days_max: late_days_max });
        }
        let row = self.row(record, &meta, &parsed)?;
        self.rows.push(row);
        Ok(())
    }

    fn row(
        &mut self,
        record: &Record,
        meta: &EventMeta,
        event: &Parsed<'_>,
    ) -> Result<Row, Poison> {
        let narrow = |value: u64, name| i64::try_from(value).map_err(|_| Poison::OutOfRange(name));
        let epoch = narrow(meta.provenance.epoch.0, "epoch")?;
        let seq = narrow(meta.provenance.seq, "seq")?;
        let schema_version =
            i32::try_from(meta.schema_version).map_err(|_| Poison::OutOfRange("schema"))?;
        let length = |n| u32::try_from(n).map_err(|_| Poison::OutOfRange("payload"));
        let payload = (self.arena.len(), length(record.payload().len())?);
        let metrics = (self.metrics.len(), length(event.metrics.len())?);
        // `parse` has seen that it is UTF-8.
        self.arena.push_str(std::str::from_utf8(record.payload()).map_err(ParseError::Utf8)?);
        for (name, value) in &event.metrics {
            let symbol = self.symbols.intern(name);
            self.metrics.push((symbol, *value));
        }
        Ok(Row {
            event_id: event.event_id.as_u128(),
            device: self.symbols.intern(&event.device_id),
            fleet: self.symbols.intern(&meta.fleet),
            firmware: self.symbols.intern(&event.firmware),
            gateway: self.symbols.intern(&meta.provenance.gateway),
            schema_version,
            flags: meta.flags,
            event_time: event.event_time.0,
            received_at: meta.received_at.0,
            append_time: record.append_time.0,
            effective_time: effective_time(event.event_time, meta.received_at, meta.flags).0,
            epoch,
            seq,
            metrics,
            payload,
        })
    }

    /// The rows as they came.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The string of a symbol.
    pub fn name(&self, symbol: Symbol) -> &str {
        self.symbols.name(symbol)
    }

    /// The bytes of a row's event.
    pub fn payload(&self, row: &Row) -> &str {
        let (start, length) = row.payload;
        &self.arena[start..start + length as usize]
    }

    /// The metrics of a row.
    pub fn metrics(&self, row: &Row) -> &[(Symbol, f64)] {
        let (start, length) = row.metrics;
        &self.metrics[start..start + length as usize]
    }

    /// The memory it holds.
    pub fn size_bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>()
            + self.arena.len()
            + self.metrics.len() * size_of::<(Symbol, f64)>()
            + self.symbols.bytes
    }

    /// The rows' numbers in the order of the file.
    pub fn sorted(&self) -> Vec<u32> {
        let ranks = self.symbols.ranks();
        let rank = |symbol: Symbol| ranks[symbol as usize];
        let mut order: Vec<(u32, i64, u32)> = (0..)
            .zip(&self.rows)
            .map(|(number, row)| (rank(row.device), row.effective_time, number))
            .collect();
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| {
                let (a, b) = (&self.rows[a.2 as usize], &self.rows[b.2 as usize]);
                self.tie(&rank, a, b)
            })
        });
        order.into_iter().map(|(.., number)| number).collect()
    }

    fn tie(&self, rank: &impl Fn(Symbol) -> u32, a: &Row, b: &Row) -> Ordering {
        let key = |row: &Row| {
            let provenance = (rank(row.gateway), row.epoch, row.seq);
            (row.event_id, rank(row.fleet), row.received_at, provenance)
        };
        key(a).cmp(&key(b))
    }
}
