//! Queues of a session's sends. One commit of each channel is in flight; sends that arrive
//! meanwhile share the next one.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use protocol::ChannelId;

/// Maximum number of sends of one commit.
const MAX_BATCH: usize = 64;

/// Maximum time from the arrival of a send to its reply. The protocol promises five seconds.
const REPLY_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Maximum difference between the arrivals of the sends of a batch, which share the deadline of the
/// first.
const MAX_BATCH_AGE: Duration = Duration::from_millis(500);

/// Queues of sends, by channel. A queue exists while a send of its channel is in flight or waits.
#[derive(Debug)]
pub struct Sends<T> {
    queues: HashMap<ChannelId, VecDeque<(Instant, T)>>,
}

/// Sends of one commit.
#[derive(Debug, PartialEq, Eq)]
pub struct SendBatch<T> {
    /// The sends in the order of their arrival.
    pub sends: Vec<T>,
    /// Deadline of their replies.
    pub deadline: Instant,
}

impl<T> Default for Sends<T> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
        }
    }
}

impl<T> Sends<T> {
    /// Queues a send. Returns true if the queue is new: the caller then has to process its batches.
    pub fn push(&mut self, channel: &ChannelId, send: T, now: Instant) -> bool {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.push_back((now, send));
            return false;
        }
        self.queues
            .insert(channel.clone(), VecDeque::from([(now, send)]));
        true
    }

    /// Returns the next batch of a channel; call it when the last one is done. Returns `None` and
    /// removes the queue if it is empty.
    pub fn next(&mut self, channel: &ChannelId) -> Option<SendBatch<T>> {
        let queue = self.queues.get_mut(channel)?;
        let Some((first, _)) = queue.front() else {
            self.queues.remove(channel);
            return None;
        };
        let (first, deadline) = (*first, *first + REPLY_TIMEOUT);
        let count = queue
            .iter()
            .take(MAX_BATCH)
            .take_while(|(arrived_at, _)| *arrived_at < first + MAX_BATCH_AGE)
            .count();
        let sends = queue.drain(..count).map(|(_, send)| send).collect();
        Some(SendBatch { sends, deadline })
    }

    /// Removes the queue of a channel whose processing failed. Returns the unanswered sends.
    pub fn abandon(&mut self, channel: &ChannelId) -> impl Iterator<Item = T> + use<T> {
        let queue = self.queues.remove(channel).unwrap_or_default();
        queue.into_iter().map(|(_, send)| send)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sends_of_a_channel_keep_their_order_in_batches_of_bounded_size_and_age(
            acts in proptest::collection::vec((0..2usize, any::<bool>(), 0..300u64), 0..300),
        ) {
            let ids: Vec<ChannelId> = ["a", "b"].map(|id| id.parse().expect("a valid id")).into();
            let (mut sends, mut now) = (Sends::default(), Instant::now());
            let (mut pushed, mut taken, mut is_driven) = ([0; 2], [0; 2], [false; 2]);
            for (channel, is_push, pause) in acts {
                now += Duration::from_millis(pause);
                if is_push {
                    let is_new = sends.push(&ids[channel], (pushed[channel], now), now);
                    prop_assert_eq!(is_new, !is_driven[channel]);
                    is_driven[channel] = true;
                    pushed[channel] += 1;
                    continue;
                }
                let Some(batch) = sends.next(&ids[channel]) else {
                    prop_assert_eq!(taken[channel], pushed[channel]);
                    is_driven[channel] = false;
                    continue;
                };
                let first = batch.sends[0].1;
                prop_assert!(batch.sends.len() <= MAX_BATCH);
                prop_assert_eq!(batch.deadline, first + REPLY_TIMEOUT);
                for (number, arrived_at) in batch.sends {
                    prop_assert_eq!(number, taken[channel]);
                    prop_assert!(arrived_at - first < MAX_BATCH_AGE);
                    taken[channel] += 1;
                }
            }
        }
    }
}
