//! `spool export`: events as JSON lines with their provenance, for when a gateway can't forward
//! them itself.
//!
//! One object a line, keys in this order: `lane` (`main`, `dead`), `kind` (`event`,
//! `dead_letter`), `epoch`, `seq`, `fleet`, `device_id`, `schema_version`, `received_at`, `flags`,
//! `traceparent`, for dead letters `stage`, `reason` and `detail`, and `payload`, the device's own
//! bytes as text; `payload_base64` instead where they are no UTF-8. With (gateway, epoch, seq) and
//! the same bytes, what is brought in by another way is a duplicate by identity.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock_common::log::segment::Lane;
use penstock_common::log::{DamagedRange, Position};
use serde::Serialize;

use super::Found;
use super::stat::tell_trouble;
use crate::spool::SpoolConfig;
use crate::spool::entry::Entry;
use crate::spool::offline::Offline;

#[derive(Serialize)]
struct Line<'a> {
    lane: &'static str,
    kind: &'static str,
    epoch: String,
    seq: u64,
    fleet: &'a str,
    device_id: Option<&'a str>,
    schema_version: Option<u32>,
    received_at: String,
    flags: Vec<&'static str>,
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// Lines go to `output` or `out`; what there is to say goes to standard error.
pub(super) fn run(
    config: &SpoolConfig,
    output: Option<&Path>,
    all: bool,
    out: &mut dyn Write,
) -> anyhow::Result<Found> {
    let spool = Offline::look(config)?;
    if !all {
        spool.note_forwarded(&config.dir);
    }
    let mut written = 0;
    let missing = match output {
        None => write(&spool, out, &mut written)?,
        Some(path) => {
            let context = || format!("write {}", path.display());
            let mut file = BufWriter::new(File::create(path).with_context(context)?);
            let missing = write(&spool, &mut file, &mut written)?;
            let file = file.into_inner().map_err(|error| error.into_error());
            file.and_then(|file| file.sync_all()).with_context(context)?;
            missing
        }
    };
    let mut notes = format!("{written} entries are written.\n").into_bytes();
    for range in &missing {
        writeln!(notes, "  DAMAGED: {range}: {} entries are not among them.", range.entries())?;
    }
    let trouble = tell_trouble(&spool, &mut notes)?;
    eprint!("{}", String::from_utf8_lossy(&notes));
    Ok(if missing.is_empty() { trouble } else { Found::Trouble })
}

/// Writes all entries; what can't be read is returned, unless an opening knows of it already.
fn write(
    spool: &Offline,
    out: &mut dyn Write,
    written: &mut u64,
) -> anyhow::Result<Vec<DamagedRange>> {
    let mut missing = Vec::new();
    for (lane, log) in spool.lanes() {
        let known = log.stat().damaged;
        let damaged = Offline::read(log, log.retired(), |stored| {
            let Ok(entry) = &stored.entry else {
                let Position { segment, epoch, seq } = stored.position;
                missing.push(DamagedRange { segment, epoch, first_seq: seq, next_seq: seq + 1 });
                return Ok(());
            };
            serde_json::to_writer(&mut *out, &line(lane, stored.position, entry))?;
            out.write_all(b"\n").context("write the events")?;
            *written += 1;
            Ok(())
        })?;
        missing.extend(damaged.into_iter().filter(|range| !known.contains(range)));
    }
    Ok(missing)
}

fn line(lane: Lane, position: Position, entry: &Entry) -> Line<'_> {
    let lane = match lane {
        Lane::Main => "main",
        Lane::Dead => "dead",
    };
    let payload = match entry {
        Entry::Event(event) => &event.payload,
        Entry::DeadLetter(letter) => &letter.payload,
    };
    let text = std::str::from_utf8(payload).ok();
    let line = Line {
        lane,
        kind: "event",
        epoch: position.epoch.to_string(),
        seq: position.seq,
        fleet: "",
        device_id: None,
        schema_version: None,
        received_at: entry.received_at().to_rfc3339(),
        flags: Vec::new(),
        traceparent: None,
        stage: None,
        reason: None,
        detail: None,
        payload: text,
        payload_base64: text.is_none().then(|| STANDARD.encode(payload)),
    };
    match entry {
        Entry::Event(event) => Line {
            fleet: &event.fleet,
            device_id: Some(&event.device_id),
            schema_version: Some(event.schema_version),
            flags: event.flags.names().collect(),
            traceparent: event.traceparent.as_deref(),
            ..line
        },
        Entry::DeadLetter(letter) => Line {
            kind: "dead_letter",
            fleet: &letter.fleet,
            device_id: letter.device_id.as_deref(),
            schema_version: letter.schema_version,
            traceparent: letter.traceparent.as_deref(),
            stage: Some(&letter.stage),
            reason: Some(&letter.reason),
            detail: Some(&letter.detail),
            ..line
        },
    }
}
