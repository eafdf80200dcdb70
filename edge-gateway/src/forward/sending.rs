//! The spans of records in flight whose trace is recorded: few, or none.

use std::collections::HashMap;

use penstock_common::telemetry::traces::{Span, SpanKind, Traces};
use penstock_common::topic::Topic;

use super::{Refusal, Token};
use crate::spool::SpooledEntry;
use crate::spool::entry::Entry;

/// They end with the bus's answer.
pub(super) struct Sending {
    traces: Traces,
    spans: HashMap<Token, Span>,
}

impl Sending {
    pub(super) fn new(traces: Traces) -> Self {
        Self { traces, spans: HashMap::new() }
    }

    /// The span of an entry that is about to be sent, if it is traced.
    pub(super) fn begin(&self, spooled: &SpooledEntry, topic: Topic) -> Option<Span> {
        let traceparent = match &spooled.entry {
            Entry::Event(event) => event.traceparent.as_deref(),
            Entry::DeadLetter(letter) => letter.traceparent.as_deref(),
        };
        let mut span = self.traces.go_on(traceparent, "send to the bus", SpanKind::Producer)?;
        span.note("messaging.system", "kafka");
        span.note("messaging.destination.name", topic.base_name());
        span.note("penstock.epoch", spooled.epoch.to_string());
        span.note("penstock.seq", i64::try_from(spooled.seq).unwrap_or(i64::MAX));
        Some(span)
    }

    pub(super) fn sent(&mut self, token: Token, span: Option<Span>) {
        if let Some(span) = span {
            self.spans.insert(token, span);
        }
    }

    pub(super) fn answered(&mut self, token: Token, result: &Result<(), Refusal>) {
        if self.spans.is_empty() {
            return;
        }
        let span = self.spans.remove(&token);
        if let (Some(mut span), Err(refusal)) = (span, result) {
            span.fail(refusal.reason.clone());
        }
    }

    pub(super) fn give_up(&mut self) {
        for (_, mut span) in self.spans.drain() {
            span.fail("the connection was given up; it is sent again");
        }
    }
}
