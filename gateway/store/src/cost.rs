//! The cost of a request beyond the token that it takes when it arrives.
//!
//! The store counts the work of each request into its meter. When the request has ended, the
//! buckets that it took a token from are charged for the work beyond [`UNITS_PER_REQUEST`], in
//! fractions of a token. This may leave a bucket in debt: the next requests wait until it has
//! refilled.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fanout::fair::Party;

/// Units of store work that the first token of a request pays for.
pub const UNITS_PER_REQUEST: u64 = 10;

/// Units of store work that each further token pays for.
pub const UNITS_PER_TOKEN: u64 = 50;

/// Bytes of documents that count as one unit. Work is counted in this many parts of a unit, so that
/// nothing is lost by rounding.
const BYTES_PER_UNIT: u64 = 64 * 1024;

/// Documents of a page or events of a log that count as one unit.
const ROWS_PER_UNIT: u64 = 20;

/// Replayed events that count as one unit: each is read from the log, and then its entity.
const EVENTS_PER_UNIT: u64 = 4;

tokio::task_local! {
    static METER: Arc<Meter>;
}

/// Store work of one request.
#[derive(Debug, Default)]
pub struct Meter {
    /// Work in parts of a unit. A unit is a partition that is read or written, or some rows of a
    /// page.
    parts: AtomicU64,
    /// Hashes of the tenant and the user (or key) of the request; 0 while unknown.
    tenant: AtomicU64,
    user: AtomicU64,
}

impl Meter {
    /// Returns a meter for work for a user of a tenant.
    pub fn of(tenant: &impl Hash, user: &impl Hash) -> Self {
        Self {
            tenant: AtomicU64::new(hash(tenant)),
            user: AtomicU64::new(hash(user)),
            ..Self::default()
        }
    }

    /// Runs a request, and counts the store's work for it in the same task.
    pub async fn measure<F: Future>(self: &Arc<Self>, request: F) -> F::Output {
        METER.scope(Arc::clone(self), request).await
    }

    /// Returns the cost of the request beyond its first token, in tokens.
    pub fn surcharge(&self) -> f64 {
        let free = UNITS_PER_REQUEST * BYTES_PER_UNIT;
        let parts = self.parts.load(Ordering::Relaxed).saturating_sub(free);
        parts as f64 / (UNITS_PER_TOKEN * BYTES_PER_UNIT) as f64
    }
}

/// Runs a part of a request that counts as at most `most` units, even if the request is cancelled
/// in it. For work whose size the caller does not determine.
pub async fn at_most<F: Future>(units: u64, work: F) -> F::Output {
    let Ok(outer) = METER.try_with(Arc::clone) else {
        return work.await;
    };
    let capped = Capped {
        inner: Arc::new(Meter {
            tenant: AtomicU64::new(outer.tenant.load(Ordering::Relaxed)),
            user: AtomicU64::new(outer.user.load(Ordering::Relaxed)),
            ..Meter::default()
        }),
        outer,
        units,
    };
    capped.inner.measure(work).await
}

/// A part of a request. Counted into the request's meter when it is dropped.
struct Capped {
    outer: Arc<Meter>,
    inner: Arc<Meter>,
    units: u64,
}

impl Drop for Capped {
    fn drop(&mut self) {
        let most = self.units.saturating_mul(BYTES_PER_UNIT);
        let parts = self.inner.parts.load(Ordering::Relaxed).min(most);
        self.outer.parts.fetch_add(parts, Ordering::Relaxed);
    }
}

/// Counts partitions that are read or written for the current request, if there is one.
pub fn count_partitions(partitions: usize) {
    count(partitions as u64, 1);
}

/// Counts bytes of documents that were read.
pub fn count_bytes(bytes: usize) {
    count(bytes as u64, BYTES_PER_UNIT);
}

/// Counts a part of one partition that is read row by row.
pub fn count_rows(rows: usize) {
    count(1, 1);
    count(rows as u64, ROWS_PER_UNIT);
}

/// Counts events that will be replayed, with the cost of reading them by pages of messages.
pub fn count_replay(events: u64) {
    count(events, EVENTS_PER_UNIT);
}

fn count(amount: u64, per_unit: u64) {
    let parts = amount.saturating_mul(BYTES_PER_UNIT / per_unit);
    // Nobody pays for work outside of a request.
    let _outside = METER.try_with(|meter| meter.parts.fetch_add(parts, Ordering::Relaxed));
}

/// Sets the tenant and user (or key) of the current request.
pub fn set_payer(tenant: &impl Hash, user: &impl Hash) {
    let _outside = METER.try_with(|meter| {
        meter.tenant.store(hash(tenant), Ordering::Relaxed);
        meter.user.store(hash(user), Ordering::Relaxed);
    });
}

/// Returns the tenant and user that take turns for the current work; the default for the node's own
/// work.
pub fn party() -> Party {
    let load = |hash: &AtomicU64| hash.load(Ordering::Relaxed);
    METER
        .try_with(|meter| Party {
            group: load(&meter.tenant),
            member: load(&meter.user),
        })
        .unwrap_or_default()
}

/// Returns a hash by which a tenant or user takes turns. Never 0, which is the node's own work.
pub fn hash(key: &impl Hash) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(key).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(meter: &Meter) -> u64 {
        meter.parts.load(Ordering::Relaxed) / BYTES_PER_UNIT
    }

    #[tokio::test]
    async fn a_request_is_charged_for_its_own_work_alone() {
        let (one, other) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
        count_partitions(1000);
        let work = async |partitions| {
            tokio::task::yield_now().await;
            count_partitions(partitions);
        };
        tokio::join!(one.measure(work(10)), other.measure(work(110)));
        assert_eq!((one.surcharge(), other.surcharge()), (0.0, 2.0));
        one.measure(async { count_rows(480) }).await;
        assert_eq!(units(&one), 10 + 1 + 23, "the rows are rounded down");
        other.measure(async { count_replay(600) }).await;
        assert_eq!(other.surcharge(), 5.0);
    }

    #[tokio::test]
    async fn a_request_of_less_than_a_token_is_charged_its_fraction() {
        let meter = Arc::new(Meter::default());
        meter.measure(async { count_partitions(49) }).await;
        assert_eq!(meter.surcharge(), 39.0 / 50.0);
        meter.measure(async { count_replay(1) }).await;
        assert_eq!(meter.surcharge(), 39.25 / 50.0);
    }

    #[tokio::test]
    async fn bytes_are_charged_beside_partitions() {
        let meter = Arc::new(Meter::default());
        let documents = async {
            for _ in 0..120 {
                count_bytes(BYTES_PER_UNIT as usize / 2);
            }
        };
        meter.measure(documents).await;
        assert_eq!(meter.surcharge(), 1.0, "3.8 MB");
    }

    #[tokio::test]
    async fn capped_work_is_charged_at_most_its_cap_also_if_it_is_cancelled() {
        let meter = Arc::new(Meter::default());
        meter
            .measure(at_most(100, async { count_partitions(99) }))
            .await;
        assert_eq!(units(&meter), 99);
        let endless = async {
            count_partitions(10_000);
            std::future::pending::<()>().await;
        };
        let cancelled = tokio::time::timeout(std::time::Duration::ZERO, at_most(100, endless));
        assert!(meter.measure(cancelled).await.is_err());
        assert_eq!(units(&meter), 199);
    }
}
