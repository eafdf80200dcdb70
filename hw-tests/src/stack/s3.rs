//! A bucket of its own for each run, on the server that speaks S3.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Creates a bucket; its name.
pub(super) async fn create_bucket(endpoint: &str, name: &str) -> anyhow::Result<String> {
    let host = endpoint.strip_prefix("http://").context("the S3 endpoint is an http:// URL")?;
    let mut stream = TcpStream::connect(host).await.with_context(|| format!("reach {endpoint}"))?;
    // The private server checks no signature, but takes requests without any for another service.
    let request = format!(
        "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.context("create a bucket")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("create a bucket")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "create a bucket: {answer}");
    Ok(name.to_owned())
}
