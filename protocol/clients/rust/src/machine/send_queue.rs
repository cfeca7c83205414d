//! Messages that are not acknowledged yet. Each channel has one message in flight, and the others
//! wait behind it.
//!
//! With several in flight the order would be lost when the first is refused for now and the second
//! is stored.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use protocol::{ChannelId, MessageId, operation::message::SendMessage};

use super::{RequestId, retry::RetryTimer};

/// Maximum number of attempts to send a message while the server answers `internal`.
const MAX_DEFECTS: u32 = 5;

/// A message that is not acknowledged yet.
#[derive(Debug)]
pub(super) struct QueuedMessage {
    pub(super) id: MessageId,
    pub(super) message: SendMessage,
    /// Whether it was sent at least once, and so may be stored.
    pub(super) was_sent: bool,
}

/// The queue of a channel.
#[derive(Debug)]
struct ChannelQueue {
    messages: VecDeque<QueuedMessage>,
    in_flight: Option<RequestId>,
    retry: RetryTimer,
    defects: u32,
}

#[derive(Debug)]
pub(super) struct SendQueue {
    queues: BTreeMap<ChannelId, ChannelQueue>,
    len: usize,
    limit: usize,
}

impl SendQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            queues: BTreeMap::new(),
            len: 0,
            limit,
        }
    }

    /// Adds a message. Returns false if the limit is reached.
    pub(super) fn push(&mut self, channel: ChannelId, id: MessageId, message: SendMessage) -> bool {
        if self.len >= self.limit {
            return false;
        }
        self.len += 1;
        let empty = || ChannelQueue {
            messages: VecDeque::new(),
            in_flight: None,
            retry: RetryTimer::default(),
            defects: 0,
        };
        self.queues
            .entry(channel)
            .or_insert_with(empty)
            .messages
            .push_back(QueuedMessage {
                id,
                message,
                was_sent: false,
            });
        true
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queues
            .values()
            .filter(|queue| queue.in_flight.is_some())
            .count()
    }

    /// Channels whose first message may be sent now.
    pub(super) fn ready_channels(&self, now: Instant) -> Vec<ChannelId> {
        let is_ready = |queue: &&ChannelQueue| queue.in_flight.is_none() && queue.retry.is_due(now);
        self.queues
            .iter()
            .filter(|(_, queue)| is_ready(queue))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// When the next first message of a channel may be sent that must wait now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.queues
            .values()
            .filter_map(|queue| queue.retry.due())
            .filter(|at| *at > now)
            .min()
    }

    /// Marks the first message of a channel as in flight, and returns it.
    pub(super) fn start_first(
        &mut self,
        channel: &ChannelId,
        request_id: RequestId,
    ) -> Option<SendMessage> {
        let queue = self.queues.get_mut(channel)?;
        let first = queue.messages.front_mut()?;
        first.was_sent = true;
        queue.in_flight = Some(request_id);
        Some(SendMessage {
            message_id: Some(first.id.clone()),
            ..first.message.clone()
        })
    }

    /// Removes the first message of a channel, since it was acknowledged or failed.
    pub(super) fn remove_first(&mut self, channel: &ChannelId) -> Option<QueuedMessage> {
        let queue = self.queues.get_mut(channel)?;
        let message = queue.messages.pop_front()?;
        self.len -= 1;
        (queue.in_flight, queue.retry, queue.defects) = (None, RetryTimer::default(), 0);
        if queue.messages.is_empty() {
            self.queues.remove(channel);
        }
        Some(message)
    }

    /// Makes the first message of a channel wait for a retry. Returns its timer.
    pub(super) fn retry_first(&mut self, channel: &ChannelId) -> Option<&mut RetryTimer> {
        let queue = self.queues.get_mut(channel)?;
        queue.in_flight = None;
        Some(&mut queue.retry)
    }

    /// Counts an `internal` error for the first message of a channel. Returns false if that was one
    /// too many.
    pub(super) fn count_defect(&mut self, channel: &ChannelId) -> bool {
        self.queues.get_mut(channel).is_some_and(|queue| {
            queue.defects += 1;
            queue.defects < MAX_DEFECTS
        })
    }

    /// Handles the end of the session: messages in flight may be sent again immediately.
    pub(super) fn disconnected(&mut self) {
        for queue in self.queues.values_mut() {
            queue.in_flight = None;
            queue.retry = RetryTimer::default();
        }
    }

    /// Removes and returns all messages.
    pub(super) fn drain(&mut self) -> Vec<(ChannelId, QueuedMessage)> {
        self.len = 0;
        let queues = std::mem::take(&mut self.queues);
        queues
            .into_iter()
            .flat_map(|(channel, queue)| {
                queue
                    .messages
                    .into_iter()
                    .map(move |message| (channel.clone(), message))
            })
            .collect()
    }
}
