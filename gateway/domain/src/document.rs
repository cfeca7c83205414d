//! Values of documents: MessagePack of the protocol's types and of the domain's own.

use bytes::Bytes;
use protocol::codec;
use serde::{Serialize, de::DeserializeOwned};
use store::{Commit, Document, DocumentKey, Mark, Table, Write, WriteSlot};

use crate::error::{Error, Result};

/// Encodes the value of a document.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    codec::to_msgpack(value).into()
}

/// Decodes the value of a document.
///
/// # Errors
/// `internal` if it cannot be decoded: the store is damaged or of another version.
pub fn decode<T: DeserializeOwned>(document: &Document) -> Result<T> {
    codec::from_msgpack(&document.value)
        .map_err(|e| Error::internal(format!("a stored document cannot be read: {e}")))
}

/// Parses a stored key as an id.
///
/// # Errors
/// `internal` if it is not an id.
pub fn parse_key<T: std::str::FromStr>(key: &DocumentKey) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    key.parse()
        .map_err(|e| Error::internal(format!("a stored key cannot be read: {e}")))
}

/// Adds puts of encoded values to a commit.
pub trait PutValue {
    /// Adds a put of a document.
    fn put_value<T: Serialize>(self, table: Table, key: impl Into<DocumentKey>, value: &T) -> Self;

    /// Adds a put of a document, and returns its slot.
    fn add_value<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<DocumentKey>,
        value: &T,
    ) -> WriteSlot;

    /// Adds a put of a document that also sets the timestamp `mark`, and returns its slot.
    fn add_marked<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<DocumentKey>,
        value: &T,
        mark: Mark,
    ) -> WriteSlot;
}

impl PutValue for Commit {
    fn put_value<T: Serialize>(self, table: Table, key: impl Into<DocumentKey>, value: &T) -> Self {
        self.put(table, key, encode(value))
    }

    fn add_value<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<DocumentKey>,
        value: &T,
    ) -> WriteSlot {
        self.add_marked(table, key, value, Mark::None)
    }

    fn add_marked<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<DocumentKey>,
        value: &T,
        mark: Mark,
    ) -> WriteSlot {
        self.add_write(Write::Put {
            table,
            key: key.into(),
            value: encode(value),
            mark,
            event: None,
        })
    }
}

/// An entity with the version of its document, for `ETag` and `If-Match`.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned<T> {
    /// The entity.
    pub value: T,
    /// The version of its document.
    pub version: u64,
}

/// The caller's `If-Match`, if there is one.
pub type IfMatch = Option<Precondition>;

/// A precondition of a change of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// The entity is at this version.
    Version(u64),
    /// The entity exists.
    Present,
    /// The entity does not exist.
    Absent,
}

/// Checks a caller's precondition. An entity that does not exist has version 0.
///
/// # Errors
/// `precondition_failed` if it does not hold.
pub fn check_version(expected: IfMatch, actual: u64) -> Result<()> {
    let holds = match expected {
        None => true,
        Some(Precondition::Version(version)) => version == actual,
        Some(Precondition::Present) => actual != 0,
        Some(Precondition::Absent) => actual == 0,
    };
    if holds {
        Ok(())
    } else {
        Err(Error::new(
            protocol::ErrorCode::PreconditionFailed,
            "it is not at the version that the request insists on",
        ))
    }
}
