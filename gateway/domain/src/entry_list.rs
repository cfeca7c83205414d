//! A user's list of channels, last active first.

use protocol::{
    UserId,
    operation::{channel::EntryList, page::ListPage},
};

use crate::{
    Services, channel_order,
    channel_walk::{Walk, WalkPage},
    credential::Actor,
    cursor::{self, ListQuery, REPLY_BYTES},
    entries::{self, Detail, ENTRIES_PER_READ, size_of_entry},
    error::Result,
    listing, users,
};

/// Lists a user's channels, last active first: a page of a [walk](super::channel_walk) through
/// all of them.
pub async fn list_entries(
    services: &Services,
    actor: &Actor,
    user: &UserId,
    page: ListPage,
) -> Result<EntryList> {
    users::permit_user(services, actor, user).await?;
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_actor(actor, "user_channels").with(Some(user.as_str()));
    let walk: Option<Walk> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let order = channel_order::channel_order(
        services,
        &actor.scope,
        user,
        walk.as_ref().map_or(0, Walk::not_before),
    )
    .await?;
    let mut page = WalkPage::new(walk, &order);
    let (mut items, mut bytes) = (Vec::new(), 0);
    // Channels that the user has left meanwhile are skipped. A page with many of them ends early.
    let mut left = limit + ENTRIES_PER_READ;
    'page: while items.len() < limit && left > 0 {
        let ids = page.upcoming((limit - items.len()).min(ENTRIES_PER_READ).min(left));
        if ids.is_empty() {
            break;
        }
        left -= ids.len();
        for entry in entries::read_entries(services, &actor.scope, user, &ids, Detail::Full).await?
        {
            if let Some(entry) = entry {
                bytes += size_of_entry(&entry);
                if bytes > REPLY_BYTES && !items.is_empty() {
                    break 'page;
                }
                items.push(entry);
            }
            page.pass();
        }
    }
    Ok(EntryList {
        items,
        cursor: page
            .end()
            .map(|walk| cursor::seal_cursor(services, &query, walk)),
    })
}
