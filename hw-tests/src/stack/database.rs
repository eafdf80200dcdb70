//! A database of its own for each run.

use anyhow::{Context, anyhow};
use tokio_postgres::{Client, NoTls};

/// A database that this run created.
pub(super) struct Database {
    /// Its connection string.
    pub(super) dsn: String,
    name: String,
    server_dsn: String,
}

impl Database {
    pub(super) async fn create(server_dsn: &str, run: &str) -> anyhow::Result<Self> {
        let name = run.replace('-', "_");
        let dsn = with_database(server_dsn, &name)
            .ok_or_else(|| anyhow!("PENSTOCK_PG names no database: {server_dsn}"))?;
        // The name holds letters, digits and underscores only.
        execute(server_dsn, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self { dsn, name, server_dsn: server_dsn.to_owned() })
    }

    pub(super) async fn drop(&self) -> anyhow::Result<()> {
        let name = &self.name;
        execute(&self.server_dsn, &format!("DROP DATABASE {name} WITH (FORCE)")).await
    }
}

async fn execute(dsn: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection): (Client, _) =
        tokio_postgres::connect(dsn, NoTls).await.context("connect to PostgreSQL")?;
    // Its error is also the error of the statement.
    let connection = tokio::spawn(connection);
    let done = client.batch_execute(statement).await.with_context(|| statement.to_owned());
    connection.abort();
    done
}

/// `dsn` (a URL) with another database.
fn with_database(dsn: &str, name: &str) -> Option<String> {
    let authority = dsn.find("://")? + 3;
    let slash = authority + dsn[authority..].find('/')?;
    let query = dsn[slash..].find('?').map_or("", |at| &dsn[slash + at..]);
    Some(format!("{}/{name}{query}", &dsn[..slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_changes() {
        let with = |dsn| with_database(dsn, "n");
        assert_eq!(with("postgres://u@h:1/postgres").as_deref(), Some("postgres://u@h:1/n"));
        assert_eq!(with("postgres://u:p@h/a?x=/y").as_deref(), Some("postgres://u:p@h/n?x=/y"));
        assert_eq!(with("postgres://u@h"), None);
    }
}
