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
