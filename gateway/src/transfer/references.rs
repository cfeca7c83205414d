//! Documents that refer to other partitions: an import takes only those that refer to the app's
//! own.
//!
//! The deletion of an app follows such references, and a credential acts for the object that it
//! refers to. A reference to another app's partition would let the imported app delete it or act
//! for it.

use std::collections::BTreeSet;

use domain::{
    apps::app_of,
    document::{decode, parse_key},
    keys::{Credential, KeyLine},
    organizations::organization_of,
    schema::{self, APPS, ENTITY, KEYS, NEW_CREDENTIALS, PartitionKind, SIGNING, TOKEN_KEYS},
    token_keys::StoredTokenKey,
    tokens::Signing,
};
use store::{Document, Partition, StoreError, Table, transfer::Transfer};

use super::line::Header;

/// Whether an import takes a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DocumentVerdict {
    Load,
    /// The document belongs to an interrupted creation and is not loaded.
    Skip,
    /// The document refers to a partition outside the app; the import fails.
    Foreign,
}

/// The references of the documents that were read so far.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Partitions of credentials that the key lists refer to.
    named: BTreeSet<String>,
    /// Partitions of credentials in the file.
    contained: BTreeSet<String>,
}

impl References {
    /// Records a partition of the file.
    pub(super) fn add_partition(&mut self, partition: &Partition) {
        if is_credential(partition) {
            self.contained.insert(partition.name().to_owned());
        }
    }

    /// Checks a document of a partition, and records its references.
    pub(super) fn check(
        &mut self,
        header: &Header,
        partition: &Partition,
        table: Table,
        document: &Document,
    ) -> DocumentVerdict {
        if table == NEW_CREDENTIALS {
            return DocumentVerdict::Skip;
        }
        match self.is_own(header, partition, table, document) {
            Some(true) => DocumentVerdict::Load,
            Some(false) | None => DocumentVerdict::Foreign,
        }
    }

    fn is_own(
        &mut self,
        header: &Header,
        partition: &Partition,
        table: Table,
        document: &Document,
    ) -> Option<bool> {
        let (app, organization) = (&header.app, &header.organization);
        let kind = PartitionKind::of(partition.name())?;
        let is_own = match (kind, table) {
            (PartitionKind::App, ENTITY) => {
                let found = app_of(document).ok()?;
                found.id == *app && found.organization_id == *organization
            }
            (PartitionKind::Organization, ENTITY) => {
                organization_of(document).ok()?.id == *organization
            }
            (PartitionKind::Organization, APPS) => *document.key == *app.as_str(),
            (PartitionKind::Credential, ENTITY) => {
                let found: Credential = decode(document).ok()?;
                found.organization == *organization
                    && found.app.is_none_or(|(found, _)| found == *app)
            }
            (PartitionKind::TokenKey, ENTITY) => {
                let found: StoredTokenKey = decode(document).ok()?;
                found.organization == *organization && found.app == *app
            }
            (_, KEYS) => {
                let line: KeyLine = decode(document).ok()?;
                self.name(&schema::credential(&line.hash))
            }
            (PartitionKind::App, TOKEN_KEYS) => {
                self.name(&schema::token_key(&parse_key(&document.key).ok()?))
            }
            (PartitionKind::App, SIGNING) => {
                let Signing { key } = decode(document).ok()?;
                self.name(&schema::token_key(&key))
            }
            _ => true,
        };
        Some(is_own)
    }

    fn name(&mut self, partition: &Partition) -> bool {
        self.named.insert(partition.name().to_owned());
        true
    }

    /// Returns a partition of another app that a document refers to: one that exists and is not in
    /// the file. (The partitions of revoked and expired keys do not exist.)
    pub(super) async fn foreign(
        &self,
        store: &dyn Transfer,
    ) -> Result<Option<Partition>, StoreError> {
        for name in self.named.difference(&self.contained) {
            let partition = Partition::new(name.as_str());
            if store.outline(&partition).await?.is_some() {
                return Ok(Some(partition));
            }
        }
        Ok(None)
    }
}

fn is_credential(partition: &Partition) -> bool {
    matches!(
        PartitionKind::of(partition.name()),
        Some(PartitionKind::Credential | PartitionKind::TokenKey)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;

    use domain::document::{PutValue, encode};
    use fanout::bus::Local;
    use protocol::{AppId, KeyId, OrganizationId, TokenKeyId, entity::Environment};
    use store::{Commit, Keep, Stamps, Store, embedded::Embedded};

    use super::*;

    fn header() -> Header {
        Header {
            format: 2,
            app: AppId::from_bits(1),
            organization: OrganizationId::from_bits(1),
            at: 0,
            chaos: String::new(),
            secret_key: String::new(),
        }
    }

    fn document(key: &str, value: &impl serde::Serialize) -> Document {
        Document {
            key: key.into(),
            version: 1,
            value: encode(value),
            stamps: Stamps::default(),
            counts: Vec::new(),
        }
    }

    fn verdict(partition: &Partition, table: Table, document: &Document) -> DocumentVerdict {
        References::default().check(&header(), partition, table, document)
    }

    #[test]
    fn documents_that_name_another_app_are_foreign() {
        let (app, organization) = (
            schema::app(&AppId::from_bits(1)),
            schema::organization(&OrganizationId::from_bits(1)),
        );
        let of = |bits| AppId::from_bits(bits).to_string();
        let listed = |bits| verdict(&organization, APPS, &document(&of(bits), &()));
        assert_eq!(
            (listed(1), listed(2)),
            (DocumentVerdict::Load, DocumentVerdict::Foreign)
        );
        let half_made = document(schema::app(&AppId::from_bits(2)).name(), &());
        assert_eq!(
            verdict(&app, NEW_CREDENTIALS, &half_made),
            DocumentVerdict::Skip
        );
        let leads_to = |organization, app| {
            let credential = Credential {
                organization: OrganizationId::from_bits(organization),
                app: Some((AppId::from_bits(app), Environment::Live)),
                key: KeyId::from_bits(1),
            };
            let document = document(schema::ONLY, &credential);
            verdict(&schema::credential("hash"), ENTITY, &document)
        };
        assert_eq!(leads_to(1, 1), DocumentVerdict::Load);
        assert_eq!(leads_to(1, 2), DocumentVerdict::Foreign);
        assert_eq!(leads_to(2, 1), DocumentVerdict::Foreign);
    }

    #[tokio::test]
    async fn token_key_of_another_app_is_foreign_and_a_revoked_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep {
            events: 0,
            bytes: 0,
        };
        let bus = Local::new(Arc::new(()));
        let store = Embedded::open(folder.path(), keep, bus).unwrap();
        let (victims, revoked) = (TokenKeyId::from_bits(7), TokenKeyId::from_bits(8));
        let theirs = Commit::default().put_value(ENTITY, schema::ONLY, &());
        store
            .commit(&schema::token_key(&victims), theirs)
            .await
            .unwrap()
            .unwrap();
        let app = schema::app(&AppId::from_bits(1));
        let foreign = async |key: &TokenKeyId, is_contained| {
            let mut references = References::default();
            let line = document(key.as_str(), &());
            assert_eq!(
                references.check(&header(), &app, TOKEN_KEYS, &line),
                DocumentVerdict::Load
            );
            if is_contained {
                references.add_partition(&schema::token_key(key));
            }
            references.foreign(&store).await.unwrap()
        };
        assert_eq!(
            foreign(&victims, false).await,
            Some(schema::token_key(&victims))
        );
        assert_eq!(foreign(&victims, true).await, None, "loading it is refused");
        assert_eq!(foreign(&revoked, false).await, None);
    }
}
