//! What all clients of a run share.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use client::Connector;
use parking_lot::Mutex;
use protocol::Encoding;
use tokio::sync::{Semaphore, watch};

use crate::{cli::Common, record::Recorder, tenant::Tenant};

/// What all clients of a run share.
#[derive(Debug)]
pub struct Stage {
    /// Whose users they are.
    pub tenant: Tenant,
    /// Counted while the run goes on.
    pub counters: Counters,
    /// From the instant a message was due until a subscriber has it.
    pub delivery: Recorder,
    /// From the instant a message was due until its reply.
    pub acknowledgement: Recorder,
    /// From the TCP connection to the answer to `connect`, the subscription in it.
    pub connecting: Recorder,
    /// Permits to connect.
    pub doors: Semaphore,
    /// True once the clients are to go.
    pub over: watch::Sender<bool>,
    nodes: Vec<[Connector; 2]>,
    encodings: crate::cli::Encodings,
}

/// Counted while a run goes on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages or passing events that were begun.
    pub sent: AtomicU64,
    /// Those of them that were acknowledged.
    pub acknowledged: AtomicU64,
    /// Deliveries.
    pub delivered: AtomicU64,
    /// Bytes of the delivered frames, WebSocket headers included.
    pub delivered_bytes: AtomicU64,
    /// Messages whose fate is not known yet.
    pub pending: AtomicU64,
    /// Requests that were refused for their rate.
    pub rate_limited: AtomicU64,
    /// Sessions made again.
    pub reconnects: AtomicU64,
    troubles: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Something went wrong that breaks no promise by itself.
    pub fn trouble(&self, what: impl Into<String>) {
        *self.troubles.lock().entry(what.into()).or_default() += 1;
    }

    /// What went wrong, and how often.
    pub fn troubles(&self) -> BTreeMap<String, u64> {
        self.troubles.lock().clone()
    }
}

impl Stage {
    /// For clients that are spread over the nodes.
    pub fn new(tenant: Tenant, common: &Common) -> Result<Self> {
        let connectors = |base: &String| -> Result<[Connector; 2]> {
            // Small, so that thousands of clients fit beside the node that they measure.
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
            counters: Counters::default(),
            delivery: Recorder::default(),
            acknowledgement: Recorder::default(),
            connecting: Recorder::default(),
            doors: Semaphore::new(common.connecting),
            over: watch::Sender::new(false),
            encodings: common.encoding,
        })
    }

    /// How a client of this spread connects, so many nodes further than it did at first.
    pub fn connector(&self, spread: usize, further: usize) -> &Connector {
        let node = &self.nodes[(spread + further) % self.nodes.len()];
        // Over twice as many as there are nodes, each encoding comes to each node.
        match self.encodings.of(spread / self.nodes.len()) {
            Encoding::MessagePack => &node[0],
            Encoding::Json => &node[1],
        }
    }
}
