//! Keeps a connection open: opens it, watches it, and opens it again after every fault, without
//! end.

use std::{
    convert::Infallible,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::{
    Address, ConnectionError, Deployment, Target, backoff::Backoff, timing::MAX_RECONNECT_BACKOFF,
};

/// First pause between two attempts to connect.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);

/// A connection that lasted this long resets the backoff.
const STABLE_AFTER: Duration = MAX_RECONNECT_BACKOFF.saturating_mul(2);

/// Opens and serves the connection that [`supervise`] keeps open.
pub trait Dialer: Send {
    /// An open connection.
    type Connection: Send;

    /// Purpose of the connection, in log lines.
    const PURPOSE: &'static str;

    /// Connects, authenticates and checks the server's role. Limits its own time.
    fn open(
        &mut self,
        deployment: &Deployment,
        address: &Address,
    ) -> impl Future<Output = Result<Self::Connection, ConnectionError>> + Send;

    /// Uses the connection until it fails.
    fn serve(
        &mut self,
        connection: Self::Connection,
    ) -> impl Future<Output = ConnectionError> + Send;

    /// Called after each failed attempt and after each lost connection.
    fn disconnected(&mut self, reason: String);

    /// Runs during the pause between two attempts, and is dropped at its end.
    fn pause(&mut self) -> impl Future<Output = Infallible> + Send {
        pending()
    }
}

/// Keeps a connection to `target` open until the future is dropped.
pub async fn supervise<C: Dialer>(deployment: Arc<Deployment>, target: Target, mut connector: C) {
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_RECONNECT_BACKOFF);
    let mut last_logged = None;
    loop {
        let started = Instant::now();
        let reason = match connect(&deployment, &target, &mut connector).await {
            Ok((address, connection)) => {
                tracing::info!(%address, purpose = C::PURPOSE, "connected to Redis");
                last_logged = None;
                let error = tokio::select! {
                    error = connector.serve(connection) => error,
                    master = target.replacement(&deployment, &address) => ConnectionError::Replaced(master),
                };
                tracing::warn!(%address, purpose = C::PURPOSE, %error, "lost the connection to Redis");
                error.to_string()
            }
            Err(error) => {
                // Every attempt fails; each new reason is logged once.
                let reason = error.to_string();
                if last_logged.as_ref() != Some(&reason) {
                    tracing::warn!(%target, purpose = C::PURPOSE, error = reason, "cannot connect to Redis");
                    last_logged = Some(reason.clone());
                }
                reason
            }
        };
        connector.disconnected(reason);
        if started.elapsed() > STABLE_AFTER {
            backoff.reset();
        }
        // Ends by the timeout.
        let _ = timeout(backoff.advance(), connector.pause()).await;
    }
}

async fn connect<C: Dialer>(
    deployment: &Deployment,
    target: &Target,
    connector: &mut C,
) -> Result<(Address, C::Connection), ConnectionError> {
    let address = target.locate(deployment).await?;
    let connection = connector.open(deployment, &address).await?;
    Ok((address, connection))
}
