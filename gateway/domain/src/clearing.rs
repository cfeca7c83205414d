//! Clears deleted objects in pieces: a call returns when everything is cleared, or soon after
//! `until`.
//!
//! Every piece can be done again, and by several at once. Which tables are cleared follows from
//! [`schema`].

#[cfg(test)]
mod tests;

use protocol::{AppId, ChannelId, OrganizationId, UserId, entity::Environment};
use store::{Commit, DocumentKey, Expected, Partition, Range, Require, Table};
use tokio::time::Instant;

use crate::{
    Services,
    apps::app_of,
    commit,
    document::{PutValue, parse_key},
    error::{Error, Result},
    index,
    jobs::{self, JobStep, Task},
    keys, participants,
    purge::{Purge, drop_partition, purge_tables, trim_log},
    schema::{
        self, APPS, CHANNELS, DELETED_CHANNELS, DELETED_USERS, ENTITY, ONLY, ORGANIZATIONS,
        PARTICIPANTS, PUBLIC_CHANNELS, Scope, TOMBSTONE, USERS,
    },
    together, token_keys,
};

/// Number of users or channels in one piece.
const OBJECTS_PER_PIECE: usize = 100;

/// Clears a deleted channel, and removes it from the indexes of its participants. Each step
/// requires the tombstone that this call found, so that a channel created again under the id is not
/// touched. A participant whose index fails does not delay the others.
pub(super) async fn clear_channel(
    services: &Services,
    scope: &Scope,
    id: &ChannelId,
    until: Instant,
) -> Result<JobStep> {
    let partition = scope.channel(id);
    let tombstone = services
        .document(partition.clone(), TOMBSTONE, ONLY)
        .await?;
    let Some(tombstone) = tombstone else {
        return Ok(JobStep::Done);
    };
    let is = Expected::Version(tombstone.version);
    let lines = services
        .documents(
            scope.index(),
            [(CHANNELS, id.shared()), (PUBLIC_CHANNELS, id.shared())],
        )
        .await?;
    let (mut after, mut failed) = (None, None);
    loop {
        let keys = keys_after(services, &partition, PARTICIPANTS, after).await?;
        if keys.is_empty() {
            break;
        }
        after = keys.last().cloned();
        // Clear the indexes first: after an interruption, the next attempt still finds the
        // participants.
        let users: Vec<UserId> = keys.iter().map(parse_key).collect::<Result<_>>()?;
        let unindexed = together::run(
            users
                .iter()
                .map(|user| index::unindex_channel(services, scope, user, id)),
        )
        .await;
        let gone = Commit::default().require(TOMBSTONE, ONLY, is).frees();
        let gone = succeeded(keys, unindexed, &mut failed)
            .into_iter()
            .fold(gone, |commit, user| commit.delete(PARTICIPANTS, user));
        if services.commit(&partition, gone).await?.is_err() {
            return Ok(JobStep::Done);
        }
        if failed.is_none() && Instant::now() >= until {
            return Ok(JobStep::More);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let require = Require {
        table: TOMBSTONE,
        key: ONLY.into(),
        is,
    };
    match purge_tables(services, &partition, Some(require), until).await? {
        Purge::Done => {}
        Purge::More => return Ok(JobStep::More),
        // Another node has finished.
        Purge::Overtaken => return Ok(JobStep::Done),
    }
    if trim_log(services, &partition, Some(is), until).await? == Purge::More {
        return Ok(JobStep::More);
    }
    for (table, line) in [CHANNELS, PUBLIC_CHANNELS].into_iter().zip(lines) {
        if let Some(line) = line {
            let mut unlisted = Commit::default()
                .require(table, id.shared(), Expected::Version(line.version))
                .delete(table, id.shared());
            if table == CHANNELS {
                unlisted = unlisted.put_value(DELETED_CHANNELS, id.shared(), &true);
            }
            services
                .commit(&scope.index(), unlisted.frees())
                .await?
                .ok();
        }
    }
    let done = Commit::default()
        .require(TOMBSTONE, ONLY, is)
        .delete(TOMBSTONE, ONLY)
        .frees();
    services.commit(&partition, done).await?.ok();
    Ok(JobStep::Done)
}

/// Removes a deleted user from its channels and clears its partition. The tombstone stays forever.
/// A channel that fails does not delay the other channels, but everything else is cleared after it.
pub(super) async fn clear_user(
    services: &Services,
    scope: &Scope,
    id: &UserId,
    until: Instant,
) -> Result<JobStep> {
    let partition = scope.user(id);
    let (mut after, mut failed) = (None, None);
    loop {
        let keys = keys_after(services, &partition, CHANNELS, after).await?;
        if keys.is_empty() {
            break;
        }
        after = keys.last().cloned();
        let channels: Vec<ChannelId> = keys.iter().map(parse_key).collect::<Result<_>>()?;
        let removals = together::run(channels.iter().map(|channel| {
            participants::remove::remove_deleted_user(services, scope, channel, id)
        }))
        .await;
        // Pending lines of interrupted additions are among them.
        commit::delete_documents(
            services,
            &partition,
            CHANNELS,
            succeeded(keys, removals, &mut failed),
        )
        .await?;
        // After a failure the next attempt begins with the same channels, so the ones behind them
        // are cleared now.
        if failed.is_none() && Instant::now() >= until {
            return Ok(JobStep::More);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if purge_tables(services, &partition, None, until).await? == Purge::More
        || trim_log(services, &partition, None, until).await? == Purge::More
    {
        return Ok(JobStep::More);
    }
    let unlisted = Commit::default()
        .require(USERS, id.shared(), Expected::Present)
        .delete(USERS, id.shared());
    // On a conflict, an earlier run of the job did this, or the app was dropped.
    services
        .commit(
            &scope.index(),
            unlisted
                .put_value(DELETED_USERS, id.shared(), &true)
                .frees(),
        )
        .await?
        .ok();
    Ok(JobStep::Done)
}

/// Deletes the apps of a deleted organization, each with a job of its own, and drops the
/// organization. An app that fails does not delay the others.
pub(super) async fn clear_organization(
    services: &Services,
    id: &OrganizationId,
    until: Instant,
) -> Result<JobStep> {
    let partition = schema::organization(id);
    let (mut after, mut failed) = (None, None);
    loop {
        let keys = keys_after(services, &partition, APPS, after).await?;
        if keys.is_empty() {
            break;
        }
        after = keys.last().cloned();
        let apps: Vec<AppId> = keys.iter().map(parse_key).collect::<Result<_>>()?;
        let deleted = together::run(
            apps.iter()
                .map(|app| delete_app_of_deleted(services, id, app)),
        )
        .await;
        commit::delete_documents(
            services,
            &partition,
            APPS,
            succeeded(keys, deleted, &mut failed),
        )
        .await?;
        // After a failure the next attempt begins with the same apps, so the ones behind them are
        // deleted now.
        if failed.is_none() && Instant::now() >= until {
            return Ok(JobStep::More);
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    keys::clear_new_credentials(services, &partition).await?;
    keys::clear_keys(services, &partition).await?;
    if drop_partition(services, &partition, until).await? == Purge::More {
        return Ok(JobStep::More);
    }
    commit::delete_documents(
        services,
        &schema::deployment(),
        ORGANIZATIONS,
        vec![id.shared()],
    )
    .await?;
    Ok(JobStep::Done)
}

/// Deletes an app whose organization was deleted, also one whose creation was interrupted.
async fn delete_app_of_deleted(
    services: &Services,
    organization: &OrganizationId,
    id: &AppId,
) -> Result<()> {
    if let Some(document) = &services.entity(schema::app(id)).await?
        && app_of(document)?.organization_id != *organization
    {
        tracing::error!(%organization, app = %id, "an organization lists another one's app, which stays");
        return Ok(());
    }
    let task = Task::App {
        organization: organization.clone(),
        id: id.clone(),
    };
    jobs::note_job(services, &task).await?;
    let commit = Commit::default()
        .delete(ENTITY, ONLY)
        .put_value(TOMBSTONE, ONLY, &true)
        .frees();
    services.commit_or_busy(&schema::app(id), commit).await?;
    jobs::end_sessions_of(services, &task).await
}

/// Drops a deleted app with everything in it, the app itself last. An object that fails does not
/// delay the others.
pub(super) async fn clear_app(services: &Services, id: &AppId, until: Instant) -> Result<JobStep> {
    let partition = schema::app(id);
    let keys = [
        keys::clear_new_credentials(services, &partition).await,
        keys::clear_keys(services, &partition).await,
        token_keys::clear_token_keys(services, &partition).await,
    ];
    let mut failed = keys.into_iter().find_map(Result::err);
    for environment in [Environment::Live, Environment::Test] {
        let scope = Scope {
            app: id.clone(),
            environment,
        };
        for table in [CHANNELS, USERS, DELETED_CHANNELS, DELETED_USERS] {
            if drop_listed(services, &scope, table, until, &mut failed).await? == Purge::More {
                return Ok(JobStep::More);
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for environment in [Environment::Live, Environment::Test] {
        let index = Scope {
            app: id.clone(),
            environment,
        }
        .index();
        if drop_partition(services, &index, until).await? == Purge::More {
            return Ok(JobStep::More);
        }
    }
    match drop_partition(services, &partition, until).await? {
        Purge::More => Ok(JobStep::More),
        _ => Ok(JobStep::Done),
    }
}

/// Drops the channels or users that an app's index lists. Those that fail stay listed.
async fn drop_listed(
    services: &Services,
    scope: &Scope,
    table: Table,
    until: Instant,
    failed: &mut Option<Error>,
) -> Result<Purge> {
    let (index, mut after) = (scope.index(), None);
    loop {
        let keys = keys_after(services, &index, table, after).await?;
        if keys.is_empty() {
            return Ok(Purge::Done);
        }
        after = keys.last().cloned();
        let mut dropped = Vec::with_capacity(keys.len());
        for key in keys {
            let partition = if [CHANNELS, DELETED_CHANNELS].contains(&table) {
                scope.channel(&parse_key(&key)?)
            } else {
                scope.user(&parse_key(&key)?)
            };
            match drop_partition(services, &partition, until).await {
                // The next attempt begins with it.
                Ok(Purge::More) if failed.is_none() => break,
                Ok(Purge::More) => {}
                Ok(_) => dropped.push(key),
                Err(error) => *failed = failed.take().or(Some(error)),
            }
            if failed.is_none() && Instant::now() >= until {
                break;
            }
        }
        commit::delete_documents(services, &index, table, dropped).await?;
        if failed.is_none() && Instant::now() >= until {
            return Ok(Purge::More);
        }
    }
}

async fn keys_after(
    services: &Services,
    partition: &Partition,
    table: Table,
    after: Option<DocumentKey>,
) -> Result<Vec<DocumentKey>> {
    let (page, _) = services
        .store
        .page(partition, table, Range::Keys { after }, OBJECTS_PER_PIECE)
        .await?;
    Ok(page
        .documents
        .into_iter()
        .map(|document| document.key)
        .collect())
}

/// Returns the keys of the successful outcomes, and keeps the first error of the others.
fn succeeded(
    keys: Vec<DocumentKey>,
    outcomes: Vec<Result<()>>,
    failed: &mut Option<Error>,
) -> Vec<DocumentKey> {
    let mut done = Vec::with_capacity(keys.len());
    for (key, outcome) in keys.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.push(key),
            Err(error) => *failed = failed.take().or(Some(error)),
        }
    }
    done
}
