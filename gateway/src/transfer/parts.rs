//! Which partitions an app consists of.

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
use crate::start::StartError;

/// Names that are read at once.
const BATCH: usize = 200;

/// Longest name of a partition that an import accepts.
const MAX_NAME_BYTES: usize = 500;

/// What a partition is to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The app itself, through which alone the others are reached.
    App,
    /// Its organization.
    Organization,
    /// A key or token key of the app or the organization.
    Credential,
    /// Of one of its environments: the index, a user, a channel.
    Own,
}

impl Kind {
    /// Returns the kind by the partition's name; `None` if the app's export does not contain it.
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
                    .then_some(Self::Own)
            }
            // Of the deployment, not of an app.
            PartitionKind::Deployment | PartitionKind::Idempotency | PartitionKind::Import => None,
        }
    }
}

/// Visits every partition, a batch at a time, the organization and the app last. What does not
/// exist may be among them.
pub(super) async fn each(
    store: &dyn Transfer,
    header: &Header,
    mut visit: impl AsyncFnMut(Vec<Partition>) -> Result<(), StartError>,
) -> Result<(), StartError> {
    let (organization, app) = (
        schema::organization(&header.organization),
        schema::app(&header.app),
    );
    for owner in [&organization, &app] {
        let credential = |line: &Document| Ok(schema::credential(&decode::<KeyLine>(line)?.hash));
        pages(store, owner, KEYS, credential, &mut visit).await?;
    }
    pages(
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
        pages(
            store,
            &index,
            USERS,
            |line| Ok(scope.user(&parse_key(&line.key)?)),
            &mut visit,
        )
        .await?;
        unlisted(store, &index, USERS, &scope.users(), &mut visit).await?;
        pages(
            store,
            &index,
            CHANNELS,
            |line| Ok(scope.channel(&parse_key(&line.key)?)),
            &mut visit,
        )
        .await?;
        unlisted(store, &index, CHANNELS, &scope.channels(), &mut visit).await?;
    }
    visit(vec![organization]).await?;
    visit(vec![app]).await
}

/// Those that a listed table leads to.
async fn pages(
    store: &dyn Transfer,
    owner: &Partition,
    table: Table,
    leads_to: impl Fn(&Document) -> Result<Partition, Error>,
    visit: &mut impl AsyncFnMut(Vec<Partition>) -> Result<(), StartError>,
) -> Result<(), StartError> {
    let mut after = None;
    loop {
        let (page, _) = store
            .page(owner, table, Range::Keys { after }, BATCH)
            .await
            .map_err(StartError::of)?;
        visit(
            page.documents
                .iter()
                .map(&leads_to)
                .collect::<Result<_, _>>()
                .map_err(StartError::of)?,
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

/// Those that no index leads to any more: what is left of deleted users and channels, so that their
/// ids are not given again and what is made anew goes on after them. Only these are held in memory.
async fn unlisted(
    store: &dyn Transfer,
    index: &Partition,
    table: Table,
    prefix: &str,
    visit: &mut impl AsyncFnMut(Vec<Partition>) -> Result<(), StartError>,
) -> Result<(), StartError> {
    let mut visited = BTreeSet::new();
    let mut from = None;
    loop {
        let (names, next) = store
            .partitions(prefix, from)
            .await
            .map_err(StartError::of)?;
        for names in names.chunks(BATCH) {
            let documents = names
                .iter()
                .filter_map(|name| Some((table, name.name().strip_prefix(prefix)?.into())))
                .collect();
            let read = Read {
                partition: index.clone(),
                documents,
                newest: None,
            };
            let snapshots = store.read(vec![read]).await.map_err(StartError::of)?;
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

/// The names of the partitions of which a deletion is not finished.
pub(super) async fn jobs(store: &dyn Transfer, app: &AppId) -> Result<Vec<String>, StartError> {
    let mut jobs = Vec::new();
    let mut after = None;
    loop {
        let (page, _) = store
            .page(&schema::deployment(), JOBS, Range::Keys { after }, BATCH)
            .await
            .map_err(StartError::of)?;
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

/// What a partition is about, if that is there.
pub(super) async fn entity(
    store: &dyn Transfer,
    partition: &Partition,
) -> Result<Option<Document>, StartError> {
    let read = Read {
        partition: partition.clone(),
        documents: vec![(ENTITY, ONLY.into())],
        newest: None,
    };
    let mut found = store.read(vec![read]).await.map_err(StartError::of)?;
    Ok(found
        .pop()
        .and_then(|mut snapshot| snapshot.documents.pop())
        .flatten())
}
