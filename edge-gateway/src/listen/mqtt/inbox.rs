//! Messages between the connection and the disk, bounded by bytes. Order is kept.

use std::sync::Arc;
use std::time::Instant;

use penstock_common::clock::Reading;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::link::Link;

/// What the semaphore counts. A message counts as one at least, so that messages are bounded too.
const PERMIT_BYTES: usize = 1_024;
/// What a message takes beside its payload, about.
const OVERHEAD_BYTES: usize = 512;

/// A message that was not acknowledged yet.
pub(super) struct Message {
    pub(super) publish: Publish,
    pub(super) received: Reading,
    pub(super) arrived: Instant,
    /// The connection that it came on: the only one on which it may be acknowledged.
    pub(super) link: Link,
    /// Its share of the memory, given back when it is dropped.
    pub(super) share: OwnedSemaphorePermit,
}

/// What is handed over.
pub(super) enum Item {
    Message(Box<Message>),
    /// Answered once everything before it has been acknowledged.
    Flush(oneshot::Sender<()>),
}

/// The connection's end.
#[derive(Clone)]
pub(super) struct Inbox {
    permits: Arc<Semaphore>,
    permits_max: usize,
    items: mpsc::UnboundedSender<Item>,
}

pub(super) fn channel(bytes_max: usize) -> (Inbox, mpsc::UnboundedReceiver<Item>) {
    let permits_max = bytes_max.div_ceil(PERMIT_BYTES).max(1);
    let (items, receiver) = mpsc::unbounded_channel();
    (Inbox { permits: Arc::new(Semaphore::new(permits_max)), permits_max, items }, receiver)
}

impl Inbox {
    /// Waits for room for a message.
    pub(super) async fn reserve(&self, publish: &Publish) -> OwnedSemaphorePermit {
        let bytes = publish.payload.len() + publish.topic.len() + OVERHEAD_BYTES;
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits_max);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        match self.permits.clone().acquire_many_owned(permits).await {
            Ok(share) => share,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Hands an item over; false if nobody takes it any more.
    pub(super) fn put(&self, item: Item) -> bool {
        self.items.send(item).is_ok()
    }
}
