//! The connection pool and the migrations.

use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use serde::Deserialize;
use tokio_postgres::NoTls;

mod embedded {
    refinery::embed_migrations!("migrations/catalog");
}

/// Any number, the same in every process: who holds this lock migrates.
const MIGRATION_LOCK: i64 = 0x7065_6e73_746f_636b;

/// A statement that takes longer than this is ended by the server, so that nobody holds locks or
/// a connection without bound.
const STATEMENT_TIMEOUT_MS: u32 = 30_000;

/// Where the catalog is.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogConfig {
    /// `postgres://user:password@host:port/database`.
    pub dsn: String,
    /// Connections at most.
    pub connections_max: usize,
}

// By hand: the password stays out of logs.
impl std::fmt::Debug for CatalogConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogConfig").field("connections_max", &self.connections_max).finish()
    }
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self { dsn: "postgres://penstock@127.0.0.1:5432/penstock".into(), connections_max: 16 }
    }
}

impl CatalogConfig {
    /// Adds what is wrong to `problems`.
    pub fn validate(&self, problems: &mut Vec<String>) {
        validate_dsn("catalog.dsn", &self.dsn, problems);
        if !(1..=1_000).contains(&self.connections_max) {
            problems.push("catalog.connections_max: 1 to 1000".into());
        }
    }
}

/// Adds to `problems` if a DSN can't be read.
pub fn validate_dsn(key: &str, dsn: &str, problems: &mut Vec<String>) {
    if let Err(error) = dsn.parse::<tokio_postgres::Config>() {
        problems.push(format!("{key} can't be read: {error}"));
    }
}

/// Why the catalog did not do what was asked. What has not been done may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection.
    #[error("connect to Postgres: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// A statement failed, or the connection under it.
    #[error("Postgres: {}", detail(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// Nothing came back in time; it may have been done.
    #[error("Postgres did not answer within {0:?}")]
    Timeout(Duration),
    /// A value that has no place in the database.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// What is stored can't be read.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A failpoint, in tests.
    #[error(transparent)]
    Failpoint(#[from] crate::failpoint::Tripped),
}

/// tokio-postgres shows "db error" alone.
fn detail(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.code().code(), db.message()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// A pool; it connects when first used.
///
/// # Errors
/// When the DSN can't be read.
pub fn pool(config: &CatalogConfig) -> anyhow::Result<Pool> {
    pool_of(&config.dsn, config.connections_max, None).context("catalog.dsn")
}

/// A pool of that many connections at most, whose search path is one schema.
///
/// # Errors
/// When the DSN can't be read.
pub fn pool_of(dsn: &str, connections_max: usize, schema: Option<&str>) -> anyhow::Result<Pool> {
    let mut pg: tokio_postgres::Config = dsn.parse().context("read the DSN")?;
    let idle = "-c idle_in_transaction_session_timeout=30000";
    let mut mine = format!("-c statement_timeout={STATEMENT_TIMEOUT_MS} {idle}");
    if let Some(schema) = schema {
        mine.push_str(&format!(" -c search_path={schema}"));
    }
    let options = pg.get_options().map_or(mine.clone(), |theirs| format!("{mine} {theirs}"));
    pg.options(options);
    if pg.get_application_name().is_none() {
        pg.application_name("penstock-core");
    }
    if pg.get_connect_timeout().is_none() {
        pg.connect_timeout(Duration::from_secs(5));
    }
    pg.tcp_user_timeout(Duration::from_secs(20));
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(pg, NoTls, ManagerConfig { recycling_method });
    Pool::builder(manager)
        .max_size(connections_max)
        .wait_timeout(Some(Duration::from_secs(10)))
        .create_timeout(Some(Duration::from_secs(10)))
        .recycle_timeout(Some(Duration::from_secs(5)))
        .runtime(Runtime::Tokio1)
        .build()
        .context("build the connection pool")
}

/// Brings the schema up to date. Many processes may start at once: an advisory lock lets one
/// migrate while the others wait.
///
/// # Errors
/// When Postgres is away, or a migration was changed after it had been applied.
pub async fn migrate(pool: &Pool) -> anyhow::Result<()> {
    let connection = pool.get().await.context("connect to Postgres")?;
    // Taken out of the pool: the lock belongs to the session, and ends with it on any way out.
    let mut client = Object::take(connection);
    client.batch_execute("SET statement_timeout = 0").await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    let report = embedded::migrations::runner()
        .run_async(&mut *client)
        .await
        .context("migrate the catalog's schema")?;
    for migration in report.applied_migrations() {
        tracing::info!(%migration, "migrated the catalog");
    }
    Ok(())
}
