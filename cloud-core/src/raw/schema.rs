//! The raw Parquet file. **Frozen as format 1** (key-value metadata `penstock.format` = `1`):
//! columns may be added at the end, never changed or removed.
//!
//! | column | type | what |
//! |---|---|---|
//! | `event_id` | fixed 16 bytes | the UUID, big-endian as RFC 9562 writes it |
//! | `device_id` | string | as the event says |
//! | `fleet` | string | the fleet it was admitted for |
//! | `firmware` | string | `device_firmware_version`, as the event says |
//! | `schema_version` | int32 | the schema that admitted it |
//! | `event_time` | timestamp µs, UTC | the event's `timestamp`, cut to microseconds |
//! | `received_at` | timestamp µs, UTC | when the gateway had the whole request |
//! | `append_time` | timestamp µs, UTC | when the bus appended it (milliseconds there) |
//! | `effective_time` | timestamp µs, UTC | `received_at` if flagged clock_ahead, else `event_time` |
//! | `flags` | int32 | bits: 0 late, 1 clock_ahead, 2 clock_unset, 3 unknown_fields, 4 mqtt |
//! | `gateway` | string | the gateway that spooled it |
//! | `epoch` | int64 | the opening of its spool, positive |
//! | `seq` | int64 | its number in that epoch |
//! | `metrics` | map<string, double> | the members of `metrics` that are numbers, each name once |
//! | `payload` | string | the event, byte for byte as the device sent it |
//!
//! No column has nulls. (fleet, device_id, event_id) is the identity; of copies with one identity
//! the least (received_at, gateway, epoch, seq) counts.
//!
//! Rows are sorted by device_id, effective_time, event_id, fleet, received_at, gateway, epoch,
//! seq (strings by bytes). Pages hold about 2,000 rows and have an index, so that a device's hour
//! is a few pages; row groups hold at most 131,072 rows. zstd level 1: on payloads level 3 is
//! slower *and* larger.
//!
//! `effective_time` follows from other columns, but only as a column of its own can it be sorted
//! by and skipped by.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// The format's number in the file's metadata.
pub const FORMAT: &str = "1";
/// Rows of a row group at most.
pub const ROW_GROUP_ROWS_MAX: usize = 131_072;
/// Rows of a page, roughly.
pub const PAGE_ROWS: usize = 2_000;

/// The columns' names, in order.
pub mod column {
    #![allow(missing_docs, reason = "the names say it; the table above documents them")]
    pub const EVENT_ID: &str = "event_id";
    pub const DEVICE_ID: &str = "device_id";
    pub const FLEET: &str = "fleet";
    pub const FIRMWARE: &str = "firmware";
    pub const SCHEMA_VERSION: &str = "schema_version";
    pub const EVENT_TIME: &str = "event_time";
    pub const RECEIVED_AT: &str = "received_at";
    pub const APPEND_TIME: &str = "append_time";
    pub const EFFECTIVE_TIME: &str = "effective_time";
    pub const FLAGS: &str = "flags";
    pub const GATEWAY: &str = "gateway";
    pub const EPOCH: &str = "epoch";
    pub const SEQ: &str = "seq";
    pub const METRICS: &str = "metrics";
    pub const PAYLOAD: &str = "payload";
}

/// The name of the `metrics` map's only child.
pub const METRIC_ENTRY: &str = "key_value";

/// Key and value of an entry of the `metrics` map, named as in the Parquet specification.
pub fn metric_entry_fields() -> [FieldRef; 2] {
    [
        Arc::new(Field::new("key", DataType::Utf8, false)),
        Arc::new(Field::new("value", DataType::Float64, false)),
    ]
}

fn metrics_type() -> DataType {
    let entry = DataType::Struct(Fields::from(metric_entry_fields().to_vec()));
    DataType::Map(Arc::new(Field::new(METRIC_ENTRY, entry, false)), false)
}

/// The schema above.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let time = |name| {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            Field::new(name, utc, false)
        };
        Arc::new(Schema::new(vec![
            Field::new(column::EVENT_ID, DataType::FixedSizeBinary(16), false),
            text(column::DEVICE_ID),
            text(column::FLEET),
            text(column::FIRMWARE),
            Field::new(column::SCHEMA_VERSION, DataType::Int32, false),
            time(column::EVENT_TIME),
            time(column::RECEIVED_AT),
            time(column::APPEND_TIME),
            time(column::EFFECTIVE_TIME),
            Field::new(column::FLAGS, DataType::Int32, false),
            text(column::GATEWAY),
            Field::new(column::EPOCH, DataType::Int64, false),
            Field::new(column::SEQ, DataType::Int64, false),
            Field::new(column::METRICS, metrics_type(), false),
            text(column::PAYLOAD),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// How files are written.
pub fn writer_properties() -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    let sorted_by = [column::DEVICE_ID, column::EFFECTIVE_TIME, column::EVENT_ID].map(|name| {
        let index = schema().index_of(name).unwrap_or_default();
        let column_idx = i32::try_from(index).unwrap_or_default();
        SortingColumn { column_idx, descending: false, nulls_first: false }
    });
    let mut builder = WriterProperties::builder()
        .set_created_by("penstock".into())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "penstock.format".into(),
            FORMAT.to_owned(),
        )]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS / 4)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorted_by.to_vec()));
    for name in [column::EVENT_ID, column::PAYLOAD] {
        builder = builder
            .set_column_dictionary_enabled(path(name), false)
            .set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    let numbers = [
        column::EVENT_TIME,
        column::RECEIVED_AT,
        column::APPEND_TIME,
        column::EFFECTIVE_TIME,
        column::SEQ,
    ];
    for name in numbers {
        builder = builder
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this has to change, so must the format's number.
    #[test]
    fn the_schema_is_exactly_this() {
        let time = "Timestamp(µs, \"UTC\")";
        let fields: Vec<String> =
            schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        let expected = [
            "event_id FixedSizeBinary(16)".to_owned(),
            "device_id Utf8".into(),
            "fleet Utf8".into(),
            "firmware Utf8".into(),
            "schema_version Int32".into(),
            format!("event_time {time}"),
            format!("received_at {time}"),
            format!("append_time {time}"),
            format!("effective_time {time}"),
            "flags Int32".into(),
            "gateway Utf8".into(),
            "epoch Int64".into(),
            "seq Int64".into(),
            fields[13].clone(),
            "payload Utf8".into(),
        ];
        assert_eq!(fields, expected);
        assert!(fields[13].starts_with("metrics Map("), "{}", fields[13]);
        assert!(schema().fields().iter().all(|field| !field.is_nullable()));
    }
}
