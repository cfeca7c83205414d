//! Subscribing a session to channels: join the topics, read the entries, and start after the reply.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use domain::{
    channel_state,
    cursor::REPLY_BYTES,
    entries::{self, Detail, SubscribedEntry, size_of_entry},
    error::{Error, Result},
    messages::send::Facts,
    permission::Action,
    schema::Scope,
    together,
};
use fanout::{CatchUpPermit, Joining, Position, TopicKind};
use protocol::{
    ChannelId, Cursor, ErrorCode,
    entity::{Entry, EntryResult, FailedEntry, Gap},
    operation::{
        channel::{ChannelSubscribe, Subscribed},
        encode_output,
    },
};
use store::{Continuity, Partition, cost};

use super::{
    session::{Session, SubscriptionTurn, TrackedSubscription},
    shared::Sessions,
};
use crate::session::{SubscribeReason, SubscriptionAdmission};

/// Subscriptions that start after the reply that announces them.
#[derive(Debug)]
pub(super) struct PendingStarts {
    pub(super) channels: Vec<PendingStart>,
    /// Held until the start, so that no other change creates a second subscription to a channel.
    turn: SubscriptionTurn,
}

#[derive(Debug)]
pub(super) struct PendingStart {
    pub(super) id: ChannelId,
    pub(super) joining: Joining,
    pub(super) cursor: Position,
    pub(super) head: Position,
    /// What the user's first send needs to know.
    pub(super) facts: Option<Facts>,
    /// The reason of a subscription outside of a request; it starts only if that is still pending.
    pub(super) why: Option<SubscribeReason>,
}

#[derive(Debug)]
pub(super) struct RequestedChannel {
    pub(super) id: ChannelId,
    pub(super) cursor: Cursor,
    /// Whether a channel without the user is answered with an error; otherwise it is left out.
    pub(super) is_named: bool,
    /// Time of the channel's last activity, as far as known.
    pub(super) active_at: u64,
}

/// Channels to subscribe to, and the form of their entries in the reply.
#[derive(Debug)]
pub(super) struct SubscribeRequest {
    pub(super) asked: Vec<RequestedChannel>,
    pub(super) detail: Detail,
    /// Bytes of the reply that are reserved for other parts.
    pub(super) reserved: usize,
}

/// Joins channels and reads their entries. No event is delivered before [`start`].
///
/// Entries that would make the reply too long are reduced to positions. If not even those fit,
/// channels that were not requested by name are left out, and the flag is true.
pub(super) async fn prepare(
    sessions: &Sessions,
    session: &Session,
    turn: SubscriptionTurn,
    wanted: SubscribeRequest,
) -> Result<(Vec<EntryResult>, PendingStarts, bool)> {
    let SubscribeRequest {
        asked,
        detail,
        reserved,
    } = wanted;
    let room = REPLY_BYTES.saturating_sub(reserved);
    let (scope, user) = (session.scope(), session.user());
    // Existing subscriptions are replaced: their events must not be delivered between the entry and
    // the start.
    let taken = {
        let mut state = session.state.lock();
        state
            .active
            .channels
            .take(asked.iter().map(|asked| &asked.id))
    };
    drop(taken);
    let topics: Vec<_> = asked
        .iter()
        .map(|a| (scope.channel(&a.id).topic(), TopicKind::Logged))
        .collect();
    let joined = sessions
        .hub
        .join_all(&topics, &session.outbox)
        .await
        .map_err(unavailable)?;
    // The most recently active channels are answered in full first.
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(asked[*index].active_at));
    let ids: Vec<ChannelId> = order.iter().map(|index| asked[*index].id.clone()).collect();
    let read = match detail {
        Detail::Full => {
            entries::fitting_entries(&sessions.services, scope, user, &ids, room).await?
        }
        Detail::Positions => {
            entries::subscribed_entries(&sessions.services, scope, user, &ids, detail).await?
        }
    };
    let mut entries: Vec<_> = order.into_iter().zip(read).collect();
    entries.sort_unstable_by_key(|(index, _)| *index);
    let entries: Vec<Option<SubscribedEntry>> =
        entries.into_iter().map(|(_, entry)| entry).collect();
    let gaps = gaps(
        sessions,
        scope,
        &asked,
        entries
            .iter()
            .map(|e| {
                e.as_ref().map(|e| Position {
                    seq: e.entry.seq,
                    at: e.entry.at,
                })
            })
            .collect(),
    )
    .await?;

    let (mut results, mut starts, mut bytes, mut is_cut) = (
        Vec::new(),
        PendingStarts {
            channels: Vec::new(),
            turn,
        },
        0,
        false,
    );
    for (((asked, joining), entry), gap) in asked.into_iter().zip(joined).zip(entries).zip(gaps) {
        let Some(SubscribedEntry { mut entry, facts }) = entry else {
            if asked.is_named {
                results.push(failed(asked.id, Error::not_found("channel")));
            }
            continue;
        };
        entry.gap = gap;
        let size = size_of_entry(&entry);
        if !asked.is_named && bytes + size > room {
            is_cut = true;
            continue;
        }
        bytes += size;
        let head = Position {
            seq: entry.seq,
            at: entry.at,
        };
        let cursor = match (asked.cursor, gap) {
            (Cursor::After(seq, at), None) => Position { seq, at },
            _ => head,
        };
        cost::count_replay(head.seq.saturating_sub(cursor.seq));
        starts.channels.push(PendingStart {
            id: asked.id,
            joining,
            cursor,
            head,
            facts,
            why: None,
        });
        results.push(EntryResult::Entry(entry));
    }
    Ok((results, starts, is_cut))
}

/// Returns the gap of each channel, if its log does not continue at the client's position. A client
async fn gaps(
    sessions: &Sessions,
    scope: &Scope,
    asked: &[RequestedChannel],
    heads: Vec<Option<Position>>,
) -> Result<Vec<Option<Gap>>> {
    let look = asked.iter().zip(heads).map(|(asked, head)| {
        let partition = scope.channel(&asked.id);
        let cursor = asked.cursor;
        async move {
            match (cursor, head) {
                (Cursor::After(seq, at), Some(head)) => {
                    gap(sessions, &partition, Position { seq, at }, head).await
                }
                _ => Ok(None),
            }
        }
    });
    together::all(look).await
}

/// Returns the gap, if a log does not continue at a position.
pub(super) async fn gap(
    sessions: &Sessions,
    partition: &Partition,
    cursor: Position,
    head: Position,
) -> Result<Option<Gap>> {
    if cursor == head {
        return Ok(None);
    }
    let log = sessions.services.store.log(partition, cursor, 1).await?;
    Ok(match log.continuity {
        Continuity::Continuous => None,
        Continuity::Trimmed => Some(Gap::Trimmed),
        Continuity::Diverged => Some(Gap::Diverged),
    })
}

/// Returns the channels that the user is in, and the refusals of the others.
pub(super) async fn visible(
    sessions: &Sessions,
    session: &Session,
    channels: BTreeMap<ChannelId, Cursor>,
) -> Result<(Vec<RequestedChannel>, Vec<EntryResult>)> {
    let ids: Vec<ChannelId> = channels.keys().cloned().collect();
    let entries = entries::read_entries(
        &sessions.services,
        session.scope(),
        session.user(),
        &ids,
        Detail::Positions,
    )
    .await?;
    let (mut visible, mut refused) = (Vec::new(), Vec::new());
    for ((id, cursor), entry) in channels.into_iter().zip(entries) {
        match entry {
            Some(entry) => visible.push(RequestedChannel {
                id,
                cursor,
                is_named: true,
                active_at: entry.at,
            }),
            None => refused.push(id),
        }
    }
    let actor = &session.actor();
    let why = refused.iter().map(|id| async move {
        let error = match channel_state::read(&sessions.services, actor, id).await {
            Ok(state) => state.permit(actor, Action::Read).err(),
            Err(error) => Some(error),
        };
        failed(
            id.clone(),
            error.unwrap_or_else(|| Error::not_found("channel")),
        )
    });
    Ok((visible, together::run(why).await))
}

/// `channel.subscribe`: sends the reply, and starts the subscriptions.
pub(super) async fn subscribe(
    sessions: &Sessions,
    session: &Arc<Session>,
    request_id: u32,
    channels: BTreeMap<ChannelId, Cursor>,
) -> Result<()> {
    let mut had = Vec::new();
    let turn = session.turn().await;
    session.state.lock().active.channels.begin(channels.keys());
    let (mut results, mut starts) =
        match prepare_request(sessions, session, turn, channels, &mut had).await {
            Ok(prepared) => prepared,
            Err(error) => {
                session.interrupted(had);
                return Err(error);
            }
        };
    // Passing events that follow the reply must not overtake it.
    let _hold = session.outbox.hold();
    loop {
        let reply = Subscribed { channels: results };
        let payload = encode_output::<ChannelSubscribe>(session.encoding, request_id, &reply);
        let stale = reply_unless_stale(session, &payload, &reply.channels);
        if stale.is_empty() {
            break;
        }
        results = reply.channels;
        for index in stale {
            let (EntryResult::Entry(Entry { channel_id: id, .. })
            | EntryResult::Failed(FailedEntry { channel_id: id, .. })) = &results[index];
            let id = id.clone();
            starts.channels.retain(|start| start.id != id);
            results[index] = failed(id, changed_meanwhile());
        }
    }
    had.retain(|(id, _)| !starts.channels.iter().any(|start| start.id == *id));
    start(session, starts);
    session.interrupted(had);
    Ok(())
}

/// Sends the reply of a request, unless results in it are stale. Returns their indexes.
fn reply_unless_stale(session: &Session, payload: &[u8], results: &[EntryResult]) -> Vec<usize> {
    // Locked over the push, so that notices which arrive later follow the reply.
    let state = session.state.lock();
    let is_stale = |result: &EntryResult| {
        let channels = &state.active.channels;
        match result {
            EntryResult::Entry(entry) => channels.is_stale(&entry.channel_id, true),
            EntryResult::Failed(failed) => {
                failed.error.code == ErrorCode::NotFound
                    && channels.is_stale(&failed.channel_id, false)
            }
        }
    };
    let stale: Vec<usize> = (0..results.len())
        .filter(|index| is_stale(&results[*index]))
        .collect();
    if stale.is_empty() {
        session.reply(payload);
    }
    stale
}

fn changed_meanwhile() -> Error {
    Error::new(
        ErrorCode::Unavailable,
        "the user was added or removed meanwhile: subscribe again",
    )
}

/// Prepares what a request asks for. Adds the subscriptions that it replaces to `had`.
async fn prepare_request(
    sessions: &Sessions,
    session: &Session,
    turn: SubscriptionTurn,
    channels: BTreeMap<ChannelId, Cursor>,
    had: &mut Vec<(ChannelId, Position)>,
) -> Result<(Vec<EntryResult>, PendingStarts)> {
    // Topics of channels that do not exist, or that the user is not in, are not joined.
    let (visible, mut refused) = visible(sessions, session, channels).await?;
    let asked = admit(sessions, session, visible, had, &mut refused);
    let wanted = SubscribeRequest {
        asked,
        detail: Detail::Full,
        reserved: size_of_refusals(&refused),
    };
    let (mut results, starts, _) = prepare(sessions, session, turn, wanted).await?;
    results.extend(refused);
    Ok((results, starts))
}

/// Returns the channels that the session has room for. The others are refused.
fn admit(
    sessions: &Sessions,
    session: &Session,
    channels: Vec<RequestedChannel>,
    had: &mut Vec<(ChannelId, Position)>,
    refused: &mut Vec<EntryResult>,
) -> Vec<RequestedChannel> {
    let ids = channels.iter().map(|channel| &channel.id);
    let now = Instant::now();
    let admissions = session.state.lock().active.channels.admit(ids, now);
    let mut admitted = Vec::new();
    for (channel, admission) in channels.into_iter().zip(admissions) {
        match admission {
            SubscriptionAdmission::New => admitted.push(channel),
            SubscriptionAdmission::Restart(position) => {
                had.push((channel.id.clone(), position));
                admitted.push(channel);
            }
            SubscriptionAdmission::OverLimit => refused.push(failed(
                channel.id,
                Error::limit_reached("subscriptions", sessions.limits.subscriptions),
            )),
        }
    }
    admitted
}

/// Starts prepared subscriptions, after their reply was sent.
pub(super) fn start(session: &Session, starts: PendingStarts) {
    start_with_permit(session, starts, None);
}

/// Like [`start`], and holds the permit while the channels catch up.
pub(super) fn start_with_permit(
    session: &Session,
    starts: PendingStarts,
    permit: Option<&CatchUpPermit>,
) {
    for PendingStart {
        id,
        joining,
        cursor,
        head,
        facts,
        why,
    } in starts.channels
    {
        let mut unstarted = Some(joining);
        let start = || {
            let joining = unstarted.take().expect("it is started at most once");
            let subscription = match permit {
                Some(permit) => joining.start_with_permit(cursor, head, permit),
                None => joining.start(cursor, head),
            };
            TrackedSubscription::new(subscription, facts)
        };
        let replaced = session.state.lock().active.channels.start(id, why, start);
        // Dropped outside of the lock, since leaving a topic takes the topic's lock.
        drop((replaced, unstarted));
    }
    drop(starts.turn);
}

/// `channel.unsubscribe`: ends current and pending subscriptions.
pub(super) async fn unsubscribe(session: &Session, ids: &[ChannelId]) {
    let _turn = session.turn().await;
    let ended = session.state.lock().active.channels.unsubscribe(ids);
    drop(ended);
}

pub(super) fn failed(channel_id: ChannelId, error: Error) -> EntryResult {
    EntryResult::Failed(FailedEntry {
        channel_id,
        error: error.body,
    })
}

/// Returns the maximum encoded size of refusals.
pub(super) fn size_of_refusals(refused: &[EntryResult]) -> usize {
    refused
        .iter()
        .map(|refused| 1 + protocol::codec::longest(refused))
        .sum()
}

pub(super) fn unavailable(error: fanout::bus::BusError) -> Error {
    Error::from(store::StoreError::Unavailable(error.to_string()))
}
