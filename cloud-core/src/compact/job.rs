//! One merge, from published files to published files.
//!
//! Failpoints: `after_merge` (outputs uploaded, nothing swapped), and the catalog's
//! `before_commit`, `after_commit`.

use std::sync::Arc;

use anyhow::Context;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{BooleanArray, RecordBatch};
use arrow_ord::cmp;
use bytes::Bytes;
use futures::StreamExt;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ArrowWriter, ParquetRecordBatchStreamBuilder, ProjectionMask};
use penstock_common::event::{Epoch, Flags};
use uuid::Uuid;

use super::CompactConfig;
use super::merge::{Dropped, Merger, Step};
use super::metrics::CompactMetrics;
use super::plan::Merge;
use super::stage::Graveyard;
use crate::failpoint::Failpoints;
use crate::ledger::bits::{Kind, SeenBuilder};
use crate::raw::schema::{column, schema, writer_properties};
use crate::raw::write::hour_path;
use crate::store::catalog::Catalog;
use crate::store::compact::{Candidate, Swap, Swapped};
use crate::store::files;
use crate::store::object::{Objects, ParquetObject};
use crate::store::publish::FileFacts;

/// Rows decoded at a time from each input.
const BATCH_ROWS: usize = 2_048;

/// What a merge needs.
#[derive(Clone)]
pub struct Compactor {
    /// The catalog.
    pub catalog: Catalog,
    /// The object store.
    pub objects: Objects,
    /// Takes copies with other bytes.
    pub graveyard: Arc<Graveyard>,
    /// Limits.
    pub config: CompactConfig,
    /// Counted here.
    pub metrics: CompactMetrics,
    /// For tests.
    pub failpoints: Failpoints,
}

/// A file being written.
struct Output {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
    min_effective: i64,
    max_effective: i64,
    clock_ahead: usize,
}

impl Compactor {
    /// Carries a merge through; `false` when somebody else has replaced an input meanwhile.
    ///
    /// # Errors
    /// When a store is away; nothing has changed for readers then.
    pub async fn run(&self, merge: &Merge) -> anyhow::Result<bool> {
        let mut fleets: Vec<&String> = merge.inputs.iter().flat_map(|f| &f.fleets).collect();
        fleets.sort_unstable();
        fleets.dedup();
        let (mut files, mut dropped) = (Vec::new(), Vec::new());
        for fleet in fleets {
            self.fleet(merge, fleet, &mut files, &mut dropped).await?;
        }
        self.failpoints.hit("after_merge").await?;
        let conflicts = dropped.iter().filter(|copy| copy.conflict.is_some()).count();
        self.graveyard.bury(&dropped).await?;
        let inputs: Vec<Uuid> = merge.inputs.iter().map(|file| file.file_id).collect();
        let mut seen = SeenBuilder::default();
        for copy in dropped.iter().filter(|copy| !copy.is_repeat) {
            // Both came from unsigned numbers that fit.
            let (epoch, seq) = (Epoch(copy.epoch.unsigned_abs()), copy.seq.unsigned_abs());
            seen.add(Kind::Duplicate, &copy.gateway, epoch, seq);
        }
        let seen = seen.finish();
        let dropped =
            dropped.into_iter().map(|copy| (copy.gateway, copy.epoch, copy.seq)).collect();
        let swap = Swap { inputs, outputs: files, dropped, seen };
        match self.catalog.swap(&swap).await? {
            Swapped::Done => {}
            Swapped::LostRace => {
                self.metrics.conflicts_of_compactors.inc();
                return Ok(false);
            }
        }
        self.metrics.inputs.inc_by(swap.inputs.len() as u64);
        self.metrics.outputs.inc_by(swap.outputs.len() as u64);
        for file in &swap.outputs {
            self.metrics.rows.inc_by(file.rows.unsigned_abs());
            self.metrics.bytes.inc_by(file.bytes.unsigned_abs());
        }
        self.metrics.duplicates.inc_by(swap.dropped.len() as u64);
        self.metrics.conflicts.inc_by(conflicts as u64);
        Ok(true)
    }

    /// Merges the rows of one fleet.
    async fn fleet(
        &self,
        merge: &Merge,
        fleet: &str,
        files: &mut Vec<FileFacts>,
        dropped: &mut Vec<Dropped>,
    ) -> anyhow::Result<()> {
        let inputs = merge.inputs.iter().filter(|file| file.fleets.iter().any(|f| f == fleet));
        let mut streams = Vec::new();
        for input in inputs {
            let stream = self.open(input, fleet).await;
            streams.push(stream.with_context(|| format!("open {}", input.path))?);
        }
        let mut merger = Merger::new(streams.len());
        let mut output: Option<Output> = None;
        loop {
            match merger.step()? {
                Step::Need(input) => {
                    let batch = streams[input].next().await.transpose();
                    merger.feed(input, batch.context("read a raw file")?)?;
                }
                Step::Rows(rows) => {
                    let mut current = match output.take() {
                        Some(output) => output,
                        None => Output::new()?,
                    };
                    current.write(&rows)?;
                    if current.rows >= self.config.file_rows_max {
                        files.push(self.finish(current, merge.append_hour, fleet).await?);
                    } else {
                        output = Some(current);
                    }
                }
                Step::Done => break,
            }
            dropped.extend(merger.take_dropped());
        }
        dropped.extend(merger.take_dropped());
        if let Some(output) = output {
            files.push(self.finish(output, merge.append_hour, fleet).await?);
        }
        Ok(())
    }

    async fn open(
        &self,
        file: &Candidate,
        fleet: &str,
    ) -> anyhow::Result<ParquetRecordBatchStream<ParquetObject>> {
        let object = self.objects.parquet(&file.path, file.bytes.unsigned_abs());
        let mut builder = ParquetRecordBatchStreamBuilder::new(object).await?;
        if file.fleets.len() > 1 {
            let wanted = arrow_array::StringArray::new_scalar(fleet);
            let columns = ProjectionMask::columns(builder.parquet_schema(), [column::FLEET]);
            let is_wanted = move |batch: RecordBatch| -> Result<BooleanArray, _> {
                cmp::eq(batch.column(0), &wanted)
            };
            let predicate = Box::new(ArrowPredicateFn::new(columns, is_wanted));
            builder = builder.with_row_filter(RowFilter::new(vec![predicate]));
        }
        Ok(builder.with_batch_size(BATCH_ROWS).build()?)
    }

    async fn finish(
        &self,
        output: Output,
        append_hour: i64,
        fleet: &str,
    ) -> anyhow::Result<FileFacts> {
        let file_id = Uuid::new_v4();
        let path = public_path(append_hour, fleet, file_id);
        let bytes: Bytes = output.writer.into_inner()?.into();
        self.catalog.announce(files::Kind::Raw, file_id, &path).await?;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let facts = FileFacts {
            file_id,
            rows: count(output.rows),
            bytes: count(bytes.len()),
            min_effective: output.min_effective,
            max_effective: output.max_effective,
            clock_ahead_count: count(output.clock_ahead),
            append_hour,
            fleets: vec![(fleet.to_owned(), count(output.rows))],
        };
        self.objects.put(&path, bytes).await.with_context(|| format!("upload {path}"))?;
        Ok(facts)
    }
}

impl Output {
    fn new() -> anyhow::Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), schema(), Some(writer_properties()))?;
        let (min_effective, max_effective) = (i64::MAX, i64::MIN);
        Ok(Self { writer, rows: 0, min_effective, max_effective, clock_ahead: 0 })
    }

    fn write(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        // The frozen schema, whatever the reader made of it.
        let rows = RecordBatch::try_new(schema(), rows.columns().to_vec())?;
        let times = rows[column::EFFECTIVE_TIME].as_primitive::<TimestampMicrosecondType>();
        for time in times.values() {
            self.min_effective = self.min_effective.min(*time);
            self.max_effective = self.max_effective.max(*time);
        }
        let flags = rows[column::FLAGS].as_primitive::<Int32Type>().values();
        let is_ahead =
            |flags: &&i32| Flags::from_bits(flags.cast_unsigned()).contains(Flags::CLOCK_AHEAD);
        self.clock_ahead += flags.iter().filter(is_ahead).count();
        self.rows += rows.num_rows();
        Ok(self.writer.write(&rows)?)
    }
}

/// `raw/date=<day>/hour=<hour>/<fleet>-<uuid>.parquet`.
fn public_path(append_hour: i64, fleet: &str, file_id: Uuid) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let fleet: String = fleet.chars().map(|c| if is_plain(&c) { c } else { '_' }).collect();
    format!("raw/{}/{fleet}-{file_id}.parquet", hour_path(append_hour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_paths_are_hive_partitions() {
        let path = public_path(498_727, "press/ö 1", Uuid::nil());
        let expected =
            "raw/date=2026-11-23/hour=07/press___1-00000000-0000-0000-0000-000000000000.parquet";
        assert_eq!(path, expected);
    }
}
