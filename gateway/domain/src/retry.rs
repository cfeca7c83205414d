//! Repeats what conflicts with other commits.

use std::ops::ControlFlow;

use crate::error::{Error, Result};

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
