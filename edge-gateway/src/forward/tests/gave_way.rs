//! What gave way arrives as dead letters, and is not told to be retired before (spec I9, N1).

use penstock_common::codec;

use super::*;
use crate::spool::evicted;

#[tokio::test]
async fn both_lanes_arrive_each_in_its_order_and_the_ledger_is_told_the_truth() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let bus = Bus::default();
    // Nothing is acknowledged before the oldest have given way.
    let places =
        ["raw-events", "dead-letter"].map(|topic| (0..PARTITIONS).map(move |n| (topic, n)));
    bus.change(|state| state.leaderless = places.into_iter().flatten().collect());
    let running = start_on(&disk, dir.path(), bus);
    for n in 0..30 {
        running.submit(10 * n..10 * n + 10).await;
    }
    for moved in 1..=2 {
        running.spool.evict_oldest();
        running.until("moved", || running.spool.stat().evicted_segments_total == moved).await;
    }
    let evicted = running.spool.stat().evicted_entries_total;
    assert!(evicted > 60 && evicted < 300);
    let told = running.bus.statuses.lock().unwrap().last().cloned().unwrap();
    assert!(told.epochs.iter().all(|epoch| epoch.retired == 0), "{told:?}");
    running.bus.change(|state| state.leaderless.clear());
    running.until("all retired", || running.spool.stat().pending_entries == 0).await;

    let letters = running.bus.log(Topic::DeadLetter);
    let numbers = letters.iter().map(|letter| {
        let headers = letter.headers.iter().map(|(name, text)| (*name, text.as_bytes()));
        let meta = codec::decode_dead_letter(headers).unwrap();
        assert_eq!((&*meta.stage, &*meta.reason), (evicted::STAGE, evicted::SPOOL_FULL));
        String::from_utf8_lossy(&letter.payload).parse().unwrap()
    });
    assert_eq!(numbers.collect::<Vec<usize>>(), range(0..evicted as usize));
    assert!(running.delivered().ends_with(&range(evicted as usize..300)));
    let stat = running.spool.stat();
    assert_eq!((stat.epochs[0].retired_seq, stat.dead_pending_entries), (300, 0));
    running.end().await;
}
