//! Runs jobs: every node works on each job for a slice at a time.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use store::{Commit, Document, Expected, Range};
use tokio::time::Instant;

use super::{HeldJob, Job, JobStep, MAX_REQUEST_MS, Task};
use crate::{
    Services, clearing,
    document::PutValue,
    error::Result,
    jobs,
    schema::{self, JOBS, ONLY, PartitionKind, TOMBSTONE},
    settling, token_keys,
};

/// Duration of a claim after a node's last slice, in milliseconds. Far more than a [`SLICE`].
const CLAIM_MS: u64 = 15_000;

/// Time that a node works on one job before it continues with the next.
pub(super) const SLICE: Duration = Duration::from_secs(1);

/// Maximum number of jobs that a node works on concurrently.
const JOBS_AT_ONCE: usize = 4;

/// Number of jobs that one read returns.
const JOBS_PER_PAGE: usize = 200;

/// Time in milliseconds after which no request acts with a credential of a deleted app: caches have
/// dropped it and requests in flight have ended. The app is cleared after that, so that no request
/// writes to a partition that is already cleared.
const CREDENTIAL_USE_MS: u64 = 10_000;

/// Works on every job that no other node has claimed, on each for a slice at most. Deleted channels
/// come last, since no session waits for them to end.
pub async fn run_jobs(services: &Services) -> Result<JobsPass> {
    let mut pass = JobsPass::default();
    pass.failed += settling::complete_memberships(services).await;
    run_jobs_where(services, &mut pass, |kind| {
        kind != Some(PartitionKind::Channel)
    })
    .await?;
    run_jobs_where(services, &mut pass, |kind| {
        kind == Some(PartitionKind::Channel)
    })
    .await?;
    Ok(pass)
}

/// Works on the jobs for which `is_due` returns true, given the kind of the job's partition.
async fn run_jobs_where(
    services: &Services,
    pass: &mut JobsPass,
    is_due: impl Fn(Option<PartitionKind>) -> bool,
) -> Result<()> {
    let (now, mut after) = (services.clock.now_ms(), None);
    loop {
        let (page, _) = services
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
            .filter(|document| is_due(PartitionKind::of(&document.key)))
            .map(|document| run_job(services, document, now))
            .collect();
        let mut steps = stream::iter(steps).buffer_unordered(JOBS_AT_ONCE);
        while let Some(step) = steps.next().await {
            match step {
                Some(JobStep::Done) => pass.finished += 1,
                Some(JobStep::More) => pass.unfinished += 1,
                Some(JobStep::Later) => {}
                None => pass.failed += 1,
            }
        }
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Works on one job. Returns `None` if that failed.
async fn run_job(services: &Services, document: Document, now: u64) -> Option<JobStep> {
    let step = async {
        let held = HeldJob::of(&document)?;
        if held
            .job
            .claim
            .as_ref()
            .is_some_and(|(node, at)| **node != *services.node && at + CLAIM_MS > now)
        {
            return Ok(JobStep::Later);
        }
        if !has_begun(services, &held).await? {
            return match held.noted_at + MAX_REQUEST_MS < now {
                true => finish_job(services, &held).await.map(|()| JobStep::Done),
                false => Ok(JobStep::Later),
            };
        }
        let Some(held) = claim_job(services, held, now).await? else {
            return Ok(JobStep::Later);
        };
        work_on(services, held, now, Instant::now() + SLICE).await
    };
    match step.await {
        Ok(step) => Some(step),
        Err(error) => {
            tracing::warn!(job = %document.key, %error, "a deletion job failed, will retry");
            None
        }
    }
}

/// Returns whether the object was deleted or revoked. If not, the job has nothing to do.
async fn has_begun(services: &Services, held: &HeldJob) -> Result<bool> {
    let partition = match &held.job.task {
        Task::Channel { scope, id } => scope.channel(id),
        Task::User { scope, id } => scope.user(id),
        Task::App { id, .. } => schema::app(id),
        Task::Organization { id } => schema::organization(id),
        Task::TokenKey { id, .. } => {
            let key = services.entity(schema::token_key(id)).await?;
            return Ok(key.is_none());
        }
        Task::Tokens { .. } => return has_unended_revocation(services, held).await,
    };
    let tombstone = services.document(partition, TOMBSTONE, ONLY).await?;
    Ok(tombstone.is_some())
}

/// Returns whether the user's tokens were revoked since the job last ended sessions.
async fn has_unended_revocation(
    services: &Services,
    HeldJob { job, .. }: &HeldJob,
) -> Result<bool> {
    let ends = jobs::ending_of(services, &job.task).await?;
    let found = ends.and_then(|ends| ends.revocation);
    Ok(found.is_some() && found != job.revocation)
}

/// Claims a job for this node. Returns `None` if the job changed meanwhile.
async fn claim_job(
    services: &Services,
    HeldJob {
        job,
        version,
        noted_at,
    }: HeldJob,
    now: u64,
) -> Result<Option<HeldJob>> {
    let job = Job {
        claim: Some((services.node.to_string(), now)),
        ..job
    };
    let name = job.task.name();
    let mut commit = Commit::default()
        .require(JOBS, name.clone(), Expected::Version(version))
        .frees();
    let claim = commit.add_value(JOBS, name, &job);
    let claimed = services.commit(&schema::deployment(), commit).await?;
    Ok(claimed.ok().map(|outcome| HeldJob {
        job,
        version: outcome.version(claim),
        noted_at,
    }))
}

/// Deletes a job, unless a request wrote it again.
async fn finish_job(services: &Services, held: &HeldJob) -> Result<()> {
    let name = held.job.task.name();
    let commit = Commit::default()
        .require(JOBS, name.clone(), Expected::Version(held.version))
        .delete(JOBS, name)
        .frees();
    // On a conflict, another node or a later deletion continues the job.
    services.commit(&schema::deployment(), commit).await?.ok();
    Ok(())
}

pub(super) async fn work_on(
    services: &Services,
    held: HeldJob,
    now: u64,
    until: Instant,
) -> Result<JobStep> {
    let task = &held.job.task;
    match task {
        Task::Tokens { .. } => {
            return jobs::end_sessions_of(services, task)
                .await
                .map(|()| JobStep::Later);
        }
        Task::TokenKey { app, id } => {
            return token_keys::finish_token_key_revocation(services, app, id)
                .await
                .map(|()| JobStep::Done);
        }
        Task::User { .. } | Task::App { .. } => jobs::end_sessions_of(services, task).await?,
        Task::Channel { .. } | Task::Organization { .. } => {}
    }
    // Ending the sessions may have given the job another version. It is read before the clearing,
    // so that a later deletion, of a channel that was created again, keeps its job.
    let held = match task {
        Task::User { .. } | Task::App { .. } => match jobs::pending_job(services, task).await? {
            Some(held) => held,
            None => return Ok(JobStep::Done),
        },
        _ => held,
    };
    let step = match &held.job.task {
        Task::Channel { scope, id } => clearing::clear_channel(services, scope, id, until).await?,
        Task::User { scope, id } => clearing::clear_user(services, scope, id, until).await?,
        Task::App { .. } if held.noted_at + CREDENTIAL_USE_MS > now => JobStep::Later,
        Task::App { id, .. } => clearing::clear_app(services, id, until).await?,
        Task::Organization { id } => clearing::clear_organization(services, id, until).await?,
        Task::Tokens { .. } | Task::TokenKey { .. } => JobStep::Done,
    };
    if step == JobStep::Done {
        finish_job(services, &held).await?;
    }
    Ok(step)
}

/// The outcome of one pass over the jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobsPass {
    /// Jobs that were finished.
    pub finished: usize,
    /// Number of jobs that continue immediately.
    pub unfinished: usize,
    /// Jobs that failed for now.
    pub failed: usize,
}
