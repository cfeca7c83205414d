//! Loads an app from lines into a store.

use std::{io::BufRead, sync::Arc, time::Duration};

use domain::{
    document::PutValue,
    jobs::{Job, Task},
    schema::{self, APPS, ENTITY, JOBS, ONLY, ORGANIZATIONS},
};
use store::{
    Commit, Document, Expected, LogEntry, Order, Partition, Table,
    transfer::{Exists, Outline, PartitionPiece, Transfer},
};
use tokio::task::JoinSet;

use super::{
    line::{DocumentLine, ExportLine, Header, LineReader, PartitionLine, TransferCounts},
    load::{load, load_credential},
    partition_check::ExportedPartitionCheck,
    partitions::{self, PartitionRole},
    progress::Progress,
    references::{DocumentVerdict, References},
    stored_organization::StoredOrganization,
};
use crate::start::CommandError;

/// Maximum size of a piece: documents and log entries, and approximate bytes.
const MAX_PIECE_ITEMS: usize = 500;
const MAX_PIECE_BYTES: usize = 256 << 10;

const CONCURRENT_PARTITIONS: usize = 32;

const MAX_KEY_BYTES: usize = 256;

const NOT_OF_THE_APP: &str = "it names a partition outside the app";
const ORGANIZATION_NOT_FIRST: &str =
    "the store has the organization, and the file does not begin with it";

/// Lifetime of the record of an attempt, which detects concurrent imports.
const ATTEMPT_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) struct Importer<'a> {
    store: Arc<dyn Transfer>,
    header: &'a Header,
    progress: Progress,
    /// Loads that run while the next lines are read.
    loads: JoinSet<Result<(), CommandError>>,
    final_outlines: FinalOutlines,
    /// Unfinished deletions that nodes of this store are to complete.
    jobs: Vec<Task>,
    references: References,
    /// The file's organization, if the store has it. It is compared and not loaded.
    stored_organization: Option<StoredOrganization>,
}

/// Outlines that are loaded after all other partitions are complete.
#[derive(Default)]
struct FinalOutlines {
    organization: Option<Outline>,
    app: Option<Outline>,
}

/// The partition whose lines are being read.
struct IncomingPartition {
    partition: Partition,
    kind: PartitionRole,
    outline: Outline,
    check: ExportedPartitionCheck,
    piece: PartitionPiece,
    bytes: usize,
}

impl<'a> Importer<'a> {
    pub(super) fn new(store: Arc<dyn Transfer>, header: &'a Header, progress: Progress) -> Self {
        Self {
            store,
            header,
            progress,
            loads: JoinSet::new(),
            final_outlines: FinalOutlines::default(),
            jobs: Vec::new(),
            references: References::default(),
            stored_organization: None,
        }
    }

    pub(super) async fn run<R: BufRead>(
        mut self,
        mut lines: LineReader<R>,
    ) -> Result<TransferCounts, CommandError> {
        let attempt = self.begin_attempt().await?;
        if self.remove_leftovers().await? {
            let stored = StoredOrganization::read(&*self.store, &self.header.organization).await?;
            self.stored_organization = Some(stored);
        }
        let mut incoming: Option<IncomingPartition> = None;
        while let Some(line) = lines.next()? {
            match line {
                ExportLine::Partition(line) => {
                    self.finish(incoming.take()).await?;
                    let next = self
                        .incoming(line)
                        .ok_or_else(|| lines.invalid_line(NOT_OF_THE_APP))?;
                    if self.is_organization_unchecked(next.kind) {
                        return Err(lines.invalid_line(ORGANIZATION_NOT_FIRST));
                    }
                    self.references.add_partition(&next.partition);
                    incoming = Some(next);
                }
                ExportLine::Document(line) => {
                    let incoming = incoming.as_mut().ok_or_else(|| {
                        lines.invalid_line("a document precedes the first partition")
                    })?;
                    let (table, document) = incoming
                        .parse(line)
                        .ok_or_else(|| lines.invalid_line("a document cannot be read"))?;
                    incoming
                        .check
                        .document(table, &document)
                        .map_err(|problem| lines.invalid_line(problem))?;
                    if let Some(stored) = self.stored_organization(incoming.kind) {
                        stored.compare(table, &document)?;
                        continue;
                    }
                    match self
                        .references
                        .check(self.header, &incoming.partition, table, &document)
                    {
                        DocumentVerdict::Load => incoming.document(table, document),
                        DocumentVerdict::Skip => {}
                        DocumentVerdict::Foreign => return Err(lines.invalid_line(NOT_OF_THE_APP)),
                    }
                }
                ExportLine::Event(line) => {
                    let incoming = incoming.as_mut().ok_or_else(|| {
                        lines.invalid_line("an event precedes the first partition")
                    })?;
                    if let Some(stored) = self.stored_organization(incoming.kind) {
                        return Err(stored.differs());
                    }
                    let entry = line
                        .entry()
                        .ok_or_else(|| lines.invalid_line("an event cannot be read"))?;
                    incoming
                        .check
                        .event(&entry)
                        .map_err(|problem| lines.invalid_line(problem))?;
                    incoming.entry(entry);
                }
                ExportLine::Job(name)
                    if PartitionRole::of(&name, self.header)
                        == Some(PartitionRole::Environment) =>
                {
                    self.jobs.push(
                        Task::of_partition(&name)
                            .ok_or_else(|| lines.invalid_line(NOT_OF_THE_APP))?,
                    );
                }
                ExportLine::Job(_) => return Err(lines.invalid_line(NOT_OF_THE_APP)),
                ExportLine::Export(_) | ExportLine::End(_) => {
                    return Err(lines.invalid_line("a second header"));
                }
            }
            if let Some(incoming) = incoming
                .as_mut()
                .filter(|incoming| incoming.is_piece_full())
            {
                let piece = incoming.take_piece();
                load(&*self.store, &incoming.partition, piece)
                    .await?
                    .map_err(|Exists| concurrent_import())?;
            }
            self.progress.update(&lines.counts);
        }
        self.finish(incoming).await?;
        self.wait_for_loads(0).await?;
        let FinalOutlines {
            app: Some(app),
            organization: Some(organization),
        } = std::mem::take(&mut self.final_outlines)
        else {
            return Err(lines.invalid_line("the app or its organization is missing"));
        };
        if let Some(partition) = self
            .references
            .foreign(&*self.store)
            .await
            .map_err(CommandError::of)?
        {
            return Err(CommandError(format!(
                "the file refers to {}, which belongs to another app in this store",
                partition.name()
            )));
        }
        self.end_attempt(attempt).await?;
        self.publish(app, organization).await?;
        self.progress.finish(&lines.counts);
        Ok(lines.counts)
    }

    /// Records this attempt and returns its version. A concurrent import of the same organization
    /// fails in [`end_attempt`](Self::end_attempt), because this attempt removes the documents that
    /// it loaded.
    async fn begin_attempt(&self) -> Result<u64, CommandError> {
        let commit = Commit {
            expire: Some(ATTEMPT_TTL),
            ..Commit::default()
        };
        let attempt = commit.next_write();
        let commit = commit.put_value(ENTITY, ONLY, &());
        let recorded = self
            .store
            .commit(&schema::import(&self.header.organization), commit)
            .await
            .map_err(CommandError::of)?;
        recorded
            .map(|outcome| outcome.version(attempt))
            .map_err(|_| concurrent_import())
    }

    /// Removes the record of the attempt; fails if another import has begun since.
    async fn end_attempt(&self, attempt: u64) -> Result<(), CommandError> {
        let only = Commit::default()
            .require(ENTITY, ONLY, Expected::Version(attempt))
            .delete(ENTITY, ONLY);
        self.commit(&schema::import(&self.header.organization), only)
            .await
    }

    /// Removes partitions that an earlier attempt left, and returns whether the store has the
    /// organization. Fails if the store has the app.
    async fn remove_leftovers(&self) -> Result<bool, CommandError> {
        let Header {
            app,
            organization: of,
            ..
        } = self.header;
        let (partition, organization) = (schema::app(app), schema::organization(of));
        if self
            .store
            .outline(&partition)
            .await
            .map_err(CommandError::of)?
            .is_some()
        {
            return Err(CommandError(format!(
                "the store has the app {app}, or deleted it less than a minute ago: import it into a store that does not have it"
            )));
        }
        let has_organization = self
            .store
            .outline(&organization)
            .await
            .map_err(CommandError::of)?
            .is_some();
        if has_organization
            && partitions::entity(&*self.store, &organization)
                .await?
                .is_none()
        {
            return Err(CommandError(format!(
                "the store is deleting the organization {of}: import again in a minute"
            )));
        }
        let organization = (!has_organization).then(|| organization.name().to_owned());
        for prefix in schema::of_environments(app)
            .into_iter()
            .chain([partition.name().to_owned()])
            .chain(organization)
        {
            let mut from = None;
            loop {
                from = self
                    .store
                    .remove_partitions(&prefix, from)
                    .await
                    .map_err(CommandError::of)?;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(has_organization)
    }

    fn incoming(&self, line: PartitionLine) -> Option<IncomingPartition> {
        let kind = PartitionRole::of(&line.name, self.header)?;
        let partition = Partition::new(line.name.as_str());
        let outline = line.outline();
        outline.is_possible().then_some(IncomingPartition {
            partition,
            kind,
            check: ExportedPartitionCheck::new(&outline),
            outline,
            piece: PartitionPiece::default(),
            bytes: 0,
        })
    }

    /// Returns the store's organization, if this is the partition to compare it with.
    fn stored_organization(&mut self, kind: PartitionRole) -> Option<&mut StoredOrganization> {
        self.stored_organization
            .as_mut()
            .filter(|_| kind == PartitionRole::Organization)
    }

    /// Returns whether the organization must be compared before a partition is loaded.
    fn is_organization_unchecked(&self, next: PartitionRole) -> bool {
        self.stored_organization.is_some()
            && self.final_outlines.organization.is_none()
            && next != PartitionRole::Organization
    }

    /// Starts to load the rest of a partition, or compares the organization to its end.
    async fn finish(&mut self, incoming: Option<IncomingPartition>) -> Result<(), CommandError> {
        let Some(IncomingPartition {
            partition,
            kind,
            outline,
            check,
            piece,
            ..
        }) = incoming
        else {
            return Ok(());
        };
        check.finish(partition.name()).map_err(|problem| {
            CommandError(format!(
                "the export is invalid in the partition {}: {problem}; copy the file again, or repeat the export",
                partition.name()
            ))
        })?;
        let store = self.store.clone();
        if let Some(stored) = self.stored_organization(kind) {
            stored.require_complete()?;
        }
        match kind {
            PartitionRole::App | PartitionRole::Organization => {
                load(&*store, &partition, piece)
                    .await?
                    .map_err(|Exists| concurrent_import())?;
                let last = if kind == PartitionRole::App {
                    &mut self.final_outlines.app
                } else {
                    &mut self.final_outlines.organization
                };
                *last = Some(outline);
            }
            PartitionRole::Credential => {
                drop(self.loads.spawn(async move {
                    load_credential(&*store, partition, piece, outline).await
                }))
            }
            PartitionRole::Environment => drop(self.loads.spawn(async move {
                let piece = PartitionPiece {
                    outline: Some(outline),
                    ..piece
                };
                load(&*store, &partition, piece)
                    .await?
                    .map_err(|Exists| concurrent_import())
            })),
        }
        self.wait_for_loads(CONCURRENT_PARTITIONS).await
    }

    /// Waits until at most `max` loads are in flight.
    async fn wait_for_loads(&mut self, max: usize) -> Result<(), CommandError> {
        while self.loads.len() > max {
            if let Some(loaded) = self.loads.join_next().await {
                loaded.map_err(CommandError::of)??;
            }
        }
        Ok(())
    }

    /// Makes the complete app visible.
    async fn publish(&self, of_app: Outline, of_organization: Outline) -> Result<(), CommandError> {
        let Header {
            app, organization, ..
        } = self.header;
        let deployment = schema::deployment();
        for task in &self.jobs {
            self.commit(
                &deployment,
                Commit::default().put_value(JOBS, task.name(), &Job::new(task.clone())),
            )
            .await?;
        }
        let partition = schema::organization(organization);
        if self.stored_organization.is_some() {
            let listed = Commit::default()
                .require(ENTITY, ONLY, Expected::Present)
                .put_value(APPS, app.shared(), &());
            self.commit(&partition, listed).await?;
        } else {
            self.commit(
                &deployment,
                Commit::default().put_value(ORGANIZATIONS, organization.shared(), &()),
            )
            .await?;
            self.load_outline(&partition, of_organization).await?;
        }
        self.load_outline(&schema::app(app), of_app).await
    }

    async fn load_outline(
        &self,
        partition: &Partition,
        outline: Outline,
    ) -> Result<(), CommandError> {
        let piece = PartitionPiece {
            outline: Some(outline),
            ..PartitionPiece::default()
        };
        load(&*self.store, partition, piece)
            .await?
            .map_err(|Exists| concurrent_import())
    }

    async fn commit(&self, partition: &Partition, commit: Commit) -> Result<(), CommandError> {
        self.store
            .commit(partition, commit)
            .await
            .map_err(CommandError::of)?
            .map(|_| ())
            .map_err(|_| concurrent_import())
    }
}

impl IncomingPartition {
    /// Returns the document of a line; `None` if it cannot be read.
    fn parse(&self, line: DocumentLine) -> Option<(Table, Document)> {
        let table = schema::tables(&self.partition).find(|table| table.name == line.table)?;
        let document = line.document()?;
        let is_key = document.key.len() <= MAX_KEY_BYTES
            && !document
                .key
                .contains(|c: char| c.is_control() || c == '{' || c == '}');
        (is_key && (table.order == Order::Numbers) == (document.stamps.number != 0))
            .then_some((table, document))
    }

    fn document(&mut self, table: Table, document: Document) {
        self.bytes += 128 + document.key.len() + document.value.len();
        self.piece.documents.push((table, document));
    }

    fn entry(&mut self, entry: LogEntry) {
        self.bytes += 64 + entry.reference.len();
        self.piece.entries.push(entry);
    }

    /// Returns whether the piece must be loaded. Partitions that expire are loaded in one piece.
    fn is_piece_full(&self) -> bool {
        let items = self.piece.documents.len() + self.piece.entries.len();
        self.outline.expires.is_none()
            && (items >= MAX_PIECE_ITEMS || self.bytes >= MAX_PIECE_BYTES)
    }

    fn take_piece(&mut self) -> PartitionPiece {
        self.bytes = 0;
        std::mem::take(&mut self.piece)
    }
}

fn concurrent_import() -> CommandError {
    CommandError("another import of the same organization is running: let it end, and import again if it failed".into())
}
