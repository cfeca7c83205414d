//! What a run found, for people ([`text`]) and machines ([`json`]).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    arena::fault::Struck,
    floor::Floor,
    process::Each,
    record::Percentiles,
    verify::{Tally, Violations},
};

pub mod json;
pub mod text;

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `chat`, `fanout` or `verify`.
    pub scenario: &'static str,
    /// What was asked for.
    pub settings: serde_json::Value,
    /// Whether the promises were kept.
    pub verdict: Verdict,
    /// What was counted.
    pub counts: Counts,
    /// What broke a promise.
    pub violations: Violations,
    /// The first few of each kind.
    pub evidence: Vec<String>,
    /// What went wrong without breaking a promise, and how often.
    pub troubles: BTreeMap<String, u64>,
    /// How long it took until everybody was connected, tokens not counted.
    pub connect_seconds: f64,
    /// How long messages were sent, and for `fanout` delivered.
    pub seconds: f64,
    /// Acknowledged in that time.
    pub messages_per_second: f64,
    /// Delivered in that time.
    pub deliveries_per_second: f64,
    /// How long things took.
    pub latency: Latency,
    /// What it cost the nodes; with `--pid`.
    pub server: Option<Server>,
    /// The bare writes of the same run; `fanout` only.
    pub floor: Option<Floor>,
    /// What went wrong on purpose; `verify` only.
    pub faults: Option<Faults>,
}

/// What went wrong on purpose.
#[derive(Debug, Clone, Serialize)]
pub struct Faults {
    /// What the sequence followed from.
    pub seed: u64,
    /// How often each struck.
    pub struck: Struck,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Counts {
    /// Connections that were open at once.
    pub connections: usize,
    /// Messages sent.
    pub sent: u64,
    /// Those acknowledged.
    pub acknowledged: u64,
    /// Those refused for their rate.
    pub rate_limited: u64,
    /// Those whose fate is unknown.
    pub unknown: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Messages that the channels listed afterwards; stored ones only.
    pub listed: u64,
    /// Gaps that were told.
    pub gaps_told: u64,
    /// Sessions made again.
    pub reconnects: u64,
    /// Bytes of a delivered frame with its WebSocket header, on average.
    pub frame_bytes: u64,
}

impl Counts {
    /// With what verification counted.
    pub fn with(self, tally: &Tally) -> Self {
        let Tally {
            sent,
            acknowledged,
            unknown,
            delivered,
            listed,
            gaps,
            ..
        } = *tally;
        Self {
            sent,
            acknowledged,
            unknown,
            delivered,
            listed,
            gaps_told: gaps,
            ..self
        }
    }
}

/// How long things took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// From the instant a message was due until a subscriber had it.
    pub delivery: Percentiles,
    /// From the instant a message was due until its reply.
    pub acknowledgement: Percentiles,
    /// From the TCP connection to the answer to `connect`.
    pub connecting: Percentiles,
    /// How late this program itself sent; part of the two first. `chat` only: `fanout` has no schedule.
    pub own_lag: Option<Percentiles>,
}

/// What the run cost the nodes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Server {
    /// User and system time while messages were sent and delivered, in seconds.
    pub cpu_seconds: f64,
    /// The same for a million deliveries.
    pub cpu_seconds_per_million_deliveries: f64,
    /// That, in units of the floor; `fanout` only.
    pub times_floor: Option<f64>,
    /// Bytes for each connection when all were connected and nothing was sent yet.
    pub idle: Each,
    /// The same after the run, with all still connected.
    pub idle_afterwards: Each,
}

/// What a run proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every promise was kept.
    Kept,
    /// One was broken.
    Broken,
    /// Nothing was acknowledged, or something could not be checked.
    Unproven,
}
