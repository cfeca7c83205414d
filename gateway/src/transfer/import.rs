//! An app into a store.

use std::{io::BufRead, sync::Arc, time::Duration};

use domain::{
    document::PutValue,
    jobs::{Job, Task},
    schema::{self, APPS, ENTITY, JOBS, ONLY, ORGANIZATIONS},
};
use store::{
    Commit, Entry, Expected, Order, Partition, StoreError,
    transfer::{Exists, Outline, Piece, Transfer},
};
use tokio::task::JoinSet;

use super::{
    line::{Counts, DocumentLine, Header, Line, PartitionLine, Reader},
    parts::{self, Kind},
    progress::Progress,
    references::{References, Verdict},
};
use crate::start::StartError;

/// Documents and entries of one piece at most, and about how many bytes.
const THINGS: usize = 500;
const BYTES: usize = 256 << 10;

/// Partitions that are loaded at the same time.
const TOGETHER: usize = 32;

/// The longest key of a document, in bytes.
const LONGEST_KEY: usize = 256;

/// How long an attempt is remembered.
const ATTEMPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Reads an app.
pub(super) struct Importer<'a> {
    store: Arc<dyn Transfer>,
    header: &'a Header,
    progress: Progress,
    /// What goes on while the next lines are read.
    loading: JoinSet<Result<(), StartError>>,
    /// What is given its outline when all else is there.
    last: Last,
    /// Deletions that are to be finished.
    jobs: Vec<Task>,
    references: References,
}

#[derive(Default)]
struct Last {
    organization: Option<Outline>,
    app: Option<Outline>,
}

/// A partition of which lines come.
struct Coming {
    partition: Partition,
    kind: Kind,
    outline: Outline,
    piece: Piece,
    bytes: usize,
}

impl<'a> Importer<'a> {
    pub(super) fn new(store: Arc<dyn Transfer>, header: &'a Header, progress: Progress) -> Self {
        Self {
            store,
            header,
            progress,
            loading: JoinSet::new(),
            last: Last::default(),
            jobs: Vec::new(),
            references: References::default(),
        }
    }

    pub(super) async fn run<R: BufRead>(
        mut self,
        mut lines: Reader<R>,
    ) -> Result<Counts, StartError> {
        let attempt = self.begin().await?;
        let has_organization = self.make_room().await?;
        let mut coming: Option<Coming> = None;
        while let Some(line) = lines.next()? {
            match line {
                Line::Partition(line) => {
                    self.finish(coming.take()).await?;
                    let next = self
                        .coming(line)
                        .ok_or_else(|| lines.broken("it names what is not of the app"))?;
                    self.references.partition(&next.partition);
                    coming = Some(next);
                }
                Line::Document(line) => {
                    let coming = coming
                        .as_mut()
                        .ok_or_else(|| lines.broken("a document belongs to nothing"))?;
                    // That of the store is as it is.
                    if has_organization && coming.kind == Kind::Organization {
                        continue;
                    }
                    let verdict = coming
                        .document(line, self.header, &mut self.references)
                        .ok_or_else(|| lines.broken("a document cannot be read"))?;
                    if verdict == Verdict::Foreign {
                        return Err(lines.broken("it names what is not of the app"));
                    }
                }
                Line::Event(line) => {
                    let coming = coming
                        .as_mut()
                        .ok_or_else(|| lines.broken("an event belongs to nothing"))?;
                    coming.entry(
                        line.entry()
                            .ok_or_else(|| lines.broken("an event cannot be read"))?,
                    );
                }
                Line::Job(name) if Kind::of(&name, self.header) == Some(Kind::Own) => {
                    self.jobs.push(
                        Task::of_partition(&name)
                            .ok_or_else(|| lines.broken("it names what is not of the app"))?,
                    );
                }
                Line::Job(_) => return Err(lines.broken("it names what is not of the app")),
                Line::Export(_) | Line::End(_) => return Err(lines.broken("a second header")),
            }
            // That of the store is as it is.
            if let Some(coming) = coming
                .as_mut()
                .filter(|coming| has_organization && coming.kind == Kind::Organization)
            {
                coming.piece = Piece::default();
            }
            if let Some(coming) = coming.as_mut().filter(|coming| coming.is_heavy()) {
                let piece = coming.take();
                load(&*self.store, &coming.partition, piece)
                    .await?
                    .map_err(|Exists| in_use())?;
            }
            self.progress.tell(&lines.counts);
        }
        self.finish(coming).await?;
        self.loaded(0).await?;
        let Last {
            app: Some(app),
            organization: Some(organization),
        } = std::mem::take(&mut self.last)
        else {
            return Err(lines.broken("it lacks the app or its organization"));
        };
        if let Some(partition) = self
            .references
            .foreign(&*self.store)
            .await
            .map_err(StartError::of)?
        {
            return Err(StartError(format!(
                "the file names {}, which is another app's in this store",
                partition.name()
            )));
        }
        self.still_alone(attempt).await?;
        self.reveal(app, organization, has_organization).await?;
        self.progress.end(&lines.counts);
        Ok(lines.counts)
    }

    /// Notes that this is the newest attempt: whoever is at it, too, must not go on, since what he
    /// has brought is taken away.
    async fn begin(&self) -> Result<u64, StartError> {
        let commit = Commit {
            expire: Some(ATTEMPT),
            ..Commit::default().put_value(ENTITY, ONLY, &())
        };
        let noted = self
            .store
            .commit(&schema::import(&self.header.organization), commit)
            .await
            .map_err(StartError::of)?;
        noted
            .map(|outcome| outcome.written[0].version)
            .map_err(|_| in_use())
    }

    async fn still_alone(&self, attempt: u64) -> Result<(), StartError> {
        let only = Commit::default()
            .require(ENTITY, ONLY, Expected::Version(attempt))
            .delete(ENTITY, ONLY);
        self.commit(&schema::import(&self.header.organization), only)
            .await
    }

    /// Sees that the store has no such app, and takes away what an earlier attempt left. Whether it
    /// has the organization.
    async fn make_room(&self) -> Result<bool, StartError> {
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
            .map_err(StartError::of)?
            .is_some()
        {
            return Err(StartError(format!(
                "the store has an app {app}, or cleared it away less than a minute ago: an app goes only where it is not"
            )));
        }
        let has_organization = self
            .store
            .outline(&organization)
            .await
            .map_err(StartError::of)?
            .is_some();
        if has_organization && parts::entity(&*self.store, &organization).await?.is_none() {
            return Err(StartError(format!(
                "the store is deleting the organization {of}: come again in a minute"
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
                    .wipe(&prefix, from)
                    .await
                    .map_err(StartError::of)?;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(has_organization)
    }

    fn coming(&self, line: PartitionLine) -> Option<Coming> {
        let kind = Kind::of(&line.name, self.header)?;
        let partition = Partition::new(line.name.as_str());
        let outline = line.outline();
        outline.is_possible().then_some(Coming {
            partition,
            kind,
            outline,
            piece: Piece::default(),
            bytes: 0,
        })
    }

    /// Loads the rest of a partition, at the same time as others.
    async fn finish(&mut self, coming: Option<Coming>) -> Result<(), StartError> {
        let Some(Coming {
            partition,
            kind,
            outline,
            piece,
            ..
        }) = coming
        else {
            return Ok(());
        };
        let store = self.store.clone();
        match kind {
            Kind::App | Kind::Organization => {
                load(&*store, &partition, piece)
                    .await?
                    .map_err(|Exists| in_use())?;
                let last = if kind == Kind::App {
                    &mut self.last.app
                } else {
                    &mut self.last.organization
                };
                *last = Some(outline);
            }
            Kind::Credential => {
                drop(self.loading.spawn(async move {
                    load_credential(&*store, partition, piece, outline).await
                }))
            }
            Kind::Own => drop(self.loading.spawn(async move {
                let piece = Piece {
                    outline: Some(outline),
                    ..piece
                };
                load(&*store, &partition, piece)
                    .await?
                    .map_err(|Exists| in_use())
            })),
        }
        self.loaded(TOGETHER).await
    }

    /// Waits until no more than so many partitions are on their way.
    async fn loaded(&mut self, left: usize) -> Result<(), StartError> {
        while self.loading.len() > left {
            if let Some(loaded) = self.loading.join_next().await {
                loaded.map_err(StartError::of)??;
            }
        }
        Ok(())
    }

    /// Lets the app be there, now that all of it is.
    async fn reveal(
        &self,
        of_app: Outline,
        of_organization: Outline,
        has_organization: bool,
    ) -> Result<(), StartError> {
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
        if has_organization {
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
            self.end(&partition, of_organization).await?;
        }
        self.end(&schema::app(app), of_app).await
    }

    async fn end(&self, partition: &Partition, outline: Outline) -> Result<(), StartError> {
        let piece = Piece {
            outline: Some(outline),
            ..Piece::default()
        };
        load(&*self.store, partition, piece)
            .await?
            .map_err(|Exists| in_use())
    }

    async fn commit(&self, partition: &Partition, commit: Commit) -> Result<(), StartError> {
        self.store
            .commit(partition, commit)
            .await
            .map_err(StartError::of)?
            .map(|_| ())
            .map_err(|_| in_use())
    }
}

impl Coming {
    /// Adds a document to the piece; `None` if it cannot be read.
    fn document(
        &mut self,
        line: DocumentLine,
        header: &Header,
        references: &mut References,
    ) -> Option<Verdict> {
        let table = schema::tables(&self.partition).find(|table| table.name == line.table)?;
        let document = line.document()?;
        let is_key = document.key.len() <= LONGEST_KEY
            && !document
                .key
                .contains(|c: char| c.is_control() || c == '{' || c == '}');
        if !is_key || (table.order == Order::Numbers) != (document.stamps.number != 0) {
            return None;
        }
        let verdict = references.check(header, &self.partition, table, &document);
        if verdict == Verdict::Load {
            self.bytes += 128 + document.key.len() + document.value.len();
            self.piece.documents.push((table, document));
        }
        Some(verdict)
    }

    fn entry(&mut self, entry: Entry) {
        self.bytes += 64 + entry.reference.len();
        self.piece.entries.push(entry);
    }

    /// Whether a piece is full. What expires comes in one.
    fn is_heavy(&self) -> bool {
        let things = self.piece.documents.len() + self.piece.entries.len();
        self.outline.expires.is_none() && (things >= THINGS || self.bytes >= BYTES)
    }

    fn take(&mut self) -> Piece {
        self.bytes = 0;
        std::mem::take(&mut self.piece)
    }
}

async fn load(
    store: &dyn Transfer,
    partition: &Partition,
    piece: Piece,
) -> Result<Result<(), Exists>, StartError> {
    if piece.documents.is_empty() && piece.entries.is_empty() && piece.outline.is_none() {
        return Ok(Ok(()));
    }
    store
        .load(partition, piece)
        .await
        .map_err(|error: StoreError| StartError(format!("{error}; begin again with the same file")))
}

/// A credential that is there leads where this one does, and is of an earlier attempt, or of
/// another app's organization.
async fn load_credential(
    store: &dyn Transfer,
    partition: Partition,
    piece: Piece,
    outline: Outline,
) -> Result<(), StartError> {
    let value = piece
        .documents
        .first()
        .map(|(_, document)| document.value.clone());
    let piece = Piece {
        outline: Some(outline),
        ..piece
    };
    match load(store, &partition, piece).await? {
        Ok(()) => Ok(()),
        Err(Exists)
            if parts::entity(store, &partition)
                .await?
                .map(|document| document.value)
                == value =>
        {
            Ok(())
        }
        Err(Exists) => Err(StartError(format!(
            "{} is another key's in this store: the app cannot come here",
            partition.name()
        ))),
    }
}

fn in_use() -> StartError {
    StartError("somebody else brings an app of the same organization into the store: let that end, and begin again if it failed".into())
}
