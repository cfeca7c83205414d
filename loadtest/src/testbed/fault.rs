//! Faults and their seeded sequence: one at a time among processes, and one at a time among
//! connections. Bus records are dropped at the end of the run, too.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{TestBed, proxy::NetworkCondition};
use crate::{
    fault_kind::{FaultCounts, FaultKind},
    progress::ProgressLine,
};

/// How long before the end of the run bus records are dropped: every channel has its last messages
/// in this time.
const DROPPED_BEFORE_END: Duration = Duration::from_secs(1);

/// How long afterwards: the last messages are in some of the digests that are dropped.
const DROPPED_AFTER_END: Duration = Duration::from_secs(3);

/// Handle of the tasks that inject faults.
#[derive(Debug)]
pub struct FaultInjection {
    stopped: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
    counts: Arc<Mutex<FaultCounts>>,
}

impl FaultInjection {
    /// Starts injecting faults into processes and into connections, each in a sequence that follows
    /// from the seed.
    pub fn start(testbed: &Arc<TestBed>, progress: &ProgressLine) -> Self {
        let (stopped, counts) = (
            watch::Sender::new(false),
            Arc::new(Mutex::new(FaultCounts::new())),
        );
        let mut tasks = Vec::from([false, true].map(|on_connections| {
            let faults: Vec<FaultKind> = testbed
                .faults
                .iter()
                .copied()
                .filter(|fault| fault.affects_connections() == on_connections)
                .collect();
            let injector = FaultInjector {
                testbed: testbed.clone(),
                faults,
                random: StdRng::seed_from_u64(testbed.seed ^ u64::from(on_connections)),
                counts: counts.clone(),
                progress: progress.clone(),
                started: Instant::now(),
            };
            tokio::spawn(injector.run(stopped.subscribe()))
        }));
        if testbed.faults.contains(&FaultKind::Drop) {
            tasks.push(tokio::spawn(drop_last_records(
                testbed.clone(),
                counts.clone(),
                stopped.subscribe(),
            )));
        }
        Self {
            stopped,
            tasks,
            counts,
        }
    }

    /// Stops when the current faults have been recovered. Returns how often each fault was
    /// injected.
    pub async fn stop(self) -> Result<FaultCounts> {
        self.stopped.send_replace(true);
        for task in self.tasks {
            task.await
                .context("a task that injects faults panicked")??;
        }
        Ok(self.counts.lock().clone())
    }
}

/// Drops a share of the bus records around the end of the run, so that conversations lose their
/// last records.
async fn drop_last_records(
    testbed: Arc<TestBed>,
    counts: Arc<Mutex<FaultCounts>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let share = StdRng::seed_from_u64(!testbed.seed).random_range(0.3..1.0);
    let until_end = Duration::from_secs_f64(testbed.seconds);
    tokio::select! {
        () = sleep(until_end.saturating_sub(DROPPED_BEFORE_END)) => {}
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    let losses = testbed.drop_records(share);
    sleep(DROPPED_BEFORE_END + DROPPED_AFTER_END).await;
    drop(losses);
    *counts.lock().entry(FaultKind::Drop).or_default() += 1;
    Ok(())
}

struct FaultInjector {
    testbed: Arc<TestBed>,
    faults: Vec<FaultKind>,
    random: StdRng,
    counts: Arc<Mutex<FaultCounts>>,
    progress: ProgressLine,
    started: Instant,
}

impl FaultInjector {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        loop {
            let pause = Duration::from_millis(self.random.random_range(300..1_500));
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
            let Some(fault) = self.faults.choose(&mut self.random).copied() else {
                return Ok(());
            };
            let [target, salt] = [self.random.random::<u64>(), self.random.random::<u64>()];
            let duration = Duration::from_millis(self.random.random_range(500..4_000));
            self.progress.note(format!(
                "{:>7.1} s  {fault} for {:.1} s",
                self.started.elapsed().as_secs_f64(),
                duration.as_secs_f64()
            ));
            self.inject(fault, target, salt, duration)
                .await
                .with_context(|| format!("cannot inject the fault `{fault}` or recover from it"))?;
            *self.counts.lock().entry(fault).or_default() += 1;
        }
    }

    async fn inject(
        &self,
        fault: FaultKind,
        target: u64,
        salt: u64,
        duration: Duration,
    ) -> Result<()> {
        let testbed = &self.testbed;
        let mut random = StdRng::seed_from_u64(salt);
        let condition = match fault {
            FaultKind::Kill => return testbed.node(target).await.kill(duration / 4).await,
            FaultKind::Term => return testbed.node(target).await.terminate().await,
            FaultKind::Stop => return testbed.node(target).await.pause(duration).await,
            FaultKind::Clock => {
                return testbed
                    .step_clock(random.random_range(-120..120), duration)
                    .await;
            }
            FaultKind::Disk => return testbed.fill_disk(duration).await,
            FaultKind::Drop => {
                let losses = testbed.drop_records(random.random_range(0.05..1.0));
                sleep(duration).await;
                drop(losses);
                return Ok(());
            }
            FaultKind::StoreKill
            | FaultKind::StoreStop
            | FaultKind::Failover
            | FaultKind::Migrate => {
                return testbed
                    .store
                    .lock()
                    .await
                    .inject(fault, target, duration)
                    .await;
            }
            FaultKind::Cut => NetworkCondition::Cut,
            FaultKind::Delay => {
                NetworkCondition::Delayed(Duration::from_millis(random.random_range(5..150)))
            }
            FaultKind::Stall => NetworkCondition::Stalled,
            FaultKind::Slow => NetworkCondition::Slow(random.random_range(1_000..20_000)),
        };
        let share = random.random_range(0.05..0.6);
        let changed: Vec<_> = testbed
            .proxies
            .iter()
            .map(|proxy| proxy.apply(condition, || random.random_bool(share)))
            .collect();
        sleep(duration).await;
        changed
            .into_iter()
            .for_each(super::proxy::AppliedCondition::revert);
        Ok(())
    }
}
