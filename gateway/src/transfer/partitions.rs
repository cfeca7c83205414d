//! The partitions of an app.

use std::collections::BTreeSet;

use domain::{
    document::{decode, parse_key},
    error::Error,
    keys::KeyLine,
    schema::{self, CHANNELS, ENTITY, JOBS, KEYS, ONLY, PartitionKind, Scope, TOKEN_KEYS, USERS},
};
use protocol::{AppId, entity::Environment};
use store::{Document, Partition, Range, Read, Table, transfer::Transfer};

use super::line::Header;
use crate::start::CommandError;

const NAMES_PER_READ: usize = 200;

/// Longest name of a partition that an import accepts.
const MAX_NAME_BYTES: usize = 500;

/// The role of a partition in the export of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionRole {
    /// The app itself. All other partitions are reachable through it only.
    App,
    Organization,
    /// A key or token key of the app or the organization.
    Credential,
    /// The index, a user or a channel of one of the app's environments.
    Environment,
}

impl PartitionRole {
    /// Returns the role by the partition's name; `None` if it does not belong to the app.
    pub(super) fn of(name: &str, header: &Header) -> Option<Self> {
        let is_key = !name.contains(|c: char| c.is_control() || c == '{' || c == '}');
        if !is_key || name.len() > MAX_NAME_BYTES {
            return None;
        }
        let Header {
            app, organization, ..
        } = header;
        match PartitionKind::of(name)? {
            PartitionKind::App => (name == schema::app(app).name()).then_some(Self::App),
            PartitionKind::Organization => {
                (name == schema::organization(organization).name()).then_some(Self::Organization)
            }
            PartitionKind::Credential | PartitionKind::TokenKey => Some(Self::Credential),
            PartitionKind::Environment | PartitionKind::User | PartitionKind::Channel => {
                schema::of_environments(app)
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
                    .then_some(Self::Environment)
            }
            PartitionKind::Deployment | PartitionKind::Idempotency | PartitionKind::Import => None,
        }
    }
}

/// Calls `visit` with all partitions of an app in batches, the organization first and the app last.
/// Some of them may not exist.
///
/// # Errors
/// Fails if the store fails, if a document cannot be decoded, or if `visit` fails.
pub(super) async fn for_each_batch(
    store: &dyn Transfer,
    header: &Header,
    mut visit: impl AsyncFnMut(Vec<Partition>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (organization, app) = (
        schema::organization(&header.organization),
        schema::app(&header.app),
    );
    visit(vec![organization.clone()]).await?;
    for owner in [&organization, &app] {
        let credential = |line: &Document| Ok(schema::credential(&decode::<KeyLine>(line)?.hash));
        visit_listed(store, owner, KEYS, credential, &mut visit).await?;
    }
    visit_listed(
        store,
        &app,
        TOKEN_KEYS,
        |line| Ok(schema::token_key(&parse_key(&line.key)?)),
        &mut visit,
    )
    .await?;
    for environment in [Environment::Live, Environment::Test] {
        let scope = Scope {
            app: header.app.clone(),
            environment,
        };
        let index = scope.index();
        visit(vec![index.clone()]).await?;
        visit_listed(
            store,
            &index,
            USERS,
            |line| Ok(scope.user(&parse_key(&line.key)?)),
            &mut visit,
        )
        .await?;
        visit_unlisted(store, &index, USERS, &scope.users(), &mut visit).await?;
        visit_listed(
            store,
            &index,
            CHANNELS,
            |line| Ok(scope.channel(&parse_key(&line.key)?)),
            &mut visit,
        )
        .await?;
        visit_unlisted(store, &index, CHANNELS, &scope.channels(), &mut visit).await?;
    }
    visit(vec![app]).await
}

/// Visits the partitions that the documents of a table name.
async fn visit_listed(
    store: &dyn Transfer,
    owner: &Partition,
    table: Table,
    partition_of: impl Fn(&Document) -> Result<Partition, Error>,
    visit: &mut impl AsyncFnMut(Vec<Partition>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut after = None;
    loop {
        let (page, _) = store
            .page(owner, table, Range::Keys { after }, NAMES_PER_READ)
            .await
            .map_err(CommandError::of)?;
        visit(
            page.documents
                .iter()
                .map(&partition_of)
                .collect::<Result<_, _>>()
                .map_err(CommandError::of)?,
        )
        .await?;
        after = page
            .documents
            .last()
            .map(|last| last.key.clone())
            .filter(|_| page.more);
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Visits the partitions of deleted users and channels, which no index lists. They are exported so
/// that deleted ids are not assigned again and a recreated channel continues the old numbers.
async fn visit_unlisted(
    store: &dyn Transfer,
    index: &Partition,
    table: Table,
    prefix: &str,
    visit: &mut impl AsyncFnMut(Vec<Partition>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut visited = BTreeSet::new();
    let mut from = None;
    loop {
        let (names, next) = store
            .partitions(prefix, from)
            .await
            .map_err(CommandError::of)?;
        for names in names.chunks(NAMES_PER_READ) {
            let documents = names
                .iter()
                .filter_map(|name| Some((table, name.name().strip_prefix(prefix)?.into())))
                .collect();
            let read = Read {
                partition: index.clone(),
                documents,
                newest: None,
            };
            let snapshots = store.read(vec![read]).await.map_err(CommandError::of)?;
            let lines = snapshots.iter().flat_map(|snapshot| &snapshot.documents);
            let unlisted = names
                .iter()
                .zip(lines)
                .filter(|(_, line)| line.is_none())
                .map(|(name, _)| name);
            visit(
                unlisted
                    .filter(|name| visited.insert((*name).clone()))
                    .cloned()
                    .collect(),
            )
            .await?;
        }
        from = next;
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Returns the names of the app's partitions with an unfinished deletion job.
pub(super) async fn pending_deletions(
    store: &dyn Transfer,
    app: &AppId,
) -> Result<Vec<String>, CommandError> {
    let mut jobs = Vec::new();
    let mut after = None;
    loop {
        let (page, _) = store
            .page(
                &schema::deployment(),
                JOBS,
                Range::Keys { after },
                NAMES_PER_READ,
            )
            .await
            .map_err(CommandError::of)?;
        let names = page.documents.iter().map(|job| job.key.to_string());
        jobs.extend(names.filter(|name| {
            schema::of_environments(app)
                .iter()
                .any(|prefix| name.starts_with(prefix))
        }));
        after = page
            .documents
            .last()
            .map(|last| last.key.clone())
            .filter(|_| page.more);
        if after.is_none() {
            return Ok(jobs);
        }
    }
}

/// Returns the entity document of a partition, if it exists.
pub(super) async fn entity(
    store: &dyn Transfer,
    partition: &Partition,
) -> Result<Option<Document>, CommandError> {
    let read = Read {
        partition: partition.clone(),
        documents: vec![(ENTITY, ONLY.into())],
        newest: None,
    };
    let mut found = store.read(vec![read]).await.map_err(CommandError::of)?;
    Ok(found
        .pop()
        .and_then(|mut snapshot| snapshot.documents.pop())
        .flatten())
}
