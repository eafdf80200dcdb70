//! The catalog's promises: migrations, claims, and the table of `store/publish.rs`.

use cloud_core::bus::Watermarks;
use cloud_core::failpoint::Failpoints;
use cloud_core::ledger::bits::{self as ledger, SeenBuilder};
use cloud_core::source::next_offset;
use cloud_core::store::catalog::Catalog;
use cloud_core::store::files::Kind;
use cloud_core::store::positions::Claim;
use cloud_core::store::postgres::{CatalogConfig, migrate, pool};
use cloud_core::store::publish::{Covered, FileFacts, Publication, PublishError};
use futures::future::join_all;
use penstock_common::event::Epoch;
use uuid::Uuid;

use crate::support::services::Database;

struct Scene {
    database: Database,
    catalog: Catalog,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::create().await;
        let config = CatalogConfig { dsn: database.dsn.clone(), connections_max: 8 };
        let pool = pool(&config).unwrap();
        migrate(&pool).await.unwrap();
        Self { database, catalog: Catalog::new(pool, Failpoints::default()) }
    }

    async fn claim(&self, low: i64, high: i64) -> Claim {
        let bounds = [Watermarks { partition: 0, low, high }];
        self.catalog.positions().claim("raw", "t", &bounds, next_offset).await.unwrap()[0]
    }

    async fn announced(&self) -> Uuid {
        let file_id = Uuid::new_v4();
        self.catalog.announce(Kind::Raw, file_id, &format!("staging/{file_id}")).await.unwrap();
        file_id
    }

    /// Everything that a publication may change, as text.
    async fn state(&self) -> String {
        let sql = "SELECT concat( \
            (SELECT string_agg(f::text, ';' ORDER BY file_id) FROM raw_file f), ' ', \
            (SELECT string_agg(r::text, ';' ORDER BY file_id, \"partition\") FROM raw_file_range r), \
            ' ', (SELECT string_agg(p::text, ';' ORDER BY \"partition\") FROM consumer_position p), \
            ' ', (SELECT seq FROM catalog_head), ' ', (SELECT count(*) FROM ledger_seen))";
        self.database.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }
}

fn publication(file_id: Option<Uuid>, from: i64, to: i64, generation: i64) -> Publication {
    let facts = |file_id| FileFacts {
        file_id,
        rows: to - from,
        bytes: 100,
        min_effective: 5,
        max_effective: 9,
        clock_ahead_count: 0,
        append_hour: 490_000,
        fleets: vec![("press".into(), to - from)],
    };
    let mut seen = SeenBuilder::default();
    seen.add(ledger::Kind::Raw, "g", Epoch(1), from.unsigned_abs());
    Publication {
        role: "raw".into(),
        topic: "t".into(),
        files: file_id.map(facts).into_iter().collect(),
        covered: vec![Covered { partition: 0, from, to, generation }],
        seen: seen.finish(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_may_migrate_at_once() {
    let database = Database::create().await;
    let config = CatalogConfig { dsn: database.dsn.clone(), connections_max: 2 };
    let pools: Vec<_> = (0..8).map(|_| pool(&config).unwrap()).collect();
    for done in join_all(pools.iter().map(migrate)).await {
        done.unwrap();
    }
    assert_eq!(database.number("SELECT seq FROM catalog_head").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_counts_once_however_often_it_is_tried() {
    let scene = Scene::new().await;
    let claim = scene.claim(3, 50).await;
    assert_eq!((claim.next_offset, claim.generation, claim.basis.stored), (3, 1, None));
    let publication = publication(Some(scene.announced().await), 3, 10, 1);
    scene.catalog.publish(&publication).await.unwrap();
    let after = scene.state().await;
    scene.catalog.publish(&publication).await.unwrap();
    assert_eq!(scene.state().await, after);
    assert_eq!(scene.catalog.positions().of_role("raw").await.unwrap()[0].next_offset, 10);
    assert_eq!(scene.catalog.totals().await.unwrap().as_of, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_without_rows_move_the_position_once() {
    let scene = Scene::new().await;
    scene.claim(0, 50).await;
    for _ in 0..2 {
        scene.catalog.publish(&publication(None, 0, 4, 1)).await.unwrap();
        assert_eq!(scene.catalog.positions().of_role("raw").await.unwrap()[0].next_offset, 4);
    }
    assert_eq!(scene.catalog.head().await.unwrap(), 0);
    let stale = scene.catalog.publish(&publication(None, 0, 3, 1)).await.unwrap_err();
    assert!(matches!(stale, PublishError::Fenced { .. }), "{stale}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_owner_changes_nothing() {
    let scene = Scene::new().await;
    scene.claim(0, 50).await;
    scene.catalog.publish(&publication(Some(scene.announced().await), 0, 10, 1)).await.unwrap();
    let second = scene.claim(0, 50).await;
    assert_eq!((second.next_offset, second.generation), (10, 2));

    let zombie = scene.announced().await;
    let before = scene.state().await;
    let attempts = [
        ("an old generation", publication(Some(zombie), 10, 20, 1)),
        ("an old position", publication(Some(zombie), 0, 10, 2)),
        ("a position ahead", publication(Some(zombie), 12, 20, 2)),
        ("a generation ahead", publication(Some(zombie), 10, 20, 3)),
        ("no file, an old generation", publication(None, 10, 20, 1)),
    ];
    for (what, attempt) in attempts {
        let error = scene.catalog.publish(&attempt).await.unwrap_err();
        assert!(matches!(error, PublishError::Fenced { partition: 0, .. }), "{what}: {error}");
        assert_eq!(scene.state().await, before, "{what}");
    }
    // One partition of several is enough.
    let mut two = publication(Some(zombie), 10, 20, 2);
    two.covered.push(Covered { partition: 1, from: 0, to: 5, generation: 1 });
    let error = scene.catalog.publish(&two).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { partition: 1, .. }), "{error}");
    assert_eq!(scene.state().await, before);
    scene.catalog.publish(&publication(Some(zombie), 10, 20, 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_file_is_not_published() {
    let scene = Scene::new().await;
    scene.claim(0, 50).await;
    let file_id = scene.announced().await;
    assert_eq!(scene.catalog.abandon_stale(60_000).await.unwrap(), 0, "it is young");
    assert_eq!(scene.catalog.abandon_stale(0).await.unwrap(), 1);
    let before = scene.state().await;
    for id in [file_id, Uuid::new_v4()] {
        let error = scene.catalog.publish(&publication(Some(id), 0, 10, 1)).await.unwrap_err();
        assert!(matches!(error, PublishError::NotPending), "{error}");
        assert_eq!(scene.state().await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_at_once_get_different_generations() {
    let scene = Scene::new().await;
    let claims = join_all((0..8).map(|_| scene.claim(7, 50))).await;
    let mut generations: Vec<i64> = claims.iter().map(|claim| claim.generation).collect();
    generations.sort_unstable();
    assert_eq!(generations, (1..=8).collect::<Vec<_>>());
    assert!(claims.iter().all(|claim| claim.next_offset == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_are_numbered_without_gaps() {
    let scene = Scene::new().await;
    let bounds: Vec<Watermarks> =
        (0..6).map(|partition| Watermarks { partition, low: 0, high: 9 }).collect();
    scene.catalog.positions().claim("raw", "t", &bounds, next_offset).await.unwrap();
    let publish = async |partition| {
        for n in 0..10 {
            let mut one = publication(Some(scene.announced().await), n, n + 1, 1);
            one.covered[0].partition = partition;
            scene.catalog.publish(&one).await.unwrap();
            // A failed one takes no number.
            scene.catalog.publish(&publication(None, 99, 100, 7)).await.unwrap_err();
        }
    };
    join_all((0..6).map(publish)).await;
    let sql = "SELECT count(DISTINCT catalog_seq) FROM raw_file \
               WHERE catalog_seq BETWEEN 1 AND 60 AND state = 'published'";
    assert_eq!(scene.database.number(sql).await, 60);
    assert_eq!(scene.catalog.head().await.unwrap(), 60);
}
