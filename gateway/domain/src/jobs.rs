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
//! Every node runs jobs. A node claims one before it works on it, for [`CLAIM`] after its last
//! slice; two nodes at the same job do no harm, they only do work twice. Left out: how each kind is
//! cleared ([`clearing`](super::clearing)).

use std::time::Duration;

use futures_util::{StreamExt, stream};
use protocol::{AppId, ChannelId, CloseCode, OrganizationId, TokenKeyId, UserId};
use serde::{Deserialize, Serialize};
use store::{Commit, Document, Expected, Key, Mark, Partition, Range, Table, Write};
use tokio::time::Instant;

use super::{
    ATTEMPTS, Services,
    document::{PutValue, decode, encode},
    ended::{self, Ending, revoked_second},
    schema::{self, ENTITY, JOBS, ONLY, REVOCATION, Scope, Subject, TOMBSTONE},
};
use crate::error::{Error, Result};

/// Milliseconds after which the requests that noted a job have ended. A job whose deletion did not
/// happen by then is dropped.
const ABANDONED: u64 = 60_000;
/// How long a claim holds, in milliseconds. Far more than a [`SLICE`].
const CLAIM: u64 = 15_000;
/// After this, in milliseconds, nothing acts any more by a credential of a deleted app: no node
/// remembers it, and what was in flight is over. Only then is the app cleared, so that nothing is
/// written behind the job's back.
const SETTLED: u64 = 10_000;
/// How long one job is worked on before the others have their turn.
const SLICE: Duration = Duration::from_secs(1);
/// How many jobs a node works on at once.
const JOBS_AT_ONCE: usize = 4;
/// How many jobs are read at once.
const JOBS_PER_PAGE: usize = 200;

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

/// What one pass over the jobs did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Jobs that were finished.
    pub finished: usize,
    /// Jobs that go on at once.
    pub unfinished: usize,
    /// Jobs that failed for now.
    pub failed: usize,
}

impl Services {
    /// Notes a job, before the commit that refuses.
    pub(super) async fn note_job(&self, task: &Task) -> Result<()> {
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
        self.store
            .commit(&schema::deployment(), commit)
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }

    /// The job of a deletion that is not finished, for a request that is sent again.
    pub(super) async fn pending_job(&self, task: &Task) -> Result<Option<Held>> {
        let snapshot = self
            .snapshot(schema::deployment(), vec![(JOBS, task.name())])
            .await?;
        let held = snapshot.documents[0].as_ref().map(Held::of).transpose()?;
        Ok(held.filter(|held| held.job.task == *task))
    }

    /// Ends the sessions of a job on all nodes, once; the same commit says so in the job, or
    /// deletes the job of a token key, which has nothing else to do.
    pub(super) async fn end_sessions_of(&self, task: &Task) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let held = self.pending_job(task).await?;
            // Read after the job: a revocation that is noted later gives the job another version.
            let Some(Ends { ending, revocation }) = self.ending_of(task).await? else {
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
            if self
                .store
                .commit(&schema::deployment(), ended::append(&ending, commit))
                .await?
                .is_ok()
            {
                self.ended.notify_one();
                return Ok(());
            }
        }
        Err(Error::busy())
    }

    /// Returns which sessions a job ends, as the store has it now; `None` if it ends none itself.
    async fn ending_of(&self, task: &Task) -> Result<Option<Ends>> {
        let ending = match task {
            Task::User { scope, id } => Ending::user(scope, id, None, CloseCode::SessionEnded),
            Task::Tokens { scope, user } => {
                let snapshot = self
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
    pub(super) fn wake_jobs(&self) {
        self.jobs.notify_one();
    }

    /// Works on every job that nobody else works on, each for a slice at most.
    pub async fn run_jobs(&self) -> Result<Pass> {
        let now = self.clock.now_ms();
        let (mut pass, mut after) = (Pass::default(), None);
        pass.failed += self.complete_memberships().await;
        loop {
            let (page, _) = self
                .store
                .page(
                    &schema::deployment(),
                    JOBS,
                    Range::Keys { after },
                    JOBS_PER_PAGE,
                )
                .await?;
            after = page
                .documents
                .last()
                .map(|last| last.key.clone())
                .filter(|_| page.more);
            let steps: Vec<_> = page
                .documents
                .into_iter()
                .map(|document| self.run_job(document, now))
                .collect();
            let mut steps = stream::iter(steps).buffer_unordered(JOBS_AT_ONCE);
            while let Some(step) = steps.next().await {
                match step {
                    Some(Step::Done) => pass.finished += 1,
                    Some(Step::More) => pass.unfinished += 1,
                    Some(Step::Later) => {}
                    None => pass.failed += 1,
                }
            }
            if after.is_none() {
                return Ok(pass);
            }
        }
    }

    /// Works on one job. `None` if that failed; the others do not wait for it.
    async fn run_job(&self, document: Document, now: u64) -> Option<Step> {
        let step = async {
            let held = Held::of(&document)?;
            if held
                .job
                .claim
                .as_ref()
                .is_some_and(|(node, at)| **node != *self.node && at + CLAIM > now)
            {
                return Ok(Step::Later);
            }
            if !self.has_begun(&held).await? {
                return match held.noted_at + ABANDONED < now {
                    true => self.finish_job(&held).await.map(|()| Step::Done),
                    false => Ok(Step::Later),
                };
            }
            let Some(held) = self.claim_job(held, now).await? else {
                return Ok(Step::Later);
            };
            self.work_on(held, now, Instant::now() + SLICE).await
        };
        match step.await {
            Ok(step) => Some(step),
            Err(error) => {
                tracing::warn!(job = %document.key, %error, "a deletion job failed, it will be tried again");
                None
            }
        }
    }

    /// Whether the commit that refuses has happened, and not all that follows from it is done.
    async fn has_begun(&self, held: &Held) -> Result<bool> {
        let is_there = async |partition: Partition, table: Table| {
            let snapshot = self.snapshot(partition, vec![(table, ONLY.into())]).await?;
            Ok::<_, Error>(snapshot.documents.into_iter().next().flatten())
        };
        Ok(match &held.job.task {
            Task::Channel { scope, id } => is_there(scope.channel(id), TOMBSTONE).await?.is_some(),
            Task::User { scope, id } => is_there(scope.user(id), TOMBSTONE).await?.is_some(),
            Task::App { id, .. } => is_there(schema::app(id), TOMBSTONE).await?.is_some(),
            Task::Organization { id } => is_there(schema::organization(id), TOMBSTONE)
                .await?
                .is_some(),
            Task::TokenKey { id, .. } => is_there(schema::token_key(id), ENTITY).await?.is_none(),
            Task::Tokens { .. } => self.has_unended_revocation(held).await?,
        })
    }

    /// Whether the user's tokens were revoked since the job last ended sessions.
    async fn has_unended_revocation(&self, Held { job, .. }: &Held) -> Result<bool> {
        let ends = self.ending_of(&job.task).await?;
        let found = ends.and_then(|ends| ends.revocation);
        Ok(found.is_some() && found != job.revocation)
    }

    /// Takes a job for this node; `None` if it changed meanwhile.
    async fn claim_job(
        &self,
        Held {
            job,
            version,
            noted_at,
        }: Held,
        now: u64,
    ) -> Result<Option<Held>> {
        let job = Job {
            claim: Some((self.node.to_string(), now)),
            ..job
        };
        let name = job.task.name();
        let commit = Commit::default()
            .require(JOBS, name.clone(), Expected::Version(version))
            .put_value(JOBS, name, &job)
            .frees();
        let claimed = self.store.commit(&schema::deployment(), commit).await?;
        Ok(claimed.ok().map(|outcome| Held {
            job,
            version: outcome.written[0].version,
            noted_at,
        }))
    }

    /// Deletes a job, unless it was noted anew.
    async fn finish_job(&self, held: &Held) -> Result<()> {
        let name = held.job.task.name();
        let commit = Commit::default()
            .require(JOBS, name.clone(), Expected::Version(held.version))
            .delete(JOBS, name)
            .frees();
        // On a conflict somebody else goes on with it.
        self.store.commit(&schema::deployment(), commit).await?.ok();
        Ok(())
    }

    async fn work_on(&self, held: Held, now: u64, until: Instant) -> Result<Step> {
        let task = &held.job.task;
        match task {
            Task::Tokens { .. } => return self.end_sessions_of(task).await.map(|()| Step::Later),
            Task::TokenKey { app, id } => {
                return self
                    .finish_token_key_revocation(app, id)
                    .await
                    .map(|()| Step::Done);
            }
            Task::User { .. } | Task::App { .. } => self.end_sessions_of(task).await?,
            Task::Channel { .. } | Task::Organization { .. } => {}
        }
        // Ending its sessions may have given the job another version. Read before the clearing: a
        // deletion that is noted meanwhile, of a channel made anew, keeps its job.
        let held = match task {
            Task::User { .. } | Task::App { .. } => match self.pending_job(task).await? {
                Some(held) => held,
                None => return Ok(Step::Done),
            },
            _ => held,
        };
        let step = match &held.job.task {
            Task::Channel { scope, id } => self.clear_channel(scope, id, until).await?,
            Task::User { scope, id } => self.clear_user(scope, id, until).await?,
            Task::App { .. } if held.noted_at + SETTLED > now => Step::Later,
            Task::App { id, .. } => self.clear_app(id, until).await?,
            Task::Organization { id } => self.clear_organization(id, until).await?,
            Task::Tokens { .. } | Task::TokenKey { .. } => Step::Done,
        };
        if step == Step::Done {
            self.finish_job(&held).await?;
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Arc;

    use fanout::bus::{Local, conformance::Recorder};
    use protocol::{Limits, entity::Environment};
    use redis_testing::Server;
    use store::{Keep, Store, embedded::Embedded, redis::Redis};

    use super::*;
    use crate::credential::SecretKey;

    const KEEP: Keep = Keep {
        events: 0,
        bytes: 0,
    };

    fn services_over(store: Arc<dyn Store>) -> Services {
        Services::new(store, Limits::default(), SecretKey::new([7; 32]), "node")
    }

    /// A request that revokes the tokens of a user, one step at a time.
    struct Revocation<'a> {
        services: &'a Services,
        task: Task,
        done: usize,
    }

    impl Revocation<'_> {
        async fn step(&mut self) {
            let Task::Tokens { scope, user } = &self.task else {
                panic!()
            };
            match self.done {
                0 => self.services.note_job(&self.task).await.unwrap(),
                1 => self.services.revoke_tokens(scope, user).await.unwrap(),
                _ => self.services.end_sessions_of(&self.task).await.unwrap(),
            }
            self.done += 1;
        }
    }

    /// How far the log of ended sessions is.
    async fn ended(services: &Services) -> u64 {
        services
            .snapshot(schema::deployment(), Vec::new())
            .await
            .unwrap()
            .head
            .seq
    }

    /// In which order the steps of two requests can be done: `true` for the first one's.
    fn orders(first: usize, second: usize) -> Vec<Vec<bool>> {
        if (first, second) == (0, 0) {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for (is_first, left) in [
            (true, first.checked_sub(1).zip(Some(second))),
            (false, Some(first).zip(second.checked_sub(1))),
        ] {
            let Some((first, second)) = left else {
                continue;
            };
            for mut order in orders(first, second) {
                order.push(is_first);
                all.push(order);
            }
        }
        all
    }

    /// Two revocations of one user's tokens, each of which may stop after any step.
    async fn every_committed_revocation_ends_the_sessions_before_it(services: Services) {
        let scope = Scope {
            app: AppId::from_bits(1),
            environment: Environment::Live,
        };
        let stops = (0..=3).flat_map(|first| (0..=3).map(move |second| (first, second)));
        for (number, order) in stops
            .flat_map(|(first, second)| orders(first, second))
            .enumerate()
        {
            let user: UserId = format!("user-{number}").parse().unwrap();
            services
                .store
                .commit(
                    &scope.user(&user),
                    Commit::default().put_value(ENTITY, ONLY, &true),
                )
                .await
                .unwrap()
                .unwrap();
            let request = || Revocation {
                services: &services,
                task: Task::Tokens {
                    scope: scope.clone(),
                    user: user.clone(),
                },
                done: 0,
            };
            let (mut requests, mut last_revoked) = ([request(), request()], None);
            for is_first in &order {
                let request = &mut requests[usize::from(!is_first)];
                request.step().await;
                if request.done == 2 {
                    last_revoked = Some(ended(&services).await);
                }
            }
            services.run_jobs().await.unwrap();
            if let Some(before) = last_revoked {
                assert!(
                    ended(&services).await > before,
                    "no session is told of the last revocation: {order:?}"
                );
            }
        }
        let now = services.clock.machine_ms();
        services.clock.adjust(now + 2 * ABANDONED, now);
        services.run_jobs().await.unwrap();
        assert_eq!(
            services
                .all_keys(&schema::deployment(), JOBS)
                .await
                .unwrap(),
            Vec::<Key>::new(),
            "no job is left for ever"
        );
    }

    #[tokio::test]
    async fn every_committed_revocation_ends_the_sessions_before_it_on_the_embedded_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
        every_committed_revocation_ends_the_sessions_before_it(services_over(Arc::new(store)))
            .await;
    }

    #[tokio::test]
    async fn every_committed_revocation_ends_the_sessions_before_it_on_redis() {
        let server = Server::start().await;
        let store = Redis::open(&server.url().parse().unwrap(), KEEP);
        every_committed_revocation_ends_the_sessions_before_it(services_over(Arc::new(store)))
            .await;
    }

    #[tokio::test]
    async fn deletion_that_begins_while_its_namesake_is_cleared_keeps_its_job() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
        let services = services_over(Arc::new(store));
        let scope = Scope {
            app: AppId::from_bits(1),
            environment: Environment::Live,
        };
        let task = Task::Channel {
            scope: scope.clone(),
            id: "general".parse().unwrap(),
        };
        services.note_job(&task).await.unwrap();
        let held = services.pending_job(&task).await.unwrap().unwrap();
        // The channel was cleared and made anew by a request, and a second deletion is about to
        // begin.
        services.note_job(&task).await.unwrap();
        let step = services
            .work_on(held, services.clock.now_ms(), Instant::now() + SLICE)
            .await
            .unwrap();
        assert_eq!(step, Step::Done);
        assert!(
            services.pending_job(&task).await.unwrap().is_some(),
            "the second deletion has a job"
        );
    }
}
