//! The dead-letter Parquet file. **Frozen as format 1** (key-value metadata
//! `penstock.dead_letter.format` = `1`): columns may be added at the end, never changed or removed.
//!
//! | column | type | what |
//! |---|---|---|
//! | `topic` | string | the dead-letter topic's full name |
//! | `partition` | int32 | the partition on it |
//! | `offset` | int64 | the offset on it; with both before, the letter's identity |
//! | `append_time` | timestamp µs, UTC | when the bus appended it (milliseconds there) |
//! | `key` | binary, nullable | the message key: the device id, where one was known |
//! | `payload` | binary | the original bytes: an event, a line, or a whole body |
//! | `stage` | string | who gave up on it, e.g. `gateway.admit` |
//! | `reason` | string | a stable code, e.g. `unknown_firmware` |
//! | `detail` | string | JSON: what was wrong, where, what was expected, what was found |
//! | `schema_version` | int32, nullable | the schema it was held against |
//! | `fleet` | string | the fleet whose key (or configuration) brought it |
//! | `gateway` | string | the gateway that spooled it |
//! | `epoch` | int64 | the opening of its spool; 0 when it can't be read |
//! | `seq` | int64 | its number in that epoch |
//! | `first_seen` | timestamp µs, UTC | when it was first seen: reception at the gateway |
//! | `attempts` | int64 | how often processing was tried |
//! | `source_topic` | string, nullable | where it was read from, if from a topic |
//! | `source_partition` | int32, nullable | |
//! | `source_offset` | int64, nullable | |
//! | `traceparent` | string, nullable | W3C trace context of the request |
//! | `headers` | list<struct<name: string, value: binary>> | headers that were not understood |
//! | `device_id` | string, nullable | what the bytes say, where they can be read |
//! | `event_id` | fixed 16 bytes, nullable | the UUID, big-endian |
//! | `event_time` | timestamp µs, UTC, nullable | the event's `timestamp`, cut to microseconds |
//!
//! A letter whose own headers can't be read has stage `core.deadletter`, reason
//! `unreadable_headers`, and all its headers in `headers`.
//!
//! A file holds letters of one append hour, in the order of (partition, offset), at
//! `dead-letters/date=<day>/<uuid>.parquet`. Pages hold at most 64 rows and have an index, so that
//! one letter is one page; row groups hold at most 4,096 rows. zstd level 3.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// The format's number in the file's metadata.
pub const FORMAT: &str = "1";
/// Rows of a row group at most.
pub const ROW_GROUP_ROWS_MAX: usize = 4_096;
/// Rows of a page at most.
pub const PAGE_ROWS: usize = 64;

/// The columns' names, in order.
pub mod column {
    #![allow(missing_docs, reason = "the names say it; the table above documents them")]
    pub const TOPIC: &str = "topic";
    pub const PARTITION: &str = "partition";
    pub const OFFSET: &str = "offset";
    pub const APPEND_TIME: &str = "append_time";
    pub const KEY: &str = "key";
    pub const PAYLOAD: &str = "payload";
    pub const STAGE: &str = "stage";
    pub const REASON: &str = "reason";
    pub const DETAIL: &str = "detail";
    pub const SCHEMA_VERSION: &str = "schema_version";
    pub const FLEET: &str = "fleet";
    pub const GATEWAY: &str = "gateway";
    pub const EPOCH: &str = "epoch";
    pub const SEQ: &str = "seq";
    pub const FIRST_SEEN: &str = "first_seen";
    pub const ATTEMPTS: &str = "attempts";
    pub const SOURCE_TOPIC: &str = "source_topic";
    pub const SOURCE_PARTITION: &str = "source_partition";
    pub const SOURCE_OFFSET: &str = "source_offset";
    pub const TRACEPARENT: &str = "traceparent";
    pub const HEADERS: &str = "headers";
    pub const DEVICE_ID: &str = "device_id";
    pub const EVENT_ID: &str = "event_id";
    pub const EVENT_TIME: &str = "event_time";
}

/// Name and value of a header.
pub fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Binary, false),
    ])
}

/// The one child of the `headers` list.
pub fn header_item() -> FieldRef {
    Arc::new(Field::new("element", DataType::Struct(header_fields()), false))
}

/// The schema above.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let has = |name, kind| Field::new(name, kind, false);
        let may = |name, kind| Field::new(name, kind, true);
        Arc::new(Schema::new(vec![
            has(column::TOPIC, DataType::Utf8),
            has(column::PARTITION, DataType::Int32),
            has(column::OFFSET, DataType::Int64),
            has(column::APPEND_TIME, utc()),
            may(column::KEY, DataType::Binary),
            has(column::PAYLOAD, DataType::Binary),
            has(column::STAGE, DataType::Utf8),
            has(column::REASON, DataType::Utf8),
            has(column::DETAIL, DataType::Utf8),
            may(column::SCHEMA_VERSION, DataType::Int32),
            has(column::FLEET, DataType::Utf8),
            has(column::GATEWAY, DataType::Utf8),
            has(column::EPOCH, DataType::Int64),
            has(column::SEQ, DataType::Int64),
            has(column::FIRST_SEEN, utc()),
            has(column::ATTEMPTS, DataType::Int64),
            may(column::SOURCE_TOPIC, DataType::Utf8),
            may(column::SOURCE_PARTITION, DataType::Int32),
            may(column::SOURCE_OFFSET, DataType::Int64),
            may(column::TRACEPARENT, DataType::Utf8),
            has(column::HEADERS, DataType::List(header_item())),
            may(column::DEVICE_ID, DataType::Utf8),
            may(column::EVENT_ID, DataType::FixedSizeBinary(16)),
            may(column::EVENT_TIME, utc()),
        ]))
    });
    Arc::clone(&SCHEMA)
}

/// How files are written.
pub fn writer_properties() -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_created_by("penstock".into())
        .set_key_value_metadata(Some(vec![KeyValue::new(
            "penstock.dead_letter.format".into(),
            FORMAT.to_owned(),
        )]))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page);
    for name in [column::KEY, column::PAYLOAD, column::DETAIL, column::EVENT_ID] {
        let path = ColumnPath::from(name);
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path, EnabledStatistics::None);
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
        let field = |field: &FieldRef| {
            let null = if field.is_nullable() { "?" } else { "" };
            format!("{} {}{null}", field.name(), field.data_type())
        };
        let fields: Vec<String> = schema().fields().iter().map(field).collect();
        let expected = [
            "topic Utf8".to_owned(),
            "partition Int32".into(),
            "offset Int64".into(),
            format!("append_time {time}"),
            "key Binary?".into(),
            "payload Binary".into(),
            "stage Utf8".into(),
            "reason Utf8".into(),
            "detail Utf8".into(),
            "schema_version Int32?".into(),
            "fleet Utf8".into(),
            "gateway Utf8".into(),
            "epoch Int64".into(),
            "seq Int64".into(),
            format!("first_seen {time}"),
            "attempts Int64".into(),
            "source_topic Utf8?".into(),
            "source_partition Int32?".into(),
            "source_offset Int64?".into(),
            "traceparent Utf8?".into(),
            fields[20].clone(),
            "device_id Utf8?".into(),
            "event_id FixedSizeBinary(16)?".into(),
            format!("event_time {time}?"),
        ];
        assert_eq!(fields, expected);
        assert!(fields[20].starts_with("headers List("), "{}", fields[20]);
        let DataType::List(item) = schema().field(20).data_type().clone() else { panic!() };
        let DataType::Struct(parts) = item.data_type() else { panic!("{item:?}") };
        let parts: Vec<String> = parts.iter().map(field).collect();
        assert_eq!(parts, ["name Utf8", "value Binary"]);
    }
}
