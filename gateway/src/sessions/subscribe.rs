//! Subscriptions of a session: joined first, read then, started after the reply.

use std::{collections::BTreeMap, sync::Arc};

use fanout::{Joining, Kind, Position};
use protocol::{
    ChannelId,
    model::{EntryResult, FailedEntry, Gap},
    params::{Cursor, Watch},
};

use super::{
    Sessions,
    session::{Session, State, Subscribed},
};
use crate::{
    error::{Error, Result},
    service::{
        entries::{Detail, size_of_entry},
        scope::Scope,
        together,
    },
    store::{Continuity, Partition},
};

/// How much of a reply entries may fill, in bytes.
pub(super) const REPLY_BYTES: usize = 240 * 1024;

/// Subscriptions that wait for the reply that announces them.
#[derive(Debug, Default)]
pub(super) struct Starts {
    channels: Vec<Start>,
    /// The users to watch from then on, if they change.
    watched: Option<Vec<Joining>>,
}

impl Starts {
    /// Watching users.
    pub(super) fn watching(watched: Vec<Joining>) -> Self {
        Self { channels: Vec::new(), watched: Some(watched) }
    }
}

#[derive(Debug)]
struct Start {
    id: ChannelId,
    joining: Joining,
    cursor: Position,
    head: Position,
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
    pub(super) async fn prepare(&self, session: &Session, asked: Vec<Asked>, detail: Detail) -> Result<(Vec<EntryResult>, Starts, bool)> {
        let (scope, user) = (session.scope(), session.user());
        // What is subscribed to already begins anew: its stream must not go on between the entry and the start.
        let dropped: Vec<Subscribed> = {
            let mut state = session.state.lock();
            asked.iter().filter_map(|a| state.channels.remove(&a.id)).collect()
        };
        drop(dropped);
        let topics: Vec<_> = asked.iter().map(|a| (scope.channel(&a.id).topic(), Kind::Logged)).collect();
        let joined = self.hub.join_all(&topics, &session.outbox).await.map_err(unavailable)?;
        let ids: Vec<ChannelId> = asked.iter().map(|a| a.id.clone()).collect();
        let entries = self.services.entries(scope, user, &ids, detail).await?;
        let gaps =
            self.gaps(scope, &asked, entries.iter().map(|e| e.as_ref().map(|e| Position { seq: e.seq, at: e.at })).collect()).await?;

        let (mut results, mut starts, mut bytes, mut is_cut) = (Vec::new(), Starts::default(), 0, false);
        for (((asked, joining), entry), gap) in asked.into_iter().zip(joined).zip(entries).zip(gaps) {
            let Some(mut entry) = entry else {
                if asked.is_named {
                    results.push(failed(asked.id, Error::not_found("channel")));
                }
                continue;
            };
            entry.gap = gap;
            let size = size_of_entry(&entry);
            if bytes + size > REPLY_BYTES {
                if !asked.is_named {
                    is_cut = true;
                    continue;
                }
                entry.last_message = None;
            }
            bytes += size_of_entry(&entry);
            let head = Position { seq: entry.seq, at: entry.at };
            let cursor = match (asked.cursor, gap) {
                (Cursor::After(seq, at), None) => Position { seq, at },
                _ => head,
            };
            starts.channels.push(Start { id: asked.id, joining, cursor, head });
            results.push(EntryResult::Entry(entry));
        }
        Ok((results, starts, is_cut))
    }

    /// Whether each log goes on from where a client stands. The head needs no look at the log.
    async fn gaps(&self, scope: &Scope, asked: &[Asked], heads: Vec<Option<Position>>) -> Result<Vec<Option<Gap>>> {
        let look = asked.iter().zip(heads).map(|(asked, head)| {
            let partition = scope.channel(&asked.id);
            let cursor = asked.cursor;
            async move {
                match (cursor, head) {
                    (Cursor::After(seq, at), Some(head)) => self.gap(&partition, Position { seq, at }, head).await,
                    _ => Ok(None),
                }
            }
        });
        together::all(look).await
    }

    /// Whether a log goes on from a position.
    pub(super) async fn gap(&self, partition: &Partition, cursor: Position, head: Position) -> Result<Option<Gap>> {
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

    /// `channel.subscribe`.
    pub(super) async fn subscribe(&self, session: &Session, channels: BTreeMap<ChannelId, Cursor>) -> Result<(Vec<EntryResult>, Starts)> {
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        {
            let mut state = session.state.lock();
            prune(&mut state);
            let most = self.limits.subscriptions;
            let mut room = if most == 0 { usize::MAX } else { (most as usize).saturating_sub(state.channels.len()) };
            for (id, cursor) in channels {
                if state.channels.contains_key(&id) {
                    asked.push(Asked { id, cursor, is_named: true });
                } else if room > 0 {
                    room -= 1;
                    asked.push(Asked { id, cursor, is_named: true });
                } else {
                    refused.push(failed(id, Error::limit_reached("subscriptions", most)));
                }
            }
        }
        let (mut results, starts, _) = self.prepare(session, asked, Detail::Full).await?;
        results.extend(refused);
        Ok((results, starts))
    }
}

impl Session {
    /// Starts what was prepared, after its reply was sent.
    pub(super) fn start(&self, starts: Starts) {
        if let Some(watched) = starts.watched {
            self.watch(watched);
        }
        for Start { id, joining, cursor, head } in starts.channels {
            let subscription = joining.start(cursor, head);
            let mut state = self.state.lock();
            let left_over = if state.is_gone { Some(subscription) } else { insert(&mut state, id, subscription) };
            drop(state);
            drop(left_over);
        }
    }

    /// The user came into a channel: a session that watches everything is subscribed at once.
    pub(super) fn came_into(self: &Arc<Self>, id: ChannelId, position: Position) {
        if self.watch == Watch::None {
            return;
        }
        {
            let mut state = self.state.lock();
            if let Some(early) = &mut state.early {
                early.push_back((id, position));
                return;
            }
        }
        let session = Arc::clone(self);
        tokio::spawn(async move { session.follow(id, position).await });
    }

    /// From now on what [`came_into`](Self::came_into) hears is done at once.
    pub(super) fn is_ready(self: &Arc<Self>) {
        let early = self.state.lock().early.take();
        for (id, position) in early.into_iter().flatten() {
            self.came_into(id, position);
        }
    }

    async fn follow(self: Arc<Self>, id: ChannelId, position: Position) {
        let Some(sessions) = self.sessions.upgrade() else { return };
        let is_known = {
            let mut state = self.state.lock();
            prune(&mut state);
            let most = sessions.limits.subscriptions;
            state.channels.contains_key(&id) || (most != 0 && state.channels.len() as u64 >= most)
        };
        if is_known {
            return;
        }
        let cursor = Cursor::After(position.seq, position.at);
        let asked = vec![Asked { id: id.clone(), cursor, is_named: true }];
        match sessions.prepare(&self, asked, Detail::Positions).await {
            Ok((_, starts, _)) => self.start(starts),
            Err(error) => {
                // The client must not believe that it hears of this channel: it comes back and reads its list anew.
                tracing::warn!(session = %self.id, channel = %id, %error, "a session could not be subscribed to a new channel");
                self.close(protocol::CloseCode::Internal, Some(1000));
            }
        }
    }
}

fn insert(state: &mut State, id: ChannelId, subscription: fanout::Subscription) -> Option<fanout::Subscription> {
    state.channels.insert(id, Subscribed { subscription, facts: None }).map(|before| before.subscription)
}

/// Forgets subscriptions that the hub ended.
fn prune(state: &mut State) {
    state.channels.retain(|_, subscribed| !subscribed.subscription.is_ended());
}

fn failed(channel_id: ChannelId, error: Error) -> EntryResult {
    EntryResult::Failed(FailedEntry { channel_id, error: error.body })
}

pub(super) fn unavailable(error: fanout::bus::BusError) -> Error {
    Error::from(crate::store::StoreError::Unavailable(error.to_string()))
}
