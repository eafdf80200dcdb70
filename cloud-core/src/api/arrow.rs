//! Series as an Arrow IPC stream.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    TimestampMicrosecondArray,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::ArrowError;

use super::series::stat;
use crate::series::Point;

/// Columns: `at` (timestamp, µs, UTC), the statistics, `revision`, `revised`, `provisional`.
pub(super) fn stream(stats: &[&str], points: &[Point]) -> Result<Vec<u8>, ArrowError> {
    let at = points.iter().map(|point| point.row.bucket);
    let at: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"));
    let mut columns: Vec<(&str, ArrayRef)> = vec![("at", at)];
    for name in stats {
        let column: ArrayRef = match *name {
            "count" => Arc::new(Int64Array::from_iter_values(points.iter().map(|p| p.row.count))),
            name => {
                let values = points.iter().map(|point| stat(&point.row, name));
                Arc::new(Float64Array::from_iter_values(values))
            }
        };
        columns.push((name, column));
    }
    let revision = points.iter().map(|point| point.row.revision);
    columns.push(("revision", Arc::new(Int32Array::from_iter_values(revision))));
    let revised: Vec<bool> = points.iter().map(|point| point.revised).collect();
    columns.push(("revised", Arc::new(BooleanArray::from(revised))));
    let provisional: Vec<bool> = points.iter().map(|point| point.provisional).collect();
    columns.push(("provisional", Arc::new(BooleanArray::from(provisional))));
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner()
}
