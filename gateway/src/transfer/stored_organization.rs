//! The organization of an import, if the store has it already.
//!
//! Anyone can write an organization's id into a file, but only an export of that organization has
//! the hashes of its keys. An import therefore accepts a file only if it has the same organization
//! as the store. Otherwise the app of one customer could become part of another's organization, or
//! the keys of a forged organization valid for apps that are imported later.

use std::collections::BTreeSet;

use bytes::Bytes;
use domain::{
    document::encode,
    organizations::organization_of,
    schema::{self, APPS, ENTITY, NEW_CREDENTIALS},
};
use protocol::OrganizationId;
use store::{Document, Table, transfer::Transfer};

use super::partition_reader::{PartitionBatch, PartitionReader};
use crate::start::CommandError;

/// The parts of a document that must be equal in the file and the store: table, key, time of
/// creation and value. Versions may differ, so that a change can be undone.
type DocumentContent = (&'static str, String, u64, Bytes);

fn content(table: Table, document: &Document) -> DocumentContent {
    // The value contains the time of creation only after an update.
    let entity = (table == ENTITY)
        .then(|| organization_of(document).ok())
        .flatten();
    (
        table.name,
        document.key.to_string(),
        document.stamps.created_at,
        entity.map_or_else(|| document.value.clone(), |entity| encode(&entity)),
    )
}

/// The organization's documents in the store, apart from the list of its apps and from notes about
/// unfinished keys.
#[derive(Debug)]
pub(super) struct StoredOrganization {
    id: OrganizationId,
    stored: BTreeSet<DocumentContent>,
    /// Documents of the store that the file has not had yet.
    missing: BTreeSet<DocumentContent>,
}

impl StoredOrganization {
    /// Reads the organization's documents.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub(super) async fn read(
        store: &dyn Transfer,
        id: &OrganizationId,
    ) -> Result<Self, CommandError> {
        let mut stored = BTreeSet::new();
        let reader = PartitionReader::begin(store, schema::organization(id)).await;
        if let Some(mut reader) = reader.map_err(CommandError::of)? {
            while let Some(batch) = reader.next().await.map_err(CommandError::of)? {
                if let PartitionBatch::Documents(table, documents) = batch
                    && is_compared(table)
                {
                    stored.extend(documents.iter().map(|document| content(table, document)));
                }
            }
        }
        Ok(Self {
            id: id.clone(),
            missing: stored.clone(),
            stored,
        })
    }

    /// Compares a document of the file with the store.
    ///
    /// # Errors
    /// Fails if the store has no equal document.
    pub(super) fn compare(
        &mut self,
        table: Table,
        document: &Document,
    ) -> Result<(), CommandError> {
        if !is_compared(table) {
            return Ok(());
        }
        let content = content(table, document);
        self.missing.remove(&content);
        if self.stored.contains(&content) {
            Ok(())
        } else {
            Err(self.differs())
        }
    }

    /// Checks that the file has had every document of the organization.
    ///
    /// # Errors
    /// Fails if one is missing.
    pub(super) fn require_complete(&self) -> Result<(), CommandError> {
        if self.missing.is_empty() {
            Ok(())
        } else {
            Err(self.differs())
        }
    }

    /// Returns the error for a file whose organization is another than the store's.
    pub(super) fn differs(&self) -> CommandError {
        CommandError(format!(
            "the organization {} has other keys or details in the file than in the store, so one of the two may be forged: compare them; then undo the change and export again, or import the file into an empty deployment, or delete the organization from this store",
            self.id
        ))
    }
}

fn is_compared(table: Table) -> bool {
    table != APPS && table != NEW_CREDENTIALS
}
