//! A channel with stored messages: checks what its subscribers receive, and sends messages to it.

use std::sync::{Arc, atomic::Ordering};

use anyhow::{Context, Result};
use client::{Backoff, PendingReply, RequestError, Retryability, Session};
use parking_lot::Mutex;
use protocol::{
    ChannelId, ErrorCode, UserId,
    entity::Message,
    operation::message::{ListMessages, MessageDelete, MessageList, MessageSend},
};
use tokio::{
    sync::mpsc,
    time::{Duration, sleep},
};

use crate::{
    event::{EventName, ReceivedEvent, ReceivedMessage},
    member::{DeliveryObserver, Member},
    run_state::{RunCounters, RunState},
    schedule::RunClock,
    script::MessageScript,
    verify::{self, MessageIndex, Tally},
};

/// Backoff of a request that got no reply, or an error that may pass.
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Every n-th message is deleted, in runs that delete messages.
const MESSAGES_PER_DELETION: MessageIndex = 16;

/// When messages were due. Implementations that limit messages in flight also observe deliveries.
pub trait MessageTiming: Send + Sync + 'static {
    /// When a message was due, in microseconds of the run's clock.
    fn due(&self, message: MessageIndex) -> u64;
    /// A subscriber received the message.
    fn delivered(&self, _message: MessageIndex) {}
    /// No subscriber will receive the message.
    fn refused(&self, _message: MessageIndex) {}
}

/// A channel of the run with stored messages.
pub struct TestChannel {
    /// The channel's id.
    pub id: ChannelId,
    checker: Mutex<verify::ChannelChecker>,
    state: Arc<RunState>,
    script: Arc<MessageScript>,
    timing: Arc<dyn MessageTiming>,
    clock: RunClock,
    /// The guest that is removed and added repeatedly, with its subscriber index.
    guest: Option<(UserId, usize)>,
    /// Whether messages are deleted, one in [`MESSAGES_PER_DELETION`].
    deletes: bool,
}

impl TestChannel {
    /// Creates the state of a channel with these subscribers.
    pub fn new(
        id: ChannelId,
        subscribers: &[UserId],
        state: &Arc<RunState>,
        script: &Arc<MessageScript>,
        timing: Arc<dyn MessageTiming>,
        clock: RunClock,
    ) -> Self {
        let checker = Mutex::new(verify::ChannelChecker::new(
            id.as_str(),
            subscribers.iter().map(UserId::as_str),
        ));
        Self {
            id,
            checker,
            state: state.clone(),
            script: script.clone(),
            timing,
            clock,
            guest: None,
            deletes: false,
        }
    }

    /// Adds the guarantees of nodes and stores that the run started itself.
    pub fn with_guarantees(self, guarantees: Option<verify::Guarantees>) -> Self {
        let Self { checker, .. } = self;
        let checker = match guarantees {
            Some(guarantees) => Mutex::new(checker.into_inner().with_guarantees(guarantees)),
            None => checker,
        };
        Self { checker, ..self }
    }

    /// Makes the last subscriber a guest, and deletes messages.
    pub fn with_guest_and_deletions(mut self, subscribers: &[UserId]) -> Self {
        self.guest = subscribers
            .last()
            .map(|guest| (guest.clone(), subscribers.len() - 1));
        self.deletes = true;
        self
    }

    /// Whether every subscriber has received everything that was acknowledged so far.
    pub fn is_complete(&self) -> bool {
        self.checker.lock().is_complete()
    }

    /// Returns the result of the channel. Call once, at the end.
    pub fn finish(&self) -> Tally {
        std::mem::replace(
            &mut *self.checker.lock(),
            verify::ChannelChecker::new("", [""; 0]),
        )
        .finish()
    }

    /// Lists the whole channel and checks the messages.
    pub async fn check_list(&self, session: &Session) -> Result<()> {
        let mut observed = Vec::new();
        let mut after = 0;
        loop {
            let which = ListMessages {
                after: Some(after),
                limit: session.connected().limits.get("page").copied(),
                ..Default::default()
            };
            let page = match session.call::<MessageList>(&self.id, &which).await {
                Ok(page) => page,
                Err(RequestError::Refused(error)) if error.code == ErrorCode::RateLimited => {
                    sleep(Duration::from_millis(error.retry_after_ms.unwrap_or(100))).await;
                    continue;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot list channel {}", self.id));
                }
            };
            let last = page.items.last().map(|message| message.number);
            observed.extend(
                page.items
                    .into_iter()
                    .map(|message| self.script.read(&self.id, &message.into())),
            );
            match last {
                Some(last) if page.more && last > after => after = last,
                _ => break,
            }
        }
        self.checker.lock().listed(observed);
        Ok(())
    }

    /// Spawns the task that sends queued messages in order through this member's session, and
    /// returns its queue.
    pub fn sender(
        self: &Arc<Self>,
        sender_index: usize,
        member: Member,
    ) -> mpsc::UnboundedSender<MessageIndex> {
        let (queue, mut due) = mpsc::unbounded_channel();
        let sender = MessageSender {
            channel: self.clone(),
            sender_index,
            member,
        };
        tokio::spawn(async move {
            while let Some(message) = due.recv().await {
                let sent = sender.send(message).await;
                tokio::spawn(sender.clone().retry_until_settled(message, sent));
            }
        });
        queue
    }
}

impl DeliveryObserver for TestChannel {
    fn connecting(&self, subscriber: usize) {
        self.checker.lock().connecting(subscriber);
    }

    fn resumed(&self, subscriber: usize, head: u64) {
        self.checker.lock().resumed(subscriber, head);
    }

    fn removed(&self, subscriber: usize) {
        self.checker.lock().removed(subscriber);
    }

    fn divergence_received(&self, subscriber: usize, head: u64) {
        self.checker.lock().divergence_received(subscriber, head);
    }

    fn changes_read(
        &self,
        subscriber: usize,
        after: u64,
        head: u64,
        messages: Vec<protocol::entity::Message>,
    ) {
        let observed = messages
            .into_iter()
            .map(|message| self.script.read(&self.id, &message.into()));
        self.checker
            .lock()
            .changes_read(subscriber, after, head, observed);
    }

    fn subscribed(&self, subscriber: usize, seq: u64, number: u64) {
        self.checker.lock().subscribed(subscriber, seq, number);
    }

    fn received(&self, subscriber: usize, event: &ReceivedEvent, frame: usize) {
        match (event.name, event.seq, &event.data.message) {
            (EventName::MessageCreated, Some(seq), Some(message)) => {
                let mut observed = self.script.read(&self.id, message);
                // A deleted message is replayed in its current state, without the text.
                observed.intact &= if observed.deleted {
                    observed.seq > seq
                } else {
                    observed.seq == seq
                };
                observed.seq = seq;
                if let Some(message) = observed.message {
                    let latency = self.clock.now().saturating_sub(self.timing.due(message));
                    self.state.delivery.record(subscriber, latency);
                }
                self.checker.lock().message_received(subscriber, observed);
                RunCounters::count(&self.state.counters.delivered);
                self.state
                    .counters
                    .delivered_bytes
                    .fetch_add(frame as u64, Ordering::Relaxed);
                observed
                    .message
                    .into_iter()
                    .for_each(|message| self.timing.delivered(message));
            }
            (name, Some(seq), _) => {
                let mut checker = self.checker.lock();
                checker.other_received(subscriber, seq, &format!("{name:?}"));
                if let (Some(participant), Some((guest, index))) =
                    (&event.data.participant, &self.guest)
                    && participant.user_id == *guest
                {
                    match name {
                        EventName::ParticipantRemoved => checker.removal_event(*index, seq),
                        EventName::ParticipantAdded => checker.addition_event(*index, seq),
                        _ => {}
                    }
                }
            }
            (_, None, _) => {}
        }
    }

    fn gap_received(&self, subscriber: usize, head: u64) {
        self.checker.lock().gap_received(subscriber, head);
    }

    fn foreign_received(&self, subscriber: usize, what: &str) {
        self.checker.lock().foreign_received(subscriber, what);
    }
}

/// A member's session as a sender of messages.
#[derive(Clone)]
struct MessageSender {
    channel: Arc<TestChannel>,
    sender_index: usize,
    member: Member,
}

impl MessageSender {
    /// Sends a message for the first time. Returns `None` without a session.
    async fn send(
        &self,
        message: MessageIndex,
    ) -> Option<Result<PendingReply<Message>, RequestError>> {
        let TestChannel {
            checker,
            state,
            script,
            id,
            ..
        } = &*self.channel;
        checker.lock().sending(message, self.sender_index);
        RunCounters::count(&state.counters.sent);
        RunCounters::count(&state.counters.pending);
        Some(
            self.member
                .session()?
                .begin::<MessageSend>(id, &script.message(message))
                .await,
        )
    }

    /// Sends a message again with the same id until it is acknowledged, refused, or the run ends.
    async fn retry_until_settled(
        mut self,
        message: MessageIndex,
        mut sent: Option<Result<PendingReply<Message>, RequestError>>,
    ) {
        let channel = self.channel.clone();
        let TestChannel {
            checker,
            state,
            script,
            id,
            ..
        } = &*channel;
        let mut backoff = RETRY_BACKOFF;
        loop {
            let reply = match sent {
                Some(Ok(pending)) => Some(pending.reply().await),
                Some(Err(error)) => Some(Err(error)),
                None => None,
            };
            match reply {
                Some(Ok(stored)) => {
                    let latency = channel
                        .clock
                        .now()
                        .saturating_sub(channel.timing.due(message));
                    state.acknowledgement.record(self.sender_index, latency);
                    checker
                        .lock()
                        .acknowledged(message, script.read(id, &ReceivedMessage::from(stored)));
                    RunCounters::count(&state.counters.acknowledged);
                    if channel.deletes && message.is_multiple_of(MESSAGES_PER_DELETION) {
                        self.delete(message).await;
                    }
                    break;
                }
                Some(Err(RequestError::Refused(error))) => match Retryability::of(&error) {
                    Retryability::RateLimited(_) => {
                        RunCounters::count(&state.counters.rate_limited);
                        self.refuse(message);
                        break;
                    }
                    Retryability::Temporary(_) => state
                        .counters
                        .record_error(format!("message.send: {error}")),
                    // Whether the message is stored is unknown.
                    Retryability::Defect => {
                        state
                            .counters
                            .record_error(format!("message.send: {error}"));
                        channel.timing.refused(message);
                        break;
                    }
                    Retryability::Permanent => {
                        state
                            .counters
                            .record_error(format!("message.send: {error}"));
                        checker.lock().denied(message, &error.to_string());
                        channel.timing.refused(message);
                        break;
                    }
                },
                Some(Err(error)) => state
                    .counters
                    .record_error(format!("message.send: {error}")),
                None => {}
            }
            checker.lock().retrying(message);
            sleep(backoff.wait(rand::random())).await;
            let Some(session) = self.member.connected().await else {
                break;
            };
            sent = Some(
                session
                    .begin::<MessageSend>(id, &script.message(message))
                    .await,
            );
        }
        state.counters.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Deletes a message, with retries until the run ends.
    async fn delete(&mut self, message: MessageIndex) {
        let channel = self.channel.clone();
        let TestChannel {
            checker,
            state,
            script,
            id,
            ..
        } = &*channel;
        let Some(message_id) = script.message(message).message_id else {
            return;
        };
        checker.lock().deleting(message);
        let mut backoff = RETRY_BACKOFF;
        while let Some(session) = self.member.connected().await {
            match session.call::<MessageDelete>((id, &message_id), ()).await {
                Ok(_) => return checker.lock().deleted(message),
                Err(error) => state
                    .counters
                    .record_error(format!("message.delete: {error}")),
            }
            sleep(backoff.wait(rand::random())).await;
        }
    }

    fn refuse(&self, message: MessageIndex) {
        self.channel.checker.lock().refused(message);
        self.channel.timing.refused(message);
    }
}
