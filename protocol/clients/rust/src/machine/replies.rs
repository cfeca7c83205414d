//! Handling of replies and errors.

use std::time::{Duration, Instant};

use protocol::{ChannelId, ErrorBody, ErrorCode, entity::EntryResult};
use rand::RngExt;

use super::{
    ClientReply, Machine, Purpose, RequestId, SendFailure, Update,
    channel_streams::SubscriptionState, recovery::ReadProgress,
};
use crate::Retryability;

/// The error that stands for a reply that did not arrive in time: the request may have been carried
/// out.
pub(super) fn no_reply_error() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, "no reply in time")
}

impl Machine {
    /// Handles a reply. Replies to requests that timed out are ignored.
    pub(super) fn handle_reply(
        &mut self,
        request_id: RequestId,
        outcome: Result<ClientReply, ErrorBody>,
        now: Instant,
    ) {
        let Some(pending) = self.pending.remove(&request_id) else {
            return;
        };
        match (pending.purpose, outcome) {
            (Purpose::Send(channel_id), Ok(ClientReply::MessageSend(message))) => {
                self.send_queue.remove_first(&channel_id);
                self.emit(Update::Acknowledged(message));
            }
            (Purpose::Subscribe(_), Ok(ClientReply::ChannelSubscribe(entries))) => {
                self.subscribed(entries, now)
            }
            (Purpose::Unsubscribe(ids), Ok(ClientReply::ChannelUnsubscribe)) => {
                self.unsubscribed(ids)
            }
            (Purpose::Recovery(id), Ok(ClientReply::MessageList(page))) => {
                if let Some(recovery) = self.streams.recovery_awaiting(&id, request_id) {
                    recovery.messages(&page.items, page.more);
                    self.emit(Update::Messages {
                        channel_id: id,
                        messages: page.items,
                    });
                }
            }
            (Purpose::Recovery(id), Ok(ClientReply::ParticipantList(page))) => {
                if let Some(recovery) = self.streams.recovery_awaiting(&id, request_id) {
                    let progress = recovery.participants(page.cursor);
                    self.emit(Update::Participants {
                        channel_id: id.clone(),
                        participants: page.items,
                    });
                    if progress == ReadProgress::Done {
                        self.recovery_done(id, None);
                    }
                }
            }
            (Purpose::List, Ok(ClientReply::ChannelList(page))) => {
                if let Some(list_recovery) = &mut self.list_recovery {
                    let progress = list_recovery.page(&page.items, page.cursor);
                    self.emit(Update::Channels(page.items));
                    if progress == ReadProgress::Done {
                        self.list_recovery_done(None);
                    }
                }
            }
            (Purpose::Renew, Ok(ClientReply::TokenRefresh(expires_at))) => {
                self.token_refreshed(Ok(expires_at), now)
            }
            (Purpose::Clock { expires_at }, Ok(ClientReply::Ping(at))) => {
                self.clock_received(expires_at, Some(at), now)
            }
            (Purpose::Ping, Ok(ClientReply::Ping(_))) => {}
            (purpose, Ok(_)) => self.handle_error(
                purpose,
                ErrorBody::new(ErrorCode::Internal, "the reply does not match the request"),
                now,
            ),
            (Purpose::Recovery(id), Err(_))
                if self.streams.recovery_awaiting(&id, request_id).is_none() => {}
            (purpose, Err(error)) => self.handle_error(purpose, error, now),
        }
    }

    /// Handles an error reply, or a missing reply.
    pub(super) fn handle_error(&mut self, purpose: Purpose, error: ErrorBody, now: Instant) {
        let retryability = Retryability::of(&error);
        if let Retryability::RateLimited(hint) = retryability {
            self.pause(hint, now);
        }
        let hint = match retryability {
            Retryability::RateLimited(hint) | Retryability::Temporary(hint) => hint,
            Retryability::Defect | Retryability::Permanent => None,
        };
        let random = self.random.random();
        match purpose {
            Purpose::Send(channel_id) => {
                let is_retried = match retryability {
                    Retryability::RateLimited(_) | Retryability::Temporary(_) => true,
                    Retryability::Defect => self.send_queue.count_defect(&channel_id),
                    Retryability::Permanent => false,
                };
                if is_retried {
                    if let Some(retry) = self.send_queue.retry_first(&channel_id) {
                        retry.schedule(hint, random, now);
                    }
                } else if let Some(message) = self.send_queue.remove_first(&channel_id) {
                    self.emit(Update::Failed {
                        channel_id,
                        message_id: message.id,
                        why: SendFailure::Refused(error),
                    });
                }
            }
            Purpose::Subscribe(ids) => ids
                .into_iter()
                .for_each(|id| self.subscribe_failed(id, error.clone(), now)),
            Purpose::Unsubscribe(_) if matches!(retryability, Retryability::RateLimited(_)) => {}
            Purpose::Unsubscribe(_) if matches!(retryability, Retryability::Temporary(_)) => {
                self.pause(hint, now)
            }
            // The channel is not subscribed to, or will not be after this session. Its events are
            // ignored.
            Purpose::Unsubscribe(ids) => self.unsubscribed(ids),
            Purpose::Recovery(id) if retryability == Retryability::Permanent => {
                self.recovery_done(id, Some(error))
            }
            Purpose::Recovery(id) => {
                if let Some(recovery) = self
                    .streams
                    .get_mut(&id)
                    .and_then(|stream| stream.recovery.as_mut())
                {
                    recovery.retry_later().schedule(hint, random, now);
                }
            }
            Purpose::List if retryability == Retryability::Permanent => {
                self.list_recovery_done(Some(error))
            }
            Purpose::List => {
                if let Some(list_recovery) = &mut self.list_recovery {
                    list_recovery.retry_later().schedule(hint, random, now);
                }
            }
            Purpose::Renew => self.token_refreshed(Err(error), now),
            Purpose::Clock { expires_at } => self.clock_received(expires_at, None, now),
            Purpose::Ping => {}
        }
    }

    fn subscribed(&mut self, entries: Vec<EntryResult>, now: Instant) {
        for entry in &entries {
            if let EntryResult::Entry(entry) = entry {
                self.emit(Update::Joined(Box::new(entry.clone())));
            }
        }
        self.handle_entries(entries, now);
    }

    /// Handles a channel that could not be subscribed to.
    pub(super) fn subscribe_failed(
        &mut self,
        channel_id: ChannelId,
        error: ErrorBody,
        now: Instant,
    ) {
        let random = self.random.random();
        match (Retryability::of(&error), self.streams.state(&channel_id)) {
            (_, Some(SubscriptionState::Leaving { .. })) => self.unsubscribed(vec![channel_id]),
            (Retryability::Permanent, Some(_)) => {
                self.streams.remove(&channel_id);
                self.emit(Update::Lost { channel_id, error });
            }
            (Retryability::Permanent, None) => {}
            (Retryability::RateLimited(hint) | Retryability::Temporary(hint), _) => {
                self.retry_subscribe(&channel_id, hint, random, now)
            }
            (Retryability::Defect, _) => self.retry_subscribe(&channel_id, None, random, now),
        }
    }

    fn retry_subscribe(
        &mut self,
        id: &ChannelId,
        hint: Option<Duration>,
        random: f64,
        now: Instant,
    ) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.retry.schedule(hint, random, now);
        }
        self.streams.set_state(id, SubscriptionState::Unsubscribed);
    }

    fn recovery_done(&mut self, id: ChannelId, error: Option<ErrorBody>) {
        self.streams.recovery_done(&id);
        self.emit(Update::Recovered {
            channel_id: Some(id),
            error,
        });
    }

    fn list_recovery_done(&mut self, error: Option<ErrorBody>) {
        if self
            .list_recovery
            .take()
            .is_some_and(|recovery| recovery.is_after_gap())
        {
            self.emit(Update::Recovered {
                channel_id: None,
                error,
            });
        }
    }
}
