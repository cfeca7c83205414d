//! Deletion jobs: what is still to be done of a deletion or revocation that has begun.
//!
//! A job is a document of the deployment, written before the commit that refuses (a tombstone, a
//! missing token key, a revocation), and deleted when everything that follows from it is done. So
//! whatever stops in between, the next repeat of the request or the next node that runs jobs goes
//! on:
//!
//! | step | partition | lost after it |
//! |---|---|---|
//! | note the job | deployment | nothing was deleted; the job is dropped after [`ABANDONED`] |
//! | refuse | the object's own | the job ends the sessions and clears |
//! | end its sessions | deployment, with the job | the job clears |
//! | clear, in pieces | many | the job goes on; each piece may be done twice |
//!
//! Revocations of one user's tokens share a job. It is kept until every request that has noted it
//! is over ([`ABANDONED`]), and ends sessions for each revocation that it finds: a request may note
//! the job, let another one finish, then revoke, and stop there.
//!
//! Every node runs jobs. A node claims one before it works on it, for a while after its last
//! slice; two nodes at the same job do no harm, they only do work twice. Left out: how each kind is
//! cleared ([`clearing`](super::clearing)).

pub mod run;
#[cfg(test)]
mod tests;

use protocol::{AppId, ChannelId, CloseCode, OrganizationId, TokenKeyId, UserId};
use serde::{Deserialize, Serialize};
use store::{Commit, Document, Expected, Key, Mark, Write};

use crate::{
    ATTEMPTS, Services,
    document::{PutValue, decode, encode},
    ended::{self, Ending, revoked_second},
    error::{Error, Result},
    schema::{self, JOBS, ONLY, REVOCATION, Scope, Subject},
};

/// Milliseconds after which the requests that noted a job have ended. A job whose deletion did not
/// happen by then is dropped.
const ABANDONED: u64 = 60_000;
/// What a deletion or revocation is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Clear a deleted channel.
    Channel {
        /// Its tenant.
        scope: Scope,
        /// Its id.
        id: ChannelId,
    },
    /// End the sessions of a deleted user, and take it out of its channels.
    User {
        /// Its tenant.
        scope: Scope,
        /// Its id.
        id: UserId,
    },
    /// End the sessions that revoked tokens of a user opened.
    Tokens {
        /// The user's tenant.
        scope: Scope,
        /// Whose tokens.
        user: UserId,
    },
    /// End the sessions that tokens of a revoked key opened.
    TokenKey {
        /// Its app.
        app: AppId,
        /// Its id.
        id: TokenKeyId,
    },
    /// End the sessions of a deleted app, and clear it.
    App {
        /// Its organization.
        organization: OrganizationId,
        /// Its id.
        id: AppId,
    },
    /// Delete the apps of a deleted organization, and clear it.
    Organization {
        /// Its id.
        id: OrganizationId,
    },
}

impl Task {
    /// The key of its job.
    pub fn name(&self) -> Key {
        match self {
            Self::Channel { scope, id } => scope.channel(id).name().into(),
            Self::User { scope, id } => scope.user(id).name().into(),
            Self::Tokens { scope, user } => format!("r:{}", scope.member(user)).into(),
            Self::TokenKey { id, .. } => schema::token_key(id).name().into(),
            Self::App { id, .. } => schema::app(id).name().into(),
            Self::Organization { id } => schema::organization(id).name().into(),
        }
    }

    /// The deletion of the channel or user whose partition has this name.
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

/// A job as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// What to do.
    pub task: Task,
    /// Whether its sessions were ended.
    ended: bool,
    /// Who works on it, and since when.
    claim: Option<(String, u64)>,
    /// The version of the newest revocation of a user's tokens whose sessions were ended.
    #[serde(default)]
    revocation: Option<u64>,
}

impl Job {
    /// A job that nobody has worked on yet.
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
pub(super) struct Held {
    pub(super) job: Job,
    version: u64,
    /// When it was noted, by the store's clock in milliseconds.
    noted_at: u64,
}

impl Held {
    fn of(document: &Document) -> Result<Self> {
        let noted_at = document.stamps.created_at.max(document.stamps.edited_at);
        Ok(Self {
            job: decode(document)?,
            version: document.version,
            noted_at,
        })
    }
}

/// Which sessions a job ends.
struct Ends {
    ending: Ending,
    /// The version of the revocation that says so, if it is one of a user's tokens.
    revocation: Option<u64>,
}

/// How far a job came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do at once.
    More,
    /// There is more to do, but not yet.
    Later,
    /// Everything is done.
    Done,
}

/// Notes a job, before the commit that refuses.
pub(super) async fn note_job(services: &Services, task: &Task) -> Result<()> {
    let mut commit = Commit::default().frees();
    let value = encode(&Job::new(task.clone()));
    // The mark says when it was noted; what puts it later leaves that as it is.
    commit.write.push(Write::Put {
        table: JOBS,
        key: task.name(),
        value,
        mark: Mark::Edited,
        event: None,
    });
    services
        .store
        .commit(&schema::deployment(), commit)
        .await?
        .map_err(|_| Error::busy())?;
    Ok(())
}

/// The job of a deletion that is not finished, for a request that is sent again.
pub(super) async fn pending_job(services: &Services, task: &Task) -> Result<Option<Held>> {
    let snapshot = services
        .snapshot(schema::deployment(), vec![(JOBS, task.name())])
        .await?;
    let held = snapshot.documents[0].as_ref().map(Held::of).transpose()?;
    Ok(held.filter(|held| held.job.task == *task))
}

/// Ends the sessions of a job on all nodes, once; the same commit says so in the job, or
/// deletes the job of a token key, which has nothing else to do.
pub(super) async fn end_sessions_of(services: &Services, task: &Task) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let held = pending_job(services, task).await?;
        // Read after the job: a revocation that is noted later gives the job another version.
        let Some(Ends { ending, revocation }) = ending_of(services, task).await? else {
            return Ok(());
        };
        let mut commit = Commit::default();
        // Without a job, somebody else has finished it meanwhile; ending twice does no harm.
        if let Some(Held { job, version, .. }) = held {
            let is_done = match task {
                Task::Tokens { .. } => revocation.is_some() && job.revocation == revocation,
                _ => job.ended,
            };
            if is_done {
                return Ok(());
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
            .store
            .commit(&schema::deployment(), ended::append(&ending, commit))
            .await?
            .is_ok()
        {
            services.ended.notify_one();
            return Ok(());
        }
    }
    Err(Error::busy())
}

/// Returns which sessions a job ends, as the store has it now; `None` if it ends none itself.
async fn ending_of(services: &Services, task: &Task) -> Result<Option<Ends>> {
    let ending = match task {
        Task::User { scope, id } => Ending::user(scope, id, None, CloseCode::SessionEnded),
        Task::Tokens { scope, user } => {
            let snapshot = services
                .snapshot(scope.user(user), vec![(REVOCATION, ONLY.into())])
                .await?;
            let revocation = snapshot.documents[0].as_ref();
            let second = revocation.map(|document| revoked_second(&document.stamps));
            // Without a revocation the user is deleted by now, and all its sessions end.
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

/// Wakes this node's runner of jobs.
pub(super) fn wake_jobs(services: &Services) {
    services.jobs.notify_one();
}
