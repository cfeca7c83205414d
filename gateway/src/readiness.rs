//! Readiness of a node, as `/readyz` and `chaos_ready` report it: the store can be used, it is
//! sealed under this node's secret key, and the bus is connected. One shard of a Cluster is enough:
//! a node is not ready only if it can serve nobody.

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
use store::{Availability, Store, StoreError};
use tokio::{
    sync::Mutex,
    time::{MissedTickBehavior, interval, timeout},
};

/// How long a result is reused.
const RESULT_TTL: Duration = Duration::from_millis(500);
/// Interval of the background check.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time of the comparison of the secret key while a part of the store is away.
const COMPARISON_TIMEOUT: Duration = Duration::from_millis(500);

/// Checks the store and the bus, and caches the result.
pub struct Readiness {
    store: Arc<dyn Store>,
    secret: Arc<SecretKey>,
    /// The bus over it, if there is one.
    bus: Option<Arc<dyn Bus>>,
    last: Mutex<Option<(Instant, Result<()>)>>,
    is_reachable: AtomicBool,
    /// Whether the store was sealed under this node's secret key when last compared.
    is_sealed: AtomicBool,
    /// Whether a part of the store was away when last probed.
    is_partial: AtomicBool,
}

impl Readiness {
    /// Creates a check without a bus. The node is not ready until the first check succeeds.
    pub fn new(store: Arc<dyn Store>, secret: Arc<SecretKey>) -> Arc<Self> {
        Self::over(store, secret, None)
    }

    /// Like [`Self::new`], and requires that the bus receives records.
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
            is_sealed: AtomicBool::new(false),
            is_partial: AtomicBool::new(false),
        })
    }

    /// Checks the store and the bus, at most once per `RESULT_TTL` for all callers together.
    ///
    /// # Errors
    /// `unavailable` if the store does not answer in time, would lose what it stores, is sealed under
    /// another secret key, or the bus is disconnected; otherwise the store's own error.
    pub async fn ask(&self) -> Result<()> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < RESULT_TTL
        {
            return found.clone();
        }
        let found = timeout(STORE_TIMEOUT, self.ask_store())
            .await
            .unwrap_or_else(|_| Err(not_within(STORE_TIMEOUT)));
        let found = found.and_then(|()| self.check_bus());
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

    /// Probes the store, and compares the check value of the secret key: a Redis that was emptied
    /// has none, and gets it back before a node with another key takes the store for a new one.
    ///
    /// While a part of the store is away, the last comparison counts if the check value is there.
    async fn ask_store(&self) -> Result<()> {
        let availability = self.store.probe().await.map_err(|error| match error {
            // The settings of the store are at fault, and whoever watches the node can mend them.
            StoreError::Full(why) => Error::new(ErrorCode::Unavailable, why),
            error => error.into(),
        })?;
        let compared = secret_check::seal_under(&*self.store, &self.secret);
        let compared = match availability {
            Availability::Whole => compared.await,
            Availability::Partial(_) => timeout(COMPARISON_TIMEOUT, compared)
                .await
                .unwrap_or_else(|_| Err(not_within(COMPARISON_TIMEOUT))),
        };
        let is_partial = matches!(availability, Availability::Partial(_));
        self.note_availability(availability);
        match compared {
            Ok(is_equal) => {
                self.is_sealed.store(is_equal, Ordering::Relaxed);
                match is_equal {
                    true => Ok(()),
                    false => Err(Error::new(
                        ErrorCode::Unavailable,
                        secret_check::OTHER_SECRET_KEY,
                    )),
                }
            }
            Err(error)
                if is_partial
                    && error.code() == ErrorCode::Unavailable
                    && self.is_sealed.load(Ordering::Relaxed) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Logs when a part of the store becomes unavailable, and when all of it is available again.
    fn note_availability(&self, availability: Availability) {
        let is_partial = matches!(availability, Availability::Partial(_));
        let was_partial = self.is_partial.swap(is_partial, Ordering::Relaxed);
        match availability {
            Availability::Partial(why) if !was_partial => tracing::warn!(
                why,
                "a part of the store cannot be used: the node stays ready for the rest"
            ),
            Availability::Whole if was_partial => {
                tracing::info!("all of the store can be used again");
            }
            _ => {}
        }
    }

    /// A node that receives the records of one shard of a Cluster can serve the channels there.
    fn check_bus(&self) -> Result<()> {
        match &self.bus {
            Some(bus) if !bus.is_partly_connected() => Err(StoreError::Unavailable(
                "the node is not subscribed to what other nodes publish".to_owned(),
            )
            .into()),
            _ => Ok(()),
        }
    }

    /// Returns whether the last check succeeded, without a new check.
    pub fn is_reachable(&self) -> bool {
        self.is_reachable.load(Ordering::Relaxed)
    }

    /// Checks every `CHECK_INTERVAL`, until the task is aborted.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = interval(CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // `ask` caches the result and logs changes.
            let _: Result<()> = self.ask().await;
        }
    }
}

fn not_within(limit: Duration) -> Error {
    StoreError::Unavailable(format!(
        "the store did not answer within {} ms",
        limit.as_millis()
    ))
    .into()
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("is_reachable", &self.is_reachable())
            .finish_non_exhaustive()
    }
}
