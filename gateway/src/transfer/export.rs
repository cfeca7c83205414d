//! An app out of a store.

use std::{collections::HashMap, io::Write, time::Duration};

use domain::{
    apps::app_of,
    credential::SecretKey,
    document::decode,
    schema::{self, APPS},
    token_keys::StoredTokenKey,
};
use futures_util::future::try_join_all;
use protocol::AppId;
use store::{
    Document, Order, Partition, StoreError,
    transfer::{Outline, Transfer},
};

use super::{
    line::{Counts, DocumentLine, EventLine, FORMAT, Header, Line, PartitionLine, Writer},
    parts,
    progress::Progress,
    walk::{Part, Walk},
};
use crate::start::StartError;

/// Partitions that are read at the same time.
const TOGETHER: usize = 16;
/// Documents and entries of each that are read ahead, and about how many bytes, before the next
/// piece.
const AHEAD: usize = 400;
const AHEAD_BYTES: usize = 128 << 10;

/// Writes an app.
pub(super) struct Exporter<'a> {
    pub(super) store: &'a dyn Transfer,
    pub(super) app: &'a AppId,
    pub(super) secret: &'a [u8; 32],
    pub(super) progress: Progress,
    /// How far the clocks of the store's servers may be apart.
    pub(super) settle: Duration,
}

impl Exporter<'_> {
    pub(super) async fn run<W: Write>(
        mut self,
        mut lines: Writer<W>,
    ) -> Result<Counts, StartError> {
        let store = self.store;
        let header = self.header().await?;
        // What is written from here on has a later instant, on whichever server.
        let since = header.at;
        tokio::time::sleep(self.settle).await;
        lines.write(&Line::Export(header.clone()))?;
        let mut recent = HashMap::new();
        parts::each(store, &header, async |partitions| {
            for some in partitions.chunks(TOGETHER) {
                let begun =
                    try_join_all(some.iter().map(|partition| begin(store, partition.clone())))
                        .await
                        .map_err(StartError::of)?;
                for (walk, parts) in begun.into_iter().flatten() {
                    if walk.outline.touched > since {
                        recent.insert(walk.partition.clone(), walk.outline.clone());
                    }
                    self.write(walk, parts, &mut lines).await?;
                    self.progress.tell(&lines.counts);
                }
            }
            Ok(())
        })
        .await?;
        for job in parts::jobs(store, self.app).await? {
            lines.write(&Line::Job(job))?;
        }
        parts::each(store, &header, async |partitions| {
            let outlines =
                try_join_all(partitions.iter().map(|partition| store.outline(partition)))
                    .await
                    .map_err(StartError::of)?;
            let mut now = partitions.iter().zip(outlines);
            // One that had a later instant before, since a clock was set back, has to be the same.
            let is_same = |partition, outline: &Outline| {
                outline.touched <= since || recent.get(partition) == Some(outline)
            };
            if now.any(|(partition, outline)| {
                outline.is_some_and(|outline| !is_same(partition, &outline))
            }) {
                Err(changed())
            } else {
                Ok(())
            }
        })
        .await?;
        let counts = lines.end()?;
        self.progress.end(&counts);
        Ok(counts)
    }

    async fn header(&self) -> Result<Header, StartError> {
        let missing = || {
            StartError(format!(
                "there is no app {}: `GET /v1/organizations/{{org}}/apps` lists those that there are",
                self.app
            ))
        };
        let document = parts::entity(self.store, &schema::app(self.app))
            .await?
            .ok_or_else(missing)?;
        let app = app_of(&document).map_err(StartError::of)?;
        // One without its organization is about to be cleared away.
        parts::entity(self.store, &schema::organization(&app.organization_id))
            .await?
            .ok_or_else(missing)?;
        let at = self.store.now().await.map_err(StartError::of)?;
        Ok(Header {
            format: FORMAT,
            app: app.id,
            organization: app.organization_id,
            at,
            chaos: env!("CARGO_PKG_VERSION").to_owned(),
            secret_key: SecretKey::new(*self.secret).fingerprint(),
        })
    }

    /// Writes a partition, of which some was read ahead.
    async fn write<W: Write>(
        &mut self,
        mut walk: Walk<'_>,
        ahead: Vec<Part>,
        lines: &mut Writer<W>,
    ) -> Result<(), StartError> {
        lines.write(&Line::Partition(PartitionLine::of(
            &walk.partition,
            walk.outline.clone(),
        )))?;
        let head = walk.outline.head;
        let mut missing = (head.number - walk.outline.purged, head.seq - head.floor.seq);
        let mut ahead = ahead.into_iter();
        loop {
            let part = match ahead.next() {
                Some(part) => part,
                None => match walk.next().await.map_err(StartError::of)? {
                    Some(part) => part,
                    None => break,
                },
            };
            match part {
                Part::Documents(table, documents) => {
                    for document in documents {
                        // The organization's other apps stay.
                        if table == APPS && *document.key != *self.app.as_str() {
                            continue;
                        }
                        self.opens(&walk.partition, &document)?;
                        missing.0 = missing
                            .0
                            .wrapping_sub(u64::from(table.order == Order::Numbers));
                        lines.write(&Line::Document(DocumentLine::of(table, document)))?;
                    }
                }
                Part::Entries(entries) => {
                    missing.1 = missing.1.wrapping_sub(entries.len() as u64);
                    for entry in &entries {
                        lines.write(&Line::Event(EventLine::of(entry)))?;
                    }
                }
            }
            self.progress.tell(&lines.counts);
        }
        if missing == (0, 0) {
            Ok(())
        } else {
            self.lacking(&walk).await
        }
    }

    /// That a token key is sealed under the secret key, of which the header tells.
    fn opens(&self, partition: &Partition, document: &Document) -> Result<(), StartError> {
        let Some(id) = partition.name().strip_prefix("t:") else {
            return Ok(());
        };
        let id = id.parse().map_err(StartError::of)?;
        let opened = decode::<StoredTokenKey>(document)
            .and_then(|stored| stored.verifier(&SecretKey::new(*self.secret), &id));
        opened.map(drop).map_err(|_| {
            StartError(format!(
                "the token key {id} is sealed under another secret key: give the one that the nodes have by --secret-key-file"
            ))
        })
    }

    /// Why a partition has not what its outline tells of.
    async fn lacking(&self, walk: &Walk<'_>) -> Result<(), StartError> {
        if self
            .store
            .outline(&walk.partition)
            .await
            .map_err(StartError::of)?
            .as_ref()
            != Some(&walk.outline)
        {
            return Err(changed());
        }
        let name = walk.partition.name();
        Err(StartError(format!(
            "the store has lost some of what {name} held: bring back a copy of it, and export from that"
        )))
    }
}

/// Begins with a partition, if it is there.
async fn begin(
    store: &dyn Transfer,
    partition: Partition,
) -> Result<Option<(Walk<'_>, Vec<Part>)>, StoreError> {
    let Some(mut walk) = Walk::begin(store, partition).await? else {
        return Ok(None);
    };
    let mut ahead = Vec::new();
    let (mut things, mut bytes) = (0, 0);
    while things < AHEAD && bytes < AHEAD_BYTES {
        let Some(part) = walk.next().await? else {
            break;
        };
        things += part.len();
        bytes += part.bytes();
        ahead.push(part);
    }
    Ok(Some((walk, ahead)))
}

fn changed() -> StartError {
    StartError("somebody wrote to the app while it was exported: stop the nodes that serve it, and export again".into())
}
