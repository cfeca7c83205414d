//! Sends of a session: of one channel one commit is under way, and those that wait meanwhile share the next.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use protocol::{ChannelId, frame::encode_result, params::SendMessage, results::MessageResult};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::session::{Session, Subscribed, UnderWay};
use crate::{service::messages::Sent, store::StoreError};

/// The most sends of one commit.
const TOGETHER: usize = 64;

/// Within which a send is answered, its wait in line included; five seconds are promised.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Sends that came further apart do not share a commit, since they would share the patience of the first.
const APART: Duration = Duration::from_millis(500);

/// A send in line.
#[derive(Debug)]
struct Waiting {
    under_way: UnderWay,
    id: u32,
    body: SendMessage,
    since: Instant,
}

/// The sends of one channel while one of them is under way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    waiting: VecDeque<Waiting>,
}

impl Session {
    /// Puts a send in line. Called in the order in which the requests came.
    pub(super) fn send(self: &Arc<Self>, id: u32, channel: ChannelId, body: SendMessage) {
        let waiting = Waiting {
            under_way: UnderWay::begin(self),
            id,
            body,
            since: Instant::now(),
        };
        let is_first = {
            let mut state = self.state.lock();
            let is_first = !state.sends.contains_key(&channel);
            state
                .sends
                .entry(channel.clone())
                .or_default()
                .waiting
                .push_back(waiting);
            is_first
        };
        if is_first {
            let session = Arc::clone(self);
            let span = tracing::debug_span!("sends", session = %self.id, %channel);
            tokio::spawn(session.send_waiting(channel).instrument(span));
        }
    }

    async fn send_waiting(self: Arc<Self>, channel: ChannelId) {
        let Some(sessions) = self.sessions.upgrade() else {
            return;
        };
        let _line = Line {
            session: &self,
            channel: &channel,
        };
        loop {
            let (ids, bodies, facts, deadline) = {
                let mut state = self.state.lock();
                // Facts from before a removal say nothing of who came back.
                let listens = |subscribed: &&Subscribed| !subscribed.subscription.is_ended();
                let facts = state
                    .channels
                    .get(&channel)
                    .filter(listens)
                    .and_then(|subscribed| subscribed.facts);
                let Some(sending) = state.sends.get_mut(&channel) else {
                    return;
                };
                let first = sending.waiting.front().map(|first| first.since);
                let is_together =
                    |waiting: &&Waiting| first.is_some_and(|first| waiting.since < first + APART);
                let count = sending
                    .waiting
                    .iter()
                    .take(TOGETHER)
                    .take_while(is_together)
                    .count();
                if count == 0 {
                    // Within the same lock as the look, so that the next send begins a line of its own.
                    state.sends.remove(&channel);
                    return;
                }
                let (mut ids, mut bodies) = (Vec::with_capacity(count), Vec::with_capacity(count));
                let deadline = first.unwrap_or_else(Instant::now) + PATIENCE;
                for Waiting {
                    under_way,
                    id,
                    body,
                    ..
                } in sending.waiting.drain(..count)
                {
                    ids.push((under_way, id));
                    bodies.push(body);
                }
                (ids, bodies, facts, deadline)
            };
            let actor = self.actor();
            let sending = sessions
                .services
                .send_messages(&actor, &channel, bodies, facts);
            let (answers, facts) = timeout_at(deadline, sending).await.unwrap_or_else(|_| {
                let late = || {
                    Err(
                        StoreError::Unavailable("a send was not answered in time".to_owned())
                            .into(),
                    )
                };
                (ids.iter().map(|_| late()).collect(), None)
            });
            if let Some(subscribed) = self.state.lock().channels.get_mut(&channel) {
                subscribed.facts = facts;
            }
            for ((_under_way, id), answer) in ids.into_iter().zip(answers) {
                match answer {
                    Ok((message, sent)) => {
                        if sent == Sent::Now {
                            sessions.metrics.messages.inc();
                        }
                        self.reply(encode_result(self.encoding, id, &MessageResult { message }));
                    }
                    Err(error) => sessions.answer_error(&self, id, &error),
                }
            }
        }
    }
}

/// The line of a channel's sends. Should it end by a panic, the sends in it are dropped, and later ones begin a new one.
struct Line<'a> {
    session: &'a Session,
    channel: &'a ChannelId,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let waiting = self.session.state.lock().sends.remove(self.channel);
            drop(waiting);
        }
    }
}
