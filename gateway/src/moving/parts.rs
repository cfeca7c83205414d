//! Which partitions an app consists of.

use std::collections::BTreeSet;

use domain::{
    document::{decode, parse_key},
    error::Error,
    keys::KeyLine,
    scope::{self, CHANNELS, ENTITY, JOBS, KEYS, ONLY, Scope, TOKEN_KEYS, USERS},
};
use protocol::{AppId, entity::Environment};
use store::{Document, Partition, Range, Read, Table, transfer::Transfer};

use super::line::Header;
use crate::start::StartError;

/// Names that are read at once.
const BATCH: usize = 200;

/// What a partition is to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The app itself, through which alone the others are reached.
    App,
    /// Its organization.
    Organization,
    /// The way from a credential to the app or the organization: a key's hash, a token key's id.
    Credential,
    /// Of one of its environments: the index, a user, a channel.
    Own,
}

impl Kind {
    /// By its name; `None` if it has nothing to do with the app.
    pub(super) fn of(name: &str, header: &Header) -> Option<Self> {
        let Header {
            app, organization, ..
        } = header;
        let of_app = |prefix: &String| name.starts_with(prefix);
        match name {
            _ if name.contains(|c: char| c.is_control() || c == '{' || c == '}')
                || name.len() > 500 =>
            {
                None
            }
            _ if name == scope::app(app).name() => Some(Self::App),
            _ if name == scope::organization(organization).name() => Some(Self::Organization),
            _ if scope::is_credential(name) => Some(Self::Credential),
            _ if scope::of_environments(app).iter().any(of_app) => Some(Self::Own),
            _ => None,
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
        scope::organization(&header.organization),
        scope::app(&header.app),
    );
    for owner in [&organization, &app] {
        let credential = |line: &Document| Ok(scope::credential(&decode::<KeyLine>(line)?.hash));
        pages(store, owner, KEYS, credential, &mut visit).await?;
    }
    pages(
        store,
        &app,
        TOKEN_KEYS,
        |line| Ok(scope::token_key(&parse_key(&line.key)?)),
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
            .page(&scope::deployment(), JOBS, Range::Keys { after }, BATCH)
            .await
            .map_err(StartError::of)?;
        let names = page.documents.iter().map(|job| job.key.to_string());
        jobs.extend(names.filter(|name| {
            scope::of_environments(app)
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
