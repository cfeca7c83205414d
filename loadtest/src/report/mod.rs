//! The report of a run, as [text] and as [JSON](json).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    disk::DiskCosts,
    fault_kind::FaultCounts,
    floor::Floor,
    latency::Percentiles,
    process::{MemoryPerConnection, ProcessMemory},
    redis_info::RedisRates,
    verify::Violations,
};

pub mod json;
pub mod text;

/// The report of a run. Field names are those of the JSON file.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// `chat`, `fanout`, `idle-users` or `verify`.
    pub scenario: &'static str,
    /// The options of the run.
    pub settings: serde_json::Value,
    /// The verdict.
    pub verdict: RunVerdict,
    /// Numbers of messages, deliveries and connections.
    pub counts: ReportCounts,
    /// Number of violations of each promise.
    pub violations: Violations,
    /// The first few violations of each kind, in words.
    pub evidence: Vec<String>,
    /// Errors that broke no promise, by text, with how often each occurred.
    pub troubles: BTreeMap<String, u64>,
    /// Time until all clients were connected, in seconds, without minting tokens.
    pub connect_seconds: f64,
    /// Time that messages were sent (`fanout`: and delivered), in seconds.
    pub seconds: f64,
    /// Acknowledged messages per second of that time.
    pub messages_per_second: f64,
    /// Deliveries per second of that time.
    pub deliveries_per_second: f64,
    /// Latencies.
    pub latency: Latencies,
    /// Cost of the nodes, with `--pid`.
    pub server: Option<NodeCosts>,
    /// What was written to the disk under `--data` while messages were sent, if the folder is on one
    /// disk of this machine.
    pub disk: Option<DiskCosts>,
    /// How long that disk takes to sync 4 KiB, measured before the run.
    pub disk_sync: Option<Percentiles>,
    /// Cost of bare sends, in `fanout`.
    pub floor: Option<Floor>,
    /// Injected faults, in `verify`.
    pub faults: Option<FaultSummary>,
    /// Figures for each number of idle users, in `idle-users`; the rest of the report is about the
    /// last one.
    pub steps: Vec<IdleStep>,
}

/// Latencies of the load beside a number of idle users.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct IdleStep {
    /// Number of idle users.
    pub idle_users: usize,
    /// What they cost while nobody sent.
    pub idle_costs: IdleCosts,
    /// Verdict of the load.
    pub verdict: RunVerdict,
    /// From when a message was due until a subscriber received it.
    pub delivery: Percentiles,
    /// From when a message was due until its reply.
    pub acknowledgement: Percentiles,
    /// CPU time of the nodes while messages were sent, with `--pid`.
    pub node_cpu_seconds: Option<f64>,
}

/// Cost of idle users.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct IdleCosts {
    /// CPU time of the nodes in milliseconds per second, with `--pid`.
    pub node_cpu_ms_per_second: Option<f64>,
    /// Work of the Redis servers per second, with `--redis-server`.
    pub redis: Option<RedisRates>,
    /// Memory per idle user at the beginning and at the end of the measured time, with `--pid`.
    pub memory: Option<[MemoryPerConnection; 2]>,
}

/// Injected faults.
#[derive(Debug, Clone, Serialize)]
pub struct FaultSummary {
    /// The seed of their sequence.
    pub seed: u64,
    /// Number of injections of each fault.
    pub struck: FaultCounts,
}

/// Numbers of messages, deliveries and connections.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReportCounts {
    /// Connections that were open at the same time.
    pub connections: usize,
    /// Messages sent.
    pub sent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages refused with `rate_limited`.
    pub rate_limited: u64,
    /// Messages neither acknowledged nor refused.
    pub unknown: u64,
    /// Deliveries, each counted per subscriber.
    pub delivered: u64,
    /// Messages in the channels at the end. Passing events are not listed.
    pub listed: u64,
    /// Gaps that subscribers received.
    pub gaps_told: u64,
    /// Reconnects.
    pub reconnects: u64,
    /// Average bytes of a delivered frame, with its WebSocket header.
    pub frame_bytes: u64,
}

/// Latencies of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latencies {
    /// From when a message was due until a subscriber received it.
    pub delivery: Percentiles,
    /// From when a message was due until its reply.
    pub acknowledgement: Percentiles,
    /// From opening the TCP connection until the reply to `connect`.
    pub connecting: Percentiles,
    /// How late the load test itself sent, which is included in the first two. Only with the
    /// schedule of `chat` and `verify`.
    pub own_lag: Option<Percentiles>,
}

/// Cost of the nodes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NodeCosts {
    /// CPU time (user and system) while messages were sent and delivered, in seconds.
    pub cpu_seconds: f64,
    /// CPU seconds per million deliveries.
    pub cpu_seconds_per_million_deliveries: f64,
    /// That, divided by the floor's. Only in `fanout`.
    pub times_floor: Option<f64>,
    /// Memory per connection when all clients were connected and nothing had been sent.
    pub idle: MemoryPerConnection,
    /// Memory per connection after the run, with all clients still connected.
    pub idle_afterwards: MemoryPerConnection,
    /// Memory of all measured nodes.
    pub memory: MemoryCourse,
}

/// Memory of the nodes in the course of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemoryCourse {
    /// Before the clients connected.
    pub before: ProcessMemory,
    /// After the run, with all clients still connected.
    pub connected: ProcessMemory,
    /// `--left-seconds` after all clients have left.
    pub left: Option<ProcessMemory>,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunVerdict {
    /// Every promise was kept.
    Kept,
    /// A promise was broken.
    Broken,
    /// Nothing was acknowledged, or something could not be checked.
    Unproven,
}
