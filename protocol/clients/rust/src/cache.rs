//! A cache of messages, merged from events, replies and pages.

use std::collections::{BTreeMap, HashMap};

use protocol::{
    ChannelId, MessageId,
    entity::{EntryResult, Gap, Message},
    event::{Event, Reaction},
};

use crate::machine::Update;

/// Limits of a [`MessageCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// Number of messages kept per channel, the newest ones. Default 200.
    pub messages: usize,
    /// Number of channels kept, those used last. Default 200; 0 keeps nothing.
    pub channels: usize,
}

impl Default for CacheBounds {
    fn default() -> Self {
        Self {
            messages: 200,
            channels: 200,
        }
    }
}

/// Messages by channel and number. Pages, replies and events may be added in any order: of two
/// states of a message the one with the greater `seq` is kept, so a deleted message stays deleted.
/// Its reactions are compared on their own: after a gap a reaction may arrive before an edit that the
/// gap left out.
///
/// The history of a channel is discarded when it diverged. One case remains: a reply, a page or a
/// replayed event contains a message in the state after an event that the client has not received,
/// and the store then loses just that event. The client does not learn of it, and the message stays
/// in that state until it changes again or its number is reused.
#[derive(Debug, Default)]
pub struct MessageCache {
    bounds: CacheBounds,
    channels: HashMap<ChannelId, CachedChannel>,
    use_counter: u64,
}

#[derive(Debug, Default)]
struct CachedChannel {
    messages: BTreeMap<u64, CachedMessage>,
    numbers: HashMap<MessageId, u64>,
    last_used: u64,
}

#[derive(Debug)]
struct CachedMessage {
    /// The message. Its `seq` is that of its reactions.
    message: Message,
    /// The `seq` of the state that everything but the reactions is from.
    content_seq: u64,
}

impl CachedMessage {
    fn new(message: &Message) -> Self {
        Self {
            message: message.clone(),
            content_seq: message.seq,
        }
    }

    /// Takes what is newer in another state of the message.
    fn merge(&mut self, newer: &Message) {
        let known = &mut self.message;
        if newer.own_reactions.is_some() {
            known.own_reactions = newer.own_reactions.clone();
        }
        if newer.seq <= self.content_seq {
            return;
        }
        self.content_seq = newer.seq;
        let own_reactions = known.own_reactions.take();
        let (seq, reactions) = if newer.seq < known.seq {
            (known.seq, std::mem::take(&mut known.reactions))
        } else {
            (newer.seq, newer.reactions.clone())
        };
        *known = Message {
            seq,
            reactions,
            own_reactions,
            ..newer.clone()
        };
    }
}

impl MessageCache {
    /// Creates an empty cache.
    pub fn new(bounds: CacheBounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// The messages of a channel by number, deleted ones included.
    pub fn messages<'a>(
        &'a self,
        channel: &ChannelId,
    ) -> impl DoubleEndedIterator<Item = &'a Message> + use<'a> {
        self.channels
            .get(channel)
            .into_iter()
            .flat_map(|cached| cached.messages.values().map(|cached| &cached.message))
    }

    /// Returns a message.
    pub fn message(&self, channel: &ChannelId, id: &MessageId) -> Option<&Message> {
        let cached = self.channels.get(channel)?;
        let number = cached.numbers.get(id)?;
        cached.messages.get(number).map(|cached| &cached.message)
    }

    /// Applies an update.
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
            | Update::Lost { channel_id: id, .. } => self.remove_channel(id),
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
                    self.apply_reaction(id, &reaction, seq);
                }
                (Ok(Event::ChannelDeleted(_)), Some(id), _) => self.remove_channel(id),
                (Ok(Event::ChannelRemoved(id)), ..) => self.remove_channel(&id),
                _ => {}
            },
            _ => {}
        }
    }

    /// Adds messages of a page or a reply.
    pub fn merge<'a>(&mut self, messages: impl IntoIterator<Item = &'a Message>) {
        for message in messages {
            self.insert(message);
        }
    }

    fn insert(&mut self, message: &Message) {
        if self.bounds.channels == 0 || self.bounds.messages == 0 {
            return;
        }
        self.use_counter += 1;
        if !self.channels.contains_key(&message.channel_id)
            && self.channels.len() >= self.bounds.channels
        {
            let oldest = self
                .channels
                .iter()
                .min_by_key(|(_, cached)| cached.last_used)
                .map(|(id, _)| id.clone());
            oldest.iter().for_each(|id| self.remove_channel(id));
        }
        let cached = self.channels.entry(message.channel_id.clone()).or_default();
        cached.last_used = self.use_counter;
        match cached.messages.get_mut(&message.number) {
            // The store lost the message that had this number.
            Some(known) if known.message.id != message.id => {
                cached.numbers.remove(&known.message.id);
                cached.numbers.insert(message.id.clone(), message.number);
                *known = CachedMessage::new(message);
            }
            Some(known) => known.merge(message),
            None => {
                cached.numbers.insert(message.id.clone(), message.number);
                let new = CachedMessage::new(message);
                cached.messages.insert(message.number, new);
            }
        }
        // Only the newest are kept: an older one could be added again later in an outdated state.
        while cached.messages.len() > self.bounds.messages {
            if let Some((_, oldest)) = cached.messages.pop_first() {
                cached.numbers.remove(&oldest.message.id);
            }
        }
    }

    fn apply_reaction(&mut self, channel: &ChannelId, reaction: &Reaction, seq: u64) {
        let Some(cached) = self.channels.get_mut(channel) else {
            return;
        };
        if let Some(CachedMessage { message, .. }) = cached.messages.get_mut(&reaction.number)
            && message.seq < seq
        {
            message.seq = seq;
            match reaction.count {
                0 => drop(message.reactions.remove(&reaction.emoji)),
                count => drop(message.reactions.insert(reaction.emoji.clone(), count)),
            }
        }
    }

    fn remove_channel(&mut self, channel: &ChannelId) {
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

    fn event(name: &str, seq: u64, data: serde_json::Value) -> Update {
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
        fn newest_state_of_each_message_is_kept_in_any_order(
            // For each message the seqs of its states, the last of which may be a deletion; then
            // the order in which they are added.
            states in vec((vec(1u64..50, 1..5), any::<bool>()), 1..8),
            order in vec(any::<Index>(), 0..64),
        ) {
            let mut cache = MessageCache::new(CacheBounds { messages: 100, channels: 1 });
            let mut all = Vec::new();
            let mut newest = Vec::new();
            for (number, (seqs, deleted)) in states.iter().enumerate() {
                let last = *seqs.iter().max().unwrap();
                let state = |seq: &u64| message(number as u64 + 1, *seq, *deleted && *seq == last);
                all.extend(seqs.iter().map(state));
                newest.push(state(&last));
            }
            // Any order, with repeats, but each at least once.
            let drawn: Vec<_> = order.iter().map(|index| index.get(&all)).chain(&all).collect();
            cache.merge(drawn);
            prop_assert_eq!(cache.messages(&channel()).cloned().collect::<Vec<_>>(), newest);
        }
    }

    #[test]
    fn newest_messages_of_the_last_used_channels_are_kept() {
        let mut cache = MessageCache::new(CacheBounds {
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
            "the deleted message is dropped, and not added again in an older state"
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
    fn reactions_are_ordered_by_seq_and_own_ones_come_from_pages() {
        let mut cache = MessageCache::default();
        let page = Message {
            own_reactions: Some(vec!["+1".into()]),
            ..message(1, 7, false)
        };
        cache.merge([&message(1, 7, false), &page]);
        let apply_reaction = |seq, count| {
            let data = json!({ "message_id": page.id, "number": 1, "emoji": "+1", "user_id": "bob", "count": count });
            event("reaction.added", seq, data)
        };
        cache.apply(&apply_reaction(9, 3));
        cache.apply(&apply_reaction(8, 1));
        let known = cache.message(&channel(), &page.id).unwrap();
        assert_eq!(
            (
                known.seq,
                known.reactions["+1"],
                known.own_reactions.clone()
            ),
            (9, 3, Some(vec!["+1".into()]))
        );
        cache.apply(&apply_reaction(10, 0));
        assert!(
            cache
                .message(&channel(), &page.id)
                .unwrap()
                .reactions
                .is_empty()
        );
    }

    #[test]
    fn edit_that_a_gap_left_out_is_taken_from_a_page_after_a_later_reaction() {
        let mut cache = MessageCache::default();
        let edited = |text: &str, seq| Message {
            text: text.to_owned(),
            ..message(1, seq, false)
        };
        cache.merge([&edited("before", 5)]);
        let id = MessageId::from_bits(1);
        let reaction = |seq, emoji: &str| {
            let data = json!({ "message_id": id, "number": 1, "emoji": emoji, "user_id": "bob", "count": 1 });
            event("reaction.added", seq, data)
        };
        // The gap left out the edit at 7.
        cache.apply(&reaction(12, "+1"));
        cache.merge([&edited("edited", 7)]);
        let known = cache.message(&channel(), &id).unwrap();
        assert_eq!((known.text.as_str(), known.seq), ("edited", 12));
        assert_eq!(known.reactions["+1"], 1, "the older state has none");
        cache.apply(&reaction(13, "-1"));
        let page = Message {
            reactions: known_reactions(&["+1", "-1"]),
            ..edited("edited again", 13)
        };
        cache.merge([&page]);
        assert_eq!(cache.message(&channel(), &id), Some(&page));
    }

    fn known_reactions(emoji: &[&str]) -> BTreeMap<String, u64> {
        emoji.iter().map(|emoji| ((*emoji).to_owned(), 1)).collect()
    }

    #[test]
    fn diverged_history_is_discarded_and_may_restart_with_lower_seqs() {
        let mut cache = MessageCache::default();
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
        cache.apply(&event(
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
