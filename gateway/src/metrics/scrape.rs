//! Values that are read at a scrape: of the hub, the outboxes, the bus and
//! the process.

use std::{fmt, fs, sync::OnceLock};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use store::embedded::{SYNC_BUCKETS_MICROS, SyncTimes};

/// Values of the parts that count themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readings {
    /// Values of the hub.
    pub hub: fanout::hub::Stats,
    /// Values of all outboxes together.
    pub outboxes: fanout::outbox::OutboxCounts,
    /// Values of the admission of `connect`s.
    pub gate: crate::limit::GateCounts,
    /// Bytes that requests hold until their answers are written.
    pub requests_bytes: u64,
    /// Length and sync times of the embedded store's journal.
    pub journal: Option<JournalReadings>,
    /// Whether the bus is connected.
    pub bus_connected: bool,
    /// Whether the node is ready, as `/readyz` reports it.
    pub ready: bool,
}

/// Values of the embedded store's journal.
#[derive(Debug, Clone, Copy)]
pub struct JournalReadings {
    /// Bytes of its files.
    pub bytes: u64,
    /// Sync times since the start.
    pub syncs: SyncTimes,
}

/// Reads the values at a scrape. It has none until their source is set.
#[derive(Default)]
pub(super) struct ScrapedParts(pub(super) OnceLock<Box<dyn Fn() -> Readings + Send + Sync>>);

impl fmt::Debug for ScrapedParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

impl Collector for ScrapedParts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read) = self.0.get() else {
            return Ok(());
        };
        let Readings {
            hub,
            outboxes,
            gate,
            requests_bytes,
            journal,
            bus_connected,
            ready,
        } = read();
        let mut gauge =
            |name, help, value: u64| one(&mut encoder, name, help, &ConstGauge::new(value));
        gauge(
            "topics",
            "Topics that this node listens to, lingering ones included",
            hub.topics,
        )?;
        gauge(
            "subscriptions",
            "Subscriptions of this node's sessions",
            hub.subscriptions,
        )?;
        gauge(
            "outbox_bytes",
            "Bytes that wait for all readers",
            outboxes.queued_bytes as u64,
        )?;
        gauge(
            "requests_bytes",
            "Bytes that requests hold until their answers are taken",
            requests_bytes,
        )?;
        gauge(
            "outbox_readers",
            "Readers for whom something waits",
            outboxes.queues as u64,
        )?;
        gauge(
            "connects_under_way",
            "Connects that are authenticated, read and replayed",
            gate.under_way,
        )?;
        gauge(
            "connects_waiting",
            "Connects that wait for their turn",
            gate.waiting,
        )?;
        gauge(
            "bus_connected",
            "1 while records arrive from the bus",
            bus_connected.into(),
        )?;
        gauge(
            "ready",
            "1 while the node takes new connections: the store is reachable and it does not drain",
            ready.into(),
        )?;
        if let Some(journal) = journal {
            gauge(
                "store_journal_bytes",
                "Bytes of the embedded store's journal",
                journal.bytes,
            )?;
            one(
                &mut encoder,
                "store_sync_seconds",
                "Time that the disk takes to sync a group of commits",
                &SyncHistogram(journal.syncs),
            )?;
        }
        let mut counter =
            |name, help, value: u64| one(&mut encoder, name, help, &ConstCounter::new(value));
        counter(
            "connects_admitted",
            "Connects that had their turn",
            gate.admitted,
        )?;
        counter(
            "connects_turned_away",
            "Connects that were told when to come again, since too many waited",
            gate.turned_away,
        )?;
        counter(
            "deliveries",
            "Frames handed to outboxes by broadcasts and replays",
            hub.deliveries,
        )?;
        counter(
            "repairs",
            "Times that a topic read the log because records were missed",
            hub.recoveries,
        )?;
        counter("gaps", "Times that subscribers were told a gap", hub.gaps)?;
        counter(
            "records_doubled",
            "Records from the bus that had come before",
            hub.duplicates,
        )?;
        counter(
            "records_malformed",
            "Records from the bus that this build cannot read",
            hub.malformed,
        )?;
        counter(
            "frames_dropped",
            "Passing frames given up for slow readers",
            outboxes.dropped,
        )?;
        let slow = ConstCounter::new(0u64);
        let mut family = encoder.encode_descriptor(
            "slow_readers",
            "Readers closed for what waited, by the bound",
            None,
            slow.metric_type(),
        )?;
        for (bound, value) in ["bytes", "age", "total"].into_iter().zip(outboxes.too_slow) {
            ConstCounter::new(value).encode(family.encode_family(&[("bound", bound)])?)?;
        }
        Ok(())
    }
}

/// Sync times as a histogram in seconds.
#[derive(Debug)]
struct SyncHistogram(SyncTimes);

impl EncodeMetric for SyncHistogram {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a scrape is read as floating point anyway"
    )]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let SyncTimes { counts, sum_micros } = self.0;
        let bounds = SYNC_BUCKETS_MICROS
            .iter()
            .map(|micros| *micros as f64 / 1e6)
            .chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        encoder.encode_histogram::<[(&str, &str); 0]>(
            sum_micros as f64 / 1e6,
            counts.iter().sum(),
            &buckets,
            None,
        )
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Values of the process, under the standard names of Prometheus clients.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Without /proc, the values are left out.
        let Some((cpu, resident)) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(usage)
        else {
            return Ok(());
        };
        one(
            &mut encoder,
            "process_cpu_seconds",
            "User and system time",
            &ConstCounter::new(cpu),
        )?;
        one(
            &mut encoder,
            "process_resident_memory_bytes",
            "Resident memory",
            &ConstGauge::new(resident),
        )?;
        one(
            &mut encoder,
            "process_max_fds",
            "Limit of open file descriptors",
            &ConstGauge::new(crate::listen::descriptor_limit()),
        )?;
        match fs::read_dir("/proc/self/fd") {
            Ok(open) => one(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors",
                &ConstGauge::new(open.count() as u64),
            ),
            Err(_) => Ok(()),
        }
    }
}

/// Returns CPU seconds and resident bytes from `/proc/self/stat` (proc_pid_stat(5)): fields 14, 15
/// and 24, counted after the name, which may contain spaces.
#[expect(
    clippy::cast_precision_loss,
    reason = "a scrape is read as floating point anyway"
)]
fn usage(stat: &str) -> Option<(f64, u64)> {
    /// Ticks per second on all supported architectures of Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    const PAGE: u64 = 4096;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some((
        (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
        field(24)? * PAGE,
    ))
}

fn one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_with_any_name_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100 5000 25 18446744073709551615";
        assert_eq!(usage(stat), Some((2.0, 25 * 4096)));
        assert_eq!(usage("7 (x"), None);
    }
}
