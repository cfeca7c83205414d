//! Handling of replies and errors.

use std::time::Instant;

use protocol::{ChannelId, ErrorBody, ErrorCode, entity::EntryResult};
use rand::RngExt;

use super::{
    ClientReply, Machine, Purpose, RequestId, SendFailure, Update, incoming,
    recovery::ReadProgress, renewal, requests, subscriptions,
};
use crate::Retryability;

/// Handles a reply. Replies to requests that timed out are ignored.
pub(super) fn handle_reply(
    machine: &mut Machine,
    request_id: RequestId,
    outcome: Result<ClientReply, ErrorBody>,
    now: Instant,
) {
    let Some(pending) = machine.pending.remove(&request_id) else {
        return;
    };
    match (pending.purpose, outcome) {
        (Purpose::Send(channel_id), Ok(ClientReply::MessageSend(message))) => {
            machine.send_queue.remove_first(&channel_id);
            machine.emit(Update::Acknowledged(message));
        }
        (Purpose::Subscribe(_), Ok(ClientReply::ChannelSubscribe(entries))) => {
            subscribed(machine, entries, now)
        }
        (Purpose::Unsubscribe(ids), Ok(ClientReply::ChannelUnsubscribe)) => {
            subscriptions::unsubscribed(machine, ids)
        }
        (Purpose::Recovery(id), Ok(ClientReply::MessageList(page))) => {
            if let Some(recovery) = machine.streams.recovery_awaiting(&id, request_id) {
                recovery.messages(&page.items, page.more);
                machine.emit(Update::Messages {
                    channel_id: id,
                    messages: page.items,
                });
            }
        }
        (Purpose::Recovery(id), Ok(ClientReply::ParticipantList(page))) => {
            if let Some(recovery) = machine.streams.recovery_awaiting(&id, request_id) {
                let progress = recovery.participants(page.cursor);
                machine.emit(Update::Participants {
                    channel_id: id.clone(),
                    participants: page.items,
                });
                if progress == ReadProgress::Done {
                    recovery_done(machine, id, None);
                }
            }
        }
        (Purpose::List, Ok(ClientReply::ChannelList(page))) => {
            if let Some(list_recovery) = &mut machine.list_recovery {
                let progress = list_recovery.page(&page.items, page.cursor);
                machine.emit(Update::Channels(page.items));
                if progress == ReadProgress::Done {
                    list_recovery_done(machine, None);
                }
            }
        }
        (Purpose::Renew, Ok(ClientReply::TokenRefresh(expires_at))) => {
            renewal::token_refreshed(machine, Ok(expires_at), now)
        }
        (Purpose::Clock { expires_at }, Ok(ClientReply::Ping(at))) => {
            renewal::clock_received(machine, expires_at, Some(at), now)
        }
        (Purpose::Ping, Ok(ClientReply::Ping(_))) => {}
        (purpose, Ok(_)) => handle_error(
            machine,
            purpose,
            ErrorBody::new(ErrorCode::Internal, "the reply does not match the request"),
            now,
        ),
        (Purpose::Recovery(id), Err(_))
            if machine.streams.recovery_awaiting(&id, request_id).is_none() => {}
        (purpose, Err(error)) => handle_error(machine, purpose, error, now),
    }
}

/// Handles an error reply, or a missing reply.
pub(super) fn handle_error(
    machine: &mut Machine,
    purpose: Purpose,
    error: ErrorBody,
    now: Instant,
) {
    let retryability = Retryability::of(&error);
    if let Retryability::RateLimited(hint) = retryability {
        requests::pause(machine, hint, now);
    }
    let hint = match retryability {
        Retryability::RateLimited(hint) | Retryability::Temporary(hint) => hint,
        Retryability::Defect | Retryability::Permanent => None,
    };
    let random = machine.random.random();
    match purpose {
        Purpose::Send(channel_id) => {
            let is_retried = match retryability {
                Retryability::RateLimited(_) | Retryability::Temporary(_) => true,
                Retryability::Defect => machine.send_queue.count_defect(&channel_id),
                Retryability::Permanent => false,
            };
            if is_retried {
                if let Some(retry) = machine.send_queue.retry_first(&channel_id) {
                    retry.schedule(hint, random, now);
                }
            } else if let Some(message) = machine.send_queue.remove_first(&channel_id) {
                machine.emit(Update::Failed {
                    channel_id,
                    message_id: message.id,
                    why: SendFailure::Refused(error),
                });
            }
        }
        Purpose::Subscribe(ids) => ids
            .into_iter()
            .for_each(|id| subscriptions::subscribe_failed(machine, id, error.clone(), now)),
        Purpose::Unsubscribe(_) if matches!(retryability, Retryability::RateLimited(_)) => {}
        Purpose::Unsubscribe(_) if matches!(retryability, Retryability::Temporary(_)) => {
            requests::pause(machine, hint, now)
        }
        // The channel is not subscribed to, or will not be after this session. Its events are
        // ignored.
        Purpose::Unsubscribe(ids) => subscriptions::unsubscribed(machine, ids),
        Purpose::Recovery(id) if retryability == Retryability::Permanent => {
            recovery_done(machine, id, Some(error))
        }
        Purpose::Recovery(id) => {
            if let Some(recovery) = machine
                .streams
                .get_mut(&id)
                .and_then(|stream| stream.recovery.as_mut())
            {
                recovery.retry_later().schedule(hint, random, now);
            }
        }
        Purpose::List if retryability == Retryability::Permanent => {
            list_recovery_done(machine, Some(error))
        }
        Purpose::List => {
            if let Some(list_recovery) = &mut machine.list_recovery {
                list_recovery.retry_later().schedule(hint, random, now);
            }
        }
        Purpose::Renew => renewal::token_refreshed(machine, Err(error), now),
        Purpose::Clock { expires_at } => renewal::clock_received(machine, expires_at, None, now),
        Purpose::Ping => {}
    }
}

fn subscribed(machine: &mut Machine, entries: Vec<EntryResult>, now: Instant) {
    for entry in &entries {
        if let EntryResult::Entry(entry) = entry {
            machine.emit(Update::Joined(Box::new(entry.clone())));
        }
    }
    incoming::handle_entries(machine, entries, now);
}

fn recovery_done(machine: &mut Machine, id: ChannelId, error: Option<ErrorBody>) {
    machine.streams.recovery_done(&id);
    machine.emit(Update::Recovered {
        channel_id: Some(id),
        error,
    });
}

fn list_recovery_done(machine: &mut Machine, error: Option<ErrorBody>) {
    if machine
        .list_recovery
        .take()
        .is_some_and(|recovery| recovery.is_after_gap())
    {
        machine.emit(Update::Recovered {
            channel_id: None,
            error,
        });
    }
}
