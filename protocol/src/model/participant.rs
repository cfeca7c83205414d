//! A user's place in a channel.

use super::user::is_zero;
use crate::{ChannelId, ParticipantId, UserId};

wire! {
    /// A user's place in a channel.
    pub struct Participant {
        /// Its id.
        pub id: ParticipantId,
        /// Which channel.
        pub channel_id: ChannelId,
        /// Which user.
        pub user_id: UserId,
        /// What the user may do there.
        pub role: Role,
        /// When the user came, in milliseconds since the Unix epoch; set by the store.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub created_at: u64,
        /// Up to which number the user has read; in lists only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub read: Option<u64>,
    }

    /// What a participant may do; the permission table says it in full.
    #[derive(Copy, Eq, Hash)]
    #[serde(rename_all = "snake_case")]
    pub enum Role {
        /// Everything, in all but direct channels.
        Owner,
        /// Looks after messages, members and the channel's fields.
        Moderator,
        /// Reads and writes.
        Member,
        /// Reads.
        Observer,
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Moderator, Self::Member, Self::Observer];
}
