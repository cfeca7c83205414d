//! Runs jobs: every node works on each job for a slice at a time, and tenants take turns.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use store::{Commit, DocumentKey, Expected, Range};
use tokio::{sync::Semaphore, time::Instant};

use super::{HeldJob, Job, JobStep, MAX_REQUEST_MS, Task};
use crate::{
    Services, clearing,
    document::PutValue,
    error::Result,
    jobs,
    schema::{self, JOBS, ONLY, TOMBSTONE},
    settling, token_keys,
};

/// Duration of a claim after a node's last slice, in milliseconds. Far more than a [`SLICE`].
const CLAIM_MS: u64 = 15_000;

/// Time that a node works on one job before it continues with the next, and after which it begins
/// no more jobs of a tenant in the same pass.
pub(super) const SLICE: Duration = Duration::from_secs(1);

/// Maximum number of jobs that a node works on concurrently.
const JOBS_AT_ONCE: usize = 4;

/// Number of jobs that one read returns.
const JOBS_PER_PAGE: usize = 200;

/// Maximum number of jobs of one tenant that a pass takes if no node has claimed them yet. Later
/// ones wait for a later pass.
const NEW_JOBS_PER_TENANT: usize = 1_000;

/// Maximum number of tenants whose jobs wait for a place among [`JOBS_AT_ONCE`].
const TENANTS_AT_ONCE: usize = 64;

/// Time in milliseconds after which no request acts with a credential of a deleted app: caches have
/// dropped it and requests in flight have ended. The app is cleared after that, so that no request
/// writes to a partition that is already cleared.
const CREDENTIAL_USE_MS: u64 = 10_000;

/// The jobs of a tenant.
#[derive(Debug, Default)]
struct TenantJobs {
    jobs: Vec<HeldJob>,
    /// Number of those that no node has claimed yet.
    new: usize,
}

/// Works on jobs that no other node has claimed, on each for a slice at most. Tenants take turns,
/// and each gets about a slice of time. Deleted channels of a tenant come last, since no session
/// waits for them to end.
pub async fn run_jobs(services: &Services) -> Result<JobsPass> {
    let mut pass = JobsPass::default();
    pass.failed += settling::complete_memberships(services).await;
    let now = services.clock.now_ms();
    let (tenants, is_cut) = read_jobs(services, &mut pass).await?;
    // Fair, so that tenants alternate.
    let permits = Semaphore::new(JOBS_AT_ONCE);
    let tenants: Vec<_> = tenants
        .into_values()
        .map(|tenant| run_tenant(services, tenant.jobs, &permits, now))
        .collect();
    let mut tenants = stream::iter(tenants).buffer_unordered(TENANTS_AT_ONCE);
    while let Some(of_tenant) = tenants.next().await {
        pass.finished += of_tenant.finished;
        pass.unfinished += of_tenant.unfinished;
        pass.failed += of_tenant.failed;
    }
    if is_cut && pass.finished > 0 {
        pass.unfinished += 1;
    }
    Ok(pass)
}

/// Reads the jobs by tenant. Returns whether a tenant has more.
async fn read_jobs(
    services: &Services,
    pass: &mut JobsPass,
) -> Result<(BTreeMap<String, TenantJobs>, bool)> {
    let (mut tenants, mut is_cut) = (BTreeMap::<_, TenantJobs>::new(), false);
    let mut after: Option<DocumentKey> = None;
    loop {
        let range = Range::Keys { after };
        let (page, _) = services
            .store
            .page(&schema::deployment(), JOBS, range, JOBS_PER_PAGE)
            .await?;
        after = page
            .documents
            .last()
            .map(|last| last.key.clone())
            .filter(|_| page.more);
        for document in page.documents {
            let held = match HeldJob::of(&document) {
                Ok(held) => held,
                Err(error) => {
                    tracing::warn!(job = %document.key, %error, "a deletion job cannot be read, will retry");
                    pass.failed += 1;
                    continue;
                }
            };
            let tenant = tenants.entry(held.job.task.tenant()).or_default();
            if tenant.new >= NEW_JOBS_PER_TENANT {
                is_cut = true;
                // The other jobs of this kind and tenant are not read.
                after = after.map(|after| after.max(end_of_group(&document.key)));
                continue;
            }
            tenant.new += usize::from(held.job.claim.is_none());
            tenant.jobs.push(held);
        }
        if after.is_none() {
            return Ok((tenants, is_cut));
        }
    }
}

/// Returns a key after those of all jobs of the same kind and app as this job of a channel or user.
fn end_of_group(key: &DocumentKey) -> DocumentKey {
    let mut colons = key.match_indices(':').map(|(index, _)| index);
    match (colons.next(), colons.next()) {
        // The character after the colon.
        (Some(_), Some(end)) => format!("{};", &key[..end]).into(),
        _ => key.clone(),
    }
}

/// Works on the jobs of one tenant.
async fn run_tenant(
    services: &Services,
    mut jobs: Vec<HeldJob>,
    permits: &Semaphore,
    now: u64,
) -> JobsPass {
    let (mut pass, until) = (JobsPass::default(), Instant::now() + SLICE);
    // Those that were worked on last come last.
    jobs.sort_by_key(|held| {
        let is_channel = matches!(held.job.task, Task::Channel { .. });
        (is_channel, held.job.claim.as_ref().map(|(_, at)| *at))
    });
    let steps: Vec<_> = jobs
        .into_iter()
        .enumerate()
        .map(|(index, job)| async move {
            let _permit = permits.acquire().await;
            if index >= JOBS_AT_ONCE && Instant::now() >= until {
                return Some(JobStep::More);
            }
            run_job(services, job, now).await
        })
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
    pass
}

/// Works on one job. Returns `None` if that failed.
async fn run_job(services: &Services, held: HeldJob, now: u64) -> Option<JobStep> {
    let name = held.job.task.name();
    let step = async {
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
            tracing::warn!(job = %name, %error, "a deletion job failed, will retry");
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
