//! Bounded concurrency for several futures.

use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;

use crate::error::Result;

/// Maximum number of futures that are polled concurrently.
const FUTURES_AT_ONCE: usize = 16;

/// Runs futures with bounded concurrency, and returns their outputs in order.
pub async fn run<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    // Collected first: a stream of a lazy iterator ties the lifetimes of its futures to a closure.
    let futures: Vec<F> = futures.into_iter().collect();
    stream::iter(futures)
        .buffered(FUTURES_AT_ONCE)
        .collect()
        .await
}

/// Runs futures that may fail to their ends, and returns their outputs or the first error.
pub async fn all<F, T, E>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    run(futures).await.into_iter().collect()
}

/// Performs an item of a batch. If it is [busy](crate::error::Error::is_busy), because the items of
/// the batch conflict with each other, it is performed once more, alone among those.
pub async fn retry_alone<T, F>(turn: &Mutex<()>, perform: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    match perform().await {
        Err(error) if error.is_busy() => {
            let _turn = turn.lock().await;
            perform().await
        }
        outcome => outcome,
    }
}
