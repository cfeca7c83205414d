//! Values of documents: MessagePack of the protocol's types, and the small notes that only the
//! gateway reads.

use bytes::Bytes;
use protocol::codec;
use serde::{Serialize, de::DeserializeOwned};
use store::{Commit, Document, Key, Mark, Table, Write, WriteSlot};

use crate::error::{Error, Result};

/// The value of a document.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    codec::to_msgpack(value).into()
}

/// Reads a document's value. A failure is a defect or a store of another version, never the
/// caller's fault.
pub fn decode<T: DeserializeOwned>(document: &Document) -> Result<T> {
    codec::from_msgpack(&document.value)
        .map_err(|e| Error::internal(format!("a stored document cannot be read: {e}")))
}

/// A stored key as an id.
pub fn parse_key<T: std::str::FromStr>(key: &Key) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    key.parse()
        .map_err(|e| Error::internal(format!("a stored key cannot be read: {e}")))
}

/// Adds puts of encoded values to a commit.
pub trait PutValue {
    /// Adds a put of a document.
    fn put_value<T: Serialize>(self, table: Table, key: impl Into<Key>, value: &T) -> Self;

    /// Adds a put of a document, and returns its slot.
    fn add_value<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<Key>,
        value: &T,
    ) -> WriteSlot;

    /// Adds a put of a document that also sets the timestamp `mark`, and returns its slot.
    fn add_marked<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<Key>,
        value: &T,
        mark: Mark,
    ) -> WriteSlot;
}

impl PutValue for Commit {
    fn put_value<T: Serialize>(self, table: Table, key: impl Into<Key>, value: &T) -> Self {
        self.put(table, key, encode(value))
    }

    fn add_value<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<Key>,
        value: &T,
    ) -> WriteSlot {
        self.add_marked(table, key, value, Mark::None)
    }

    fn add_marked<T: Serialize>(
        &mut self,
        table: Table,
        key: impl Into<Key>,
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
    /// Changes whenever the entity does.
    pub version: u64,
}

/// The precondition of a caller, if there is one.
pub type IfMatch = Option<Precondition>;

/// A precondition of a change of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// It is at this version.
    Version(u64),
    /// It exists, at whatever version.
    Present,
    /// It does not exist yet.
    Absent,
}

/// Fails if the caller insists on something else. An entity that does not exist is at version 0.
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
