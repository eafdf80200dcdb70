//! The ledger in the catalog, without a bus: folding, judging, answers between two moments.

use cloud_core::bus::Watermarks;
use cloud_core::failpoint::Failpoints;
use cloud_core::ledger::answer::{Answer, ask};
use cloud_core::ledger::bits::{Kind, SeenBuilder};
use cloud_core::source::next_offset;
use cloud_core::store::catalog::Catalog;
use cloud_core::store::ledger::{HeardStatus, LedgerStore, Question, StatusFlush};
use cloud_core::store::postgres::{CatalogConfig, migrate, pool};
use cloud_core::store::publish::{Covered, Publication};
use penstock_common::event::{Epoch, UnixMicros};
use penstock_common::status::{DamagedNumbers, EpochStatus, GatewayStatus};

use crate::support::events::{SECOND, T0};
use crate::support::services::Database;

const E: Epoch = Epoch(7);
const NEXT: Epoch = Epoch(8);

struct Scene {
    database: Database,
    catalog: Catalog,
    store: LedgerStore,
    offset: i64,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::create().await;
        let config = CatalogConfig { dsn: database.dsn.clone(), connections_max: 4 };
        let pool = pool(&config).unwrap();
        migrate(&pool).await.unwrap();
        let catalog = Catalog::new(pool.clone(), Failpoints::default());
        let bounds = [Watermarks { partition: 0, low: 0, high: 1_000_000 }];
        catalog.positions().claim("raw", "t", &bounds, next_offset).await.unwrap();
        Self { database, catalog, store: LedgerStore::new(pool), offset: 0 }
    }

    /// A publication that saw these numbers of E; tried twice, as after an unknown outcome.
    async fn saw(&mut self, kind: Kind, numbers: impl IntoIterator<Item = u64>) {
        let mut seen = SeenBuilder::default();
        for seq in numbers {
            seen.add(kind, "g", E, seq);
        }
        let (from, to) = (self.offset, self.offset + 1);
        self.offset = to;
        let publication = Publication {
            role: "raw".into(),
            topic: "t".into(),
            files: Vec::new(),
            covered: vec![Covered { partition: 0, from, to, generation: 1 }],
            seen: seen.finish(),
        };
        self.catalog.publish(&publication).await.unwrap();
        self.catalog.publish(&publication).await.unwrap();
    }

    /// A status: the epochs with next and retired, the last one being written.
    async fn heard(&self, second: i64, epochs: &[(Epoch, u64, u64)], damaged: &[(u64, u64)]) {
        let at = UnixMicros(T0 + second * SECOND);
        let epoch = |&(epoch, next, retired): &(Epoch, u64, u64)| EpochStatus {
            epoch,
            next,
            retired,
            not_kept: 0,
        };
        let range = |&(from, to): &(u64, u64)| DamagedNumbers { epoch: E, from, to };
        let status = GatewayStatus {
            epochs: epochs.iter().map(epoch).collect(),
            damaged: damaged.iter().map(range).collect(),
            ..GatewayStatus::new("g".into(), at, epochs.last().unwrap().0)
        };
        let status = GatewayStatus::decode(&status.encode().unwrap()).unwrap();
        let flush =
            StatusFlush { statuses: vec![HeardStatus { at, status }], ..StatusFlush::default() };
        self.store.flush_statuses(&flush).await.unwrap();
    }

    /// Judges what is to be judged; says what is newly missing.
    async fn judge(&self) -> Vec<(i64, std::ops::Range<u64>)> {
        while self.store.fold(3).await.unwrap() > 0 {}
        let mut found = Vec::new();
        for target in self.store.targets().await.unwrap() {
            for one in self.store.judge(&target).await.unwrap() {
                found.push((one.epoch, one.missing.range));
            }
        }
        self.store.recheck_missing(100).await.unwrap();
        self.store.recheck_damaged(100).await.unwrap();
        found
    }

    async fn ask(&self, from: Option<i64>, to: Option<i64>) -> Answer {
        let at = |second: i64| T0 + second * SECOND;
        let question = Question { gateway: Some("g".into()), from: from.map(at), to: to.map(at) };
        let now = UnixMicros(at(10_000));
        let answer = ask(&self.store, &question, now, 60_000).await.unwrap();
        let sums = &answer.total;
        let parts = [sums.stored, sums.duplicates, sums.dead_lettered, sums.in_flight];
        let rest = [sums.not_kept, sums.missing, sums.damaged];
        assert_eq!(sums.received, parts.iter().chain(&rest).sum::<u64>(), "{sums:?}");
        answer
    }

    /// Answer and metrics agree once everything is folded and judged.
    async fn settled(&self) -> Answer {
        let answer = self.ask(None, None).await;
        let totals = self.store.totals().await.unwrap();
        let sums = cloud_core::ledger::answer::Sums::from(&totals[0].verdict);
        assert_eq!(sums, answer.total);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_counted_and_what_is_absent_is_missing() {
    let mut scene = Scene::new().await;
    scene.saw(Kind::Raw, 0..100).await;
    scene.saw(Kind::Dead, 100..130).await;
    scene.saw(Kind::Duplicate, 10..15).await;
    scene.heard(0, &[(E, 140, 120)], &[]).await;
    // Not folded yet, it counts all the same.
    let sums = scene.ask(None, None).await.total;
    assert_eq!((sums.received, sums.stored, sums.in_flight), (140, 95, 10));
    assert_eq!(scene.judge().await, []);
    let sums = scene.settled().await.total;
    assert_eq!((sums.stored, sums.duplicates, sums.dead_lettered), (95, 5, 30));
    assert_eq!((sums.received, sums.in_flight), (140, 10));

    scene.heard(60, &[(E, 200, 190)], &[(150, 160), (155, 170)]).await;
    scene.saw(Kind::Raw, (130..190).filter(|n| ![140, 180, 181, 165].contains(n))).await;
    assert_eq!(scene.judge().await, [(7, 140..141), (7, 180..182)]);
    assert_eq!(scene.judge().await, [], "once");
    let answer = scene.settled().await;
    assert_eq!((answer.total.missing, answer.total.damaged, answer.total.in_flight), (3, 1, 10));
    let named: Vec<_> =
        answer.gateways[0].missing_ranges.iter().map(|m| (m.from_seq, m.to_seq)).collect();
    assert_eq!(named, [(140, 141), (180, 182)]);
    assert!(answer.gateways[0].missing_ranges.iter().all(|m| m.noticed_at.is_some()));

    // Some of it turns up, one turns out to be damaged.
    scene.saw(Kind::Dead, [180]).await;
    scene.heard(70, &[(E, 200, 190)], &[(140, 141)]).await;
    scene.judge().await;
    let sums = scene.settled().await.total;
    assert_eq!((sums.missing, sums.damaged, sums.dead_lettered), (1, 2, 31));
    scene.saw(Kind::Raw, [181, 165]).await;
    scene.judge().await;
    let sums = scene.settled().await.total;
    assert_eq!((sums.missing, sums.damaged), (0, 1));
    let open = "SELECT count(*) FROM ledger_missing WHERE resolved_at IS NULL";
    assert_eq!(scene.database.number(open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_chunks_keep_only_counts_and_late_facts_still_fit() {
    let mut scene = Scene::new().await;
    let n = 3 * 65_536 + 10;
    scene.saw(Kind::Raw, (0..n).filter(|n| n % 2 == 0)).await;
    scene.saw(Kind::Raw, (0..n).filter(|n| n % 2 == 1)).await;
    scene.heard(0, &[(E, n, n), (NEXT, 0, 0)], &[]).await;
    assert_eq!(scene.judge().await, []);
    let bits = "SELECT count(*) FROM ledger_chunk WHERE raw_bits IS NOT NULL";
    assert_eq!(scene.database.number(bits).await, 1);
    assert_eq!(scene.database.number("SELECT count(*) FROM ledger_seen").await, 0);
    assert_eq!(scene.settled().await.total.stored, n);
    // Before and after they are folded.
    scene.saw(Kind::Duplicate, [5, 70_000]).await;
    assert_eq!(scene.ask(None, None).await.total.duplicates, 2);
    scene.judge().await;
    let sums = scene.settled().await.total;
    assert_eq!((sums.stored, sums.duplicates, sums.in_flight), (n - 2, 2, 0));
    assert_eq!(scene.database.number(bits).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_between_two_moments_covers_what_was_given_in_between() {
    let mut scene = Scene::new().await;
    scene.heard(0, &[(E, 10, 0)], &[]).await;
    for second in [60, 70, 80] {
        scene.heard(second, &[(E, 20, 0)], &[]).await;
    }
    // Two in one minute: the later one stays.
    scene.heard(185, &[(E, 30, 0)], &[]).await;
    scene.heard(190, &[(E, 40, 40), (NEXT, 0, 0)], &[]).await;
    scene.heard(300, &[(NEXT, 5, 0)], &[]).await;
    scene.saw(Kind::Raw, 0..40).await;
    scene.judge().await;
    let cases = [
        (None, None, 45),
        (None, Some(70), 20),
        (Some(0), Some(60), 10),
        (Some(60), Some(80), 0),
        (Some(75), Some(120), 20),
        (Some(100), Some(190), 20),
        (Some(200), None, 5),
        (Some(190), Some(250), 5),
        (Some(400), None, 0),
    ];
    for (from, to, received) in cases {
        let answer = scene.ask(from, to).await;
        assert_eq!(answer.total.received, received, "{from:?} to {to:?}: {answer:?}");
    }
    let rows = "SELECT count(*) FROM ledger_history WHERE epoch = 7";
    assert_eq!(scene.database.number(rows).await, 3);
    // What is old is forgotten, but for how each epoch ended.
    scene.store.forget_history(1).await.unwrap();
    assert_eq!(scene.database.number(rows).await, 1);
    assert_eq!(scene.ask(Some(200), None).await.total.received, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_its_gateway_no_longer_has_is_judged_whole() {
    let mut scene = Scene::new().await;
    scene.heard(0, &[(E, 100, 40)], &[]).await;
    scene.saw(Kind::Raw, 0..50).await;
    assert_eq!(scene.judge().await, []);
    // A new disk: two statuses could be late ones of another life, three are not.
    for second in [10, 20] {
        scene.heard(second, &[(NEXT, 1, 0)], &[]).await;
        assert_eq!(scene.judge().await, []);
    }
    scene.heard(30, &[(NEXT, 1, 0)], &[]).await;
    assert_eq!(scene.judge().await, [(7, 50..100)]);
    let answer = scene.settled().await;
    assert!(answer.gateways[0].unproven.iter().any(|text| text.contains("no longer has it")));
    assert!(answer.gateways[0].unproven.iter().any(|text| text.contains("silent since")));

    // One that was complete may be forgotten by its gateway; where its disk says that it ended
    // earlier than was said before, what was acknowledged beyond that is missing.
    let mut scene = Scene::new().await;
    scene.saw(Kind::Raw, 0..90).await;
    scene.heard(0, &[(E, 100, 90)], &[]).await;
    scene.heard(10, &[(E, 95, 95), (NEXT, 0, 0)], &[]).await;
    assert_eq!(scene.judge().await, [(7, 90..100)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_no_status_declared_are_told_and_never_missing() {
    let mut scene = Scene::new().await;
    scene.saw(Kind::Raw, [3, 1 << 40]).await;
    assert_eq!(scene.judge().await, []);
    let answer = scene.settled().await;
    assert_eq!((answer.total.missing, answer.total.stored), (0, 2));
    assert!(answer.gateways[0].unproven[0].contains("never sent a status"));
}
