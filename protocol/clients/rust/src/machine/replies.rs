//! What replies change.

use std::time::{Duration, Instant};

use protocol::{ChannelId, ErrorBody, ErrorCode, model::EntryResult};
use rand::RngExt;

use super::{Answer, Failure, Machine, Ticket, Update, What, repair::Progress, streams::State};
use crate::Refusal;

/// As what a request counts that was not answered in time: whether it was carried out is unknown.
pub(super) fn unanswered() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, "no reply in time")
}

impl Machine {
    /// A reply came. One that is awaited no longer says nothing.
    pub(super) fn replied(
        &mut self,
        ticket: Ticket,
        outcome: Result<Answer, ErrorBody>,
        now: Instant,
    ) {
        let Some(asked) = self.asked.remove(&ticket) else {
            return;
        };
        match (asked.what, outcome) {
            (What::Send(channel_id), Ok(Answer::MessageSend(message))) => {
                self.outbox.settle(&channel_id);
                self.tell(Update::Acknowledged(message));
            }
            (What::Subscribe(_), Ok(Answer::ChannelSubscribe(entries))) => {
                self.subscribed(entries, now)
            }
            (What::Unsubscribe(ids), Ok(Answer::ChannelUnsubscribe)) => self.unsubscribed(ids),
            (What::Repair(id), Ok(Answer::MessageList(page))) => {
                if let Some(repair) = self.streams.reads(&id, ticket) {
                    repair.messages(&page.items, page.more);
                    self.tell(Update::Messages {
                        channel_id: id,
                        messages: page.items,
                    });
                }
            }
            (What::Repair(id), Ok(Answer::ParticipantList(page))) => {
                if let Some(repair) = self.streams.reads(&id, ticket) {
                    let progress = repair.participants(page.cursor);
                    self.tell(Update::Participants {
                        channel_id: id.clone(),
                        participants: page.items,
                    });
                    if progress == Progress::Done {
                        self.repaired(id, None);
                    }
                }
            }
            (What::List, Ok(Answer::ChannelList(page))) => {
                if let Some(listing) = &mut self.listing {
                    let progress = listing.page(page.cursor);
                    self.tell(Update::Channels(page.items));
                    if progress == Progress::Done {
                        self.listed(None);
                    }
                }
            }
            (What::Renew, Ok(Answer::TokenRefresh(expires_at))) => {
                self.renewed(Ok(expires_at), now)
            }
            (What::Clock { expires_at }, Ok(Answer::Ping(at))) => {
                self.clock(expires_at, Some(at), now)
            }
            (What::Ping, Ok(Answer::Ping(_))) => {}
            (what, Ok(_)) => self.refused(
                what,
                ErrorBody::new(ErrorCode::Internal, "the reply is another request's"),
                now,
            ),
            (What::Repair(id), Err(_)) if self.streams.reads(&id, ticket).is_none() => {}
            (what, Err(error)) => self.refused(what, error, now),
        }
    }

    /// A request was refused, or not answered in time.
    pub(super) fn refused(&mut self, what: What, error: ErrorBody, now: Instant) {
        let refusal = Refusal::of(&error);
        if let Refusal::TooFast(hint) = refusal {
            self.pauses(hint, now);
        }
        let hint = match refusal {
            Refusal::TooFast(hint) | Refusal::Passing(hint) => hint,
            Refusal::Defect | Refusal::Definite => None,
        };
        let random = self.random.random();
        match what {
            What::Send(channel_id) => {
                let goes_on = match refusal {
                    Refusal::TooFast(_) | Refusal::Passing(_) => true,
                    Refusal::Defect => self.outbox.bears(&channel_id),
                    Refusal::Definite => false,
                };
                if goes_on {
                    if let Some(retry) = self.outbox.again(&channel_id) {
                        retry.later(hint, random, now);
                    }
                } else if let Some(letter) = self.outbox.settle(&channel_id) {
                    self.tell(Update::Failed {
                        channel_id,
                        message_id: letter.id,
                        why: Failure::Refused(error),
                    });
                }
            }
            What::Subscribe(ids) => ids
                .into_iter()
                .for_each(|id| self.not_joined(id, error.clone(), now)),
            What::Unsubscribe(_) if matches!(refusal, Refusal::TooFast(_)) => {}
            What::Unsubscribe(_) if matches!(refusal, Refusal::Passing(_)) => {
                self.pauses(hint, now)
            }
            // There is nothing to end, or it ends with the session: what still comes is passed over as another's.
            What::Unsubscribe(ids) => self.unsubscribed(ids),
            What::Repair(id) if refusal == Refusal::Definite => self.repaired(id, Some(error)),
            What::Repair(id) => {
                if let Some(repair) = self
                    .streams
                    .get_mut(&id)
                    .and_then(|stream| stream.repair.as_mut())
                {
                    repair.failed().later(hint, random, now);
                }
            }
            What::List if refusal == Refusal::Definite => self.listed(Some(error)),
            What::List => {
                if let Some(listing) = &mut self.listing {
                    listing.failed().later(hint, random, now);
                }
            }
            What::Renew => self.renewed(Err(error), now),
            What::Clock { expires_at } => self.clock(expires_at, None, now),
            What::Ping => {}
        }
    }

    fn subscribed(&mut self, entries: Vec<EntryResult>, now: Instant) {
        for entry in &entries {
            if let EntryResult::Entry(entry) = entry {
                self.tell(Update::Joined(Box::new(entry.clone())));
            }
        }
        self.entries(entries, now);
    }

    /// A channel cannot be subscribed to: for now, or at all.
    pub(super) fn not_joined(&mut self, channel_id: ChannelId, error: ErrorBody, now: Instant) {
        let random = self.random.random();
        match (Refusal::of(&error), self.streams.state(&channel_id)) {
            (_, Some(State::Leaving { .. })) => self.unsubscribed(vec![channel_id]),
            (Refusal::Definite, Some(_)) => {
                self.streams.remove(&channel_id);
                self.tell(Update::Lost { channel_id, error });
            }
            (Refusal::Definite, None) => {}
            (Refusal::TooFast(hint) | Refusal::Passing(hint), _) => {
                self.joins_later(&channel_id, hint, random, now)
            }
            (Refusal::Defect, _) => self.joins_later(&channel_id, None, random, now),
        }
    }

    fn joins_later(&mut self, id: &ChannelId, hint: Option<Duration>, random: f64, now: Instant) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.retry.later(hint, random, now);
        }
        self.streams.enter(id, State::Apart);
    }

    fn repaired(&mut self, id: ChannelId, error: Option<ErrorBody>) {
        self.streams.mended(&id);
        self.tell(Update::Repaired {
            channel_id: Some(id),
            error,
        });
    }

    fn listed(&mut self, error: Option<ErrorBody>) {
        self.listing = None;
        self.tell(Update::Repaired {
            channel_id: None,
            error,
        });
    }
}
