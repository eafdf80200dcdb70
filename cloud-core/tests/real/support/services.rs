//! The services that `./dev test` starts.

use cloud_core::store::object::StoreConfig;
use cloud_core::store::s3::S3Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;

use super::word;

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: it is set by ./dev test"))
}

/// A database of one test.
pub(crate) struct Database {
    pub(crate) dsn: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let server = env("PENSTOCK_PG");
        let name = format!("t_{}", word());
        let admin = connect(&server).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        Self { dsn: format!("{base}/{name}") }
    }

    /// For a look past the catalog's interface.
    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        connect(&self.dsn).await
    }

    /// One number.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }
}

async fn connect(dsn: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A bucket of one test, on the server that speaks S3.
pub(crate) async fn new_bucket() -> StoreConfig {
    let bucket = format!("t-{}", word());
    ask_s3("PUT", &format!("/{bucket}")).await;
    StoreConfig {
        url: format!("s3://{bucket}/some/prefix"),
        s3: S3Config {
            endpoint: env("PENSTOCK_S3_ENDPOINT"),
            region: "us-east-1".into(),
            allow_http: true,
            access_key_id: "test".into(),
            secret_access_key: "test".into(),
            ..S3Config::default()
        },
    }
}

/// A request past the store's interface, and its answer, which must be 200.
pub(crate) async fn ask_s3(method: &str, path: &str) -> String {
    let endpoint = env("PENSTOCK_S3_ENDPOINT");
    let host = endpoint.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    // The server checks no signature, but takes requests without any for another service.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}
