//! Requests of the client, and their replies.

use super::*;

impl SimulatedServer {
    /// Handles one of the pending requests, in any order.
    pub fn work(&mut self, draw: usize) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        if session.pending.is_empty() {
            return false;
        }
        let (request_id, request) = session
            .pending
            .remove(draw % session.pending.len())
            .unwrap();
        let mut replays = Vec::new();
        let outcome = match request {
            ClientRequest::MessageSend {
                channel_id,
                message,
            } => {
                let channel = index_of(&channel_id);
                self.store(channel, message.message_id.unwrap(), &message.text.unwrap())
            }
            ClientRequest::ChannelSubscribe(channels) => {
                let pending = channels
                    .into_iter()
                    .map(|(id, cursor)| (index_of(&id), cursor))
                    .collect();
                let (entries, later) = self.subscribe(pending);
                replays = later;
                Ok(ClientReply::ChannelSubscribe(entries))
            }
            ClientRequest::ChannelUnsubscribe(ids) => {
                let session = self.session.as_mut().unwrap();
                session
                    .subscribed
                    .retain(|channel| !ids.contains(&id_of(*channel)));
                Ok(ClientReply::ChannelUnsubscribe)
            }
            ClientRequest::MessageList { channel_id, .. }
            | ClientRequest::ParticipantList { channel_id, .. }
                if !self.memberships.contains(&index_of(&channel_id)) =>
            {
                Err(ErrorBody::new(ErrorCode::NotFound, "no such channel"))
            }
            ClientRequest::MessageList { channel_id, which } => {
                let messages = &self.channels[index_of(&channel_id)].messages;
                let (mut items, limit) = (messages.clone(), which.limit.unwrap_or(50) as usize);
                let more = match which.changed_after {
                    Some(after) => {
                        items.retain(|message| message.seq > after);
                        items.sort_by_key(|message| message.seq);
                        let more = items.len() > limit;
                        items.truncate(limit);
                        more
                    }
                    None => {
                        items.drain(..items.len().saturating_sub(limit));
                        messages.len() > limit
                    }
                };
                Ok(ClientReply::MessageList(MessagePage { items, more }))
            }
            ClientRequest::ParticipantList { page, .. } => {
                let cursor = page.cursor.is_none().then(|| "more".to_owned());
                Ok(ClientReply::ParticipantList(List {
                    items: Vec::new(),
                    cursor,
                }))
            }
            ClientRequest::ChannelList(_) => Ok(ClientReply::ChannelList(EntryList {
                items: Vec::new(),
                cursor: None,
            })),
            ClientRequest::TokenRefresh(token) => {
                match token.parse::<u64>().unwrap() < self.oldest_token {
                    true => Err(ErrorBody::new(ErrorCode::Unauthenticated, "expired")),
                    false => Ok(ClientReply::TokenRefresh(1 << 50)),
                }
            }
            ClientRequest::Ping => Ok(ClientReply::Ping(self.clock)),
        };
        self.session
            .as_mut()
            .unwrap()
            .outgoing
            .push_back(MachineInput::Reply(request_id, outcome));
        replays
            .into_iter()
            .for_each(|(channel, from)| self.replay(channel, from));
        true
    }

    fn store(
        &mut self,
        channel: usize,
        id: MessageId,
        text: &str,
    ) -> Result<ClientReply, ErrorBody> {
        if !self.memberships.contains(&channel) {
            self.refused.insert(id);
            return Err(ErrorBody::new(ErrorCode::NotFound, "no such channel"));
        }
        let stored = self.channels[channel]
            .messages
            .iter()
            .find(|message| message.id == id)
            .cloned();
        // A stored message is acknowledged even if the user may not send any more.
        let reply = self
            .send_replies
            .pop_front()
            .filter(|reply| stored.is_none() || *reply != SendReply::Forbidden);
        let unavailable = ErrorBody::new(ErrorCode::Unavailable, "the store is away");
        match reply {
            Some(SendReply::UnavailableBefore) => return Err(unavailable),
            Some(SendReply::RateLimited) => {
                return Err(ErrorBody {
                    retry_after_ms: Some(40),
                    ..ErrorBody::new(ErrorCode::RateLimited, "slower")
                });
            }
            Some(SendReply::Internal) => {
                self.refused.insert(id);
                return Err(ErrorBody::new(ErrorCode::Internal, "a defect"));
            }
            Some(SendReply::Forbidden) => {
                self.refused.insert(id);
                return Err(ErrorBody::new(ErrorCode::Forbidden, "no"));
            }
            Some(SendReply::UnavailableAfter) | None => {}
        }
        let message = stored.unwrap_or_else(|| self.post(channel, Some(id.clone()), text, true));
        if reply.is_some() {
            Err(unavailable)
        } else {
            Ok(ClientReply::MessageSend(Box::new(message)))
        }
    }
}
