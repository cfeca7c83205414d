//! `GET /v1/ws`: upgrades an HTTP request to a WebSocket, or refuses it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::error::Error;
use fanout::LogRateLimit;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use protocol::{CloseCode, Encoding, ErrorCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    connection::{Upgraded, serve},
    connections::Connections,
};
use crate::{
    auth::Attempt,
    limit::{AddressGroup, Concurrent, Counted},
    listen::HttpStream,
    metrics::{Metrics, RefusalReason, Transport},
    rest::error_response::ErrorResponse,
    rest::{RestState, check_single},
};

/// State shared by all upgrades.
#[derive(Debug)]
pub struct Upgrades {
    /// State for the connections.
    pub connections: Arc<Connections>,
    /// Origins, proxies, failed attempts by address, and whether the node drains.
    pub rest: RestState,
    /// Number of WebSocket connections of the node.
    pub count: Arc<AtomicUsize>,
    /// Maximum of `count`: the limit `connections`, or less if the node has too few descriptors.
    pub max: u64,
    /// Number of connections without a session, by address.
    pub unconnected: Arc<Concurrent<AddressGroup>>,
}

/// Connections without a session that an address may have, for each attempt per second that
/// `unauthenticated_per_ip` allows. Equals the timeout of `connect` in seconds.
const UNCONNECTED_PER_ATTEMPT: u64 = 10;

/// Handles an upgrade request.
pub async fn upgrade(
    State(upgrades): State<Arc<Upgrades>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let address = upgrades.rest.proxies.client(peer.ip(), request.headers());
    let origin = request.headers().get(header::ORIGIN).cloned();
    match accept(&upgrades, address, request) {
        Ok(response) => response,
        Err((refusal, error)) => {
            let metrics = upgrades.metrics();
            metrics.refused(refusal);
            metrics.error(Transport::Http, error.code());
            if let Some(suppressed) = REFUSALS.pass(Instant::now()) {
                let origin = origin
                    .as_ref()
                    .map(|origin| &origin.as_bytes()[..origin.len().min(MAX_LOGGED_ORIGIN_BYTES)]);
                let origin = origin.map(String::from_utf8_lossy).unwrap_or_default();
                tracing::info!(%address, ?origin, reason = refusal.as_str(), error = error.body.message, suppressed, "upgrade refused");
            }
            ErrorResponse(error).into_response()
        }
    }
}

static REFUSALS: LogRateLimit = LogRateLimit::new(10);
const MAX_LOGGED_ORIGIN_BYTES: usize = 200;

impl Upgrades {
    fn metrics(&self) -> &Metrics {
        &self.connections.sessions.metrics
    }
}

fn accept(
    upgrades: &Arc<Upgrades>,
    address: IpAddr,
    mut request: Request,
) -> Result<Response, (RefusalReason, Error)> {
    let headers = request.headers();
    check_single(headers).map_err(|error| (RefusalReason::Protocol, error))?;
    let value = |name| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let is = |name, word: &str| {
        value(name).is_some_and(|v| {
            v.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        })
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let is_upgrade = is(header::CONNECTION, "upgrade")
        && is(header::UPGRADE, "websocket")
        && is(header::SEC_WEBSOCKET_VERSION, "13");
    let (Some(key), true) = (key, is_upgrade) else {
        return Err((
            RefusalReason::Protocol,
            Error::bad_request("this path is for WebSocket upgrades (version 13)"),
        ));
    };
    // Refuse an `Origin` that is not text: only a request without an `Origin` is certainly not from
    // a web page.
    let origins = &upgrades.rest.origins;
    let may_connect = |origin: &HeaderValue| {
        origin
            .to_str()
            .is_ok_and(|origin| origins.allow(Some(origin), value(header::HOST)))
    };
    if !headers.get(header::ORIGIN).is_none_or(may_connect) {
        return Err((
            RefusalReason::Origin,
            Error::forbidden(
                "pages of this origin may not connect; the operator sets --allowed-origins",
            ),
        ));
    }
    let chosen = negotiate(headers).ok_or_else(|| {
        (RefusalReason::Protocol, Error::bad_request("none of the offered sub-protocols is known; there are chaos.v1.msgpack and chaos.v1.json"))
    })?;
    let attempt = upgrades.rest.attempts.begin(address);
    attempt
        .check()
        .map_err(|error| (RefusalReason::Limit, error))?;
    if (upgrades.rest.draining)() {
        let error = Error::new(
            ErrorCode::Unavailable,
            "this node is going away; connect again to reach another",
        )
        .retry_after(1000);
        return Err((RefusalReason::NotReady, error));
    }
    let most = upgrades
        .connections
        .sessions
        .limits
        .unauthenticated_per_ip
        .saturating_mul(UNCONNECTED_PER_ATTEMPT);
    let unconnected = upgrades
        .unconnected
        .enter(attempt.address(), most)
        .ok_or_else(|| {
            upgrades.metrics().limit_hit("unauthenticated_per_ip");
            (
                RefusalReason::Limit,
                Error::rate_limited("unauthenticated_per_ip", 1000),
            )
        })?;
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err((
            RefusalReason::Protocol,
            Error::bad_request("this connection cannot be upgraded"),
        ));
    };

    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept_key = derive_accept_key(key.as_bytes());
    out.insert(
        header::SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&accept_key).expect("base64 is a header value"),
    );
    if let Subprotocol::Named(encoding) = chosen {
        out.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(encoding.subprotocol()),
        );
    }
    let upgrades = Arc::clone(upgrades);
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => {
                start_connection(upgrades, upgraded, chosen.encoding(), attempt, unconnected).await
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    Ok(response)
}

async fn start_connection(
    upgrades: Arc<Upgrades>,
    upgraded: hyper::upgrade::Upgraded,
    encoding: Encoding,
    attempt: Attempt,
    unconnected: Counted<AddressGroup>,
) {
    let parts = match upgraded.downcast::<TokioIo<HttpStream>>() {
        Ok(parts) => parts,
        Err(_) => {
            tracing::error!("an upgraded connection has an unexpected type");
            return;
        }
    };
    let (socket, permit) = parts.io.into_inner().into_parts();
    let upgraded = Upgraded {
        socket,
        permit,
        read_ahead: parts.read_buf,
        encoding,
        unconnected,
        attempt,
    };
    let metrics = &upgrades.connections.sessions.metrics;
    metrics.admitted.inc();
    let held = (
        Metrics::hold(&metrics.connections),
        CountGuard::new(&upgrades.count),
    );
    if upgrades.count.load(Ordering::Relaxed) as u64 > upgrades.max {
        metrics.limit_hit("connections");
        super::connection::refuse_upgraded(
            &upgrades.connections,
            upgraded,
            CloseCode::TooManyConnections,
            Some(5000),
        )
        .await;
        return;
    }
    // A new task, so that the connection does not keep the state of the upgrade in memory.
    tokio::spawn(async move {
        let _held = held;
        serve(upgrades.connections.clone(), upgraded).await;
    });
}

/// Counts a connection until it is dropped.
struct CountGuard(Arc<AtomicUsize>);

impl CountGuard {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subprotocol {
    /// The client offered none.
    Default,
    /// One that the client offered.
    Named(Encoding),
}

impl Subprotocol {
    fn encoding(self) -> Encoding {
        match self {
            Self::Default => Encoding::MessagePack,
            Self::Named(encoding) => encoding,
        }
    }
}

/// Returns the first known sub-protocol that the client offers; `None` if all are unknown.
fn negotiate(headers: &HeaderMap) -> Option<Subprotocol> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .peekable();
    if offered.peek().is_none() {
        return Some(Subprotocol::Default);
    }
    offered
        .find_map(|name| Encoding::ALL.into_iter().find(|e| e.subprotocol() == name))
        .map(Subprotocol::Named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(values: &[&'static str]) -> Option<Subprotocol> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(value),
            );
        }
        negotiate(&headers)
    }

    #[test]
    fn first_known_sub_protocol_is_chosen() {
        assert_eq!(offer(&[]), Some(Subprotocol::Default));
        assert_eq!(
            offer(&["x, chaos.v1.json, chaos.v1.msgpack"]),
            Some(Subprotocol::Named(Encoding::Json))
        );
        assert_eq!(
            offer(&["x", "chaos.v1.msgpack"]),
            Some(Subprotocol::Named(Encoding::MessagePack))
        );
        assert_eq!(offer(&["x", "y"]), None);
    }
}
