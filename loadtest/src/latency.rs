//! Latencies, as HDR histograms in microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Longer latencies are recorded as this one: ten minutes.
const MAX_LATENCY_MICROS: u64 = 600_000_000;

/// Histograms per recorder, so that clients on different threads rarely wait for the same lock.
const SHARDS: usize = 8;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_MICROS, 3)
        .expect("the bounds are in order, and three digits are supported")
}

/// A latency histogram that many clients record to at once.
#[derive(Debug)]
pub struct LatencyRecorder([Mutex<Histogram<u64>>; SHARDS]);

impl Default for LatencyRecorder {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(histogram())))
    }
}

impl LatencyRecorder {
    /// Records a latency measured by this client.
    pub fn record(&self, client: usize, micros: u64) {
        self.0[client % SHARDS].lock().saturating_record(micros);
    }

    /// Removes everything recorded so far.
    pub fn reset(&self) {
        self.0.iter().for_each(|shard| shard.lock().reset());
    }

    /// Returns the latencies recorded so far.
    pub fn distribution(&self) -> LatencyDistribution {
        let mut all = histogram();
        for shard in &self.0 {
            all.add(&*shard.lock()).expect("the bounds are the same");
        }
        LatencyDistribution(all)
    }
}

/// A histogram of latencies.
#[derive(Debug)]
pub struct LatencyDistribution(Histogram<u64>);

/// The percentiles that a report shows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of recorded latencies.
    pub count: u64,
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// The 90th percentile.
    pub p90_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The 99.9th percentile.
    pub p99_9_ms: f64,
    /// The maximum.
    pub max_ms: f64,
}

impl LatencyDistribution {
    /// Returns the percentiles that a report shows.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1e3,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: self.0.max() as f64 / 1e3,
        }
    }

    /// Writes the distribution in milliseconds, in the text format (`.hgrm`) of HDR histogram
    /// plotters.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut count = 0;
        for step in self.0.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let (value, quantile) = (
                step.value_iterated_to() as f64 / 1e3,
                step.quantile_iterated_to(),
            );
            match quantile < 1.0 {
                true => writeln!(
                    out,
                    "{value:>12.3} {quantile:>2.12} {count:>10} {:>14.2}",
                    1.0 / (1.0 - quantile)
                )?,
                false => writeln!(out, "{value:>12.3} {quantile:>2.12} {count:>10}")?,
            }
        }
        let (mean, deviation, max) = (
            self.0.mean() / 1e3,
            self.0.stdev() / 1e3,
            self.0.max() as f64 / 1e3,
        );
        writeln!(
            out,
            "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]"
        )?;
        writeln!(
            out,
            "#[Max     = {max:>12.3}, Total count    = {:>12}]",
            self.0.len()
        )?;
        writeln!(
            out,
            "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
            self.0.buckets(),
            2048
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_cover_all_shards() {
        let recorder = LatencyRecorder::default();
        for micros in 1..=10_000 {
            recorder.record(micros as usize, micros);
        }
        let found = recorder.distribution().percentiles();
        assert_eq!(found.count, 10_000);
        for (figure, expected) in [
            (found.p50_ms, 5.0),
            (found.p90_ms, 9.0),
            (found.p99_ms, 9.9),
            (found.p99_9_ms, 9.99),
            (found.max_ms, 10.0),
        ] {
            assert!((figure - expected).abs() < 0.01, "{found:?}");
        }
    }

    #[test]
    fn latency_beyond_the_maximum_is_recorded_as_the_maximum() {
        let recorder = LatencyRecorder::default();
        recorder.record(0, u64::MAX);
        recorder.record(0, 0);
        let found = recorder.distribution().percentiles();
        assert_eq!(found.count, 2);
        assert!(found.max_ms >= 600_000.0);
        recorder.reset();
        assert_eq!(recorder.distribution().percentiles().count, 0);
    }

    #[test]
    fn written_distribution_ends_at_the_maximum() {
        let recorder = LatencyRecorder::default();
        (1..=100).for_each(|n| recorder.record(0, n * 1_000));
        let mut out = Vec::new();
        recorder
            .distribution()
            .write(&mut out)
            .expect("a vector takes it");
        let text = String::from_utf8(out).expect("text");
        let last = text
            .lines()
            .rfind(|line| !line.starts_with('#'))
            .expect("a line");
        let fields: Vec<_> = last.split_whitespace().collect();
        assert_eq!(&fields[1..], ["1.000000000000", "100"], "{text}");
    }
}
