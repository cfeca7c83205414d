//! State that all clients of a run share.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use client::Connector;
use parking_lot::Mutex;
use protocol::Encoding;
use tokio::sync::{Semaphore, watch};

use crate::{cli::CommonArgs, latency::LatencyRecorder, tenant::RunTenant};

/// State that all clients of a run share.
#[derive(Debug)]
pub struct RunState {
    /// The tenant whose users the clients are.
    pub tenant: RunTenant,
    /// Counters for the progress line and the report.
    pub counters: RunCounters,
    /// From when a message was due until a subscriber received it.
    pub delivery: LatencyRecorder,
    /// From when a message was due until its reply.
    pub acknowledgement: LatencyRecorder,
    /// From opening the TCP connection until the reply to `connect`, which includes the
    /// subscription.
    pub connecting: LatencyRecorder,
    /// Limits how many clients connect at the same time (`--connecting`).
    pub connect_permits: Semaphore,
    /// True when the run has ended and the clients close.
    pub ended: watch::Sender<bool>,
    nodes: Vec<[Connector; 2]>,
    encodings: crate::cli::EncodingChoice,
}

/// The counters of a run.
#[derive(Debug, Default)]
pub struct RunCounters {
    /// Messages or passing events sent, retries not counted.
    pub sent: AtomicU64,
    /// Sent messages and events that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Deliveries.
    pub delivered: AtomicU64,
    /// Bytes of the delivered frames, including WebSocket headers.
    pub delivered_bytes: AtomicU64,
    /// Messages sent and neither acknowledged nor refused yet.
    pub pending: AtomicU64,
    /// Requests refused with `rate_limited`.
    pub rate_limited: AtomicU64,
    /// Reconnects.
    pub reconnects: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl RunCounters {
    /// Adds one to a counter.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error that is not in itself a violation.
    pub fn record_error(&self, what: impl Into<String>) {
        *self.errors.lock().entry(what.into()).or_default() += 1;
    }

    /// Errors by text, with how often each occurred.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }
}

impl RunState {
    /// Creates the state of a run whose clients are spread over the nodes of `--url`.
    pub fn new(tenant: RunTenant, common: &CommonArgs) -> Result<Self> {
        let connectors = |base: &String| -> Result<[Connector; 2]> {
            // Small buffers, so that thousands of clients fit beside the node that they measure.
            let connector = |encoding| {
                Ok::<_, client::ConnectError>(
                    Connector::new(base, encoding)?
                        .read_buffer(2048)
                        .event_queue(64),
                )
            };
            Ok([
                connector(Encoding::MessagePack)?,
                connector(Encoding::Json)?,
            ])
        };
        Ok(Self {
            nodes: common
                .http_bases()?
                .iter()
                .map(connectors)
                .collect::<Result<_>>()?,
            tenant,
            counters: RunCounters::default(),
            delivery: LatencyRecorder::default(),
            acknowledgement: LatencyRecorder::default(),
            connecting: LatencyRecorder::default(),
            connect_permits: Semaphore::new(common.connecting),
            ended: watch::Sender::new(false),
            encodings: common.encoding,
        })
    }

    /// Returns the connector of a client: `placement` selects its first node and its encoding, and
    /// `node_offset` moves it on to one of the next nodes.
    pub fn connector(&self, placement: usize, node_offset: usize) -> &Connector {
        let node = &self.nodes[(placement + node_offset) % self.nodes.len()];
        // Divided by the nodes, so that both encodings reach every node.
        match self.encodings.of(placement / self.nodes.len()) {
            Encoding::MessagePack => &node[0],
            Encoding::Json => &node[1],
        }
    }
}
