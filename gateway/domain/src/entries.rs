//! Entries: a user's channels as sessions and lists show them. The [`index`](super::index) knows
//! which channels these are.

use protocol::{ChannelId, UserId, entity::Entry};
use store::{DocumentKey, Read, Snapshot};

use crate::{
    Services,
    channel_state::{Place, channel_of},
    document::decode,
    error::Result,
    messages::{message_of, send::Facts},
    schema::{ENTITY, MESSAGES, ONLY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, READS, Scope},
};

/// Maximum number of entries that one read returns: each may hold a message as long as a frame.
pub const ENTRIES_PER_READ: usize = 50;

/// Maximum encoded size of an entry of positions without its id, in bytes. Includes a gap, which is
/// added after the entry was read.
const POSITIONS_BYTES: usize = 180;

/// The fields of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// All.
    Full,
    /// Positions and numbers only.
    Positions,
}

/// Reads a user's entries. Returns `None` for each channel that the user is not in.
pub async fn read_entries(
    services: &Services,
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
    let snapshots = services.store.read(reads).await?;
    ids.iter()
        .zip(snapshots)
        .map(|(id, snapshot)| entry_of(id, &snapshot, detail))
        .collect()
}

/// An entry of a channel to which a user subscribes.
#[derive(Debug)]
pub struct SubscribedEntry {
    /// The entry.
    pub entry: Entry,
    /// What the user's first send needs to know, if the user may send.
    pub facts: Option<Facts>,
}

/// Reads the entries of channels to which a user subscribes. Returns `None` for each channel that
/// the user is not in.
pub async fn subscribed_entries(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    ids: &[ChannelId],
    detail: Detail,
) -> Result<Vec<Option<SubscribedEntry>>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let with_owners = |id| {
        let mut read = entry_read(scope, user, id, detail);
        read.documents.push((OWNERS, DocumentKey::from(ONLY)));
        read
    };
    let snapshots = services
        .store
        .read(ids.iter().map(with_owners).collect())
        .await?;
    let subscribed = |(id, mut snapshot): (&ChannelId, Snapshot)| {
        let owners = snapshot.documents.pop().flatten();
        let facts = match (channel_of(&snapshot)?, &snapshot.documents[..]) {
            (Some((channel, _)), [_, Some(place), _]) => {
                Facts::of_participant(&channel, &Place::of(place)?, owners.as_ref())
            }
            _ => None,
        };
        let entry = entry_of(id, &snapshot, detail)?;
        Ok(entry.map(|entry| SubscribedEntry { entry, facts }))
    };
    ids.iter().zip(snapshots).map(subscribed).collect()
}

/// Reads the entries of channels to which a user subscribes: in full while they fit into `room`
/// bytes, then as positions. Returns `None` for each channel that the user is not in.
pub async fn fitting_entries(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    ids: &[ChannelId],
    room: usize,
) -> Result<Vec<Option<SubscribedEntry>>> {
    let positions_size = |id: &ChannelId| POSITIONS_BYTES + id.as_str().len();
    let mut left = room.saturating_sub(ids.iter().map(positions_size).sum());
    let (mut entries, mut detail) = (Vec::with_capacity(ids.len()), Detail::Full);
    for some in ids.chunks(ENTRIES_PER_READ) {
        let (read, mut all_fit) = (detail, true);
        for subscribed in subscribed_entries(services, scope, user, some, read).await? {
            entries.push(subscribed.map(|SubscribedEntry { entry, facts }| {
                let more = size_of_entry(&entry).saturating_sub(positions_size(&entry.channel_id));
                let entry = if more > left {
                    all_fit = false;
                    positions_of(&entry)
                } else {
                    left -= more;
                    entry
                };
                SubscribedEntry { entry, facts }
            }));
        }
        if !all_fit {
            detail = Detail::Positions;
        }
    }
    Ok(entries)
}

/// Returns the read of an entry's documents.
pub fn entry_read(scope: &Scope, user: &UserId, id: &ChannelId, detail: Detail) -> Read {
    Read {
        partition: scope.channel(id),
        documents: vec![
            (ENTITY, DocumentKey::from(ONLY)),
            (PARTICIPANTS, user.shared()),
            (READS, user.shared()),
        ],
        newest: (detail == Detail::Full).then_some(MESSAGES),
    }
}

/// Returns the entry that the snapshot of an [`entry_read`] contains; `None` if the user is not in
/// the channel.
pub fn entry_of(id: &ChannelId, snapshot: &Snapshot, detail: Detail) -> Result<Option<Entry>> {
    let (Some((channel, _)), [_, Some(place), read]) =
        (channel_of(snapshot)?, &snapshot.documents[..])
    else {
        return Ok(None);
    };
    let place = Place::of(place)?;
    let read = read.as_ref().map(decode).transpose()?.unwrap_or(0);
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
        unread: Some(head.number.saturating_sub(read)),
        last_message: snapshot.newest.as_ref().map(message_of).transpose()?,
        participant_count: is_full.then(|| snapshot.counter(PARTICIPANT_COUNT)),
        gap: None,
    }))
}

/// Returns the part of an entry that `entries: "positions"` asks for.
fn positions_of(entry: &Entry) -> Entry {
    Entry {
        channel_id: entry.channel_id.clone(),
        channel: None,
        role: None,
        last_message: None,
        participant_count: None,
        ..*entry
    }
}

/// Returns the maximum encoded size of an entry in bytes, with the separator.
pub fn size_of_entry(entry: &Entry) -> usize {
    1 + protocol::codec::longest(entry)
}

#[cfg(test)]
mod tests {
    use protocol::{MAX_INTEGER, entity::Gap};

    use super::*;

    #[test]
    fn an_entry_of_positions_is_no_longer_than_its_bound() {
        let id = ChannelId::from_bits(1);
        let most = MAX_INTEGER;
        let entry = Entry {
            channel_id: id.clone(),
            channel: None,
            role: None,
            seq: most,
            at: most,
            number: most,
            read: most,
            unread: Some(most),
            last_message: None,
            participant_count: None,
            gap: Some(Gap::Diverged),
        };
        let size = size_of_entry(&entry) - id.as_str().len();
        assert!(
            (POSITIONS_BYTES / 2..=POSITIONS_BYTES).contains(&size),
            "{size}"
        );
    }
}
