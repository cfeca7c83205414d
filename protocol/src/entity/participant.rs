//! Participants of channels and their roles.

use super::is_zero;
use crate::{ChannelId, ParticipantId, UserId, wire::wire};

wire! {
    /// A user's membership in a channel.
    pub struct Participant {
        /// Id.
        pub id: ParticipantId,
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// Id of the user.
        pub user_id: UserId,
        /// The user's role.
        pub role: Role,
        /// Time of joining, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[cfg_attr(feature = "schema", schema(required = true))]
        pub created_at: u64,
        /// Number of the newest message that the user has read; in lists only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub read: Option<u64>,
    }

    /// Role of a participant. The permission table lists what each role may do.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Role {
        /// Everything, in all but direct channels.
        Owner,
        /// Manages messages, members and the channel's fields.
        Moderator,
        /// Reads and writes.
        Member,
        /// Reads.
        Observer,
    }
}

impl Role {
    /// All roles, highest first.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Moderator, Self::Member, Self::Observer];

    /// Returns whether this role may do more than the other.
    pub fn is_above(self, other: Self) -> bool {
        (self as u8) < other as u8
    }
}
