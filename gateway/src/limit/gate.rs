//! Which `connect` is worked on now, which waits, and when the others try again.
//!
//! When a node ends, its clients connect to the others at once. What each costs before it is served
//! (its user, its channels, its replay) would hold up the sessions that are there, so only some are
//! worked on at a time. Others wait, and take turns between apps and within an app between users.
//! If too many wait, the app with the most loses a place, and a hint says when to try again. Hints
//! are places in a queue of their own: each lies behind the one before by the time that one
//! `connect` takes, so that clients come back about as fast as they are served.

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

/// How long anybody waits to be let in.
const PATIENCE: Duration = Duration::from_secs(5);
/// What letting one in takes, before it was measured.
const FIRST: Duration = Duration::from_millis(20);
/// The earliest hint: less than that is no pause for who connects anew.
const EARLIEST: Duration = Duration::from_millis(500);
/// The length of the line of hints. Beyond it they are spread over its second half.
const LINE: Duration = Duration::from_secs(60);
/// The weight of one measurement in the mean, as a divisor.
const WEIGHT: u32 = 16;

/// Lets so many in at a time.
#[derive(Debug)]
pub struct Gate {
    /// None if it stands open.
    places: Option<(Arc<FairPermits>, u32)>,
    admitted: AtomicU64,
    turned_away: AtomicU64,
    line: Mutex<Line>,
}

/// What a gate counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Who was let in, ever.
    pub admitted: u64,
    /// Who is being let in.
    pub under_way: u64,
    /// Who waits.
    pub waiting: u64,
    /// Who was told to come again, ever.
    pub turned_away: u64,
}

/// The gate is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// When to come again.
    pub retry_after_ms: u64,
}

/// A place at the gate, until it is dropped.
#[derive(Debug)]
pub struct Pass {
    _permit: Option<Permit>,
    gate: Arc<Gate>,
    since: Instant,
}

/// The line of those who were turned away.
#[derive(Debug)]
struct Line {
    /// The mean time of one at the gate.
    each: Duration,
    /// When the last of them comes.
    end: Instant,
}

impl Gate {
    /// Lets `at_once` in at a time, or everybody if that is 0, while so many others wait, or any
    /// number if that is 0.
    pub fn new(at_once: u64, waiting: u64) -> Arc<Self> {
        let count = u32::try_from(at_once).unwrap_or(u32::MAX);
        let waiting = match waiting {
            0 => usize::MAX,
            bounded => usize::try_from(bounded).unwrap_or(usize::MAX),
        };
        let places = FairPermits::with_queue(count as usize, waiting);
        Arc::new(Self {
            places: (at_once != 0).then_some((places, count)),
            admitted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            line: Mutex::new(Line {
                each: FIRST,
                end: Instant::now(),
            }),
        })
    }

    /// Waits for a place, in turns with other parties. Whoever stops waiting leaves the queue.
    ///
    /// # Errors
    /// [`Full`] at once if too many wait and no party has more than this one, later if another
    /// party needs the place, and after 5 s.
    pub async fn enter(self: &Arc<Self>, party: Party) -> Result<Pass, Full> {
        let Some((places, count)) = &self.places else {
            return Ok(self.pass(None));
        };
        match timeout(PATIENCE, places.acquire(party)).await {
            Ok(Ok(permit)) => Ok(self.pass(Some(permit))),
            Ok(Err(_)) | Err(_) => Err(self.turn_away(*count, places.waiting())),
        }
    }

    /// What it counted.
    pub fn counts(&self) -> Counts {
        let under_way = self.places.as_ref().map_or(0, |(places, count)| {
            u64::from(*count).saturating_sub(places.available() as u64)
        });
        let waiting = self
            .places
            .as_ref()
            .map_or(0, |(places, _)| places.waiting());
        Counts {
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

    fn turn_away(&self, places: u32, waiting: usize) -> Full {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let wait = self.line.lock().join(Instant::now(), places, waiting);
        // Up to a half more, so that two nodes that end at the same time make no common rhythm.
        let hint = EARLIEST + wait + (EARLIEST + wait).mul_f64(rand::random::<f64>() / 2.0);
        Full {
            retry_after_ms: hint.as_millis() as u64,
        }
    }
}

impl Line {
    /// The next place in the line, behind those who wait at the gate: in how much time.
    fn join(&mut self, now: Instant, places: u32, waiting: u32) -> Duration {
        let step = self.each / places.max(1);
        let end = self.end.max(now + step.saturating_mul(waiting).min(LINE)) + step;
        if end > now + LINE {
            return LINE.mul_f64((1.0 + rand::random::<f64>()) / 2.0);
        }
        self.end = end;
        end - now
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let line = &mut *self.gate.line.lock();
        line.each = (line.each * (WEIGHT - 1) + self.since.elapsed()) / WEIGHT;
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
    async fn so_many_are_let_in_others_wait_in_their_order_and_the_rest_are_told_when_to_come() {
        let gate = Gate::new(2, 2);
        let (first, second) = (
            gate.enter(PARTY).await.unwrap(),
            gate.enter(PARTY).await.unwrap(),
        );
        let (third, fourth) = (waits(&gate, PARTY).await, waits(&gate, PARTY).await);
        let full = gate.enter(PARTY).await.unwrap_err();
        assert!(full.retry_after_ms >= EARLIEST.as_millis() as u64);
        assert_eq!(
            gate.counts(),
            Counts {
                admitted: 2,
                under_way: 2,
                waiting: 2,
                turned_away: 1
            }
        );
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert!(!fourth.is_finished(), "the one who came first is the first");
        drop(second);
        fourth.await.unwrap().unwrap();
        drop(third);
        assert_eq!(
            gate.counts(),
            Counts {
                admitted: 4,
                under_way: 0,
                waiting: 0,
                turned_away: 1
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_with_many_connects_takes_turns_with_the_others_and_loses_its_places_to_them() {
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
        assert!(displaced.retry_after_ms >= EARLIEST.as_millis() as u64);
        assert_eq!((gate.counts().waiting, gate.counts().turned_away), (4, 2));
        drop(held);
        let first = loud.remove(0).await.unwrap().unwrap();
        drop(first);
        let pass = quiet.await.unwrap().unwrap();
        assert!(loud.iter().all(|waiting| !waiting.is_finished()));
        drop(pass);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_a_few_seconds() {
        let gate = Gate::new(1, 0);
        let _held = gate.enter(PARTY).await.unwrap();
        let begun = Instant::now();
        gate.enter(PARTY).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        assert_eq!(gate.counts().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_leaves_the_queue() {
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
    async fn hints_are_spread_by_what_letting_one_in_takes() {
        let gate = Gate::new(4, 1);
        for _ in 0..200 {
            let pass = gate.enter(PARTY).await.unwrap();
            tokio::time::advance(Duration::from_millis(100)).await;
            drop(pass);
        }
        let _held: Vec<_> = futures_util::future::join_all((0..4).map(|_| gate.enter(PARTY))).await;
        let _waiting = waits(&gate, PARTY).await;
        // 400 at 4 places of about 100 ms each are 10 s.
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
                "{} come within a second from {from} ms",
                within(from, from + 1000)
            );
        }
        assert!(hints.iter().all(|hint| *hint < 16_000), "{hints:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_come_the_hint_is_bounded_and_no_two_storms_are_made_of_one() {
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
                "nobody comes after {from} ms"
            );
        }
    }

    #[tokio::test]
    async fn zero_is_no_gate() {
        let gate = Gate::new(0, 1);
        let all: Vec<_> =
            futures_util::future::join_all((0..1000).map(|_| gate.enter(PARTY))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(
            gate.counts(),
            Counts {
                admitted: 1000,
                ..Counts::default()
            }
        );
    }
}
