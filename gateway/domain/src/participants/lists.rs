//! Reads the participants of a channel.

use protocol::{
    ChannelId, UserId,
    entity::Participant,
    operation::page::{List, ListPage},
};
use store::{DocumentKey, Range};

use super::{MembershipState, read_membership};
use crate::{
    Services,
    channel_state::{self, Place},
    credential::Actor,
    cursor::{self, ListQuery},
    document::{Versioned, decode},
    error::{Error, Result},
    listing,
    permission::Action,
    schema::{PARTICIPANTS, READS},
};

/// Lists a channel's participants with their read positions, by user id.
pub async fn list_participants(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    page: ListPage,
) -> Result<List<Participant>> {
    let state = channel_state::read(services, actor, channel_id).await?;
    state.permit(actor, Action::Read)?;
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_actor(actor, "participants").with(Some(channel_id.as_str()));
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let range = Range::Keys {
        after: after.map(DocumentKey::from),
    };
    let (page, _) = services
        .store
        .page(&state.partition, PARTICIPANTS, range, limit)
        .await?;
    let keys = page
        .documents
        .iter()
        .map(|d| (READS, d.key.clone()))
        .collect();
    let reads = services.snapshot(state.partition, keys).await?.documents;
    let cursor = page
        .documents
        .last()
        .filter(|_| page.more)
        .map(|last| cursor::seal_cursor(services, &query, &*last.key));
    let items = page.documents.iter().zip(reads).map(|(document, read)| {
        let place = Place::of(document)?;
        let read = read.as_ref().map(decode).transpose()?.unwrap_or(0);
        Ok(Participant {
            read: Some(read),
            ..place.participant
        })
    });
    Ok(List {
        items: items.collect::<Result<_>>()?,
        cursor,
    })
}

/// Reads one participant.
pub async fn read_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<Versioned<Participant>> {
    let MembershipState { state, place, .. } =
        read_membership(services, actor, channel_id, user).await?;
    let place = place.ok_or_else(|| Error::not_found("participant"))?;
    let read = services
        .document(state.partition, READS, user.shared())
        .await?;
    let read = read.as_ref().map(decode).transpose()?.unwrap_or(0);
    Ok(Versioned {
        value: Participant {
            read: Some(read),
            ..place.participant
        },
        version: place.version,
    })
}
