//! Subscriptions of a session: joined first, read then, started after the reply.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanout::{Errand, Joining, Kind, Position};
use protocol::{
    ChannelId, EventKind,
    event::GapData,
    model::{Entry, EntryResult, FailedEntry, Gap},
    params::{Cursor, Watch},
};
use serde::Serialize;

use super::{
    Sessions,
    session::{Move, Session, State, Subscribed},
};
use crate::{
    error::{Error, Result},
    service::{
        entries::{Detail, REPLY_BYTES, size_of_entry},
        permissions::Operation,
        scope::Scope,
        together,
    },
    store::{Continuity, Partition},
};

/// Subscriptions that wait for the reply that announces them.
#[derive(Debug, Default)]
pub(super) struct Starts {
    channels: Vec<Start>,
    /// Until the start no other change of subscriptions begins: two of one channel would tell everything twice.
    turn: Option<Turn>,
}

impl Starts {
    /// Whether nothing starts.
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

/// A session's subscriptions change in turn.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

/// The pause before a subscription is tried again; it grows to ten times that.
const RETRY: Duration = Duration::from_millis(200);

/// How often it is looked whether a topic has told a removal.
const SETTLING: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Start {
    id: ChannelId,
    joining: Joining,
    cursor: Position,
    head: Position,
    /// Outside of a request: why, which must still hold.
    why: Option<Why>,
}

/// What a session asked to listen to.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: ChannelId,
    pub(super) cursor: Cursor,
    /// Whether a channel that the user is not in is answered with an error, or left out.
    pub(super) is_named: bool,
}

impl Sessions {
    /// Joins channels and reads their entries. Nothing is told before [`Session::start`].
    ///
    /// Entries that would make the reply too long are left out; the flag says so. Channels asked for by name are always answered.
    pub(super) async fn prepare(
        &self,
        session: &Session,
        turn: Turn,
        asked: Vec<Asked>,
        detail: Detail,
    ) -> Result<(Vec<EntryResult>, Starts, bool)> {
        let (scope, user) = (session.scope(), session.user());
        // What is subscribed to already begins anew: its stream must not go on between the entry and the start.
        let dropped: Vec<Subscribed> = {
            let mut state = session.state.lock();
            asked
                .iter()
                .filter_map(|a| state.channels.remove(&a.id))
                .collect()
        };
        drop(dropped);
        let topics: Vec<_> = asked
            .iter()
            .map(|a| (scope.channel(&a.id).topic(), Kind::Logged))
            .collect();
        let joined = self
            .hub
            .join_all(&topics, &session.outbox)
            .await
            .map_err(unavailable)?;
        let ids: Vec<ChannelId> = asked.iter().map(|a| a.id.clone()).collect();
        let entries = self.services.entries(scope, user, &ids, detail).await?;
        let gaps = self
            .gaps(
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
        for (((asked, joining), entry), gap) in asked.into_iter().zip(joined).zip(entries).zip(gaps)
        {
            let Some(mut entry) = entry else {
                if asked.is_named {
                    results.push(failed(asked.id, Error::not_found("channel")));
                }
                continue;
            };
            entry.gap = gap;
            let size = size_of_entry(&entry);
            if bytes + size <= REPLY_BYTES {
                bytes += size;
            } else if asked.is_named {
                // Answered in any case: with its position, as in `entries: "positions"`.
                entry = Entry {
                    channel: None,
                    role: None,
                    unread: None,
                    last_message: None,
                    participant_count: None,
                    ..entry
                };
            } else {
                is_cut = true;
                continue;
            }
            let head = Position {
                seq: entry.seq,
                at: entry.at,
            };
            let cursor = match (asked.cursor, gap) {
                (Cursor::After(seq, at), None) => Position { seq, at },
                _ => head,
            };
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
        &self,
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
                        self.gap(&partition, Position { seq, at }, head).await
                    }
                    _ => Ok(None),
                }
            }
        });
        together::all(look).await
    }

    /// Whether a log goes on from a position.
    pub(super) async fn gap(
        &self,
        partition: &Partition,
        cursor: Position,
        head: Position,
    ) -> Result<Option<Gap>> {
        if cursor == head {
            return Ok(None);
        }
        let log = self.services.store.log(partition, cursor, 1).await?;
        Ok(match log.continuity {
            Continuity::Continuous => None,
            Continuity::Trimmed => Some(Gap::Trimmed),
            Continuity::Diverged => Some(Gap::Diverged),
        })
    }

    /// Those of the channels that the user is in, and why the others are refused.
    pub(super) async fn visible(
        &self,
        session: &Session,
        channels: BTreeMap<ChannelId, Cursor>,
    ) -> Result<(Vec<(ChannelId, Cursor)>, Vec<EntryResult>)> {
        let ids: Vec<ChannelId> = channels.keys().cloned().collect();
        let entries = self
            .services
            .entries(session.scope(), session.user(), &ids, Detail::Positions)
            .await?;
        let (mut visible, mut refused) = (Vec::new(), Vec::new());
        for ((id, cursor), entry) in channels.into_iter().zip(entries) {
            match entry {
                Some(_) => visible.push((id, cursor)),
                None => refused.push(id),
            }
        }
        let actor = &session.actor();
        let why = refused.iter().map(|id| async move {
            let error = match self.services.channel_state(actor, id, Vec::new()).await {
                Ok(state) => state.permit(actor, Operation::Read).err(),
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
        &self,
        session: &Arc<Session>,
        channels: BTreeMap<ChannelId, Cursor>,
    ) -> Result<(Vec<EntryResult>, Starts)> {
        let (mut asked, mut had) = (Vec::new(), Vec::new());
        let turn = session.turn().await;
        // Nobody makes the node join the topics of what does not exist, or is not theirs.
        let (channels, mut refused) = self.visible(session, channels).await?;
        {
            let mut state = session.state.lock();
            prune(&mut state);
            let most = self.limits.subscriptions;
            // Those that an outage took from the session come back to it.
            let is_counted = |id| {
                state.channels.contains_key(id) || channels.iter().any(|(asked, _)| asked == id)
            };
            let awaited = state.awaited.keys().filter(|id| !is_counted(id)).count();
            let mut room = if most == 0 {
                usize::MAX
            } else {
                (most as usize).saturating_sub(state.channels.len() + awaited)
            };
            for (id, cursor) in channels {
                if let Some(subscribed) = state.channels.get(&id) {
                    had.push((id.clone(), subscribed.subscription.told()));
                    asked.push(Asked {
                        id,
                        cursor,
                        is_named: true,
                    });
                } else if room > 0 {
                    room -= 1;
                    asked.push(Asked {
                        id,
                        cursor,
                        is_named: true,
                    });
                } else {
                    refused.push(failed(id, Error::limit_reached("subscriptions", most)));
                }
            }
        }
        match self.prepare(session, turn, asked, Detail::Full).await {
            Ok((mut results, starts, _)) => {
                results.extend(refused);
                Ok((results, starts))
            }
            Err(error) => {
                had.into_iter()
                    .for_each(|(id, told)| session.listen_again(id, told));
                Err(error)
            }
        }
    }
}

impl Session {
    /// Starts what was prepared, after its reply was sent.
    pub(super) fn start(&self, starts: Starts) {
        self.start_during(starts, None);
    }

    /// The same, during an errand.
    pub(super) fn start_during(&self, starts: Starts, errand: Option<&Errand>) {
        for Start {
            id,
            joining,
            cursor,
            head,
            why,
        } in starts.channels
        {
            // In one step with the look: whoever is told to be out of a channel is not subscribed to it behind that.
            let mut state = self.state.lock();
            let left_over = if state.is_wanted(&id, why) {
                let subscription = match errand {
                    Some(errand) => joining.start_during(cursor, head, errand),
                    None => joining.start(cursor, head),
                };
                (insert(&mut state, id, subscription), None)
            } else {
                (None, Some(joining))
            };
            drop(state);
            drop(left_over);
        }
        drop(starts.turn);
    }

    /// Waits until no other change of subscriptions is under way.
    pub(super) async fn turn(&self) -> Turn {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// The session was told that the user came into a channel: one that watches everything is subscribed at once.
    pub(super) fn came_into(self: &Arc<Self>, id: ChannelId, position: Position) {
        if self.watch == Watch::None {
            return;
        }
        {
            let mut state = self.state.lock();
            if let Some(early) = &mut state.early {
                early.push_back(Move::Into(id, position));
                return;
            }
            if state.is_gone {
                return;
            }
            state.awaited.insert(id.clone(), Why::Added(position));
        }
        let session = Arc::clone(self);
        tokio::spawn(async move { session.follow(id, position).await });
    }

    /// The session is about to be told that the user is in a channel no more: it hears nothing more from it.
    ///
    /// It may listen to it all the same: a reply that was read after the user had come in again may have been faster than the own
    /// stream. What that stream tells next is `channel.added`, and from there on everything is told.
    pub(super) fn went_out_of(&self, id: ChannelId) {
        let ended = {
            let mut state = self.state.lock();
            // What is on its way already does not follow, either.
            self.outbox.mute(&self.scope().channel(&id).topic());
            if let Some(early) = &mut state.early {
                early.push_back(Move::OutOf(id));
                return;
            }
            state.awaited.remove(&id);
            state.channels.remove(&id)
        };
        drop(ended);
    }

    /// From now on what the own stream tells is done at once.
    pub(super) fn is_ready(self: &Arc<Self>) {
        let early = self.state.lock().early.take();
        for told in early.into_iter().flatten() {
            match told {
                Move::Into(id, position) => self.came_into(id, position),
                Move::OutOf(id) => self.went_out_of(id),
            }
        }
    }

    async fn follow(self: Arc<Self>, id: ChannelId, position: Position) {
        let Some(sessions) = self.sessions.upgrade() else {
            return;
        };
        let mut is_settled = false;
        let turn = loop {
            let turn = self.turn().await;
            match self.known(&sessions, &id, position) {
                Known::Listens if is_settled => {
                    return self.awaits_no_more(&id, Why::Added(position));
                }
                // The topic may be in the middle of ending it.
                Known::Listens => is_settled = true,
                Known::New => break turn,
                // Never silence: the client may make room and subscribe.
                Known::Full => {
                    self.awaits_no_more(&id, Why::Added(position));
                    let data = GapData {
                        reason: Gap::LimitReached,
                        seq: position.seq,
                        at: position.at,
                    };
                    return self.tell_gap(&id, data);
                }
                // A subscription from before a removal that the topic has not told yet: it ends, and this one follows.
                Known::Unsettled => {}
                Known::Overtaken => return,
            }
            drop(turn);
            tokio::time::sleep(SETTLING).await;
        };
        self.listen(&sessions, turn, id, Why::Added(position)).await;
    }

    fn awaits(&self, id: &ChannelId, why: Why) -> bool {
        self.state.lock().awaited.get(id) == Some(&why)
    }

    fn awaits_no_more(&self, id: &ChannelId, why: Why) {
        let mut state = self.state.lock();
        if state.awaited.get(id) == Some(&why) {
            state.awaited.remove(id);
        }
    }

    /// `channel.unsubscribe`: nothing is subscribed to afterwards, also not what waits to be.
    pub(super) async fn unsubscribe(&self, ids: &[ChannelId]) {
        let _turn = self.turn().await;
        let gone: Vec<Subscribed> = {
            let mut state = self.state.lock();
            state.awaited.retain(|id, _| !ids.contains(id));
            ids.iter()
                .filter_map(|id| state.channels.remove(id))
                .collect()
        };
        drop(gone);
    }

    /// Goes on with a channel that a failed request took from the session: with a gap told, since nobody knows exactly
    /// how far the client was told. The topic stood here.
    fn listen_again(self: &Arc<Self>, id: ChannelId, told: Position) {
        let why = Why::Interrupted(told);
        // What the own stream told last says better why.
        self.state.lock().awaited.entry(id.clone()).or_insert(why);
        let session = Arc::clone(self);
        tokio::spawn(async move {
            let Some(sessions) = session.sessions.upgrade() else {
                return;
            };
            let turn = session.turn().await;
            if session.state.lock().channels.contains_key(&id) {
                return session.awaits_no_more(&id, why);
            }
            session.listen(&sessions, turn, id, why).await;
        });
    }

    /// Subscribes outside of a request, however long the store is away: an outage ends no stream.
    async fn listen(&self, sessions: &Sessions, turn: Turn, id: ChannelId, why: Why) {
        let (Why::Added(after) | Why::Interrupted(after)) = why;
        let mut turn = Some(turn);
        for attempt in 0u32.. {
            let held = match turn.take() {
                Some(held) => held,
                None => self.turn().await,
            };
            if self.state.lock().is_gone || !self.awaits(&id, why) {
                return;
            }
            let asked = vec![Asked {
                id: id.clone(),
                cursor: Cursor::After(after.seq, after.at),
                is_named: true,
            }];
            match sessions.prepare(self, held, asked, Detail::Positions).await {
                Ok((entries, mut starts, _)) => {
                    if !self.awaits(&id, why) {
                        return;
                    }
                    let missed = matches!(why, Why::Interrupted(_)).then_some(Gap::Trimmed);
                    if let Some(EntryResult::Entry(entry)) = entries.into_iter().next()
                        && let Some(reason) = entry.gap.or(missed)
                    {
                        self.tell_gap(
                            &id,
                            GapData {
                                reason,
                                seq: entry.seq,
                                at: entry.at,
                            },
                        );
                        starts
                            .channels
                            .iter_mut()
                            .for_each(|start| start.cursor = start.head);
                    }
                    starts
                        .channels
                        .iter_mut()
                        .for_each(|start| start.why = Some(why));
                    if starts.is_empty() {
                        self.awaits_no_more(&id, why);
                    }
                    return self.start(starts);
                }
                Err(error) => {
                    tracing::warn!(session = %self.id, channel = %id, %error, attempt, "a session waits for a subscription")
                }
            }
            tokio::time::sleep(RETRY * attempt.clamp(1, 10)).await;
        }
    }

    fn known(&self, sessions: &Sessions, id: &ChannelId, position: Position) -> Known {
        let mut state = self.state.lock();
        prune(&mut state);
        let most = sessions.limits.subscriptions;
        match state.channels.get(id) {
            _ if state.awaited.get(id) != Some(&Why::Added(position)) => Known::Overtaken,
            Some(subscribed) if subscribed.subscription.told().seq >= position.seq => {
                Known::Listens
            }
            Some(_) => Known::Unsettled,
            None if most != 0 && state.channels.len() as u64 >= most => Known::Full,
            None => Known::New,
        }
    }

    fn tell_gap(&self, channel_id: &ChannelId, data: GapData) {
        #[derive(Serialize)]
        struct Told<'a> {
            event: &'static str,
            channel_id: &'a ChannelId,
            data: GapData,
        }
        self.tell(&Told {
            event: EventKind::ChannelGap.as_str(),
            channel_id,
            data,
        });
    }
}

impl State {
    /// Whether what was prepared still is to begin. For a reason outside of a request that is asked once.
    fn is_wanted(&mut self, id: &ChannelId, why: Option<Why>) -> bool {
        let is_out = |told: &Move| matches!(told, Move::OutOf(out) if out == id);
        if self.is_gone || self.early.iter().flatten().any(is_out) {
            return false;
        }
        let Some(why) = why else { return true };
        let is_so = self.awaited.get(id) == Some(&why);
        if is_so {
            self.awaited.remove(id);
        }
        is_so
    }
}

/// What a session has to do with a channel that the user came into.
enum Known {
    /// It listens already.
    Listens,
    /// It has as many subscriptions as it may.
    Full,
    /// It does not listen.
    New,
    /// It listens from before; whether it still may is not told yet.
    Unsettled,
    /// It was told something newer of the channel meanwhile, or is gone.
    Overtaken,
}

/// Why a session listens outside of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It was told that the user came into the channel, which stood here.
    Added(Position),
    /// A request took the channel from it, whose topic stood here, and failed.
    Interrupted(Position),
}

fn insert(
    state: &mut State,
    id: ChannelId,
    subscription: fanout::Subscription,
) -> Option<fanout::Subscription> {
    state
        .channels
        .insert(
            id,
            Subscribed {
                subscription,
                facts: None,
            },
        )
        .map(|before| before.subscription)
}

/// Forgets subscriptions that the hub ended.
fn prune(state: &mut State) {
    state
        .channels
        .retain(|_, subscribed| !subscribed.subscription.is_ended());
}

pub(super) fn failed(channel_id: ChannelId, error: Error) -> EntryResult {
    EntryResult::Failed(FailedEntry {
        channel_id,
        error: error.body,
    })
}

pub(super) fn unavailable(error: fanout::bus::BusError) -> Error {
    Error::from(crate::store::StoreError::Unavailable(error.to_string()))
}
