//! Work on several things at once, but not on all.

use futures_util::{StreamExt, stream};

/// How many are worked on at once.
const AT_ONCE: usize = 16;

/// The outputs of futures, in their order.
pub async fn together<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    // Collected first: a stream that makes its futures as it goes ties their lifetimes to the
    // closure.
    let futures: Vec<F> = futures.into_iter().collect();
    stream::iter(futures).buffered(AT_ONCE).collect().await
}

/// The same for futures that may fail: all of them end, and the first error counts.
pub async fn all<F, T, E>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    together(futures).await.into_iter().collect()
}
