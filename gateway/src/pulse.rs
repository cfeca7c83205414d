//! Whether the store can be reached and is sealed under this node's secret key, and what others
//! publish is heard: what `/readyz` and `chaos_ready` tell.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    credential::SecretKey,
    error::{Error, Result},
    secret_check,
};
use fanout::bus::Bus;
use protocol::ErrorCode;
use store::{Store, StoreError};
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval, timeout},
};

/// How long it is believed that the store can or cannot be reached.
const FRESH: Duration = Duration::from_millis(500);
/// How often it is asked when nobody wants to know.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it may take to answer. Longer than that is no store to be ready with, whatever becomes
/// of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Feels the store's pulse.
pub struct Pulse {
    store: Arc<dyn Store>,
    secret: Arc<SecretKey>,
    /// The bus over it, if there is one.
    bus: Option<Arc<dyn Bus>>,
    last: Mutex<Option<(Instant, Result<()>)>>,
    is_reachable: AtomicBool,
}

impl Pulse {
    /// Nothing is known yet: the store counts as away.
    pub fn new(store: Arc<dyn Store>, secret: Arc<SecretKey>) -> Arc<Self> {
        Self::over(store, secret, None)
    }

    /// The same for a node, which is of no use to its clients while it does not hear the bus.
    pub fn with_bus(store: Arc<dyn Store>, secret: Arc<SecretKey>, bus: Arc<dyn Bus>) -> Arc<Self> {
        Self::over(store, secret, Some(bus))
    }

    fn over(store: Arc<dyn Store>, secret: Arc<SecretKey>, bus: Option<Arc<dyn Bus>>) -> Arc<Self> {
        Arc::new(Self {
            store,
            secret,
            bus,
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
            ))
            .into())
        };
        let found = timeout(PATIENCE, self.ask_store())
            .await
            .unwrap_or_else(|_| late());
        let found = found.and_then(|()| self.hears());
        let was_reachable = self.is_reachable.swap(found.is_ok(), Ordering::Relaxed);
        match &found {
            Ok(()) if !was_reachable => {
                tracing::info!("the store can be reached: the node is ready")
            }
            Err(error) if was_reachable => {
                tracing::warn!(%error, "the store cannot be used: the node is not ready")
            }
            _ => {}
        }
        *last = Some((Instant::now(), found.clone()));
        found
    }

    /// Asks the store for its time, and compares the check value of the secret key: a Redis that
    /// was emptied has none, and gets it back before a node with another key takes the store for a
    /// new one.
    async fn ask_store(&self) -> Result<()> {
        self.store.now().await?;
        match secret_check::seal_under(&*self.store, &self.secret).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                ErrorCode::Unavailable,
                secret_check::OTHER_SECRET_KEY,
            )),
            Err(error) => Err(error),
        }
    }

    fn hears(&self) -> Result<()> {
        match &self.bus {
            Some(bus) if !bus.is_connected() => Err(StoreError::Unavailable(
                "the node is not subscribed to what other nodes publish".to_owned(),
            )
            .into()),
            _ => Ok(()),
        }
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
