//! HTTP client for an application's backend.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use protocol::{ErrorBody, error::ErrorAnswer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The server answered with an error.
    #[error("HTTP {status}: {error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error in the body.
        error: ErrorBody,
    },
    /// The response is not what the protocol requires.
    #[error("HTTP {status} with a response that cannot be parsed: {reason}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// The cause.
        reason: String,
    },
    /// The address, the path, a header or the body is invalid.
    #[error("invalid request: {0}")]
    Request(String),
    /// The server cannot be reached, or closed the connection. The request may have been carried
    /// out.
    #[error("cannot reach the node: {0}")]
    Unreachable(String),
    /// No response in time. The request may have been carried out.
    #[error("no response in time")]
    Timeout,
}

impl BackendError {
    /// The server's error, if it responded with one.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// An HTTP client with a credential. Clones share their connections.
#[derive(Clone)]
pub struct Backend {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// Creates a client for an address like `http://host:port` and a key or user token. An empty
    /// credential is not sent.
    pub fn new(base: &str, credential: &str) -> Result<Self, BackendError> {
        let uri: Uri = base
            .parse()
            .map_err(|e| BackendError::Request(format!("{base}: {e}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(BackendError::Request(format!(
                "{base}: must begin with http://"
            )));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        let this = Self {
            client,
            base: base.trim_end_matches('/').to_owned(),
            authorization: None,
            timeout: Duration::from_secs(30),
        };
        this.with_credential(credential)
    }

    /// Returns a client for the same node and connections with another credential.
    pub fn with_credential(&self, credential: &str) -> Result<Self, BackendError> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {credential}"))
            .map_err(|_| BackendError::Request("a credential must be printable ASCII".into()))?;
        authorization.set_sensitive(true);
        Ok(Self {
            authorization: (!credential.is_empty()).then_some(authorization),
            ..self.clone()
        })
    }

    /// Sets the time limit of a request. Default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, BackendError> {
        self.request(Method::GET, path).send().await?.json()
    }

    /// `POST`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, BackendError> {
        self.request(Method::POST, path)
            .json(body)
            .send()
            .await?
            .json()
    }

    /// `PUT`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, BackendError> {
        self.request(Method::PUT, path)
            .json(body)
            .send()
            .await?
            .json()
    }

    /// `PATCH`.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, BackendError> {
        self.request(Method::PATCH, path)
            .json(body)
            .send()
            .await?
            .json()
    }

    /// `DELETE`. Use `()` for `T` if the response is 204.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, BackendError> {
        self.request(Method::DELETE, path).send().await?.json()
    }

    /// Starts a request with headers and a body of the caller's choice.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder<'_> {
        let headers = self
            .authorization
            .iter()
            .map(|value| (AUTHORIZATION, value.clone()))
            .collect();
        RequestBuilder {
            backend: self,
            method,
            path: path.to_owned(),
            headers,
            body: Bytes::new(),
            error: None,
        }
    }
}

/// A request that is being built.
#[derive(Debug)]
pub struct RequestBuilder<'a> {
    backend: &'a Backend,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    error: Option<String>,
}

impl RequestBuilder<'_> {
    /// Sets a header, and replaces one of the same name.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(error) => self.error = Some(format!("{name}: {error}")),
        }
        self
    }

    /// Sets the body to this value as JSON.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header(CONTENT_TYPE, "application/json").body(body),
            Err(error) => Self {
                error: Some(error.to_string()),
                ..self
            },
        }
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request. An HTTP error status is an [`HttpAnswer`] here, which [`HttpAnswer::json`] turns
    /// into an error.
    pub async fn send(self) -> Result<HttpAnswer, BackendError> {
        if let Some(error) = self.error {
            return Err(BackendError::Request(error));
        }
        let mut request = Request::builder()
            .method(self.method)
            .uri(format!("{}{}", self.backend.base, self.path))
            .body(Full::new(self.body))
            .map_err(|e| BackendError::Request(e.to_string()))?;
        *request.headers_mut() = self.headers;
        let exchange = async {
            let response = self
                .backend
                .client
                .request(request)
                .await
                .map_err(|e| BackendError::Unreachable(with_causes(&e)))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|e| BackendError::Unreachable(with_causes(&e)))?
                .to_bytes();
            Ok(HttpAnswer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        timeout(self.backend.timeout, exchange)
            .await
            .map_err(|_| BackendError::Timeout)?
    }
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpAnswer {
    /// Parses the body as `T` if the status is a success (an empty body as `null`), otherwise as an
    /// error.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BackendError> {
        let status = self.status.as_u16();
        let unreadable = |e: serde_json::Error| BackendError::Unreadable {
            status,
            reason: e.to_string(),
        };
        if !self.status.is_success() {
            let ErrorAnswer { error } = serde_json::from_slice(&self.body).map_err(unreadable)?;
            return Err(BackendError::Refused { status, error });
        }
        serde_json::from_slice(if self.body.is_empty() {
            b"null"
        } else {
            &self.body
        })
        .map_err(unreadable)
    }

    /// A header as text, or `None` if it is absent or not text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Escapes a text, for example an emoji or a chosen id, as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segment_is_escaped() {
        assert_eq!(segment("usr_1-a.b~"), "usr_1-a.b~");
        assert_eq!(segment("👍"), "%F0%9F%91%8D");
        assert_eq!(segment("a@b|c/d"), "a%40b%7Cc%2Fd");
    }
}
