//! Exports an app: writes its partitions and deletion jobs as lines.

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
    line::{
        DocumentLine, EventLine, ExportLine, FORMAT, Header, LineWriter, PartitionLine,
        TransferCounts,
    },
    partition_reader::{PartitionBatch, PartitionReader},
    partitions,
    progress::Progress,
};
use crate::start::CommandError;

const CONCURRENT_PARTITIONS: usize = 16;
/// Read-ahead of each concurrent partition: documents and log entries, and approximate bytes.
const READ_AHEAD_ITEMS: usize = 400;
const READ_AHEAD_BYTES: usize = 128 << 10;

pub(super) struct Exporter<'a> {
    pub(super) store: &'a dyn Transfer,
    pub(super) app: &'a AppId,
    pub(super) secret: &'a [u8; 32],
    pub(super) progress: Progress,
    /// Maximum difference between the clocks of the store's servers.
    pub(super) clock_skew: Duration,
}

impl Exporter<'_> {
    pub(super) async fn run<W: Write>(
        mut self,
        mut lines: LineWriter<W>,
    ) -> Result<TransferCounts, CommandError> {
        let store = self.store;
        let header = self.header().await?;
        // After this wait, every commit has a later timestamp than the header, on any server.
        let since = header.at;
        tokio::time::sleep(self.clock_skew).await;
        lines.write(&ExportLine::Export(header.clone()))?;
        let mut recent = HashMap::new();
        partitions::for_each_batch(store, &header, async |partitions| {
            for chunk in partitions.chunks(CONCURRENT_PARTITIONS) {
                let readers = chunk
                    .iter()
                    .map(|partition| read_ahead(store, partition.clone()));
                let begun = try_join_all(readers).await.map_err(CommandError::of)?;
                for (reader, batches) in begun.into_iter().flatten() {
                    if reader.outline.last_commit_at > since {
                        recent.insert(reader.partition.clone(), reader.outline.clone());
                    }
                    self.write(reader, batches, &mut lines).await?;
                    self.progress.update(&lines.counts);
                }
            }
            Ok(())
        })
        .await?;
        for job in partitions::pending_deletions(store, self.app).await? {
            lines.write(&ExportLine::Job(job))?;
        }
        partitions::for_each_batch(store, &header, async |partitions| {
            let outlines =
                try_join_all(partitions.iter().map(|partition| store.outline(partition)))
                    .await
                    .map_err(CommandError::of)?;
            let mut current = partitions.iter().zip(outlines);
            // If a clock was set back, a partition may have been newer than the header when it was
            // read. Its outline must not have changed since.
            let is_unchanged = |partition, outline: &Outline| {
                outline.last_commit_at <= since || recent.get(partition) == Some(outline)
            };
            if current.any(|(partition, outline)| {
                outline.is_some_and(|outline| !is_unchanged(partition, &outline))
            }) {
                Err(changed())
            } else {
                Ok(())
            }
        })
        .await?;
        let counts = lines.end()?;
        self.progress.finish(&counts);
        Ok(counts)
    }

    async fn header(&self) -> Result<Header, CommandError> {
        let missing = || {
            CommandError(format!(
                "there is no app {}: `GET /v1/organizations/{{org}}/apps` lists an organization's apps",
                self.app
            ))
        };
        let document = partitions::entity(self.store, &schema::app(self.app))
            .await?
            .ok_or_else(missing)?;
        let app = app_of(&document).map_err(CommandError::of)?;
        // An app whose organization is missing is being deleted.
        partitions::entity(self.store, &schema::organization(&app.organization_id))
            .await?
            .ok_or_else(missing)?;
        let at = self.store.now().await.map_err(CommandError::of)?;
        Ok(Header {
            format: FORMAT,
            app: app.id,
            organization: app.organization_id,
            at,
            chaos: env!("CARGO_PKG_VERSION").to_owned(),
            secret_key: SecretKey::new(*self.secret).fingerprint(),
        })
    }

    /// Writes a partition, beginning with the batches that were read ahead.
    async fn write<W: Write>(
        &mut self,
        mut reader: PartitionReader<'_>,
        batches: Vec<PartitionBatch>,
        lines: &mut LineWriter<W>,
    ) -> Result<(), CommandError> {
        lines.write(&ExportLine::Partition(PartitionLine::of(
            &reader.partition,
            reader.outline.clone(),
        )))?;
        let head = reader.outline.head;
        let mut missing_numbers = head.number - reader.outline.purged;
        let mut missing_entries = head.seq - head.floor.seq;
        let mut batches = batches.into_iter();
        loop {
            let batch = match batches.next() {
                Some(batch) => batch,
                None => match reader.next().await.map_err(CommandError::of)? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            match batch {
                PartitionBatch::Documents(table, documents) => {
                    for document in documents {
                        // The organization's other apps are not exported.
                        if table == APPS && *document.key != *self.app.as_str() {
                            continue;
                        }
                        self.check_token_key(&reader.partition, &document)?;
                        missing_numbers =
                            missing_numbers.wrapping_sub(u64::from(table.order == Order::Numbers));
                        lines.write(&ExportLine::Document(DocumentLine::of(table, document)))?;
                    }
                }
                PartitionBatch::Entries(entries) => {
                    missing_entries = missing_entries.wrapping_sub(entries.len() as u64);
                    for entry in &entries {
                        lines.write(&ExportLine::Event(EventLine::of(entry)))?;
                    }
                }
            }
            self.progress.update(&lines.counts);
        }
        if missing_numbers == 0 && missing_entries == 0 {
            Ok(())
        } else {
            Err(self.incomplete(&reader).await?)
        }
    }

    /// Fails if the document is a token key that the secret key cannot decrypt.
    fn check_token_key(
        &self,
        partition: &Partition,
        document: &Document,
    ) -> Result<(), CommandError> {
        let Some(id) = partition.name().strip_prefix("t:") else {
            return Ok(());
        };
        let id = id.parse().map_err(CommandError::of)?;
        let opened = decode::<StoredTokenKey>(document)
            .and_then(|stored| stored.verifier(&SecretKey::new(*self.secret), &id));
        opened.map(drop).map_err(|_| {
            CommandError(format!(
                "the token key {id} is sealed under another secret key: pass the key that the nodes use with --secret-key-file"
            ))
        })
    }

    /// Returns why a partition has fewer documents or entries than its outline says.
    async fn incomplete(&self, reader: &PartitionReader<'_>) -> Result<CommandError, CommandError> {
        if self
            .store
            .outline(&reader.partition)
            .await
            .map_err(CommandError::of)?
            .as_ref()
            != Some(&reader.outline)
        {
            return Ok(changed());
        }
        let name = reader.partition.name();
        Ok(CommandError(format!(
            "the store has lost some documents or events of {name}: restore a backup, and export from that"
        )))
    }
}

/// Reads the first batches of a partition; `None` if it does not exist.
async fn read_ahead(
    store: &dyn Transfer,
    partition: Partition,
) -> Result<Option<(PartitionReader<'_>, Vec<PartitionBatch>)>, StoreError> {
    let Some(mut reader) = PartitionReader::begin(store, partition).await? else {
        return Ok(None);
    };
    let mut batches = Vec::new();
    let (mut items, mut bytes) = (0, 0);
    while items < READ_AHEAD_ITEMS && bytes < READ_AHEAD_BYTES {
        let Some(batch) = reader.next().await? else {
            break;
        };
        items += batch.len();
        bytes += batch.bytes();
        batches.push(batch);
    }
    Ok(Some((reader, batches)))
}

fn changed() -> CommandError {
    CommandError(
        "the app was written to during the export: stop the nodes that serve it, and export again"
            .into(),
    )
}
