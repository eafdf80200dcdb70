//! What is told of the spool is the truth, over restarts, kills and damage.

use penstock_common::event::Epoch;
use penstock_common::status::{DamagedNumbers, EpochStatus};

use super::*;

impl Running {
    /// The newest status, once it says this.
    async fn told(&self, what: &str, is_so: impl Fn(&GatewayStatus) -> bool) -> GatewayStatus {
        let newest = || self.bus.statuses.lock().unwrap().last().cloned();
        self.until(what, || newest().is_some_and(|status| is_so(&status))).await;
        newest().unwrap()
    }

    async fn forward(&self, numbers: std::ops::Range<usize>) {
        self.submit(numbers).await;
        self.until("all forwarded", || self.spool.stat().pending_entries == 0).await;
    }
}

fn deaf() -> Bus {
    let bus = Bus::default();
    bus.lose_statuses.store(true, Ordering::SeqCst);
    bus
}

fn listed(status: &GatewayStatus, epoch: Epoch) -> Option<EpochStatus> {
    status.epochs.iter().copied().find(|listed| listed.epoch == epoch)
}

fn complete(epoch: Epoch, next: u64) -> EpochStatus {
    EpochStatus { epoch, next, retired: next, not_kept: 0 }
}

#[tokio::test]
async fn statuses_follow_the_spool_from_its_start_to_the_end_of_the_drain() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    let first = running.told("the first", |_| true).await;
    assert_eq!(first.epochs, [complete(first.epoch, 0)]);
    running.forward(0..10).await;
    let second = running.told("retired", |status| status.epochs[0].retired == 10).await;
    assert_eq!(second.epochs, [complete(first.epoch, 10)]);
    assert_eq!((second.spool.pending, second.damaged.len()), (0, 0));
    let bus = running.bus.clone();
    running.submit(10..15).await;
    running.end().await;
    let last = bus.statuses.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.epochs[0].next, 15);
    assert_eq!(last.epochs[0].retired + last.spool.pending, 15);
}

/// However often a gateway dies before any status of it gets through, what was in its epochs is
/// told by the one that lives.
#[tokio::test]
async fn epochs_that_ended_untold_are_told_by_a_later_start() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let mut ended = Vec::new();
    for life in 0..5 {
        let running = start_on(&disk, dir.path(), deaf());
        // One in which nothing was spooled leaves nothing to tell.
        if life != 2 {
            running.forward(0..100 * (life + 1)).await;
            ended.push(complete(running.spool.stat().epoch, 100 * (life as u64 + 1)));
        }
        running.end().await;
    }
    let running = start(&disk, dir.path());
    let status = running.told("the first", |_| true).await;
    assert_eq!(status.epochs, [ended, vec![complete(status.epoch, 0)]].concat());
    // Once told, they may be forgotten; the newest segment stays until there is another.
    running.forward(0..10).await;
    let status = running.told("forgotten", |status| status.epochs.len() == 1).await;
    assert_eq!(status.epochs, [complete(running.spool.stat().epoch, 10)]);
    running.until("removed", || running.spool.stat().segments == 1).await;
    running.end().await;
}

#[tokio::test]
async fn an_epoch_that_a_failed_sync_ended_is_told_where_it_was_durable() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start(&disk, dir.path());
    running.forward(0..10).await;
    let first = running.spool.stat().epoch;
    disk.set_faults(Faults { sync: 1.0, ..Faults::default() });
    let refused = EventEntry {
        device_id: "d".into(),
        schema_version: 1,
        fleet: "f".into(),
        received_at: UnixMicros(0),
        flags: Flags::NONE,
        traceparent: None,
        payload: Bytes::from_static(b"99"),
    };
    running.spool.submit(vec![Entry::Event(refused)]).await.unwrap_err();
    disk.set_faults(Faults::default());
    let status = running.told("ended", |status| status.epoch != first).await;
    assert_eq!(status.epochs, [complete(first, 10), complete(status.epoch, 0)]);
    running.forward(10..15).await;
    let status = running.told("went on", |status| status.epochs.last().unwrap().next == 5).await;
    assert!(listed(&status, first).is_none_or(|old| old == complete(first, 10)));
    running.end().await;
}

/// Damage that no status told of before the gateway died is found and told again.
#[tokio::test]
async fn damage_is_told_though_the_gateway_dies_right_after_passing_it_over() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start_on(&disk, dir.path(), deaf());
    running.forward(0..10).await;
    let epoch = running.spool.stat().epoch;
    disk.set_faults(Faults { read: 1.0, ..Faults::default() });
    running.submit(10..20).await;
    let newest = disk.list().unwrap().into_iter().max().unwrap();
    disk.damage(&newest, 600, &[0xA5; 200]);
    disk.set_faults(Faults::default());
    for n in 0..10 {
        running.submit(20 + 10 * n..30 + 10 * n).await;
    }
    running.until("the rest is forwarded", || running.delivered().ends_with(&[119])).await;
    running.until("retired", || running.spool.stat().pending_entries == 0).await;
    assert_eq!(running.spool.stat().damaged_entries, 10);
    running.end().await;

    let running = start(&disk, dir.path());
    let status = running.told("damage", |status| !status.damaged.is_empty()).await;
    assert_eq!(status.damaged, [DamagedNumbers { epoch, from: 10, to: 20 }]);
    running.told("complete", |s| listed(s, epoch) == Some(complete(epoch, 120))).await;
    running.end().await;
}

/// Statuses that never get through must not fill the spool.
#[tokio::test]
async fn segments_kept_for_a_status_are_given_up_before_the_spool_is_full() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let running = start_on(&disk, dir.path(), deaf());
    running.forward(0..10).await;
    running.end().await;
    let bytes_max = 256 << 10;
    let kept = bytes_max / 2 + (32 << 10);
    let running = start_with(&disk, dir.path(), deaf(), bytes_max);
    for n in 0..60 {
        running.forward(50 * n..50 * n + 50).await;
        running.until("given back", || running.spool.stat().disk_bytes <= kept).await;
    }
    // And still what they told is not forgotten while the process lives.
    running.bus.lose_statuses.store(false, Ordering::SeqCst);
    assert_eq!(running.spool.stat().epochs.len(), 2);
    running.end().await;
}
