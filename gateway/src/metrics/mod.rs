//! The metrics of a node. Each node has its own `Metrics`; nothing is global.
//!
//! Owns the names, the counters of sessions, services and handlers, and the text of a
//! scrape. Values that other parts count themselves (the hub, the outboxes) are read at the
//! scrape, see [`Metrics::watch`]. A count on the hot path is one relaxed atomic operation; a count
//! by label takes a shared lock, and is used for refusals, failures and HTTP requests.

mod latency;
mod scrape;

use std::{fmt, sync::Arc};

use axum::http::Method;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use protocol::{CloseCode, ErrorCode, Limits};

pub use self::{
    latency::Latency,
    scrape::{JournalReadings, Readings},
};

/// The `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a node. All names begin with `chaos_`, except those of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    parts: Arc<scrape::ScrapedParts>,
    /// `chaos_connections`: open WebSockets, see [`Metrics::hold`].
    pub connections: Gauge,
    /// `chaos_http_connections`: open HTTP connections, before an upgrade, see [`Metrics::hold`].
    pub http_connections: Gauge,
    /// `chaos_sessions`: WebSockets whose `connect` succeeded, see [`Metrics::hold`].
    pub sessions: Gauge,
    /// `chaos_connections_admitted_total`: upgrades.
    pub admitted: Counter,
    /// `chaos_store_partitions_read_total`: partitions of which a snapshot, a page or a part of
    /// the log was read.
    pub partitions_read: Counter,
    /// `chaos_requests_total`: requests over WebSocket.
    pub requests: Counter,
    /// `chaos_messages_total`: chat messages that this node stored, over either transport.
    pub messages: Counter,
    /// `chaos_commit_seconds`: from the start of a commit to the store's answer.
    pub commit: Latency,
    /// `chaos_delivery_seconds`: from an event's `at` to its broadcast on this node; once per
    /// broadcast, not once per subscriber.
    pub delivery: Latency,
    refused: Family<RefusedLabels, Counter>,
    closes: Family<CloseLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    http: Family<HttpLabels, Counter>,
}

/// The reason for which a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// A limit on connections or on attempts; see `chaos_limits_hit_total`.
    Limit,
    /// The page's origin.
    Origin,
    /// Not a valid WebSocket upgrade, or an unknown sub-protocol.
    Protocol,
    /// The token.
    Token,
    /// The node drains, or cannot reach its store.
    NotReady,
}

/// The transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Over WebSocket.
    WebSocket,
    /// Over HTTP.
    Http,
}

impl RefusalReason {
    const ALL: [Self; 5] = [
        Self::Limit,
        Self::Origin,
        Self::Protocol,
        Self::Token,
        Self::NotReady,
    ];

    /// Returns the value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Origin => "origin",
            Self::Protocol => "protocol",
            Self::Token => "token",
            Self::NotReady => "not_ready",
        }
    }

    fn word(self) -> Word {
        Word(self.as_str())
    }
}

impl Transport {
    fn word(self) -> Word {
        Word(match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabels {
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    code: Word,
    transport: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: String,
    method: Word,
    status: u16,
}

/// A label with a fixed set of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates counters at zero, for every value of fixed labels, so that rates are correct from
    /// the first event on.
    pub fn new() -> Self {
        let parts = Arc::<scrape::ScrapedParts>::default();
        let mut metrics = Self {
            registry: Registry::default(),
            parts: parts.clone(),
            connections: Gauge::default(),
            http_connections: Gauge::default(),
            sessions: Gauge::default(),
            admitted: Counter::default(),
            partitions_read: Counter::default(),
            requests: Counter::default(),
            messages: Counter::default(),
            commit: Latency::default(),
            delivery: Latency::default(),
            refused: Family::default(),
            closes: Family::default(),
            errors: Family::default(),
            limits: Family::default(),
            http: Family::default(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape::Process));
        let names = registry.sub_registry_with_prefix("chaos");
        names.register(
            "connections",
            "Open WebSockets",
            metrics.connections.clone(),
        );
        names.register(
            "http_connections",
            "Open HTTP connections, before an upgrade",
            metrics.http_connections.clone(),
        );
        names.register(
            "sessions",
            "WebSockets whose connect succeeded",
            metrics.sessions.clone(),
        );
        names.register(
            "connections_admitted",
            "WebSocket upgrades",
            metrics.admitted.clone(),
        );
        names.register(
            "connections_refused",
            "Connections not admitted, by reason",
            metrics.refused.clone(),
        );
        names.register(
            "store_partitions_read",
            "Reads of one partition of the store each",
            metrics.partitions_read.clone(),
        );
        names.register(
            "requests",
            "Requests over WebSocket",
            metrics.requests.clone(),
        );
        names.register(
            "messages",
            "Chat messages stored by this node",
            metrics.messages.clone(),
        );
        names.register(
            "commit_seconds",
            "From a commit's beginning to the store's answer",
            metrics.commit.clone(),
        );
        names.register(
            "delivery_seconds",
            "From an event's instant to its broadcast here",
            metrics.delivery.clone(),
        );
        names.register(
            "closes",
            "WebSockets closed by the server, by close code",
            metrics.closes.clone(),
        );
        names.register(
            "errors",
            "Errors answered, by code and transport",
            metrics.errors.clone(),
        );
        names.register(
            "limits_hit",
            "Times that a limit refused something, by limit",
            metrics.limits.clone(),
        );
        names.register(
            "http_requests",
            "HTTP requests, by route, method and status",
            metrics.http.clone(),
        );
        names.register_collector(Box::new(parts));
        metrics.registry = registry;

        for reason in RefusalReason::ALL {
            metrics
                .refused
                .get_or_create(&RefusedLabels {
                    reason: reason.word(),
                })
                .inc_by(0);
        }
        for code in CloseCode::ALL {
            metrics
                .closes
                .get_or_create(&CloseLabels { code: code.code() })
                .inc_by(0);
        }
        for (code, transport) in ErrorCode::ALL
            .iter()
            .flat_map(|code| [(code, Transport::WebSocket), (code, Transport::Http)])
        {
            metrics
                .errors
                .get_or_create(&ErrorLabels {
                    code: Word(code.as_str()),
                    transport: transport.word(),
                })
                .inc_by(0);
        }
        for (limit, _, _) in Limits::ALL {
            metrics
                .limits
                .get_or_create(&LimitLabels { limit: Word(limit) })
                .inc_by(0);
        }
        metrics
    }

    /// Sets the source of values that other parts count. Called once, when they are built; only
    /// the first call has an effect.
    pub fn watch(&self, read: impl Fn() -> Readings + Send + Sync + 'static) {
        let _ = self.parts.0.set(Box::new(read));
    }

    /// Adds one to a gauge until the result is dropped.
    pub fn hold(gauge: &Gauge) -> GaugeGuard {
        gauge.inc();
        GaugeGuard(gauge.clone())
    }

    /// Counts a refused connection.
    pub fn refused(&self, reason: RefusalReason) {
        self.refused
            .get_or_create(&RefusedLabels {
                reason: reason.word(),
            })
            .inc();
    }

    /// Counts a WebSocket that the server closed.
    pub fn closed(&self, code: CloseCode) {
        self.closes
            .get_or_create(&CloseLabels { code: code.code() })
            .inc();
    }

    /// Counts a request that was answered with an error.
    pub fn error(&self, transport: Transport, code: ErrorCode) {
        self.errors
            .get_or_create(&ErrorLabels {
                code: Word(code.as_str()),
                transport: transport.word(),
            })
            .inc();
    }

    /// Counts a refusal by a limit, by its name in [`Limits`].
    pub fn limit_hit(&self, limit: &'static str) {
        debug_assert!(
            Limits::ALL.iter().any(|(name, _, _)| *name == limit),
            "{limit} is no limit"
        );
        self.limits
            .get_or_create(&LimitLabels { limit: Word(limit) })
            .inc();
    }

    /// Counts an HTTP request. `route` is the matched pattern and never the path itself,
    /// which the client chooses; `None` if no route matched.
    pub fn http(&self, route: Option<&str>, method: &Method, status: u16) {
        let labels = HttpLabels {
            route: route.unwrap_or("none").to_owned(),
            method: Word(method_word(method)),
            status,
        };
        self.http.get_or_create(&labels).inc();
    }

    /// Returns the text of a scrape, in the format of [`CONTENT_TYPE`]. Takes no lock that a
    /// broadcast or a commit waits for.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry).expect("writing into a String cannot fail");
        text
    }
}

/// Returns the name of a standard method, or `other`, since the client chooses the method.
pub fn method_word(method: &Method) -> &'static str {
    let known = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    let words = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    known
        .iter()
        .position(|other| other == method)
        .map_or("other", |place| words[place])
}

/// Counts in a gauge until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
