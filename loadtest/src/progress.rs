//! Progress on standard error: one changing line on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    task::JoinHandle,
    time::{Instant, interval},
};

use crate::run_state::{RunCounters, RunState};

/// The progress line.
#[derive(Debug, Clone)]
pub struct ProgressLine(Option<ProgressBar>);

impl Default for ProgressLine {
    /// Uses a changing line if standard error is a terminal.
    fn default() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}")
                .expect("the template is valid");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self(bar)
    }
}

impl ProgressLine {
    /// Shows the phase that begins.
    pub fn phase(&self, phase: impl Into<String>) {
        self.show(phase.into());
    }

    /// Shows the counters of a run until the returned guard is dropped.
    pub fn show_counters(&self, state: &Arc<RunState>, seconds: f64) -> CounterUpdates {
        let (progress, state, started) = (self.clone(), state.clone(), Instant::now());
        let every = Duration::from_millis(if self.0.is_some() { 250 } else { 1_000 });
        CounterUpdates(tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.tick().await;
            let mut delivered_before = state.counters.delivered.load(Ordering::Relaxed);
            loop {
                ticks.tick().await;
                let line = line(
                    &state,
                    started.elapsed().as_secs_f64(),
                    seconds,
                    every,
                    &mut delivered_before,
                );
                progress.show(line);
            }
        }))
    }

    /// Prints a line that stays.
    pub fn note(&self, note: impl Into<String>) {
        match &self.0 {
            Some(bar) => bar.println(note.into()),
            None => eprintln!("{}", note.into()),
        }
    }

    /// Removes the changing line.
    pub fn finish(&self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }

    fn show(&self, line: String) {
        match &self.0 {
            Some(bar) => bar.set_message(line),
            None => eprintln!("{line}"),
        }
    }
}

/// Guard of the task that updates the counters on the progress line.
#[derive(Debug)]
pub struct CounterUpdates(JoinHandle<()>);

impl Drop for CounterUpdates {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn line(
    state: &RunState,
    elapsed: f64,
    seconds: f64,
    every: Duration,
    delivered_before: &mut u64,
) -> String {
    let RunCounters {
        sent,
        acknowledged,
        delivered,
        rate_limited,
        reconnects,
        ..
    } = &state.counters;
    let [sent, acknowledged, delivered, rate_limited, reconnects] =
        [sent, acknowledged, delivered, rate_limited, reconnects]
            .map(|counter| counter.load(Ordering::Relaxed));
    let per_second = (delivered - *delivered_before) as f64 / every.as_secs_f64();
    *delivered_before = delivered;
    let mut line = format!(
        "{elapsed:>4.0} of {seconds:.0} s  sent {sent}  acknowledged {acknowledged}  delivered {delivered} ({per_second:.0}/s)  p99 {:.1} ms",
        state.delivery.distribution().percentiles().p99_ms
    );
    for (count, name) in [(rate_limited, "rate limited"), (reconnects, "reconnected")] {
        if count > 0 {
            line.push_str(&format!("  {name} {count}"));
        }
    }
    line
}
