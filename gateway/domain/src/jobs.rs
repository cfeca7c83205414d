//! Jobs: deletions and revocations that have begun and are not finished.
//!
//! A job is a document of the deployment. It is written before the commit that deletes or revokes
//! (a tombstone, a missing token key, a revocation), and deleted when everything that follows is
//! done. If a request stops in between, its repeat or a node that [runs](run) jobs completes it:
//!
//! | step | partition | if the request stops after it |
//! |---|---|---|
//! | write the job | deployment | nothing was deleted; the job is deleted after [`MAX_REQUEST_MS`] |
//! | delete or revoke | the object's own | the job ends the sessions and clears |
//! | end the sessions | deployment, with the job | the job clears |
//! | clear, in pieces | many | the job goes on; a piece may be done twice |
//!
//! Revocations of one user's tokens share a job. It is kept until every request that wrote it is
//! over, and ends sessions for each revocation that it finds: a request may write the job, lose the
//! race to another one that finishes it, then revoke, and stop.
//!
//! Every node runs jobs, and claims a job before it works on it. Two nodes at one job only repeat
//! work. Left out: how each kind of object is cleared ([`clearing`](super::clearing)).

pub mod run;
#[cfg(test)]
mod tests;

use protocol::{AppId, ChannelId, CloseCode, OrganizationId, TokenKeyId, UserId};
use serde::{Deserialize, Serialize};
use store::{Commit, Document, DocumentKey, Expected, Mark};

use crate::{
    Services,
    document::{PutValue, decode},
    ended::{self, Ending, revoked_second},
    error::Result,
    retry::retry,
    schema::{self, JOBS, ONLY, REVOCATION, Scope, Subject},
};

/// Time in milliseconds after which the requests that wrote a job have ended. A job whose deletion
/// has not happened by then is deleted.
const MAX_REQUEST_MS: u64 = 60_000;

/// A deletion or revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Clear a deleted channel.
    Channel {
        /// The tenant.
        scope: Scope,
        /// The channel.
        id: ChannelId,
    },
    /// End the sessions of a deleted user, and remove it from its channels.
    User {
        /// The tenant.
        scope: Scope,
        /// The user.
        id: UserId,
    },
    /// End the sessions that revoked tokens of a user opened.
    Tokens {
        /// The user's tenant.
        scope: Scope,
        /// The user.
        user: UserId,
    },
    /// End the sessions that tokens of a revoked key opened.
    TokenKey {
        /// The app.
        app: AppId,
        /// The token key.
        id: TokenKeyId,
    },
    /// End the sessions of a deleted app, and clear it.
    App {
        /// The organization.
        organization: OrganizationId,
        /// The app.
        id: AppId,
    },
    /// Delete the apps of a deleted organization, and clear it.
    Organization {
        /// The organization.
        id: OrganizationId,
    },
}

impl Task {
    /// Returns the key of the task's job.
    pub fn name(&self) -> DocumentKey {
        match self {
            Self::Channel { scope, id } => scope.channel(id).name().into(),
            Self::User { scope, id } => scope.user(id).name().into(),
            Self::Tokens { scope, user } => format!("r:{}", scope.member(user)).into(),
            Self::TokenKey { id, .. } => schema::token_key(id).name().into(),
            Self::App { id, .. } => schema::app(id).name().into(),
            Self::Organization { id } => schema::organization(id).name().into(),
        }
    }

    /// Returns the app or organization whose job this is.
    fn tenant(&self) -> String {
        match self {
            Self::Channel { scope, .. } | Self::User { scope, .. } | Self::Tokens { scope, .. } => {
                scope.app.to_string()
            }
            Self::TokenKey { app, .. } | Self::App { id: app, .. } => app.to_string(),
            Self::Organization { id } => id.to_string(),
        }
    }

    /// Returns the deletion of the channel or user whose partition has this name.
    pub fn of_partition(name: &str) -> Option<Self> {
        let scope = schema::scope_of_topic(name)?;
        match schema::subject(name) {
            Subject::Channel(id) => Some(Self::Channel {
                scope,
                id: id.parse().ok()?,
            }),
            Subject::User(id) => Some(Self::User {
                scope,
                id: id.parse().ok()?,
            }),
            Subject::Other => None,
        }
    }
}

/// A stored job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The deletion or revocation.
    pub task: Task,
    /// Whether the sessions were ended.
    ended: bool,
    /// The node that works on it, and the time of its last slice.
    claim: Option<(String, u64)>,
    /// The version of the newest revocation of a user's tokens whose sessions were ended.
    #[serde(default)]
    revocation: Option<u64>,
}

impl Job {
    /// A job that no node has worked on.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            ended: false,
            claim: None,
            revocation: None,
        }
    }
}

/// A job with the version of its document.
#[derive(Debug)]
pub(super) struct HeldJob {
    pub(super) job: Job,
    version: u64,
    /// When a request last wrote it, by the store's clock in milliseconds.
    noted_at: u64,
}

impl HeldJob {
    fn of(document: &Document) -> Result<Self> {
        let noted_at = document.stamps.created_at.max(document.stamps.edited_at);
        Ok(Self {
            job: decode(document)?,
            version: document.version,
            noted_at,
        })
    }
}

/// The sessions that a job ends.
struct Ends {
    ending: Ending,
    /// The version of the revocation, if it is one of a user's tokens.
    revocation: Option<u64>,
}

/// The progress of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobStep {
    /// There is more to do at once.
    More,
    /// There is more to do, but not yet.
    Later,
    /// Everything is done.
    Done,
}

/// Writes a job, before the commit that deletes or revokes.
pub(super) async fn note_job(services: &Services, task: &Task) -> Result<()> {
    let mut commit = Commit::default().frees();
    // Only this write sets the time of the mark; later ones keep it.
    commit.add_marked(JOBS, task.name(), &Job::new(task.clone()), Mark::Edited);
    services
        .commit_or_busy(&schema::deployment(), commit)
        .await?;
    Ok(())
}

/// Returns the job of a task that is not finished, for a repeated request.
pub(super) async fn pending_job(services: &Services, task: &Task) -> Result<Option<HeldJob>> {
    let job = services
        .document(schema::deployment(), JOBS, task.name())
        .await?;
    let held = job.as_ref().map(HeldJob::of).transpose()?;
    Ok(held.filter(|held| held.job.task == *task))
}

/// Ends the sessions of a job on all nodes, once. The same commit marks the job, or deletes the job
/// of a token key, which has nothing else to do.
pub(super) async fn end_sessions_of(services: &Services, task: &Task) -> Result<()> {
    retry(|| async {
        let held = pending_job(services, task).await?;
        // Read after the job: a later revocation gives the job another version.
        let Some(Ends { ending, revocation }) = ending_of(services, task).await? else {
            return Ok(Some(()));
        };
        let mut commit = Commit::default();
        // Without a job, another node has finished it meanwhile. Ending sessions twice is harmless.
        if let Some(HeldJob { job, version, .. }) = held {
            let is_done = match task {
                Task::Tokens { .. } => revocation.is_some() && job.revocation == revocation,
                _ => job.ended,
            };
            if is_done {
                return Ok(Some(()));
            }
            commit = commit.require(JOBS, task.name(), Expected::Version(version));
            commit = match task {
                Task::TokenKey { .. } => commit.delete(JOBS, task.name()),
                _ => commit.put_value(
                    JOBS,
                    task.name(),
                    &Job {
                        ended: true,
                        revocation,
                        ..job
                    },
                ),
            };
        }
        if services
            .commit(&schema::deployment(), ended::append(&ending, commit))
            .await?
            .is_ok()
        {
            services.ended.notify_one();
            return Ok(Some(()));
        }
        Ok(None)
    })
    .await
}

/// Reads which sessions a job ends; `None` if it ends none itself.
async fn ending_of(services: &Services, task: &Task) -> Result<Option<Ends>> {
    let ending = match task {
        Task::User { scope, id } => Ending::user(scope, id, None, CloseCode::SessionEnded),
        Task::Tokens { scope, user } => {
            let revocation = services
                .document(scope.user(user), REVOCATION, ONLY)
                .await?;
            let second = revocation
                .as_ref()
                .map(|document| revoked_second(&document.stamps));
            // Without a revocation the user was deleted meanwhile, and all its sessions end.
            let ending = Ending::user(scope, user, second, CloseCode::SessionEnded);
            return Ok(Some(Ends {
                ending,
                revocation: revocation.map(|document| document.version),
            }));
        }
        Task::TokenKey { id, .. } => Ending::TokenKey { id: id.clone() },
        Task::App { id, .. } => Ending::App { id: id.clone() },
        Task::Channel { .. } | Task::Organization { .. } => return Ok(None),
    };
    Ok(Some(Ends {
        ending,
        revocation: None,
    }))
}

/// Wakes the task of this node that runs jobs.
pub(super) fn wake_jobs(services: &Services) {
    services.jobs.notify_one();
}
