//! Reading raw events back (spec S3).
//!
//! ```text
//! catalog: files that can matter, as of a sequence ─▶ scan (page index, row filters) ─▶ keep
//!                                                        ▲                              │
//!                                                        └──────── verify ◀─────────────┘
//! ```
//! **One copy per identity**: of all copies whose effective time is in the window, and of all
//! clock-ahead copies before its end wherever they are, the least (received_at, gateway, epoch,
//! seq) is the event. A copy beaten by another is not shown, whichever page or window it is on.
//! This is exact for copies with the same bytes: their effective times differ only by the flag
//! clock_ahead, and the canonical one then is such a copy with an earlier time. For copies with
//! *other* bytes and another timestamp (an id conflict, which upstream sends to dead letters) it
//! is exact within one query's window.
//!
//! **Stable pages**: all pages of a query read the catalog as of the first one's sequence, which
//! the cursor carries. **Bounded memory**: a request holds at most `limit` + 1 events and
//! [`page::PAGE_BYTES_MAX`] bytes of them (a page ends early at that), beside the batches being
//! decoded from [`page::FILES_AT_ONCE`] files.

use crate::store::catalog::Catalog;
use crate::store::object::Objects;
use crate::store::postgres::StoreError;

pub mod cursor;
pub mod keep;
pub mod page;
pub mod presence;
pub mod prune;
pub mod row;
pub mod scan;

use cursor::Cursor;
use row::StoredEvent;

/// A query for one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawQuery {
    /// The device.
    pub device: String,
    /// Its fleet; all fleets if not given.
    pub fleet: Option<String>,
    /// Only events that have this metric.
    pub metric: Option<String>,
    /// The window's begin, effective time in µs, inclusive.
    pub from: i64,
    /// The window's end, exclusive.
    pub to: i64,
    /// Events a page at most.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

/// A page of events, by (effective time, event id, fleet).
#[derive(Clone, Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins; none after the last one.
    pub next: Option<Cursor>,
    /// The catalog's sequence that all pages of this query read.
    pub as_of: i64,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The cursor speaks of a catalog that we do not have.
    #[error("the cursor is of another catalog")]
    ForeignCursor,
    /// The catalog.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file can't be read.
    #[error("read {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: row::ReadError,
    },
}

/// Answers queries.
#[derive(Clone)]
pub struct Queries {
    catalog: Catalog,
    objects: Objects,
}

impl Queries {
    /// Over these stores.
    pub const fn new(catalog: Catalog, objects: Objects) -> Self {
        Self { catalog, objects }
    }

    /// Where files are.
    pub const fn objects(&self) -> &Objects {
        &self.objects
    }

    /// One page.
    ///
    /// # Errors
    /// When a store is away, a file is damaged, or the cursor is not of this catalog.
    pub async fn raw(&self, query: &RawQuery) -> Result<Page, QueryError> {
        let head = self.catalog.head().await?;
        let as_of = query.cursor.as_ref().map_or(head, |cursor| cursor.as_of);
        if as_of > head {
            return Err(QueryError::ForeignCursor);
        }
        let files = self.catalog.files_for(query.from, query.to, as_of).await?;
        let (events, more) = page::read(&self.objects, &files, query).await?;
        let next = events.last().filter(|_| more).map(|last| Cursor { after: last.key(), as_of });
        Ok(Page { events, next, as_of })
    }
}
