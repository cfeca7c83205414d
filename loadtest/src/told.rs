//! Events, read as far as a run looks at them.

use protocol::{ChannelId, MessageId, UserId, codec::DecodeError, codec::Encoding, model::Gap};
use serde::Deserialize;

/// An event of a session.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Which.
    pub event: Name,
    /// Of which channel.
    #[serde(default)]
    pub channel_id: Option<ChannelId>,
    /// Durable ones only.
    #[serde(default)]
    pub seq: Option<u64>,
    /// Durable ones only.
    #[serde(default)]
    pub at: Option<u64>,
    /// What it tells.
    pub data: Data,
}

impl Told {
    /// Reads a frame.
    pub fn read(encoding: Encoding, frame: &[u8]) -> Result<Self, DecodeError> {
        encoding.decode(frame)
    }
}

/// The events that a run knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Name {
    /// A message was sent.
    #[serde(rename = "message.created")]
    MessageCreated,
    /// Somebody types.
    #[serde(rename = "typing")]
    Typing,
    /// The stream does not go on from where it was.
    #[serde(rename = "channel.gap")]
    ChannelGap,
    /// The token ends soon.
    #[serde(rename = "token.expiring")]
    TokenExpiring,
    /// The user was added to a channel.
    #[serde(rename = "channel.added")]
    ChannelAdded,
    /// The user was removed from a channel.
    #[serde(rename = "channel.removed")]
    ChannelRemoved,
    /// A participant was added.
    #[serde(rename = "participant.added")]
    ParticipantAdded,
    /// A participant was removed.
    #[serde(rename = "participant.removed")]
    ParticipantRemoved,
    /// Another one.
    #[serde(other)]
    Other,
}

/// The fields of all of them.
#[derive(Debug, Deserialize)]
pub struct Data {
    /// Of `message.created`.
    #[serde(default)]
    pub message: Option<Message>,
    /// Of `typing`.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// Of `typing`.
    #[serde(default)]
    pub typing: Option<bool>,
    /// Of `channel.gap`: the head.
    #[serde(default)]
    pub seq: Option<u64>,
    /// Of `channel.gap`: the head's instant.
    #[serde(default)]
    pub at: Option<u64>,
    /// Of `channel.gap`.
    #[serde(default)]
    pub reason: Option<Gap>,
    /// Of `channel.added`.
    #[serde(default)]
    pub entry: Option<Position>,
    /// Of `channel.removed`.
    #[serde(default)]
    pub channel_id: Option<ChannelId>,
    /// Of `participant.added` and `participant.removed`.
    #[serde(default)]
    pub participant: Option<Participant>,
}

/// Where a channel stands, of an entry.
#[derive(Debug, Deserialize)]
pub struct Position {
    /// Which channel.
    pub channel_id: ChannelId,
    /// Of its newest event.
    pub seq: u64,
    /// Of its newest event.
    pub at: u64,
    /// Of its newest message.
    pub number: u64,
}

/// Who participates.
#[derive(Debug, Deserialize)]
pub struct Participant {
    /// Which user.
    pub user_id: UserId,
}

/// A message, as far as it is verified.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Where it stands.
    pub channel_id: ChannelId,
    /// Its place.
    pub number: u64,
    /// Of the event that last changed it.
    pub seq: u64,
    /// Who sent it.
    #[serde(default)]
    pub sender_id: Option<UserId>,
    /// What it says.
    pub text: String,
    /// When it was deleted.
    #[serde(default)]
    pub deleted_at: Option<u64>,
}

impl From<protocol::model::Message> for Message {
    fn from(message: protocol::model::Message) -> Self {
        let protocol::model::Message {
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
    fn events_are_read_in_both_encodings_whatever_else_they_hold() {
        let event = json!({ "event": "message.created", "channel_id": "c", "seq": 7, "at": 8, "data": { "message": {
            "id": "msg_0000000000000001", "channel_id": "c", "number": 3, "seq": 7, "sender_id": "u", "kind": "text", "text": "hi",
            "attachments": [], "mention_ids": [], "reactions": {}, "metadata": { "deep": [1, null] }, "created_at": 8 } } });
        for encoding in Encoding::ALL {
            let told = Told::read(encoding, &encoding.encode(&event)).expect("an event");
            let message = told.data.message.expect("a message");
            assert_eq!(
                (
                    told.event,
                    told.seq,
                    told.at,
                    message.number,
                    message.text.as_str()
                ),
                (Name::MessageCreated, Some(7), Some(8), 3, "hi")
            );
            let other = json!({ "event": "read.marked", "channel_id": "c", "data": { "user_id": "u", "number": 1 } });
            assert_eq!(
                Told::read(encoding, &encoding.encode(&other))
                    .expect("an event")
                    .event,
                Name::Other
            );
        }
    }
}
