//! The lines of an export: a header, a line per thing, a footer that tells whether all is there.

use std::io::{self, BufRead, Write};

use domain::credential;
use protocol::{AppId, OrganizationId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use store::{Document, Entry, Head, Partition, Position, Stamps, Table, transfer::Outline};

use super::content;
use crate::{start::StartError, terminal::escape};

/// The version of all this.
pub(super) const FORMAT: u64 = 2;
/// The longest line: far more than a document that a node takes.
const LONGEST: u64 = 64 << 20;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Export(Header),
    Partition(PartitionLine),
    Document(DocumentLine),
    Event(EventLine),
    /// The name of a partition of which a deletion is not finished.
    Job(String),
    End(Footer),
}

/// What is in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u64,
    pub(super) app: AppId,
    pub(super) organization: OrganizationId,
    /// When, by the store's clock.
    pub(super) at: u64,
    /// The version that wrote it.
    pub(super) chaos: String,
    /// What tells this secret key from others without telling it.
    pub(super) secret_key: String,
}

/// A partition. Its documents and events follow.
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
    touched: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    retired: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    purged: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    weight: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl PartitionLine {
    pub(super) fn of(partition: &Partition, outline: Outline) -> Self {
        let Outline {
            head,
            counters,
            touched,
            retired,
            purged,
            weight,
            expires,
        } = outline;
        let Head {
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
            touched,
            retired,
            purged,
            weight,
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
            touched,
            retired,
            purged,
            weight,
            expires,
        } = self;
        let head = Head {
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
            touched,
            retired,
            purged,
            weight,
            expires,
        }
    }
}

/// A document of the partition before it.
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
            content::value(&value),
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
            value: content::value_back(&value)?.into(),
            stamps,
            counts,
        })
    }
}

/// An entry of the log of the partition before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine {
    seq: u64,
    at: u64,
    kind: u8,
    reference: Box<RawValue>,
}

impl EventLine {
    pub(super) fn of(entry: &Entry) -> Self {
        let Entry {
            position: Position { seq, at },
            kind,
            ref reference,
        } = *entry;
        Self {
            seq,
            at,
            kind,
            reference: content::reference(reference),
        }
    }

    pub(super) fn entry(&self) -> Option<Entry> {
        let Self {
            seq,
            at,
            kind,
            ref reference,
        } = *self;
        Some(Entry {
            position: Position { seq, at },
            kind,
            reference: content::reference_back(reference)?.into(),
        })
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Partitions.
    pub partitions: u64,
    /// Documents.
    pub documents: u64,
    /// Entries of logs.
    pub events: u64,
}

impl Counts {
    fn count(&mut self, line: &Line) {
        match line {
            Line::Partition(_) => self.partitions += 1,
            Line::Document(_) => self.documents += 1,
            Line::Event(_) => self.events += 1,
            Line::Export(_) | Line::Job(_) | Line::End(_) => {}
        }
    }
}

/// What must have come before it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footer {
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Of all lines before.
    pub(super) sha256: String,
}

/// Writes lines, and what the footer tells of them.
pub(super) struct Writer<W> {
    out: W,
    digest: Sha256,
    pub(super) counts: Counts,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            digest: Sha256::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn write(&mut self, line: &Line) -> Result<(), StartError> {
        // The export may go to a terminal; escaping leaves the JSON as it is.
        let json = serde_json::to_string(line).map_err(StartError::of)?;
        let mut text = escape(&json).into_owned();
        text.push('\n');
        self.digest.update(&text);
        self.counts.count(line);
        self.out
            .write_all(text.as_bytes())
            .map_err(|error| unwritten(&error))
    }

    /// Writes the footer.
    pub(super) fn end(mut self) -> Result<Counts, StartError> {
        let footer = Footer {
            counts: self.counts,
            sha256: credential::hex(&self.digest.clone().finalize()),
        };
        self.write(&Line::End(footer))?;
        self.out.flush().map_err(|error| unwritten(&error))?;
        Ok(self.counts)
    }
}

fn unwritten(error: &io::Error) -> StartError {
    StartError(format!(
        "the export cannot be written ({error}): make room, or name another file with --to"
    ))
}

/// Reads lines, and holds them against the footer.
pub(super) struct Reader<R> {
    input: R,
    digest: Sha256,
    line: u64,
    pub(super) counts: Counts,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            digest: Sha256::new(),
            line: 0,
            counts: Counts::default(),
        }
    }

    /// The first line, if it is one that this version understands.
    pub(super) fn header(&mut self) -> Result<Header, StartError> {
        #[derive(Deserialize)]
        struct Any {
            export: Format,
        }
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let text = self.text()?;
        let Any {
            export: Format { format },
        } = serde_json::from_slice(&text).map_err(|_| {
            StartError("this is no export: give the file that `chaos export` wrote".into())
        })?;
        if format != FORMAT {
            return Err(StartError(format!(
                "the export has format {format}, and this version reads format {FORMAT}: use the version that wrote it"
            )));
        }
        match self.read(&text)? {
            Line::Export(header) => Ok(header),
            _ => Err(self.broken("it does not begin as an export does")),
        }
    }

    /// The next line; `None` after a footer that all that came before agrees with.
    pub(super) fn next(&mut self) -> Result<Option<Line>, StartError> {
        let digest = self.digest.clone();
        let text = self.text()?;
        match self.read(&text)? {
            Line::End(footer) => {
                if footer
                    != (Footer {
                        counts: self.counts,
                        sha256: credential::hex(&digest.finalize()),
                    })
                {
                    return Err(
                        self.broken("what comes before its last line is not what that tells of")
                    );
                }
                let mut rest = Vec::new();
                self.input
                    .read_until(b'\n', &mut rest)
                    .map_err(|error| unread(&error))?;
                if !rest.is_empty() {
                    return Err(self.broken("something follows its last line"));
                }
                Ok(None)
            }
            line => {
                self.counts.count(&line);
                Ok(Some(line))
            }
        }
    }

    fn text(&mut self) -> Result<Vec<u8>, StartError> {
        let mut text = Vec::new();
        self.line += 1;
        io::Read::take(&mut self.input, LONGEST)
            .read_until(b'\n', &mut text)
            .map_err(|error| unread(&error))?;
        if text.last() != Some(&b'\n') {
            return Err(StartError(format!(
                "the export ends in line {} without its last line: it was cut off, so fetch or make it again",
                self.line
            )));
        }
        self.digest.update(&text);
        Ok(text)
    }

    fn read(&self, text: &[u8]) -> Result<Line, StartError> {
        serde_json::from_slice(text).map_err(|error| self.broken(&error.to_string()))
    }

    /// A file that cannot be used, and why.
    pub(super) fn broken(&self, why: &str) -> StartError {
        StartError(format!(
            "the export is broken in line {}: {why}; fetch or make it again",
            self.line
        ))
    }
}

fn unread(error: &io::Error) -> StartError {
    StartError(format!(
        "the export cannot be read ({error}): mend its path or its permissions"
    ))
}
