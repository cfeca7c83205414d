//! Lists of channels.

use protocol::{
    ChannelId, UserId, codec,
    entity::{Channel, ChannelType},
    operation::page::{List, ListPage},
};
use store::{DocumentKey, Range, Read};

use crate::{
    Services,
    channel_state::channel_of,
    credential::{Actor, Who},
    cursor::{self, ListQuery},
    document::parse_key,
    error::Result,
    listing::{self, Candidates, Filling},
    schema::{CHANNELS, ENTITY, ONLY, PARTICIPANTS, PUBLIC_CHANNELS},
};

impl ChannelFilter {
    /// Returns the list that a cursor of this filter is bound to.
    fn query(&self, actor: &Actor) -> ListQuery {
        let ids = self.ids.as_ref().map(|ids| {
            ids.iter()
                .map(ChannelId::as_str)
                .collect::<Vec<_>>()
                .join(",")
        });
        ListQuery::of_actor(actor, "channels")
            .with(self.kind.map(ChannelType::as_str))
            .with(self.participant.as_ref().map(UserId::as_str))
            .with(ids.as_deref())
    }
}

/// Selects channels. Fields that are `None` select all.
#[derive(Debug, Clone, Default)]
pub struct ChannelFilter {
    /// Channels of this type.
    pub kind: Option<ChannelType>,
    /// Channels that this user is in.
    pub participant: Option<UserId>,
    /// Channels with these ids.
    pub ids: Option<Vec<ChannelId>>,
}

/// Lists channels by id: all of them for an app key; for a user, its own and the public ones.
pub async fn list_channels(
    services: &Services,
    actor: &Actor,
    filter: ChannelFilter,
    page: ListPage,
) -> Result<List<Channel>> {
    let limit = listing::page_length(services, page.limit)?;
    let query = filter.query(actor);
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let mut filling = Filling::new(limit, after.map(DocumentKey::from), codec::longest);
    while let Some((after, count)) = filling.next() {
        let candidates = candidates(services, actor, &filter, after, count).await?;
        let found = visible_channels(services, actor, &filter, &candidates.ids).await?;
        filling.take(candidates, found);
    }
    let (items, next) = filling.end();
    Ok(List {
        items,
        cursor: next.map(|id| cursor::seal_cursor(services, &query, &*id)),
    })
}

/// Reads the next ids that may be in a list.
///
/// They never come from the index of another user: the number of pages and their timing must not
/// reveal how many channels that user is in.
async fn candidates(
    services: &Services,
    actor: &Actor,
    filter: &ChannelFilter,
    after: Option<DocumentKey>,
    count: usize,
) -> Result<Candidates> {
    if let Some(ids) = &filter.ids {
        let mut ids: Vec<DocumentKey> = ids
            .iter()
            .map(ChannelId::shared)
            .filter(|id| after.as_ref().is_none_or(|after| id > after))
            .collect();
        ids.sort();
        ids.dedup();
        let more = ids.len() > count;
        ids.truncate(count);
        return Ok(Candidates { ids, more });
    }
    let (index, scope) = (actor.scope.index(), &actor.scope);
    let sources = match (&filter.participant, &actor.who) {
        (Some(user), Who::App { .. }) => vec![(scope.user(user), CHANNELS)],
        (None, Who::App { .. }) => vec![(index, CHANNELS)],
        (Some(_), Who::User { id, .. }) => vec![(scope.user(id), CHANNELS)],
        (None, Who::User { id, .. }) => {
            vec![(scope.user(id), CHANNELS), (index, PUBLIC_CHANNELS)]
        }
    };
    let (mut ids, mut more, mut end) = (Vec::new(), false, None::<DocumentKey>);
    for (partition, table) in sources {
        let (page, _) = services
            .store
            .page(
                &partition,
                table,
                Range::Keys {
                    after: after.clone(),
                },
                count,
            )
            .await?;
        if page.more {
            // Ids after the end of this page may be missing, so those of the other source are cut
            // there, too.
            let last = page.documents.last().map(|d| d.key.clone());
            end = match (end, last) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            more = true;
        }
        ids.extend(page.documents.into_iter().map(|d| d.key));
    }
    ids.retain(|id| end.as_ref().is_none_or(|end| id <= end));
    ids.sort();
    ids.dedup();
    Ok(Candidates { ids, more })
}

/// Reads channels. Returns `None` for each that the caller may not see or the filter excludes.
async fn visible_channels(
    services: &Services,
    actor: &Actor,
    filter: &ChannelFilter,
    ids: &[DocumentKey],
) -> Result<Vec<Option<Channel>>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let caller = actor.user().map_or("", UserId::as_str);
    let asked = filter.participant.as_ref().map_or("", UserId::as_str);
    let read = |id: &ChannelId| Read {
        partition: actor.scope.channel(id),
        documents: vec![
            (ENTITY, ONLY.into()),
            (PARTICIPANTS, caller.into()),
            (PARTICIPANTS, asked.into()),
        ],
        newest: None,
    };
    let ids: Vec<ChannelId> = ids.iter().map(parse_key).collect::<Result<_>>()?;
    let snapshots = services.store.read(ids.iter().map(read).collect()).await?;
    let visible = snapshots.iter().map(|snapshot| {
        let (Some((channel, _)), [_, own, asked]) =
            (channel_of(snapshot)?, &snapshot.documents[..])
        else {
            return Ok(None);
        };
        let is_public = matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast);
        // Only participants see who is in a channel.
        let shows = |asked: &UserId| actor.user() == Some(asked);
        let is_public = is_public && filter.participant.as_ref().is_none_or(shows);
        let is_visible = actor.user().is_none() || is_public || own.is_some();
        let is_asked = filter.participant.is_none() || asked.is_some();
        let fits = is_visible && is_asked && filter.kind.is_none_or(|kind| kind == channel.kind);
        Ok(fits.then_some(channel))
    });
    visible.collect()
}
