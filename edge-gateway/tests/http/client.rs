//! A client that writes what it is told to, right or wrong.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named =
            |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head.lines().find(named)?.split_once(':').map(|(_, value)| value.trim())
    }

    /// The problem's name; checks what all problems have.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.body["status"], self.status, "{self:?}");
        for member in ["title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        let name = self.body["type"].as_str().and_then(|t| t.strip_prefix("urn:penstock:problem:"));
        name.unwrap_or_else(|| panic!("{self:?}"))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap())
    }

    /// Whether nothing has arrived yet.
    pub(crate) fn has_nothing(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        self.read.is_empty() && read.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) const fn on(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// For connections that may have ended.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// The next answer; `None` if the connection ended before one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(PATIENCE, self.read_answer()).await.expect("no answer")
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Value::Null };
        let length: usize = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.read.len() < length {
            self.more().await?;
        }
        let body: Vec<u8> = self.read.drain(..length).collect();
        if !body.is_empty() {
            answer.body = serde_json::from_slice(&body).unwrap();
        }
        Some(answer)
    }

    async fn more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// Whether the server has closed the connection, with nothing more to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        assert!(self.read.is_empty(), "{:?}", String::from_utf8_lossy(&self.read));
        let read = tokio::time::timeout(PATIENCE, self.more()).await;
        read.expect("still open").is_none()
    }

    pub(crate) async fn post(&mut self, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(request(headers, body.as_ref())).await;
        self.answer().await.expect("the connection ended")
    }

    pub(crate) async fn post_json(&mut self, body: impl AsRef<[u8]>) -> Answer {
        self.post(JSON, body).await
    }
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// A whole POST; `headers` are complete lines.
pub(crate) fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = head(headers, body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

/// The head of a POST with a body of that length.
pub(crate) fn head(headers: &str, length: usize) -> String {
    format!("POST /v1/events HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n")
}
