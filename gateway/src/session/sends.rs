//! The order of a session's sends: of each channel one commit is under way, and sends that wait
//! meanwhile share the next.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use protocol::ChannelId;

/// The most sends of one commit.
const MOST: usize = 64;

/// Within which a send is answered, its wait in line included; five seconds are promised.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Sends that came further apart do not share a commit, since they would share the patience of the
/// first.
const APART: Duration = Duration::from_millis(500);

/// Sends in line, by channel. A line is there while a send of its channel is under way or waits.
#[derive(Debug)]
pub struct Sends<T> {
    lines: HashMap<ChannelId, VecDeque<(Instant, T)>>,
}

/// Sends of one commit.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<T> {
    /// In the order in which they came.
    pub sends: Vec<T>,
    /// When they must be answered.
    pub deadline: Instant,
}

impl<T> Default for Sends<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
        }
    }
}

impl<T> Sends<T> {
    /// Puts a send in line. True if the line is new: whoever drives it begins to ask for batches.
    pub fn push(&mut self, channel: &ChannelId, send: T, now: Instant) -> bool {
        if let Some(line) = self.lines.get_mut(channel) {
            line.push_back((now, send));
            return false;
        }
        self.lines
            .insert(channel.clone(), VecDeque::from([(now, send)]));
        true
    }

    /// The next batch of a channel, to be asked for when the last one is done. `None` if nothing
    /// waits: the line ends, and the next send begins a new one.
    pub fn next(&mut self, channel: &ChannelId) -> Option<Batch<T>> {
        let line = self.lines.get_mut(channel)?;
        let Some((first, _)) = line.front() else {
            self.lines.remove(channel);
            return None;
        };
        let (first, deadline) = (*first, *first + PATIENCE);
        let count = line
            .iter()
            .take(MOST)
            .take_while(|(came, _)| *came < first + APART)
            .count();
        let sends = line.drain(..count).map(|(_, send)| send).collect();
        Some(Batch { sends, deadline })
    }

    /// Ends the line of a channel whose driver has failed. The sends that waited in it, unanswered.
    pub fn abandon(&mut self, channel: &ChannelId) -> impl Iterator<Item = T> + use<T> {
        let line = self.lines.remove(channel).unwrap_or_default();
        line.into_iter().map(|(_, send)| send)
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
                prop_assert!(batch.sends.len() <= MOST);
                prop_assert_eq!(batch.deadline, first + PATIENCE);
                for (number, came) in batch.sends {
                    prop_assert_eq!(number, taken[channel]);
                    prop_assert!(came - first < APART);
                    taken[channel] += 1;
                }
            }
        }
    }
}
