//! How a node says goodbye: to many in a window, to few at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between two goodbyes at most; many share the window instead.
const STEP: Duration = Duration::from_millis(5);
/// A timer's resolution: those who are due within it go together.
const TICK: Duration = Duration::from_millis(1);

/// How long it takes to say goodbye to so many: no longer than the window, and no longer than
/// needed.
pub fn spread_time(count: usize, window: Duration) -> Duration {
    STEP.saturating_mul(count.try_into().unwrap_or(u32::MAX))
        .min(window)
}

/// Says goodbye to each, spread over the window at most, however many they are.
pub async fn spread<T>(all: Vec<T>, window: Duration, goodbye: impl Fn(T)) {
    let begun = Instant::now();
    let step = spread_time(all.len(), window)
        .checked_div(all.len().try_into().unwrap_or(u32::MAX))
        .unwrap_or_default();
    for (place, one) in all.into_iter().enumerate() {
        let due = begun + step.saturating_mul(place.try_into().unwrap_or(u32::MAX));
        if due > Instant::now() + TICK {
            sleep_until(due).await;
        }
        goodbye(one);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    async fn ends_after(count: usize, window: Duration) -> (Duration, usize) {
        let (begun, said) = (Instant::now(), RefCell::new(Vec::new()));
        spread((0..count).collect(), window, |one: usize| {
            said.borrow_mut().push((one, begun.elapsed()))
        })
        .await;
        let said = said.into_inner();
        assert!(said.iter().map(|(one, _)| *one).eq(0..count));
        let together = said
            .chunk_by(|(_, a), (_, b)| a == b)
            .map(<[_]>::len)
            .max()
            .unwrap_or_default();
        (begun.elapsed(), together)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_goodbyes_fill_the_window_and_no_more() {
        let window = Duration::from_secs(5);
        let (took, together) = ends_after(100_000, window).await;
        assert!(
            took > window * 9 / 10 && took <= window + 2 * TICK,
            "{took:?}"
        );
        assert!(together <= 100, "{together} at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_goodbyes_wait_for_nobody() {
        assert!(ends_after(10, Duration::from_secs(5)).await.0 <= 10 * STEP);
        assert_eq!(
            ends_after(0, Duration::from_secs(5)).await,
            (Duration::ZERO, 0)
        );
    }

    #[test]
    fn clients_are_told_to_come_back_within_the_time_that_the_goodbyes_take() {
        let window = Duration::from_secs(5);
        assert_eq!(spread_time(0, window), Duration::ZERO);
        assert_eq!(spread_time(1, window), STEP);
        assert_eq!(spread_time(100, window), STEP * 100);
        assert_eq!(spread_time(100_000, window), window);
        assert_eq!(spread_time(100, Duration::ZERO), Duration::ZERO);
    }
}
