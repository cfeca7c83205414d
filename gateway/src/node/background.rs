//! Work that a node does for as long as it runs.

use std::{sync::Arc, time::Duration};

use domain::{
    Services,
    ended::{EndedHandler, Follower},
    jobs,
};

use super::storage::RECHECK_PERIOD;
use crate::sessions::Sessions;

/// Period at which a node looks for deletion jobs that no node runs.
const JOB_PERIOD: Duration = Duration::from_secs(5);
/// Pause after a failed job.
const JOB_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Follows the log of ended sessions of all nodes.
pub(super) async fn follow(
    follower: Option<Follower>,
    services: Services,
    sessions: Arc<Sessions>,
) {
    if let Some(follower) = follower {
        return follower.run().await;
    }
    loop {
        match Follower::start(services.clone(), sessions.clone()).await {
            Ok(follower) => {
                // The store became reachable late. Revocations before this position are unknown, so
                // that all sessions have to reconnect.
                EndedHandler::all(&*sessions).await;
                return follower.run().await;
            }
            Err(_) => tokio::time::sleep(RECHECK_PERIOD).await,
        }
    }
}

/// Runs deletion jobs: those of this node's requests at once, and those that other nodes left.
pub(super) async fn run_jobs(services: Services) {
    loop {
        let pause = match jobs::run::run_jobs(&services).await {
            Ok(pass) if pass.unfinished > 0 => Duration::ZERO,
            Ok(pass) if pass.failed > 0 => JOB_RETRY_DELAY,
            Ok(_) => JOB_PERIOD,
            Err(error) => {
                tracing::debug!(%error, "cannot read deletion jobs");
                JOB_RETRY_DELAY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = services.jobs.notified() => {}
        }
    }
}
