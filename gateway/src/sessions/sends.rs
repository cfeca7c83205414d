//! Sends of a session: of one channel one commit is under way, and those that wait meanwhile share the next.

use std::{collections::VecDeque, sync::Arc};

use protocol::{ChannelId, frame::encode_result, params::SendMessage, results::MessageResult};

use super::session::Session;
use crate::service::messages::Sent;

/// The most sends of one commit.
const TOGETHER: usize = 64;

/// The sends of one channel while one of them is under way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    waiting: VecDeque<(u32, SendMessage)>,
}

impl Session {
    /// Puts a send in line. Called in the order in which the requests came.
    pub(super) fn send(self: &Arc<Self>, id: u32, channel: ChannelId, body: SendMessage) {
        self.flow().begin();
        let is_first = {
            let mut state = self.state.lock();
            let is_first = !state.sends.contains_key(&channel);
            state.sends.entry(channel.clone()).or_default().waiting.push_back((id, body));
            is_first
        };
        if is_first {
            let session = Arc::clone(self);
            tokio::spawn(async move { session.send_waiting(channel).await });
        }
    }

    async fn send_waiting(self: Arc<Self>, channel: ChannelId) {
        let Some(sessions) = self.sessions.upgrade() else { return };
        loop {
            let (ids, bodies, facts) = {
                let mut state = self.state.lock();
                let facts = state.channels.get(&channel).and_then(|subscribed| subscribed.facts);
                let Some(sending) = state.sends.get_mut(&channel) else { return };
                let count = sending.waiting.len().min(TOGETHER);
                if count == 0 {
                    state.sends.remove(&channel);
                    return;
                }
                let (ids, bodies): (Vec<u32>, Vec<SendMessage>) = sending.waiting.drain(..count).unzip();
                (ids, bodies, facts)
            };
            let (answers, facts) = sessions.services.send_messages(&self.actor(), &channel, bodies, facts).await;
            if let Some(subscribed) = self.state.lock().channels.get_mut(&channel) {
                subscribed.facts = facts;
            }
            for (id, answer) in ids.into_iter().zip(answers) {
                match answer {
                    Ok((message, sent)) => {
                        if sent == Sent::Now {
                            sessions.metrics.messages.inc();
                        }
                        self.reply(encode_result(self.encoding, id, &MessageResult { message }));
                    }
                    Err(error) => sessions.answer_error(&self, id, &error),
                }
                self.flow().end();
            }
        }
    }
}
