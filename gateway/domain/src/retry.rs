//! Repeats what conflicts with other commits.

use std::{hash::Hash, ops::ControlFlow};

use crate::{
    error::{Error, Result},
    turns::Turns,
};

/// Maximum number of attempts.
pub(super) const ATTEMPTS: usize = 16;

/// Performs an attempt, which reads, decides and commits, and repeats it while it returns `None`
/// because its commit conflicted with another one.
///
/// # Errors
/// The first error of an attempt; [`busy`](Error::busy) if every attempt conflicted.
pub(super) async fn retry<T, F>(attempt: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt().await? {
            return Ok(done);
        }
    }
    Err(Error::busy())
}

/// The same as [`retry`], for changes of one thing that many requests may want at once. After a
/// conflict, the requests of this node with the same key take turns. An attempt takes no turn of
/// the same key itself.
pub(super) async fn retry_in_turns<K, T, F>(
    turns: &Turns<K>,
    key: &K,
    attempt: impl Fn() -> F,
) -> Result<T>
where
    K: Eq + Hash + Clone,
    F: Future<Output = Result<Option<T>>>,
{
    if let Some(done) = attempt().await? {
        return Ok(done);
    }
    let _turn = turns.take(key.clone()).await;
    retry(attempt).await
}

/// The same as [`retry`], for attempts that hand what they have learned to the next one.
pub(super) async fn retry_with<S, T, F>(first: S, attempt: impl Fn(S) -> F) -> Result<T>
where
    F: Future<Output = Result<ControlFlow<T, S>>>,
{
    let mut state = first;
    for _ in 0..ATTEMPTS {
        match attempt(state).await? {
            ControlFlow::Break(done) => return Ok(done),
            ControlFlow::Continue(next) => state = next,
        }
    }
    Err(Error::busy())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::{cell::Cell, ops::ControlFlow::Continue};

    use super::*;

    #[tokio::test]
    async fn conflicting_attempt_is_repeated_until_it_succeeds() {
        let attempts = Cell::new(0);
        let done = retry(|| async {
            attempts.set(attempts.get() + 1);
            Ok((attempts.get() == 3).then_some("done"))
        });
        assert_eq!((done.await.unwrap(), attempts.get()), ("done", 3));
    }

    #[tokio::test]
    async fn many_requests_that_conflict_take_turns_and_all_succeed() {
        let (turns, version) = (Turns::default(), Cell::new(0));
        let change = || {
            retry_in_turns(&turns, &"owners", || async {
                let read = version.get();
                tokio::task::yield_now().await;
                let is_unchanged = version.get() == read;
                if is_unchanged {
                    version.set(read + 1);
                }
                Ok(is_unchanged.then_some(()))
            })
        };
        let all = futures_util::future::join_all((0..10 * ATTEMPTS).map(|_| change()));
        assert!(all.await.into_iter().all(|done| done.is_ok()));
        assert_eq!(version.get(), 10 * ATTEMPTS);
    }

    #[tokio::test]
    async fn attempts_that_always_conflict_end_as_busy() {
        let attempts = Cell::new(0);
        let error = retry(|| async {
            attempts.set(attempts.get() + 1);
            Ok(None::<()>)
        });
        assert!(error.await.unwrap_err().is_busy());
        assert_eq!(attempts.get(), ATTEMPTS);

        let counted = retry_with(0, |count| async move {
            assert!(count < ATTEMPTS);
            Ok(Continue::<(), _>(count + 1))
        });
        assert!(counted.await.unwrap_err().is_busy());
    }

    #[tokio::test]
    async fn error_of_an_attempt_is_not_retried() {
        let attempts = Cell::new(0);
        let failed = retry(|| async {
            attempts.set(attempts.get() + 1);
            Err::<Option<()>, _>(Error::not_found("user"))
        });
        assert!(!failed.await.unwrap_err().is_busy());
        assert_eq!(attempts.get(), 1);
    }
}
