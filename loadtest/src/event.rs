//! Events of a session, parsed only as far as a run checks them: most frames are decoded once per
//! subscriber, so unused fields are skipped.

use protocol::{
    ChannelId, MessageId, UserId,
    codec::{DecodeError, Encoding},
    entity::Gap,
};
use serde::Deserialize;

/// An event with the fields of its frame that a run checks.
#[derive(Debug, Deserialize)]
pub struct ReceivedEvent {
    /// The event's name.
    #[serde(rename = "event")]
    pub name: EventName,
    /// The channel, unless the event belongs to the user's own stream.
    #[serde(default)]
    pub channel_id: Option<ChannelId>,
    /// `seq` of a durable event.
    #[serde(default)]
    pub seq: Option<u64>,
    /// `at` of a durable event.
    #[serde(default)]
    pub at: Option<u64>,
    /// The fields of `data`.
    pub data: EventFields,
}

impl ReceivedEvent {
    /// Parses an event's frame.
    pub fn read(encoding: Encoding, frame: &[u8]) -> Result<Self, DecodeError> {
        encoding.decode(frame)
    }
}

/// Names of the events that a run handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EventName {
    /// `message.created`.
    #[serde(rename = "message.created")]
    MessageCreated,
    /// `typing`.
    #[serde(rename = "typing")]
    Typing,
    /// `channel.gap`.
    #[serde(rename = "channel.gap")]
    ChannelGap,
    /// `token.expiring`.
    #[serde(rename = "token.expiring")]
    TokenExpiring,
    /// `channel.added`.
    #[serde(rename = "channel.added")]
    ChannelAdded,
    /// `channel.removed`.
    #[serde(rename = "channel.removed")]
    ChannelRemoved,
    /// `participant.added`.
    #[serde(rename = "participant.added")]
    ParticipantAdded,
    /// `participant.removed`.
    #[serde(rename = "participant.removed")]
    ParticipantRemoved,
    /// Any other event.
    #[serde(other)]
    Other,
}

/// The `data` fields of all [known events](EventName).
#[derive(Debug, Deserialize)]
pub struct EventFields {
    /// In `message.created`.
    #[serde(default)]
    pub message: Option<ReceivedMessage>,
    /// In `typing`.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// In `typing`.
    #[serde(default)]
    pub typing: Option<bool>,
    /// In `channel.gap`: the head's `seq`.
    #[serde(default)]
    pub seq: Option<u64>,
    /// In `channel.gap`: the head's `at`.
    #[serde(default)]
    pub at: Option<u64>,
    /// In `channel.gap`.
    #[serde(default)]
    pub reason: Option<Gap>,
    /// In `channel.added`.
    #[serde(default)]
    pub entry: Option<EntryPosition>,
    /// In `channel.removed`.
    #[serde(default)]
    pub channel_id: Option<ChannelId>,
    /// In `participant.added` and `participant.removed`.
    #[serde(default)]
    pub participant: Option<EventParticipant>,
}

/// A channel's head, from its entry in `channel.added`.
#[derive(Debug, Deserialize)]
pub struct EntryPosition {
    /// The channel.
    pub channel_id: ChannelId,
    /// `seq` of the newest event.
    pub seq: u64,
    /// `at` of the newest event.
    pub at: u64,
    /// `number` of the newest message.
    pub number: u64,
}

/// A participant in an event.
#[derive(Debug, Deserialize)]
pub struct EventParticipant {
    /// The user.
    pub user_id: UserId,
}

/// A message with the fields that are verified.
#[derive(Debug, Deserialize)]
pub struct ReceivedMessage {
    /// The message's id.
    pub id: MessageId,
    /// The channel that it says it belongs to.
    pub channel_id: ChannelId,
    /// The message's `number` in the channel.
    pub number: u64,
    /// `seq` of the event that last changed it.
    pub seq: u64,
    /// The sender.
    #[serde(default)]
    pub sender_id: Option<UserId>,
    /// The text.
    pub text: String,
    /// When it was deleted, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub deleted_at: Option<u64>,
}

impl From<protocol::entity::Message> for ReceivedMessage {
    fn from(message: protocol::entity::Message) -> Self {
        let protocol::entity::Message {
            id,
            channel_id,
            number,
            seq,
            sender_id,
            text,
            deleted_at,
            ..
        } = message;
        Self {
            id,
            channel_id,
            number,
            seq,
            sender_id,
            text,
            deleted_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_with_unknown_fields_are_parsed_in_both_encodings() {
        let frame = json!({ "event": "message.created", "channel_id": "c", "seq": 7, "at": 8, "data": { "message": {
            "id": "msg_0000000000000001", "channel_id": "c", "number": 3, "seq": 7, "sender_id": "u", "kind": "text", "text": "hi",
            "attachments": [], "mention_ids": [], "reactions": {}, "metadata": { "deep": [1, null] }, "created_at": 8 } } });
        for encoding in Encoding::ALL {
            let event = ReceivedEvent::read(encoding, &encoding.encode(&frame)).expect("an event");
            let message = event.data.message.expect("a message");
            assert_eq!(
                (
                    event.name,
                    event.seq,
                    event.at,
                    message.number,
                    message.text.as_str()
                ),
                (EventName::MessageCreated, Some(7), Some(8), 3, "hi")
            );
            let other = json!({ "event": "read.marked", "channel_id": "c", "data": { "user_id": "u", "number": 1 } });
            assert_eq!(
                ReceivedEvent::read(encoding, &encoding.encode(&other))
                    .expect("an event")
                    .name,
                EventName::Other
            );
        }
    }
}
