//! A small HTTP/1.1 client: a bounded pool of keep-alive connections to one address.

use std::borrow::Cow;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, HeaderName,
    RETRY_AFTER, SET_COOKIE,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Target;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A pool of connections to one server.
pub struct Client {
    target: Target,
    host: String,
    timeout: Duration,
    /// `Authorization`, where there is one.
    authorization: Option<String>,
    cookie: Option<String>,
    /// `Accept-Encoding`, where there is one.
    accept_encoding: Option<String>,
    traceparent: Option<String>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    permits: Semaphore,
}

/// A complete answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` header as it came.
    pub retry_after: Option<String>,
    /// The `Set-Cookie` header as it came.
    pub set_cookie: Option<String>,
    /// The `Content-Encoding` header as it came.
    pub content_encoding: Option<String>,
    /// The whole body, as it came.
    pub body: Bytes,
}

impl Response {
    /// The body without its encoding.
    ///
    /// # Errors
    /// When it is not what its header says.
    pub fn decoded(&self) -> std::io::Result<Cow<'_, [u8]>> {
        let mut plain = Vec::new();
        match self.content_encoding.as_deref() {
            None => return Ok(Cow::Borrowed(&self.body)),
            Some("zstd") => zstd::stream::copy_decode(&*self.body, &mut plain)?,
            Some("gzip") => {
                GzDecoder::new(&*self.body).read_to_end(&mut plain)?;
            }
            Some(other) => {
                return Err(std::io::Error::other(format!("Content-Encoding {other:?}")));
            }
        }
        Ok(Cow::Owned(plain))
    }
}

/// Why there is no answer; what became of the request is not known.
#[derive(Debug)]
pub enum CallError {
    /// No connection could be made.
    Connect(std::io::Error),
    /// The connection broke, or what came was no HTTP.
    Broken(String),
    /// The time was up.
    TimedOut,
}

impl std::error::Error for CallError {}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::Broken(why) => write!(f, "the connection broke: {why}"),
            Self::TimedOut => write!(f, "no answer in time"),
        }
    }
}

impl Client {
    /// A pool of at most `connections_max` connections, which show the target's key.
    pub fn new(target: impl Into<Target>, connections_max: usize, timeout: Duration) -> Self {
        let target = target.into();
        Self {
            target,
            host: target.to_string(),
            timeout,
            authorization: target.key().map(|key| format!("Bearer {key}")),
            cookie: None,
            accept_encoding: None,
            traceparent: None,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(connections_max),
        }
    }

    /// Shows a cookie with every request.
    #[must_use]
    pub fn with_cookie(self, cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), ..self }
    }

    /// Shows a token with every request.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self }
    }

    /// Takes answers in these encodings, of which gzip and zstd can be read.
    #[must_use]
    pub fn accepting(self, encodings: &str) -> Self {
        Self { accept_encoding: Some(encodings.to_owned()), ..self }
    }

    /// Has every request be a part of this trace.
    #[must_use]
    pub fn tracing(self, traceparent: &str) -> Self {
        Self { traceparent: Some(traceparent.to_owned()), ..self }
    }

    /// Posts a body.
    ///
    /// # Errors
    /// When no complete answer came; the server may have acted on the request all the same.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        content_encoding: Option<&str>,
        body: Bytes,
    ) -> Result<Response, CallError> {
        let mut request = Request::post(path).header(CONTENT_TYPE, content_type);
        if let Some(encoding) = content_encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        self.call(request, body).await
    }

    /// Gets a path with its query.
    ///
    /// # Errors
    /// When no complete answer came.
    pub async fn get(&self, path_and_query: &str) -> Result<Response, CallError> {
        self.call(Request::get(path_and_query), Bytes::new()).await
    }

    async fn call(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response, CallError> {
        let traceparent = HeaderName::from_static("traceparent");
        let own = [
            (AUTHORIZATION, &self.authorization),
            (COOKIE, &self.cookie),
            (ACCEPT_ENCODING, &self.accept_encoding),
            (traceparent, &self.traceparent),
        ];
        let request = own.into_iter().fold(request, |request, (name, value)| match value {
            Some(value) => request.header(name, value),
            None => request,
        });
        let request = request
            .header(HOST, &self.host)
            .body(Full::new(body))
            .map_err(|error| CallError::Broken(error.to_string()))?;
        // Waiting for a free connection is no time-out of the server.
        let _permit =
            self.permits.acquire().await.map_err(|error| CallError::Broken(error.to_string()))?;
        tokio::time::timeout(self.timeout, self.exchange(request))
            .await
            .unwrap_or(Err(CallError::TimedOut))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, CallError> {
        let broken = |error: hyper::Error| CallError::Broken(error.to_string());
        let mut sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        sender.ready().await.map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let text = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (retry_after, set_cookie) = (text(RETRY_AFTER), text(SET_COOKIE));
        let content_encoding = text(CONTENT_ENCODING);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| CallError::Broken(error.to_string()))?
            .to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Ok(Response { status, retry_after, set_cookie, content_encoding, body })
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let Target { address, .. } = self.target;
        let stream = TcpStream::connect(address).await.map_err(CallError::Connect)?;
        stream.set_nodelay(true).map_err(CallError::Connect)?;
        match self.target.tls() {
            None => speak(stream).await,
            Some(tls) => {
                let stream = tls.connect(ServerName::from(address.ip()), stream).await;
                speak(stream.map_err(CallError::Connect)?).await
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| CallError::Broken(error.to_string()))?;
    // Its error, if any, is also the error of the request on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
