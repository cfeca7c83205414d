//! The lines of an export: a header, one line for each partition, document, event and deletion job,
//! and a footer with counts and a checksum.

use std::io::{self, BufRead, Write};

use domain::credential;
use protocol::{AppId, OrganizationId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use store::{
    Document, LogEntry, Partition, PartitionHead, Position, Stamps, Table, transfer::Outline,
};

use super::content;
use crate::{start::CommandError, terminal::escape};

/// Version of the line format.
pub(super) const FORMAT: u64 = 2;
/// Maximum length of a line, far above that of the largest document a node accepts.
const MAX_LINE_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExportLine {
    Export(Header),
    Partition(PartitionLine),
    Document(DocumentLine),
    Event(EventLine),
    /// The name of a partition with an unfinished deletion job.
    Job(String),
    End(Footer),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u64,
    pub(super) app: AppId,
    pub(super) organization: OrganizationId,
    /// Start of the export in milliseconds since the Unix epoch, by the store's clock.
    pub(super) at: u64,
    /// The version of `chaos` that wrote the export.
    pub(super) chaos: String,
    /// Fingerprint of the secret key that encrypts the app's token keys.
    pub(super) secret_key: String,
}

/// A partition's outline. The lines after it hold the partition's documents and events.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionLine {
    pub(super) name: String,
    seq: u64,
    at: u64,
    number: u64,
    floor: (u64, u64),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counters: Vec<(String, u64)>,
    #[serde(rename = "touched")]
    last_commit_at: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    retired: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    purged: u64,
    #[serde(rename = "weight", default, skip_serializing_if = "is_zero")]
    log_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl PartitionLine {
    pub(super) fn of(partition: &Partition, outline: Outline) -> Self {
        let Outline {
            head,
            counters,
            last_commit_at,
            retired,
            purged,
            log_bytes,
            expires,
        } = outline;
        let PartitionHead {
            seq,
            at,
            number,
            floor:
                Position {
                    seq: floor_seq,
                    at: floor_at,
                },
        } = head;
        let (name, floor) = (partition.name().to_owned(), (floor_seq, floor_at));
        Self {
            name,
            seq,
            at,
            number,
            floor,
            counters,
            last_commit_at,
            retired,
            purged,
            log_bytes,
            expires,
        }
    }

    pub(super) fn outline(self) -> Outline {
        let Self {
            name: _,
            seq,
            at,
            number,
            floor,
            counters,
            last_commit_at,
            retired,
            purged,
            log_bytes,
            expires,
        } = self;
        let head = PartitionHead {
            seq,
            at,
            number,
            floor: Position {
                seq: floor.0,
                at: floor.1,
            },
        };
        Outline {
            head,
            counters,
            last_commit_at,
            retired,
            purged,
            log_bytes,
            expires,
        }
    }
}

/// A document of the partition in the preceding partition line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentLine {
    pub(super) table: String,
    key: String,
    version: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    number: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    seq: u64,
    created_at: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    edited_at: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    deleted_at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    counts: Vec<(String, u64)>,
    value: Box<RawValue>,
}

impl DocumentLine {
    pub(super) fn of(table: Table, document: Document) -> Self {
        let Document {
            key,
            version,
            value,
            stamps,
            counts,
        } = document;
        let Stamps {
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
        } = stamps;
        let (table, key, value) = (
            table.name.to_owned(),
            key.to_string(),
            content::value_to_json(&value),
        );
        Self {
            table,
            key,
            version,
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
            counts,
            value,
        }
    }

    pub(super) fn document(self) -> Option<Document> {
        let Self {
            table: _,
            key,
            version,
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
            counts,
            value,
        } = self;
        let stamps = Stamps {
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
        };
        Some(Document {
            key: key.into(),
            version,
            value: content::value_from_json(&value)?.into(),
            stamps,
            counts,
        })
    }
}

/// A log entry of the partition in the preceding partition line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine {
    seq: u64,
    at: u64,
    kind: u8,
    reference: Box<RawValue>,
}

impl EventLine {
    pub(super) fn of(entry: &LogEntry) -> Self {
        let LogEntry {
            position: Position { seq, at },
            kind,
            ref reference,
        } = *entry;
        Self {
            seq,
            at,
            kind,
            reference: content::reference_to_json(reference),
        }
    }

    pub(super) fn entry(&self) -> Option<LogEntry> {
        let Self {
            seq,
            at,
            kind,
            ref reference,
        } = *self;
        Some(LogEntry {
            position: Position { seq, at },
            kind,
            reference: content::reference_from_json(reference)?.into(),
        })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The number of lines of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCounts {
    /// Number of partitions.
    pub partitions: u64,
    /// Number of documents.
    pub documents: u64,
    /// Number of log entries.
    pub events: u64,
}

impl TransferCounts {
    fn count(&mut self, line: &ExportLine) {
        match line {
            ExportLine::Partition(_) => self.partitions += 1,
            ExportLine::Document(_) => self.documents += 1,
            ExportLine::Event(_) => self.events += 1,
            ExportLine::Export(_) | ExportLine::Job(_) | ExportLine::End(_) => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footer {
    #[serde(flatten)]
    pub(super) counts: TransferCounts,
    /// Hex digest of all lines before the footer.
    pub(super) sha256: String,
}

/// Writes lines, and computes the footer.
pub(super) struct LineWriter<W> {
    out: W,
    digest: Sha256,
    pub(super) counts: TransferCounts,
}

impl<W: Write> LineWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            digest: Sha256::new(),
            counts: TransferCounts::default(),
        }
    }

    pub(super) fn write(&mut self, line: &ExportLine) -> Result<(), CommandError> {
        // The output may be a terminal. Escaping keeps the meaning of the JSON.
        let json = serde_json::to_string(line).map_err(CommandError::of)?;
        let mut text = escape(&json).into_owned();
        text.push('\n');
        self.digest.update(&text);
        self.counts.count(line);
        self.out
            .write_all(text.as_bytes())
            .map_err(|error| unwritable(&error))
    }

    /// Writes the footer and flushes.
    pub(super) fn end(mut self) -> Result<TransferCounts, CommandError> {
        let footer = Footer {
            counts: self.counts,
            sha256: credential::hex(&self.digest.clone().finalize()),
        };
        self.write(&ExportLine::End(footer))?;
        self.out.flush().map_err(|error| unwritable(&error))?;
        Ok(self.counts)
    }
}

fn unwritable(error: &io::Error) -> CommandError {
    CommandError(format!(
        "the export cannot be written ({error}): free disk space, or pass another file with --to"
    ))
}

/// Reads lines, and compares them with the footer.
pub(super) struct LineReader<R> {
    input: R,
    digest: Sha256,
    line: u64,
    pub(super) counts: TransferCounts,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            digest: Sha256::new(),
            line: 0,
            counts: TransferCounts::default(),
        }
    }

    /// Reads the header.
    ///
    /// # Errors
    /// Fails if the input cannot be read, is not an export, or has another format version.
    pub(super) fn header(&mut self) -> Result<Header, CommandError> {
        #[derive(Deserialize)]
        struct AnyVersion {
            export: Format,
        }
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let text = self.read_line()?;
        let AnyVersion {
            export: Format { format },
        } = serde_json::from_slice(&text).map_err(|_| {
            CommandError("this is no export: pass a file that `chaos export` wrote".into())
        })?;
        if format != FORMAT {
            return Err(CommandError(format!(
                "the export has format {format}, and this version reads format {FORMAT}: use the version that wrote it"
            )));
        }
        match self.parse(&text)? {
            ExportLine::Export(header) => Ok(header),
            _ => Err(self.invalid_line("the first line is not a header")),
        }
    }

    /// Reads the next line; returns `None` after the footer.
    ///
    /// # Errors
    /// Fails if the input cannot be read or is cut off, if the line is invalid, or if the footer
    /// does not match the lines before it.
    pub(super) fn next(&mut self) -> Result<Option<ExportLine>, CommandError> {
        let digest = self.digest.clone();
        let text = self.read_line()?;
        match self.parse(&text)? {
            ExportLine::End(footer) => {
                if footer
                    != (Footer {
                        counts: self.counts,
                        sha256: credential::hex(&digest.finalize()),
                    })
                {
                    return Err(self
                        .invalid_line("the lines before it do not match its counts and checksum"));
                }
                let mut rest = Vec::new();
                self.input
                    .read_until(b'\n', &mut rest)
                    .map_err(|error| unreadable(&error))?;
                if !rest.is_empty() {
                    return Err(self.invalid_line("something follows the footer"));
                }
                Ok(None)
            }
            line => {
                self.counts.count(&line);
                Ok(Some(line))
            }
        }
    }

    fn read_line(&mut self) -> Result<Vec<u8>, CommandError> {
        let mut text = Vec::new();
        self.line += 1;
        io::Read::take(&mut self.input, MAX_LINE_BYTES)
            .read_until(b'\n', &mut text)
            .map_err(|error| unreadable(&error))?;
        if text.last() != Some(&b'\n') {
            return Err(CommandError(format!(
                "the export was cut off in line {}: copy the file again, or repeat the export",
                self.line
            )));
        }
        self.digest.update(&text);
        Ok(text)
    }

    fn parse(&self, text: &[u8]) -> Result<ExportLine, CommandError> {
        serde_json::from_slice(text).map_err(|error| self.invalid_line(&error.to_string()))
    }

    /// Returns the error for an invalid current line.
    pub(super) fn invalid_line(&self, why: &str) -> CommandError {
        CommandError(format!(
            "the export is invalid in line {}: {why}; copy the file again, or repeat the export",
            self.line
        ))
    }
}

fn unreadable(error: &io::Error) -> CommandError {
    CommandError(format!(
        "the export cannot be read ({error}): check its path and its permissions"
    ))
}
