//! Data of events that is not an entity.

use crate::{MessageId, UserId, entity::Gap, wire::wire};

wire! {
    /// The data of `reaction.added` and `reaction.removed`.
    pub struct Reaction {
        /// Id of the message.
        pub message_id: MessageId,
        /// Number of the message.
        pub number: u64,
        /// The emoji or word.
        pub emoji: String,
        /// User who reacted.
        pub user_id: UserId,
        /// Number of users who give this reaction now.
        pub count: u64,
    }

    /// The data of `typing`.
    pub struct TypingData {
        /// User who types.
        pub user_id: UserId,
        /// False when the user stopped. A start ends by itself after 6 s.
        pub typing: bool,
    }

    /// The data of `presence.changed`.
    pub struct PresenceData {
        /// Id of the user.
        pub user_id: UserId,
        /// Whether the user is online.
        pub online: bool,
        /// End of the user's last session, in milliseconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_seen: Option<u64>,
        /// Time of the change. Of two changes, the later one counts.
        pub at: u64,
    }

    /// The data of `read.marked`.
    pub struct ReadData {
        /// User who read.
        pub user_id: UserId,
        /// Number of the newest message that the user has read.
        pub number: u64,
        /// Whether the position moved backwards.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub back: bool,
        /// Grows with every change of this position. Of two events, the one with the greater
        /// version is the newer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub version: Option<u64>,
    }

    /// The data of `channel.gap`.
    pub struct GapData {
        /// Why the stream does not continue.
        pub reason: Gap,
        /// `seq` of the position that the subscription continues from.
        pub seq: u64,
        /// `at` of that position.
        pub at: u64,
    }

    /// The data of `token.expiring`.
    pub struct ExpiringData {
        /// Expiry of the token, in milliseconds since the Unix epoch.
        pub expires_at: u64,
    }

    /// The data of `server.draining`.
    pub struct DrainingData {
        /// Milliseconds after which the client reconnects.
        pub reconnect_after_ms: u64,
    }
}
