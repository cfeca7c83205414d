//! What was read and told of messages, merged into one truth.

use std::collections::{BTreeMap, HashMap};

use protocol::{
    ChannelId, MessageId,
    event::{Event, Reaction},
    model::{EntryResult, Gap, Message},
};

use crate::machine::Update;

/// How much a [`Cache`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The newest messages of each channel. Default 200.
    pub messages: usize,
    /// The channels in which something happened last. Default 200; 0 holds nothing.
    pub channels: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            messages: 200,
            channels: 200,
        }
    }
}

/// Messages by channel and number. Pages, replies and events go in in any order: of two states of a message the one with the
/// greater `seq` is kept, so that what was deleted stays deleted.
///
/// What diverged is discarded. But a reply, a page or a replayed event may tell a message as it was by an event that the
/// client has not come to yet; if the store loses just that event, nobody tells the client, and the message stays as it was
/// told until it changes again, or another one takes its number.
#[derive(Debug, Default)]
pub struct Cache {
    bounds: Bounds,
    channels: HashMap<ChannelId, Held>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Held {
    messages: BTreeMap<u64, Message>,
    numbers: HashMap<MessageId, u64>,
    used: u64,
}

impl Cache {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// The messages of a channel, by number; those that were deleted are among them.
    pub fn messages<'a>(
        &'a self,
        channel: &ChannelId,
    ) -> impl DoubleEndedIterator<Item = &'a Message> + use<'a> {
        self.channels
            .get(channel)
            .into_iter()
            .flat_map(|held| held.messages.values())
    }

    /// A message.
    pub fn message(&self, channel: &ChannelId, id: &MessageId) -> Option<&Message> {
        let held = self.channels.get(channel)?;
        held.messages.get(held.numbers.get(id)?)
    }

    /// Takes what an update tells.
    pub fn apply(&mut self, update: &Update) {
        match update {
            Update::Connected(connected) => {
                for entry in &connected.channels {
                    if let EntryResult::Entry(entry) = entry {
                        self.merge(entry.last_message.iter());
                    }
                }
            }
            Update::Joined(entry) => self.merge(entry.last_message.iter()),
            Update::Messages { messages, .. } => self.merge(messages),
            Update::Acknowledged(message) => self.merge([&**message]),
            Update::Gap {
                channel_id: Some(id),
                gap: Gap::Diverged,
                ..
            }
            | Update::Lost { channel_id: id, .. } => self.forget(id),
            Update::Event(event) => match (event.read(), &event.channel_id, event.seq) {
                (
                    Ok(
                        Event::MessageCreated(message)
                        | Event::MessageUpdated(message)
                        | Event::MessageDeleted(message),
                    ),
                    ..,
                ) => {
                    self.merge([&message]);
                }
                (
                    Ok(Event::ReactionAdded(reaction) | Event::ReactionRemoved(reaction)),
                    Some(id),
                    Some(seq),
                ) => {
                    self.react(id, &reaction, seq);
                }
                (Ok(Event::ChannelDeleted(_)), Some(id), _) => self.forget(id),
                (Ok(Event::ChannelRemoved(id)), ..) => self.forget(&id),
                _ => {}
            },
            _ => {}
        }
    }

    /// Takes messages as they came in a page or a reply.
    pub fn merge<'a>(&mut self, messages: impl IntoIterator<Item = &'a Message>) {
        for message in messages {
            self.keep(message);
        }
    }

    fn keep(&mut self, message: &Message) {
        if self.bounds.channels == 0 || self.bounds.messages == 0 {
            return;
        }
        self.uses += 1;
        if !self.channels.contains_key(&message.channel_id)
            && self.channels.len() >= self.bounds.channels
        {
            let oldest = self
                .channels
                .iter()
                .min_by_key(|(_, held)| held.used)
                .map(|(id, _)| id.clone());
            oldest.iter().for_each(|id| self.forget(id));
        }
        let held = self.channels.entry(message.channel_id.clone()).or_default();
        held.used = self.uses;
        match held.messages.get_mut(&message.number) {
            // The store lost the one that stood there.
            Some(kept) if kept.id != message.id => {
                held.numbers.remove(&kept.id);
                held.numbers.insert(message.id.clone(), message.number);
                *kept = message.clone();
            }
            Some(kept) if kept.seq >= message.seq => {
                if message.own_reactions.is_some() {
                    kept.own_reactions = message.own_reactions.clone();
                }
            }
            Some(kept) => {
                let own_reactions = message
                    .own_reactions
                    .clone()
                    .or_else(|| kept.own_reactions.take());
                *kept = Message {
                    own_reactions,
                    ..message.clone()
                };
            }
            None => {
                held.numbers.insert(message.id.clone(), message.number);
                held.messages.insert(message.number, message.clone());
            }
        }
        // Only the newest are kept: one that went could come back in an older state.
        while held.messages.len() > self.bounds.messages {
            if let Some((_, oldest)) = held.messages.pop_first() {
                held.numbers.remove(&oldest.id);
            }
        }
    }

    fn react(&mut self, channel: &ChannelId, reaction: &Reaction, seq: u64) {
        let Some(held) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(message) = held.messages.get_mut(&reaction.number)
            && message.seq < seq
        {
            message.seq = seq;
            match reaction.count {
                0 => drop(message.reactions.remove(&reaction.emoji)),
                count => drop(message.reactions.insert(reaction.emoji.clone(), count)),
            }
        }
    }

    fn forget(&mut self, channel: &ChannelId) {
        self.channels.remove(channel);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::{collection::vec, prelude::*, sample::Index};
    use protocol::EventMessage;
    use serde_json::json;

    use super::*;
    use crate::Position;

    fn message(number: u64, seq: u64, deleted: bool) -> Message {
        let text = if deleted {
            String::new()
        } else {
            format!("{number}.{seq}")
        };
        let mut whole = json!({ "id": MessageId::from_bits(number), "channel_id": "c", "number": number, "seq": seq, "kind": "text",
            "text": text, "attachments": [], "mention_ids": [], "metadata": {} });
        if deleted {
            whole["deleted_at"] = 9.into();
        }
        serde_json::from_value(whole).unwrap()
    }

    fn channel() -> ChannelId {
        "c".parse().unwrap()
    }

    fn told(name: &str, seq: u64, data: serde_json::Value) -> Update {
        Update::Event(EventMessage {
            event: name.into(),
            channel_id: Some(channel()),
            seq: Some(seq),
            at: Some(seq),
            data,
        })
    }

    proptest! {
        #[test]
        fn states_in_any_order_leave_the_newest_of_each_message(
            // For each message the seqs of its states, the last of which may be a deletion; then the order in which they come.
            states in vec((vec(1u64..50, 1..5), any::<bool>()), 1..8),
            order in vec(any::<Index>(), 0..64),
        ) {
            let mut cache = Cache::new(Bounds { messages: 100, channels: 1 });
            let mut all = Vec::new();
            let mut newest = Vec::new();
            for (number, (seqs, deleted)) in states.iter().enumerate() {
                let last = *seqs.iter().max().unwrap();
                let state = |seq: &u64| message(number as u64 + 1, *seq, *deleted && *seq == last);
                all.extend(seqs.iter().map(state));
                newest.push(state(&last));
            }
            // Any order, with repeats; in the end each came at least once.
            let drawn: Vec<_> = order.iter().map(|index| index.get(&all)).chain(&all).collect();
            cache.merge(drawn);
            prop_assert_eq!(cache.messages(&channel()).cloned().collect::<Vec<_>>(), newest);
        }
    }

    #[test]
    fn it_holds_the_newest_messages_of_the_last_channels() {
        let mut cache = Cache::new(Bounds {
            messages: 3,
            channels: 1,
        });
        cache.merge(&[
            message(4, 4, false),
            message(2, 5, true),
            message(1, 1, false),
            message(3, 3, false),
        ]);
        let numbers: Vec<_> = cache.messages(&channel()).map(|m| m.number).collect();
        assert_eq!(numbers, [2, 3, 4]);
        cache.merge(&[message(5, 6, false), message(2, 2, false)]);
        let numbers: Vec<_> = cache.messages(&channel()).map(|m| m.number).collect();
        assert_eq!(
            numbers,
            [3, 4, 5],
            "the deleted one went, and does not come back in an older state"
        );
        let elsewhere = Message {
            channel_id: "d".parse().unwrap(),
            ..message(1, 1, false)
        };
        cache.merge([&elsewhere]);
        assert_eq!(cache.messages(&channel()).count(), 0);
        assert_eq!(
            cache.message(&elsewhere.channel_id, &elsewhere.id),
            Some(&elsewhere)
        );
    }

    #[test]
    fn reactions_count_by_seq_and_own_ones_are_taken_from_pages() {
        let mut cache = Cache::default();
        let page = Message {
            own_reactions: Some(vec!["+1".into()]),
            ..message(1, 7, false)
        };
        cache.merge([&message(1, 7, false), &page]);
        let react = |seq, count| {
            let data = json!({ "message_id": page.id, "number": 1, "emoji": "+1", "user_id": "bob", "count": count });
            told("reaction.added", seq, data)
        };
        cache.apply(&react(9, 3));
        cache.apply(&react(8, 1));
        let kept = cache.message(&channel(), &page.id).unwrap();
        assert_eq!(
            (kept.seq, kept.reactions["+1"], kept.own_reactions.clone()),
            (9, 3, Some(vec!["+1".into()]))
        );
        cache.apply(&react(10, 0));
        assert!(
            cache
                .message(&channel(), &page.id)
                .unwrap()
                .reactions
                .is_empty()
        );
    }

    #[test]
    fn what_diverged_is_discarded_and_may_be_told_anew_with_lower_numbers() {
        let mut cache = Cache::default();
        cache.merge(&[message(1, 1, false), message(2, 9, false)]);
        let head = Position { seq: 5, at: 5 };
        cache.apply(&Update::Gap {
            channel_id: Some(channel()),
            gap: Gap::Trimmed,
            from: Some(head),
            to: head,
        });
        assert_eq!(cache.messages(&channel()).count(), 2);
        cache.apply(&Update::Gap {
            channel_id: Some(channel()),
            gap: Gap::Diverged,
            from: Some(head),
            to: head,
        });
        cache.apply(&told(
            "message.created",
            6,
            json!({ "message": message(2, 6, false) }),
        ));
        assert_eq!(
            cache.messages(&channel()).cloned().collect::<Vec<_>>(),
            [message(2, 6, false)]
        );
    }
}
