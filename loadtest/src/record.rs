//! Latencies, as HDR histograms in microseconds.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// What takes longer is counted as this: ten minutes.
const HIGHEST: u64 = 600_000_000;

/// So that clients do not wait for each other to record.
const SHARDS: usize = 8;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST, 3)
        .expect("the bounds are in order, and three digits are supported")
}

/// Latencies that many clients record at once.
#[derive(Debug)]
pub struct Recorder([Mutex<Histogram<u64>>; SHARDS]);

impl Default for Recorder {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(histogram())))
    }
}

impl Recorder {
    /// Records what this client measured, in microseconds.
    pub fn record(&self, client: usize, micros: u64) {
        self.0[client % SHARDS].lock().saturating_record(micros);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.0.iter().for_each(|shard| shard.lock().reset());
    }

    /// What was recorded so far.
    pub fn distribution(&self) -> Distribution {
        let mut all = histogram();
        for shard in &self.0 {
            all.add(&*shard.lock()).expect("the bounds are the same");
        }
        Distribution(all)
    }
}

/// Latencies of a run.
#[derive(Debug)]
pub struct Distribution(Histogram<u64>);

/// The figures that a report names, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were recorded.
    pub count: u64,
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// One in ten is slower.
    pub p90_ms: f64,
    /// One in a hundred is slower.
    pub p99_ms: f64,
    /// One in a thousand is slower.
    pub p99_9_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Distribution {
    /// The figures that a report names.
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

    /// The whole distribution in milliseconds, in the text form (`.hgrm`) that HDR histogram plotters read.
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
    fn percentiles_are_those_of_all_clients_together() {
        let recorder = Recorder::default();
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
    fn what_is_beyond_the_highest_is_counted_as_that() {
        let recorder = Recorder::default();
        recorder.record(0, u64::MAX);
        recorder.record(0, 0);
        let found = recorder.distribution().percentiles();
        assert_eq!(found.count, 2);
        assert!(found.max_ms >= 600_000.0);
        recorder.reset();
        assert_eq!(recorder.distribution().percentiles().count, 0);
    }

    #[test]
    fn the_written_distribution_ends_at_the_slowest() {
        let recorder = Recorder::default();
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
