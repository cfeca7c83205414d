//! What a person sees meanwhile, on standard error: a line that changes on a terminal, plain lines elsewhere.

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

use crate::stage::{Counters, Stage};

/// Shows what is going on.
#[derive(Debug, Clone)]
pub struct Progress(Option<ProgressBar>);

impl Default for Progress {
    /// On a terminal if there is one.
    fn default() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is one");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self(bar)
    }
}

impl Progress {
    /// Something begins.
    pub fn phase(&self, what: impl Into<String>) {
        self.show(what.into());
    }

    /// Shows the counters of a run until the answer is dropped.
    pub fn follow(&self, stage: &Arc<Stage>, seconds: f64) -> Following {
        let (progress, stage, started) = (self.clone(), stage.clone(), Instant::now());
        let every = Duration::from_millis(if self.0.is_some() { 250 } else { 1_000 });
        Following(tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.tick().await;
            let mut before = stage.counters.delivered.load(Ordering::Relaxed);
            loop {
                ticks.tick().await;
                let line = line(
                    &stage,
                    started.elapsed().as_secs_f64(),
                    seconds,
                    every,
                    &mut before,
                );
                progress.show(line);
            }
        }))
    }

    /// Something happened that is worth a line of its own.
    pub fn note(&self, what: impl Into<String>) {
        match &self.0 {
            Some(bar) => bar.println(what.into()),
            None => eprintln!("{}", what.into()),
        }
    }

    /// Takes the changing line away.
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

/// Counters that are being shown.
#[derive(Debug)]
pub struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn line(stage: &Stage, elapsed: f64, seconds: f64, every: Duration, before: &mut u64) -> String {
    let Counters {
        sent,
        acknowledged,
        delivered,
        rate_limited,
        reconnects,
        ..
    } = &stage.counters;
    let [sent, acknowledged, delivered, rate_limited, reconnects] =
        [sent, acknowledged, delivered, rate_limited, reconnects]
            .map(|counter| counter.load(Ordering::Relaxed));
    let per_second = (delivered - *before) as f64 / every.as_secs_f64();
    *before = delivered;
    let mut line = format!(
        "{elapsed:>4.0} of {seconds:.0} s  sent {sent}  acknowledged {acknowledged}  delivered {delivered} ({per_second:.0}/s)  p99 {:.1} ms",
        stage.delivery.distribution().percentiles().p99_ms
    );
    for (count, what) in [(rate_limited, "rate limited"), (reconnects, "reconnected")] {
        if count > 0 {
            line.push_str(&format!("  {what} {count}"));
        }
    }
    line
}
