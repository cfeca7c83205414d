//! Shared parts of organizations and apps: access and pages.

use protocol::{OrganizationId, operation::page::ListPage};
use store::{Document, DocumentKey, Partition, Range, Table};

use crate::{
    Services,
    credential::Principal,
    cursor::{self, ListQuery},
    error::{Error, Result},
    listing, schema,
};

/// Checks that a caller may act in an organization, and that it exists.
///
/// # Errors
/// `not_found` for another organization or one that does not exist, `forbidden` for an app key or
/// user token.
pub(super) async fn permit_organization(
    services: &Services,
    principal: &Principal,
    id: &OrganizationId,
) -> Result<()> {
    principal.organization(id)?;
    match services.entity(schema::organization(id)).await? {
        Some(_) => Ok(()),
        None => Err(Error::not_found("organization")),
    }
}

/// Reads a page of a listed table. Returns the cursor of the next page with it.
pub(super) async fn page_of(
    services: &Services,
    principal: &Principal,
    partition: &Partition,
    table: Table,
    page: ListPage,
) -> Result<(Vec<Document>, Option<String>)> {
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_principal(principal, table.name).with(Some(partition.name()));
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let range = Range::Keys {
        after: after.map(DocumentKey::from),
    };
    let (found, _) = services.store.page(partition, table, range, limit).await?;
    let cursor = found
        .documents
        .last()
        .filter(|_| found.more)
        .map(|last| cursor::seal_cursor(services, &query, &*last.key));
    Ok((found.documents, cursor))
}
