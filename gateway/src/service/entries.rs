//! Entries: a user's channels as sessions and lists show them. Left out: which those are ([`index`](super::index)).

use protocol::{ChannelId, UserId, model::Entry, results::EntryList};

use super::{
    Services,
    channel_state::{Place, channel_of},
    document::decode,
    messages::message_of,
    scope::{ENTITY, MESSAGES, ONLY, PARTICIPANT_COUNT, PARTICIPANTS, READS, Scope},
};
use crate::{
    auth::Actor,
    error::{Error, Result},
    store::{Key, Read, Snapshot},
};

/// How many channels are read at once.
pub const BATCH: usize = 200;
/// How much of a reply its items may fill, in bytes: a reply has at most 256 KiB.
pub const REPLY_BYTES: usize = 240 * 1024;

/// How much an entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    Full,
    /// Positions and numbers.
    Positions,
}

impl Services {
    /// A user's entries of these channels; `None` where the user is not in it.
    pub async fn entries(
        &self,
        scope: &Scope,
        user: &UserId,
        ids: &[ChannelId],
        detail: Detail,
    ) -> Result<Vec<Option<Entry>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reads = ids
            .iter()
            .map(|id| entry_read(scope, user, id, detail))
            .collect();
        let snapshots = self.store.read(reads).await?;
        ids.iter()
            .zip(snapshots)
            .map(|(id, snapshot)| entry_of(id, &snapshot, detail))
            .collect()
    }

    /// All of a user's channels, last active first, from a cursor on.
    pub async fn list_entries(
        &self,
        actor: &Actor,
        user: &UserId,
        cursor: Option<String>,
        limit: Option<u64>,
    ) -> Result<EntryList> {
        self.permit_user(actor, user).await?;
        let limit = self.page_length(limit)?;
        let after = cursor.as_deref().map(parse_cursor).transpose()?;
        let mut order = self.by_activity(&actor.scope, user).await?;
        if let Some((at, id)) = after {
            order.retain(|(other_at, other_id)| {
                (std::cmp::Reverse(*other_at), other_id) > (std::cmp::Reverse(at), &id)
            });
        }
        let (mut items, mut bytes, mut last) = (Vec::new(), 0, None);
        'pages: for some in order.chunks(limit.min(BATCH)) {
            let ids: Vec<ChannelId> = some.iter().map(|(_, id)| id.clone()).collect();
            for (place, entry) in some
                .iter()
                .zip(self.entries(&actor.scope, user, &ids, Detail::Full).await?)
            {
                if let Some(entry) = entry {
                    bytes += size_of_entry(&entry);
                    if items.len() == limit || (bytes > REPLY_BYTES && !items.is_empty()) {
                        break 'pages;
                    }
                    items.push(entry);
                }
                last = Some(place);
            }
        }
        let at_end = last.is_none() || last == order.last();
        let cursor = last
            .filter(|_| !at_end)
            .map(|(at, id)| format!("{at}.{id}"));
        Ok(EntryList { items, cursor })
    }
}

/// What has to be read for an entry.
pub fn entry_read(scope: &Scope, user: &UserId, id: &ChannelId, detail: Detail) -> Read {
    Read {
        partition: scope.channel(id),
        documents: vec![
            (ENTITY, Key::from(ONLY)),
            (PARTICIPANTS, user.shared()),
            (READS, user.shared()),
        ],
        newest: (detail == Detail::Full).then_some(MESSAGES),
    }
}

/// The entry of what [`entry_read`] asked for; `None` where the user is not in the channel.
pub fn entry_of(id: &ChannelId, snapshot: &Snapshot, detail: Detail) -> Result<Option<Entry>> {
    let (Some((channel, _)), Some(Some(place))) =
        (channel_of(snapshot)?, snapshot.documents.get(1))
    else {
        return Ok(None);
    };
    let place = Place::of(place)?;
    let read = match &snapshot.documents[2] {
        Some(document) => decode(document)?,
        None => 0,
    };
    let head = snapshot.head;
    let is_full = detail == Detail::Full;
    Ok(Some(Entry {
        channel_id: id.clone(),
        channel: is_full.then_some(channel),
        role: is_full.then_some(place.participant.role),
        seq: head.seq,
        at: head.at,
        number: head.number,
        read,
        unread: is_full.then(|| head.number.saturating_sub(read)),
        last_message: snapshot.newest.as_ref().map(message_of).transpose()?,
        participant_count: is_full.then(|| snapshot.counter(PARTICIPANT_COUNT)),
        gap: None,
    }))
}

/// How long an entry is at most when encoded, with what separates it from the next.
pub fn size_of_entry(entry: &Entry) -> usize {
    1 + protocol::codec::longest(entry)
}

/// A stored key as an id.
pub(crate) fn parse_key<T: std::str::FromStr>(key: &Key) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    key.parse()
        .map_err(|e| Error::internal(format!("a stored key cannot be read: {e}")))
}

fn parse_cursor(cursor: &str) -> Result<(u64, ChannelId)> {
    let parsed = cursor
        .split_once('.')
        .and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| Error::bad_request("`cursor` is not one that a list gave"))
}
