//! Subscriptions of a session: joined first, read then, started after the reply.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use domain::{
    channel_state,
    cursor::REPLY_BYTES,
    entries::{self, Detail, size_of_entry},
    error::{Error, Result},
    permission::Action,
    schema::Scope,
    together,
};
use fanout::{CatchUpPermit, Joining, Kind, Position};
use protocol::{
    ChannelId, Cursor,
    entity::{Entry, EntryResult, FailedEntry, Gap},
};
use store::{Continuity, Partition, cost};

use super::{
    session::{Listening, Session, Turn},
    shared::Sessions,
};
use crate::session::{Admission, SubscribeReason};

/// Subscriptions that wait for the reply that announces them.
#[derive(Debug, Default)]
pub(super) struct Starts {
    pub(super) channels: Vec<Start>,
    /// Until the start no other change of subscriptions begins: two of one channel would tell
    /// everything twice.
    turn: Option<Turn>,
}

impl Starts {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Start {
    pub(super) id: ChannelId,
    pub(super) joining: Joining,
    pub(super) cursor: Position,
    pub(super) head: Position,
    /// Outside of a request: why, which must still hold.
    pub(super) why: Option<SubscribeReason>,
}

#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: ChannelId,
    pub(super) cursor: Cursor,
    /// Whether a channel that the user is not in is answered with an error, or left out.
    pub(super) is_named: bool,
    /// When the channel was last active, as far as is known.
    pub(super) active_at: u64,
}

/// Channels to subscribe to, and how their entries are answered.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) asked: Vec<Asked>,
    pub(super) detail: Detail,
    /// Bytes of the reply that something else takes.
    pub(super) reserved: usize,
}

/// Joins channels and reads their entries. Nothing is told before [`start`].
///
/// Entries that would make the reply too long are answered as positions. Where not even those
/// fit, channels that were not asked for by name are left out; the flag says so.
pub(super) async fn prepare(
    sessions: &Sessions,
    session: &Session,
    turn: Turn,
    wanted: Wanted,
) -> Result<(Vec<EntryResult>, Starts, bool)> {
    let Wanted {
        asked,
        detail,
        reserved,
    } = wanted;
    let room = REPLY_BYTES.saturating_sub(reserved);
    let (scope, user) = (session.scope(), session.user());
    // What is subscribed to already begins anew: its stream must not go on between the entry
    // and the start.
    let taken = {
        let mut state = session.state.lock();
        state.channels.take(asked.iter().map(|asked| &asked.id))
    };
    drop(taken);
    let topics: Vec<_> = asked
        .iter()
        .map(|a| (scope.channel(&a.id).topic(), Kind::Logged))
        .collect();
    let joined = sessions
        .hub
        .join_all(&topics, &session.outbox)
        .await
        .map_err(unavailable)?;
    // Those that were active last are answered in full first.
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(asked[*index].active_at));
    let ids: Vec<ChannelId> = order.iter().map(|index| asked[*index].id.clone()).collect();
    let read = match detail {
        Detail::Full => {
            entries::fitting_entries(&sessions.services, scope, user, &ids, room).await?
        }
        Detail::Positions => {
            entries::read_entries(&sessions.services, scope, user, &ids, detail).await?
        }
    };
    let mut entries: Vec<_> = order.into_iter().zip(read).collect();
    entries.sort_unstable_by_key(|(index, _)| *index);
    let entries: Vec<Option<Entry>> = entries.into_iter().map(|(_, entry)| entry).collect();
    let gaps = gaps(
        sessions,
        scope,
        &asked,
        entries
            .iter()
            .map(|e| {
                e.as_ref().map(|e| Position {
                    seq: e.seq,
                    at: e.at,
                })
            })
            .collect(),
    )
    .await?;

    let (mut results, mut starts, mut bytes, mut is_cut) = (
        Vec::new(),
        Starts {
            channels: Vec::new(),
            turn: Some(turn),
        },
        0,
        false,
    );
    for (((asked, joining), entry), gap) in asked.into_iter().zip(joined).zip(entries).zip(gaps) {
        let Some(mut entry) = entry else {
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
        starts.channels.push(Start {
            id: asked.id,
            joining,
            cursor,
            head,
            why: None,
        });
        results.push(EntryResult::Entry(entry));
    }
    Ok((results, starts, is_cut))
}

/// Whether each log goes on from where a client stands. The head needs no look at the log.
async fn gaps(
    sessions: &Sessions,
    scope: &Scope,
    asked: &[Asked],
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

/// Whether a log goes on from a position.
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

/// Those of the channels that the user is in, and why the others are refused.
pub(super) async fn visible(
    sessions: &Sessions,
    session: &Session,
    channels: BTreeMap<ChannelId, Cursor>,
) -> Result<(Vec<Asked>, Vec<EntryResult>)> {
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
            Some(entry) => visible.push(Asked {
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
        let error =
            match channel_state::channel_state(&sessions.services, actor, id, Vec::new()).await {
                Ok(state) => state.permit(actor, Action::Read).err(),
                Err(error) => Some(error),
            };
        failed(
            id.clone(),
            error.unwrap_or_else(|| Error::not_found("channel")),
        )
    });
    Ok((visible, together::together(why).await))
}

/// `channel.subscribe`.
pub(super) async fn subscribe(
    sessions: &Sessions,
    session: &Arc<Session>,
    channels: BTreeMap<ChannelId, Cursor>,
) -> Result<(Vec<EntryResult>, Starts)> {
    let (mut asked, mut had) = (Vec::new(), Vec::new());
    let turn = session.turn().await;
    // Nobody makes the node join the topics of what does not exist, or is not theirs.
    let (channels, mut refused) = visible(sessions, session, channels).await?;
    let admissions = {
        let ids = channels.iter().map(|asked| &asked.id);
        session.state.lock().channels.admit(ids, Instant::now())
    };
    for (channel, admission) in channels.into_iter().zip(admissions) {
        match admission {
            Admission::New => asked.push(channel),
            Admission::Restart(position) => {
                had.push((channel.id.clone(), position));
                asked.push(channel);
            }
            Admission::OverLimit => refused.push(failed(
                channel.id,
                Error::limit_reached("subscriptions", sessions.limits.subscriptions),
            )),
        }
    }
    let reserved = size_of_refusals(&refused);
    match prepare(
        sessions,
        session,
        turn,
        Wanted {
            asked,
            detail: Detail::Full,
            reserved,
        },
    )
    .await
    {
        Ok((mut results, starts, _)) => {
            results.extend(refused);
            Ok((results, starts))
        }
        Err(error) => {
            session.interrupted(had);
            Err(error)
        }
    }
}

/// Starts what was prepared, after its reply was sent.
pub(super) fn start(session: &Session, starts: Starts) {
    start_with_permit(session, starts, None);
}

/// Like [`start`], and holds the permit while the channels catch up.
pub(super) fn start_with_permit(session: &Session, starts: Starts, permit: Option<&CatchUpPermit>) {
    for Start {
        id,
        joining,
        cursor,
        head,
        why,
    } in starts.channels
    {
        let mut unstarted = Some(joining);
        let start = || {
            let joining = unstarted.take().expect("it is started at most once");
            Listening::new(match permit {
                Some(permit) => joining.start_with_permit(cursor, head, permit),
                None => joining.start(cursor, head),
            })
        };
        let replaced = session.state.lock().channels.start(id, why, start);
        // Dropped outside of the lock: leaving a topic takes the topic's.
        drop((replaced, unstarted));
    }
    drop(starts.turn);
}

/// `channel.unsubscribe`: nothing is subscribed to afterwards, also not what waits to be.
pub(super) async fn unsubscribe(session: &Session, ids: &[ChannelId]) {
    let _turn = session.turn().await;
    let ended = session.state.lock().channels.unsubscribe(ids);
    drop(ended);
}

pub(super) fn failed(channel_id: ChannelId, error: Error) -> EntryResult {
    EntryResult::Failed(FailedEntry {
        channel_id,
        error: error.body,
    })
}

/// How long refusals are at most when encoded.
pub(super) fn size_of_refusals(refused: &[EntryResult]) -> usize {
    refused
        .iter()
        .map(|refused| 1 + protocol::codec::longest(refused))
        .sum()
}

pub(super) fn unavailable(error: fanout::bus::BusError) -> Error {
    Error::from(store::StoreError::Unavailable(error.to_string()))
}
