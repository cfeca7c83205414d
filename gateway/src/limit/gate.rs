//! Admission of `connect`s: the number that is served at a time, the number that waits, and the
//! retry times of the others.
//!
//! When a node ends, its clients connect to the other nodes at once. Serving a `connect` (its user,
//! its channels, its replay) is expensive and would delay existing sessions, so only a few are
//! served at a time. Others wait, and take turns between apps and, within an app, between users. If
//! too many wait, one of the app with the most is rejected with a retry hint. Hints are spaced by
//! the time that one `connect` takes, so that clients return about as fast as they are served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanout::fair::{FairPermits, Party, Permit};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

/// Maximum time that a `connect` waits for a permit.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Assumed time to serve a `connect`, before it was measured.
const INITIAL_SERVICE_TIME: Duration = Duration::from_millis(20);
const MIN_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Length of the retry schedule. Once it is full, hints are random within its second half.
const SCHEDULE_LENGTH: Duration = Duration::from_secs(60);
/// Weight of one measurement in the mean service time, as a divisor.
const MEAN_DIVISOR: u32 = 16;

/// Admits a bounded number of `connect`s at a time.
#[derive(Debug)]
pub struct Gate {
    /// The permits and their number; `None` if there is no limit.
    permits: Option<(Arc<FairPermits>, u32)>,
    admitted: AtomicU64,
    turned_away: AtomicU64,
    schedule: Mutex<RetrySchedule>,
}

/// The counters of a gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// `connect`s admitted since the start.
    pub admitted: u64,
    /// `connect`s being served.
    pub under_way: u64,
    /// `connect`s that wait.
    pub waiting: u64,
    /// `connect`s rejected since the start.
    pub turned_away: u64,
}

/// Too many `connect`s wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// When the client should retry, in milliseconds from now.
    pub retry_after_ms: u64,
}

/// A permit to serve a `connect`, released when it is dropped.
#[derive(Debug)]
pub struct Pass {
    _permit: Option<Permit>,
    gate: Arc<Gate>,
    since: Instant,
}

/// The retry times that were given to rejected clients.
#[derive(Debug)]
struct RetrySchedule {
    mean_service_time: Duration,
    /// When the last scheduled client retries.
    end: Instant,
}

impl Gate {
    /// Creates a gate that serves `at_once` `connect`s at a time while `waiting` others wait. 0
    /// means no limit, for each.
    pub fn new(at_once: u64, waiting: u64) -> Arc<Self> {
        let count = u32::try_from(at_once).unwrap_or(u32::MAX);
        let waiting = match waiting {
            0 => usize::MAX,
            bounded => usize::try_from(bounded).unwrap_or(usize::MAX),
        };
        let permits = FairPermits::with_queue(count as usize, waiting);
        Arc::new(Self {
            permits: (at_once != 0).then_some((permits, count)),
            admitted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            schedule: Mutex::new(RetrySchedule {
                mean_service_time: INITIAL_SERVICE_TIME,
                end: Instant::now(),
            }),
        })
    }

    /// Waits for a permit, in turns with other parties. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Full`] at once if the queue is full and no party has more waiting than this one; later if
    /// another party takes the place in the queue; and after 5 s.
    pub async fn enter(self: &Arc<Self>, party: Party) -> Result<Pass, Full> {
        let Some((permits, count)) = &self.permits else {
            return Ok(self.pass(None));
        };
        match timeout(MAX_WAIT, permits.acquire(party)).await {
            Ok(Ok(permit)) => Ok(self.pass(Some(permit))),
            Ok(Err(_)) | Err(_) => Err(self.turn_away(*count, permits.waiting())),
        }
    }

    /// Returns the counters.
    pub fn counts(&self) -> GateCounts {
        let under_way = self.permits.as_ref().map_or(0, |(permits, count)| {
            u64::from(*count).saturating_sub(permits.available() as u64)
        });
        let waiting = self
            .permits
            .as_ref()
            .map_or(0, |(permits, _)| permits.waiting());
        GateCounts {
            admitted: self.admitted.load(Ordering::Relaxed),
            under_way,
            waiting: waiting as u64,
            turned_away: self.turned_away.load(Ordering::Relaxed),
        }
    }

    fn pass(self: &Arc<Self>, permit: Option<Permit>) -> Pass {
        self.admitted.fetch_add(1, Ordering::Relaxed);
        Pass {
            _permit: permit,
            gate: Arc::clone(self),
            since: Instant::now(),
        }
    }

    fn turn_away(&self, permits: u32, waiting: usize) -> Full {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let wait = self.schedule.lock().add(Instant::now(), permits, waiting);
        // Jitter of up to a half, so that the clients of two nodes that ended together spread out.
        let hint = (MIN_RETRY_AFTER + wait).mul_f64(1.0 + rand::random::<f64>() / 2.0);
        Full {
            retry_after_ms: hint.as_millis() as u64,
        }
    }
}

impl RetrySchedule {
    /// Schedules another client, after those that wait at the gate. Returns its delay.
    fn add(&mut self, now: Instant, permits: u32, waiting: u32) -> Duration {
        let interval = self.mean_service_time / permits.max(1);
        let queue_time = interval.saturating_mul(waiting).min(SCHEDULE_LENGTH);
        let end = self.end.max(now + queue_time) + interval;
        if end > now + SCHEDULE_LENGTH {
            return SCHEDULE_LENGTH.mul_f64((1.0 + rand::random::<f64>()) / 2.0);
        }
        self.end = end;
        end - now
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mean = &mut self.gate.schedule.lock().mean_service_time;
        *mean = (*mean * (MEAN_DIVISOR - 1) + self.since.elapsed()) / MEAN_DIVISOR;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const PARTY: Party = party(1, 1);

    const fn party(group: u64, member: u64) -> Party {
        Party { group, member }
    }

    /// Starts to enter, and returns when that waits.
    async fn waits(gate: &Arc<Gate>, party: Party) -> tokio::task::JoinHandle<Result<Pass, Full>> {
        let before = gate.counts().waiting;
        let waiting = tokio::spawn({
            let gate = Arc::clone(gate);
            async move { gate.enter(party).await }
        });
        while gate.counts().waiting == before {
            tokio::task::yield_now().await;
        }
        waiting
    }

    #[tokio::test(start_paused = true)]
    async fn connects_beyond_the_limit_wait_in_order_and_the_rest_get_a_hint() {
        let gate = Gate::new(2, 2);
        let (first, second) = (
            gate.enter(PARTY).await.unwrap(),
            gate.enter(PARTY).await.unwrap(),
        );
        let (third, fourth) = (waits(&gate, PARTY).await, waits(&gate, PARTY).await);
        let full = gate.enter(PARTY).await.unwrap_err();
        assert!(full.retry_after_ms >= MIN_RETRY_AFTER.as_millis() as u64);
        assert_eq!(
            gate.counts(),
            GateCounts {
                admitted: 2,
                under_way: 2,
                waiting: 2,
                turned_away: 1
            }
        );
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert!(
            !fourth.is_finished(),
            "the first that waits is served first"
        );
        drop(second);
        fourth.await.unwrap().unwrap();
        drop(third);
        assert_eq!(
            gate.counts(),
            GateCounts {
                admitted: 4,
                under_way: 0,
                waiting: 0,
                turned_away: 1
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn app_with_many_connects_takes_turns_and_loses_queue_places_to_other_apps() {
        let gate = Gate::new(1, 4);
        let held = gate.enter(PARTY).await.unwrap();
        let mut loud = Vec::new();
        for _ in 0..4 {
            loud.push(waits(&gate, PARTY).await);
        }
        gate.enter(PARTY).await.unwrap_err();
        let quiet = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(party(2, 1)).await }
        });
        let displaced = loud.pop().unwrap().await.unwrap().unwrap_err();
        assert!(displaced.retry_after_ms >= MIN_RETRY_AFTER.as_millis() as u64);
        assert_eq!((gate.counts().waiting, gate.counts().turned_away), (4, 2));
        drop(held);
        let first = loud.remove(0).await.unwrap().unwrap();
        drop(first);
        let pass = quiet.await.unwrap().unwrap();
        assert!(loud.iter().all(|waiting| !waiting.is_finished()));
        drop(pass);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_is_bounded() {
        let gate = Gate::new(1, 0);
        let _held = gate.enter(PARTY).await.unwrap();
        let begun = Instant::now();
        gate.enter(PARTY).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), MAX_WAIT.as_secs());
        assert_eq!(gate.counts().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_connect_leaves_the_queue() {
        let gate = Gate::new(1, 1);
        let held = gate.enter(PARTY).await.unwrap();
        let waiting = waits(&gate, PARTY).await;
        waiting.abort();
        waiting.await.unwrap_err();
        assert_eq!(gate.counts().waiting, 0);
        drop(held);
        gate.enter(PARTY).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn hints_are_spaced_by_the_service_time() {
        let gate = Gate::new(4, 1);
        for _ in 0..200 {
            let pass = gate.enter(PARTY).await.unwrap();
            tokio::time::advance(Duration::from_millis(100)).await;
            drop(pass);
        }
        let _held: Vec<_> = futures_util::future::join_all((0..4).map(|_| gate.enter(PARTY))).await;
        let _waiting = waits(&gate, PARTY).await;
        // 400 clients at 4 permits and about 100 ms each take 10 s.
        let mut hints = Vec::new();
        for _ in 0..400 {
            hints.push(gate.enter(PARTY).await.unwrap_err().retry_after_ms);
        }
        let within = |from: u64, to: u64| {
            hints
                .iter()
                .filter(|hint| (from..to).contains(*hint))
                .count()
        };
        assert_eq!(within(0, 500), 0);
        for from in (1000..10_000).step_by(1000) {
            assert!(
                (10..80).contains(&within(from, from + 1000)),
                "{} retry within a second from {from} ms",
                within(from, from + 1000)
            );
        }
        assert!(hints.iter().all(|hint| *hint < 16_000), "{hints:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn hints_are_bounded_and_spread_for_any_number_of_clients() {
        let gate = Gate::new(1, 1);
        let _held = gate.enter(PARTY).await.unwrap();
        let _waiting = waits(&gate, PARTY).await;
        let mut last = Vec::new();
        for index in 0..20_000 {
            let hint = gate.enter(PARTY).await.unwrap_err().retry_after_ms;
            assert!(hint <= 91_000, "{hint}");
            if index >= 10_000 {
                last.push(hint);
            }
        }
        for from in (45_000..60_000).step_by(5000) {
            assert!(
                last.iter()
                    .filter(|hint| (from..from + 5000).contains(*hint))
                    .count()
                    > 500,
                "too few retry after {from} ms"
            );
        }
    }

    #[tokio::test]
    async fn zero_means_no_limit() {
        let gate = Gate::new(0, 1);
        let all: Vec<_> =
            futures_util::future::join_all((0..1000).map(|_| gate.enter(PARTY))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(
            gate.counts(),
            GateCounts {
                admitted: 1000,
                ..GateCounts::default()
            }
        );
    }
}
