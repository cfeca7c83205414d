//! Whether the store can be reached: what `/readyz` and `chaos_ready` tell.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    error::{Error, Result},
    store::{Store, StoreError},
};

/// How long it is believed that the store can or cannot be reached.
const FRESH: Duration = Duration::from_millis(500);
/// How often it is asked when nobody wants to know.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it may take to answer. Longer than that is no store to be ready with, whatever becomes of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Feels the store's pulse.
pub struct Pulse {
    store: Arc<dyn Store>,
    last: Mutex<Option<(Instant, Result<()>)>>,
    is_reachable: AtomicBool,
}

impl Pulse {
    /// Nothing is known yet: the store counts as away.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            last: Mutex::default(),
            is_reachable: AtomicBool::new(false),
        })
    }

    /// Whether the store can be reached, asked at most twice a second however many want to know.
    ///
    /// # Errors
    /// `unavailable`, or what else the store answered.
    pub async fn ask(&self) -> Result<()> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < FRESH
        {
            return found.clone();
        }
        let late = || {
            Err(StoreError::Unavailable(format!(
                "the store did not answer within {} s",
                PATIENCE.as_secs()
            )))
        };
        let found = timeout(PATIENCE, self.store.now())
            .await
            .unwrap_or_else(|_| late());
        let found = found.map(|_| ()).map_err(Error::from);
        let was_reachable = self.is_reachable.swap(found.is_ok(), Ordering::Relaxed);
        match &found {
            Ok(()) if !was_reachable => {
                tracing::info!("the store can be reached: the node is ready")
            }
            Err(error) if was_reachable => {
                tracing::warn!(%error, "the store cannot be reached: the node is not ready")
            }
            _ => {}
        }
        *last = Some((Instant::now(), found.clone()));
        found
    }

    /// What was found when it was asked last. Waits for nobody.
    pub fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    /// Asks again and again, without end.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // What was found is kept, and told where it changed.
            let _: Result<()> = self.ask().await;
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("is_reachable", &self.is_reachable())
            .finish_non_exhaustive()
    }
}
