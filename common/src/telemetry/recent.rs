//! The last warnings and errors of the process, kept in memory for a status page: bounded in
//! number and size; the same complaint is kept once and counted.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock::{Clock, SystemClock};
use crate::event::UnixMicros;

/// The most complaints that are kept; the one that was last heard longest ago goes first.
const COMPLAINTS_MAX: usize = 32;
/// The most bytes of a text.
const TEXT_BYTES_MAX: usize = 400;

/// A warning or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Whether it is an error, and not a warning.
    pub is_error: bool,
    /// Which part of the program it comes from.
    pub target: &'static str,
    /// What it said last, with its fields.
    pub text: String,
    /// When it was said last.
    pub last_at: UnixMicros,
    /// How often it was said since the start.
    pub count: u64,
    /// Where in the program it is said: what makes it the same one.
    line: Option<u32>,
}

/// The last complaints; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Complaint>>>);

impl Recent {
    /// Newest first.
    pub fn complaints(&self) -> Vec<Complaint> {
        self.lock().iter().cloned().collect()
    }

    fn note(&self, mut complaint: Complaint) {
        let mut complaints = self.lock();
        let same = |old: &Complaint| (old.target, old.line) == (complaint.target, complaint.line);
        if let Some(at) = complaints.iter().position(same)
            && let Some(old) = complaints.remove(at)
        {
            complaint.count += old.count;
        }
        complaints.truncate(COMPLAINTS_MAX - 1);
        complaints.push_front(complaint);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Complaint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut text = text.message + &text.fields;
        cut(&mut text);
        self.note(Complaint {
            is_error: *metadata.level() == Level::ERROR,
            target: metadata.target(),
            text,
            last_at: SystemClock.now(),
            count: 1,
            line: metadata.line(),
        });
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !value.is_empty() {
            self.record_debug(field, &format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "; {name}: {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_same_complaint_is_kept_once_and_counted() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..3 {
                tracing::warn!(number, "again");
            }
            tracing::info!("nothing to complain of");
            tracing::error!(error = "x".repeat(9_999), "long");
        });
        let complaints = recent.complaints();
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].is_error && complaints[0].text.starts_with("long; error: xxx"));
        assert!(complaints[0].text.len() < 500);
        assert_eq!((complaints[1].text.as_str(), complaints[1].count), ("again; number: 2", 3));
    }
}
