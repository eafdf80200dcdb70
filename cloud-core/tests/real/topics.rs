//! `topics apply` on a real broker.

use cloud_core::bus::kafka::{KafkaAdmin, KafkaConfig};
use cloud_core::bus::topics::{TopicAdmin, apply, plans};

use crate::support::services::env;
use crate::support::word;

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_and_brought_in_line() {
    let prefix = format!("t-{}.", word());
    let config = KafkaConfig { bootstrap: env("PENSTOCK_KAFKA"), ..KafkaConfig::default() };
    let admin = KafkaAdmin::open(&config).unwrap();
    let plans = plans(&prefix, 1, 1);

    let dry = apply(&admin, &plans, true).await.unwrap();
    assert_eq!((dry.changed, dry.refused), (5, 0), "{:?}", dry.lines);
    assert!(admin.describe(&plans[0].name).await.unwrap().is_none(), "a dry run created a topic");

    let first = apply(&admin, &plans, false).await.unwrap();
    assert_eq!((first.changed, first.refused), (5, 0), "{:?}", first.lines);
    let again = apply(&admin, &plans, false).await.unwrap();
    assert_eq!((again.changed, again.refused), (0, 0), "{:?}", again.lines);

    // Somebody changes one of our settings, and sets one that is none of ours.
    let mut settings = plans[0].settings.clone();
    settings.insert("retention.ms".into(), "60000".into());
    settings.insert("segment.ms".into(), "3600000".into());
    admin.set(&plans[0].name, &settings).await.unwrap();
    let repaired = apply(&admin, &plans, false).await.unwrap();
    assert_eq!((repaired.changed, repaired.refused), (1, 0), "{:?}", repaired.lines);
    assert!(repaired.lines[0].contains("retention.ms from 60000"), "{:?}", repaired.lines);
    let state = admin.describe(&plans[0].name).await.unwrap().unwrap();
    assert_eq!(state.settings["retention.ms"], plans[0].settings["retention.ms"]);
    assert_eq!(state.settings["segment.ms"], "3600000");
    assert_eq!(state.settings["message.timestamp.type"], "LogAppendTime");

    // A partition count is never changed.
    let mut more = plans.clone();
    more[2].partitions += 1;
    let refused = apply(&admin, &more, false).await.unwrap();
    assert_eq!((refused.changed, refused.refused), (0, 1), "{:?}", refused.lines);
    let state = admin.describe(&plans[2].name).await.unwrap().unwrap();
    assert_eq!(state.partitions, plans[2].partitions);
}
