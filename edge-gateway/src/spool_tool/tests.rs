//! The commands on a spool in a temporary directory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_common::event::{Flags, UnixMicros};
use penstock_common::log::segment::file_name;

use super::*;
use crate::spool::entry::{DeadLetterEntry, Entry, EventEntry};
use crate::spool::{OpenSpool, open};

fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_owned(),
        bytes_max: 1 << 20,
        segment_bytes: 16 << 10,
        compress: false,
        ..SpoolConfig::default()
    }
}

fn event(n: usize) -> Entry {
    Entry::Event(EventEntry {
        device_id: "press-17".into(),
        schema_version: 2,
        fleet: "press-line".into(),
        received_at: UnixMicros(1_700_000_000_000_000 + n as i64),
        flags: Flags::LATE,
        traceparent: None,
        payload: Bytes::from(format!("{{\"n\": {n},\n \"pad\": \"{:0200}\"}}", 0)),
    })
}

fn letter() -> Entry {
    Entry::DeadLetter(DeadLetterEntry {
        device_id: None,
        stage: "gateway.admit".into(),
        reason: "malformed_json".into(),
        detail: "{}".into(),
        schema_version: None,
        fleet: "press-line".into(),
        first_seen: UnixMicros(0),
        traceparent: None,
        payload: Bytes::from_static(&[0xFF, 0xFE]),
    })
}

/// 200 events, of which the first 60 or so gave way and 100 are forwarded, and one dead letter.
async fn filled(dir: &Path) {
    let OpenSpool { handle, mut reader, .. } = open(&config(dir)).unwrap();
    for n in 0..20 {
        handle.submit((10 * n..10 * n + 10).map(event).collect()).await.unwrap();
    }
    handle.submit(vec![letter()]).await.unwrap();
    handle.evict_oldest();
    let deadline = Instant::now() + Duration::from_secs(30);
    while handle.stat().evicted_segments_total == 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut forwarded = 0;
    while forwarded < 10 {
        let spooled = reader.next(Duration::ZERO).unwrap().unwrap();
        handle.retire(spooled.position);
        forwarded += 1;
    }
    handle.close().await;
}

fn place(dir: &Path) -> Place {
    Place { config: None, overrides: Vec::new(), dir: Some(dir.to_owned()), key_file: None }
}

fn said(command: &SpoolCommand) -> (Found, String) {
    let mut out = Vec::new();
    let found = run(command, &mut out).unwrap();
    (found, String::from_utf8(out).unwrap())
}

fn export(dir: &Path, all: bool) -> (Found, Vec<serde_json::Value>) {
    let command = SpoolCommand::Export { place: place(dir), output: None, all };
    let (found, text) = said(&command);
    (found, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_sound_spool_is_told_verified_and_exported_without_being_changed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let before = files(dir.path());
    let (found, text) = said(&SpoolCommand::Stat(place(dir.path())));
    assert_eq!(found, Found::Well, "{text}");
    for part in ["not running", "Events to forward:", "Gave way", "Key ", "not known to be forw"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let (found, text) = said(&SpoolCommand::Verify(place(dir.path())));
    assert_eq!(found, Found::Well, "{text}");
    assert!(text.contains("All is well."), "{text}");

    let (found, all) = export(dir.path(), true);
    assert_eq!((found, all.len()), (Found::Well, 201));
    let (found, pending) = export(dir.path(), false);
    assert_eq!((found, pending.len()), (Found::Well, 191));
    assert_eq!(files(dir.path()), before);

    let seqs: Vec<u64> = all.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (0..201).collect::<Vec<_>>());
    let Entry::Event(first) = event(0) else { panic!() };
    assert_eq!(all[0]["payload"].as_str().unwrap().as_bytes(), &first.payload[..]);
    assert_eq!((&all[0]["lane"], &all[199]["lane"]), (&"dead".into(), &"main".into()));
    assert_eq!(all[0]["received_at"], "2023-11-14T22:13:20Z");
    assert_eq!(all[0]["flags"], serde_json::json!(["late"]));
    assert_eq!(
        (&all[200]["kind"], &all[200]["reason"]),
        (&"dead_letter".into(), &"malformed_json".into())
    );
    assert_eq!(all[200]["payload_base64"], "//4=");
}

#[tokio::test]
async fn damage_and_a_missing_key_are_named_and_the_rest_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let path = dir.path().join("segments").join(file_name(2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (found, text) = said(&SpoolCommand::Verify(place(dir.path())));
    assert_eq!(found, Found::Trouble);
    assert!(text.contains("DAMAGED: segment 0000000000000002"), "{text}");
    let (found, all) = export(dir.path(), true);
    assert_eq!((found, all.len()), (Found::Trouble, 191));

    fs::remove_file(dir.path().join("keys")).unwrap();
    let (found, text) = said(&SpoolCommand::Stat(place(dir.path())));
    assert_eq!(found, Found::Trouble);
    assert!(text.contains("CAN'T BE READ") && text.contains("is missing"), "{text}");
    let (found, all) = export(dir.path(), true);
    assert_eq!((found, all.len()), (Found::Trouble, 0));
}

#[tokio::test]
async fn a_running_gateway_can_be_looked_at_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let OpenSpool { handle, reader: _reader, .. } = open(&config(dir.path())).unwrap();
    handle.submit((0..10).map(event).collect()).await.unwrap();
    let (found, text) = said(&SpoolCommand::Stat(place(dir.path())));
    assert_eq!(found, Found::Well, "{text}");
    assert!(text.contains("is running") && text.contains("10 entries"), "{text}");
    let export = SpoolCommand::Export { place: place(dir.path()), output: None, all: true };
    for command in [SpoolCommand::Verify(place(dir.path())), export] {
        let error = run(&command, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("stop it first"), "{error}");
    }
    // Nor did looking take anything from it.
    handle.submit((10..20).map(event).collect()).await.unwrap();
    handle.close().await;
}

#[tokio::test]
async fn a_new_key_is_added_and_used_from_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let (_, text) = said(&SpoolCommand::NewKey(place(dir.path())));
    let key = text.split_whitespace().nth(2).unwrap().to_owned();
    let OpenSpool { handle, reader, .. } = open(&config(dir.path())).unwrap();
    handle.submit(vec![event(1)]).await.unwrap();
    handle.close().await;
    drop((handle, reader));
    let (_, text) = said(&SpoolCommand::Stat(place(dir.path())));
    assert!(text.contains(&format!("Key {key}: 1 file.")), "{text}");
    let (found, _) = said(&SpoolCommand::Verify(place(dir.path())));
    assert_eq!(found, Found::Well);
}

#[test]
fn no_spool_is_said_plainly() {
    let dir = tempfile::tempdir().unwrap();
    let error = run(&SpoolCommand::Stat(place(dir.path())), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("there is no spool in"), "{error}");
}
