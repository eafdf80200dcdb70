//! Wires the loss ledger.

use std::sync::Arc;

use penstock_common::clock::SystemClock;
use penstock_common::topic::Topic;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Role, Shared};
use crate::bus::kafka::{KafkaAdmin, KafkaConsumer};
use crate::ledger::check::{Checker, Reader};
use crate::ledger::sink::StatusSink;
use crate::source::runner::Runner;
use crate::store::ledger::LedgerStore;
use crate::{ledger, raw};

/// Keeps the gateways' statuses, and checks what is missing.
pub(super) async fn run(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    let Shared { config, catalog, ledger_metrics, source_metrics, poison, readiness, .. } = shared;
    let prefix = &config.kafka.topic_prefix;
    let topic = Topic::GatewayStatus.name(prefix);
    let group = format!("{prefix}{}", config.ledger.group);
    let store = LedgerStore::new(catalog.pool().clone());
    let (settings, metrics) = (config.ledger.clone(), ledger_metrics);
    let reader = |role: &str, topic: Topic| Reader { role: role.into(), topic: topic.name(prefix) };
    let checker = Checker {
        store: store.clone(),
        positions: catalog.positions(),
        ends: Arc::new(KafkaAdmin::open(&config.kafka)?),
        readers: vec![
            reader(raw::ROLE, Topic::RawEvents),
            reader(ledger::DEAD_LETTER_ROLE, Topic::DeadLetter),
        ],
        config: settings.clone(),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
    };
    let runner = Runner {
        role: ledger::ROLE,
        consumer: Box::new(KafkaConsumer::open(&config.kafka, &group, &topic)?),
        sink: StatusSink::new(store, topic, settings, metrics),
        positions: catalog.positions(),
        config: config.ledger.runner(),
        counters: source_metrics.of(ledger::ROLE, Topic::GatewayStatus.base_name()),
        poison,
        stop: stop.clone(),
    };
    readiness.ready(Role::Ledger.name());
    // Dropped with this future: a check may end anywhere.
    let mut checking = JoinSet::new();
    checking.spawn(checker.run(stop));
    runner.run().await
}
