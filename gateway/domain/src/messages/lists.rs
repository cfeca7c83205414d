//! Pages of messages.

use protocol::{
    ChannelId, UserId,
    entity::Message,
    operation::message::{ListMessages, MessagePage},
};
use store::Range;

use super::{message_of, reaction_key};
use crate::{
    Services,
    channel_state::{self, ChannelState},
    credential::Actor,
    cursor::REPLY_BYTES,
    document::decode,
    error::{Error, Result},
    listing,
    permission::Action,
    schema::{MESSAGES, REACTIONS},
};

/// Lists messages. A page ends early if it would be larger than a reply may be.
pub async fn list_messages(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    query: ListMessages,
) -> Result<MessagePage> {
    let state = channel_state::read(services, actor, channel_id).await?;
    state.permit(actor, Action::Read)?;
    let range = match (query.before, query.after, query.changed_after) {
        (None, None, None) => Range::Before(None),
        (Some(number), None, None) => Range::Before(Some(number)),
        (None, Some(number), None) => Range::After(number),
        (None, None, Some(seq)) => Range::Changed(seq),
        _ => {
            return Err(Error::bad_request(
                "give one of `before`, `after` and `changed_after`",
            ));
        }
    };
    let backwards = matches!(range, Range::Before(_));
    let (mut page, _) = services
        .store
        .page(
            &state.partition,
            MESSAGES,
            range,
            listing::page_length(services, query.limit)?,
        )
        .await?;
    // A stored message is shorter than its encoded answer. Cutting by the stored length first
    // avoids decoding messages that cannot fit.
    page.more |= keep_what_fits(&mut page.documents, backwards, |document| {
        document.value.len()
    });
    let mut items = page
        .documents
        .iter()
        .map(message_of)
        .collect::<Result<Vec<_>>>()?;
    if let Some(user) = actor.user() {
        add_own_reactions(services, &state, user, &mut items).await?;
    }
    page.more |= keep_what_fits(&mut items, backwards, |item| {
        1 + protocol::codec::longest(item)
    });
    Ok(MessagePage {
        items,
        more: page.more,
    })
}

async fn add_own_reactions(
    services: &Services,
    state: &ChannelState,
    user: &UserId,
    items: &mut [Message],
) -> Result<()> {
    let reacted: Vec<usize> = (0..items.len())
        .filter(|i| !items[*i].reactions.is_empty())
        .collect();
    for item in items.iter_mut() {
        item.own_reactions = Some(Vec::new());
    }
    if reacted.is_empty() {
        return Ok(());
    }
    let keys = reacted
        .iter()
        .map(|i| (REACTIONS, reaction_key(items[*i].number, user)))
        .collect();
    let snapshot = services.snapshot(state.partition.clone(), keys).await?;
    for (index, document) in reacted.into_iter().zip(snapshot.documents) {
        if let Some(document) = document {
            items[index].own_reactions = Some(decode(&document)?);
        }
    }
    Ok(())
}

/// Cuts a page to the maximum size of a reply, but not below one message. Returns whether it cut
/// anything. It cuts the far end, so that the next page begins where this one ends.
fn keep_what_fits<T>(page: &mut Vec<T>, backwards: bool, length: impl Fn(&T) -> usize) -> bool {
    let mut bytes = 0;
    let mut fits = |item: &&T| {
        bytes += length(item);
        bytes <= REPLY_BYTES
    };
    let kept = if backwards {
        page.iter().rev().take_while(&mut fits).count()
    } else {
        page.iter().take_while(&mut fits).count()
    };
    let cut = page.len() - kept.max(1).min(page.len());
    if backwards {
        page.drain(..cut);
    } else {
        page.truncate(page.len() - cut);
    }
    cut > 0
}
