use std::collections::HashSet;

use penstock_common::event::UnixMicros;
use serde_json::Value;

use super::*;

const NOW: UnixMicros = UnixMicros(1_780_000_000_000_000);

fn bodies(config: &FleetConfig, number: u32, count: usize) -> Vec<Batch> {
    let mut device = Device::new(config, number);
    let mut records = 0;
    (0..count)
        .map(|_| {
            let size = device.next_size(config);
            let batch = device.next_batch(config, size, NOW);
            for item in &batch.items {
                if let Item::New { bytes, .. } = item {
                    if let Some(bytes) = bytes {
                        device.remember(records, bytes.clone());
                    }
                    records += 1;
                }
            }
            batch
        })
        .collect()
}

fn plain(batch: &Batch) -> Vec<u8> {
    match batch.compression {
        Compression::None => batch.body.to_vec(),
        Compression::Zstd => zstd::decode_all(batch.body.as_ref()).unwrap(),
        Compression::Gzip => {
            let mut out = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(batch.body.as_ref());
            std::io::Read::read_to_end(&mut decoder, &mut out).unwrap();
            out
        }
    }
}

fn split(batch: &Batch) -> Vec<Vec<u8>> {
    let plain = plain(batch);
    match batch.framing {
        Framing::Object => vec![plain],
        Framing::Lines => plain
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
        Framing::Array => serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(&plain)
            .unwrap()
            .iter()
            .map(|raw| raw.get().as_bytes().to_vec())
            .collect(),
    }
}

#[test]
fn the_same_seed_sends_the_same_bytes_and_another_seed_others() {
    let config = FleetConfig::mixed(7, 10, 100.0);
    let bytes = |config, number| -> Vec<Bytes> {
        bodies(config, number, 20).into_iter().map(|batch| batch.body).collect()
    };
    assert_eq!(bytes(&config, 3), bytes(&config, 3));
    assert_ne!(bytes(&config, 3), bytes(&config, 4));
    assert_ne!(bytes(&config, 3), bytes(&FleetConfig::mixed(8, 10, 100.0), 3));
}

#[test]
fn what_is_fingerprinted_is_what_stands_in_the_body() {
    let config = FleetConfig { broken_body_share: 0.0, ..FleetConfig::mixed(1, 10, 100.0) };
    let (mut framings, mut compressions) = (HashSet::new(), HashSet::new());
    for number in 0..10 {
        for batch in bodies(&config, number, 40) {
            framings.insert(batch.framing.content_type());
            compressions.insert(batch.compression.content_encoding());
            let events = split(&batch);
            assert_eq!(events.len(), batch.items.len());
            for (event, item) in events.iter().zip(&batch.items) {
                if let Item::New { record, .. } = item {
                    assert_eq!(Fingerprint::of(event), record.fingerprint);
                }
            }
        }
    }
    assert_eq!((framings.len(), compressions.len()), (2, 3));
}

#[test]
fn good_events_are_complete_and_identities_distinct() {
    let config = FleetConfig {
        faulty_share: 0.0,
        duplicate_share: 0.0,
        broken_body_share: 0.0,
        ..FleetConfig::mixed(1, 10, 100.0)
    };
    let mut ids = HashSet::new();
    let mut firmwares = HashSet::new();
    for number in 0..20 {
        for event in bodies(&config, number, 10).iter().flat_map(split) {
            let event: Value = serde_json::from_slice(&event).unwrap();
            assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()));
            firmwares.insert(event["device_firmware_version"].as_str().unwrap()[..1].to_owned());
            UnixMicros::parse_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
            let metrics = event["metrics"].as_object().unwrap();
            for name in ["cpu_temp", "vibration_rms", "supply_voltage"] {
                assert!(metrics[name].is_number(), "{event}");
            }
        }
    }
    assert_eq!(firmwares.len(), 3);
}

#[test]
fn re_sent_events_have_the_bytes_of_the_first_time() {
    let config = FleetConfig {
        duplicate_share: 0.2,
        broken_body_share: 0.0,
        ..FleetConfig::mixed(5, 10, 100.0)
    };
    let mut first = Vec::new();
    let mut again = 0;
    for batch in bodies(&config, 1, 50) {
        for (event, item) in split(&batch).into_iter().zip(&batch.items) {
            match item {
                Item::New { .. } => first.push(event),
                Item::Again(index) => {
                    assert_eq!(event, first[*index as usize]);
                    again += 1;
                }
            }
        }
    }
    assert!(again > 10, "{again}");
}

#[test]
fn a_broken_body_is_no_json_and_one_unit() {
    let config = FleetConfig { broken_body_share: 1.0, ..FleetConfig::mixed(5, 10, 100.0) };
    for batch in bodies(&config, 1, 10) {
        let plain = plain(&batch);
        assert!(serde_json::from_slice::<Value>(&plain).is_err());
        let [Item::New { record, .. }] = batch.items.as_slice() else { panic!("one unit") };
        assert_eq!(record.fingerprint, Fingerprint::of(&plain));
    }
}
