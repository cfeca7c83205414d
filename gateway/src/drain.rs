//! Spreads the end of many sessions over the drain window.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Maximum interval between two sessions. It is shorter if there are many.
const MAX_INTERVAL: Duration = Duration::from_millis(5);
/// Resolution of the timer. Sessions that are due within it end together.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// Returns how long [`spread`] takes for `count` items, at most `window`.
pub fn spread_time(count: usize, window: Duration) -> Duration {
    MAX_INTERVAL
        .saturating_mul(count.try_into().unwrap_or(u32::MAX))
        .min(window)
}

/// Calls `end` with each item at even intervals within `window`.
pub async fn spread<T>(items: Vec<T>, window: Duration, end: impl Fn(T)) {
    let started_at = Instant::now();
    let interval = spread_time(items.len(), window)
        .checked_div(items.len().try_into().unwrap_or(u32::MAX))
        .unwrap_or_default();
    for (index, item) in items.into_iter().enumerate() {
        let due = started_at + interval.saturating_mul(index.try_into().unwrap_or(u32::MAX));
        if due > Instant::now() + TIMER_RESOLUTION {
            sleep_until(due).await;
        }
        end(item);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Returns the time that `spread` took, and the maximum number of items that ended together.
    async fn measure(count: usize, window: Duration) -> (Duration, usize) {
        let (started_at, ended) = (Instant::now(), RefCell::new(Vec::new()));
        spread((0..count).collect(), window, |item: usize| {
            ended.borrow_mut().push((item, started_at.elapsed()))
        })
        .await;
        let ended = ended.into_inner();
        assert!(ended.iter().map(|(item, _)| *item).eq(0..count));
        let together = ended
            .chunk_by(|(_, a), (_, b)| a == b)
            .map(<[_]>::len)
            .max()
            .unwrap_or_default();
        (started_at.elapsed(), together)
    }

    #[tokio::test(start_paused = true)]
    async fn many_sessions_fill_the_window() {
        let window = Duration::from_secs(5);
        let (took, together) = measure(100_000, window).await;
        assert!(
            took > window * 9 / 10 && took <= window + 2 * TIMER_RESOLUTION,
            "{took:?}"
        );
        assert!(together <= 100, "{together} at once");
    }

    #[tokio::test(start_paused = true)]
    async fn few_sessions_end_at_the_maximum_interval() {
        assert!(measure(10, Duration::from_secs(5)).await.0 <= 10 * MAX_INTERVAL);
        assert_eq!(
            measure(0, Duration::from_secs(5)).await,
            (Duration::ZERO, 0)
        );
    }

    #[test]
    fn spread_time_is_at_most_the_window() {
        let window = Duration::from_secs(5);
        assert_eq!(spread_time(0, window), Duration::ZERO);
        assert_eq!(spread_time(1, window), MAX_INTERVAL);
        assert_eq!(spread_time(100, window), MAX_INTERVAL * 100);
        assert_eq!(spread_time(100_000, window), window);
        assert_eq!(spread_time(100, Duration::ZERO), Duration::ZERO);
    }
}
