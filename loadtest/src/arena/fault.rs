//! What can go wrong, and when: a seeded sequence of faults, one at a time among processes and one at a time among connections.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{Arena, path::Weather, store::Kind};
use crate::progress::Progress;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node is killed (SIGKILL) and started again.
    Kill,
    /// A node is asked to end (SIGTERM), drains, and is started again.
    Term,
    /// A node hangs for seconds (SIGSTOP).
    Stop,
    /// Connections end without a word.
    Cut,
    /// Connections are slow to answer.
    Delay,
    /// Clients read nothing for seconds.
    Stall,
    /// Clients read slower than messages come.
    Slow,
    /// The clocks of the nodes jump, forwards and back.
    Clock,
    /// The disk is full for seconds (embedded store).
    Disk,
    /// Redis is killed (SIGKILL) and started again (Redis, Sentinel, Cluster).
    StoreKill,
    /// Redis hangs for seconds (SIGSTOP).
    StoreStop,
    /// A master is killed and its replica takes over (Sentinel, Cluster).
    Failover,
    /// A slot moves to another master (Cluster).
    Migrate,
}

impl Fault {
    /// Whether it can befall nodes over this store; none for nodes that are not the run's own.
    pub fn applies(self, store: Option<Kind>) -> bool {
        match self {
            Self::Cut | Self::Delay | Self::Stall | Self::Slow => true,
            Self::Kill | Self::Term | Self::Stop | Self::Clock => store.is_some(),
            Self::Disk => store == Some(Kind::Embedded),
            Self::StoreKill => matches!(store, Some(Kind::Redis | Kind::Cluster)),
            Self::StoreStop => matches!(store, Some(Kind::Redis | Kind::Cluster | Kind::Sentinel)),
            Self::Failover => matches!(store, Some(Kind::Sentinel | Kind::Cluster)),
            Self::Migrate => store == Some(Kind::Cluster),
        }
    }

    /// Whether it befalls connections, and so may go beside one that befalls a process.
    fn is_of_connections(self) -> bool {
        matches!(self, Self::Cut | Self::Delay | Self::Stall | Self::Slow)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value()
            .map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// How often each fault struck.
pub type Struck = BTreeMap<Fault, u64>;

/// Faults that go on.
#[derive(Debug)]
pub struct Trouble {
    over: watch::Sender<bool>,
    tasks: [tokio::task::JoinHandle<Result<()>>; 2],
    struck: Arc<Mutex<Struck>>,
}

impl Trouble {
    /// Begins: processes and connections each get their faults from this seed.
    pub fn begin(arena: &Arc<Arena>, progress: &Progress) -> Self {
        let (over, struck) = (
            watch::Sender::new(false),
            Arc::new(Mutex::new(Struck::new())),
        );
        let tasks = [false, true].map(|of_connections| {
            let faults: Vec<Fault> = arena
                .faults
                .iter()
                .copied()
                .filter(|fault| fault.is_of_connections() == of_connections)
                .collect();
            let striker = Striker {
                arena: arena.clone(),
                faults,
                random: StdRng::seed_from_u64(arena.seed ^ u64::from(of_connections)),
                struck: struck.clone(),
                progress: progress.clone(),
                began: Instant::now(),
            };
            tokio::spawn(striker.strike_until(over.subscribe()))
        });
        Self {
            over,
            tasks,
            struck,
        }
    }

    /// Ends once the faults under way are mended, and answers how often each struck.
    pub async fn end(self) -> Result<Struck> {
        self.over.send_replace(true);
        for task in self.tasks {
            task.await.context("A fault could not be made")??;
        }
        Ok(self.struck.lock().clone())
    }
}

struct Striker {
    arena: Arc<Arena>,
    faults: Vec<Fault>,
    random: StdRng,
    struck: Arc<Mutex<Struck>>,
    progress: Progress,
    began: Instant,
}

impl Striker {
    async fn strike_until(mut self, mut over: watch::Receiver<bool>) -> Result<()> {
        loop {
            let pause = Duration::from_millis(self.random.random_range(300..1_500));
            tokio::select! {
                () = sleep(pause) => {}
                _ = over.wait_for(|over| *over) => return Ok(()),
            }
            let Some(fault) = self.faults.choose(&mut self.random).copied() else {
                return Ok(());
            };
            let [place, salt] = [self.random.random::<u64>(), self.random.random::<u64>()];
            let seconds = Duration::from_millis(self.random.random_range(500..4_000));
            self.progress.note(format!(
                "{:>7.1} s  {fault} for {:.1} s",
                self.began.elapsed().as_secs_f64(),
                seconds.as_secs_f64()
            ));
            self.strike(fault, place, salt, seconds)
                .await
                .with_context(|| format!("The fault `{fault}` could not be made and mended"))?;
            *self.struck.lock().entry(fault).or_default() += 1;
        }
    }

    async fn strike(&self, fault: Fault, place: u64, salt: u64, seconds: Duration) -> Result<()> {
        let arena = &self.arena;
        let mut random = StdRng::seed_from_u64(salt);
        let weather = match fault {
            Fault::Kill => return arena.node(place).await.kill(seconds / 4).await,
            Fault::Term => return arena.node(place).await.terminate().await,
            Fault::Stop => return arena.node(place).await.pause(seconds).await,
            Fault::Clock => {
                return arena
                    .step_clock(random.random_range(-120..120), seconds)
                    .await;
            }
            Fault::Disk => return arena.fill_disk(seconds).await,
            Fault::StoreKill | Fault::StoreStop | Fault::Failover | Fault::Migrate => {
                return arena.store.lock().await.strike(fault, place, seconds).await;
            }
            Fault::Cut => Weather::Cut,
            Fault::Delay => Weather::Delayed(Duration::from_millis(random.random_range(5..150))),
            Fault::Stall => Weather::Stalled,
            Fault::Slow => Weather::Slow(random.random_range(1_000..20_000)),
        };
        let share = random.random_range(0.05..0.6);
        let changed: Vec<_> = arena
            .paths
            .iter()
            .map(|path| path.change(weather, || random.random_bool(share)))
            .collect();
        sleep(seconds).await;
        changed.into_iter().for_each(super::path::Changed::clear);
        Ok(())
    }
}
