//! The ids that identify the object of an operation. In HTTP they are part of the path.

use crate::{AppId, ChannelId, KeyId, MessageId, OrganizationId, TokenKeyId, UserId, wire::wire};

wire! {
    /// No ids: the operation is about the caller, or creates an object.
    #[derive(Copy, Default, Eq)]
    pub struct NoPath {}

    /// An organization.
    pub struct OrganizationPath {
        /// Id of the organization.
        pub organization_id: OrganizationId,
    }

    /// A key of an organization.
    pub struct OrganizationKeyPath {
        /// Id of the organization.
        pub organization_id: OrganizationId,
        /// Id of the key.
        pub key_id: KeyId,
    }

    /// An app.
    pub struct AppPath {
        /// Id of the organization.
        pub organization_id: OrganizationId,
        /// Id of the app.
        pub app_id: AppId,
    }

    /// A key of an app.
    pub struct AppKeyPath {
        /// Id of the organization.
        pub organization_id: OrganizationId,
        /// Id of the app.
        pub app_id: AppId,
        /// Id of the key.
        pub key_id: KeyId,
    }

    /// A token key of an app.
    pub struct TokenKeyPath {
        /// Id of the organization.
        pub organization_id: OrganizationId,
        /// Id of the app.
        pub app_id: AppId,
        /// Id of the token key.
        pub key_id: TokenKeyId,
    }

    /// A user.
    pub struct UserPath {
        /// Id of the user.
        pub user_id: UserId,
    }

    /// A channel.
    pub struct ChannelPath {
        /// Id of the channel.
        pub channel_id: ChannelId,
    }

    /// A participant.
    pub struct ParticipantPath {
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// Id of the user.
        pub user_id: UserId,
    }

    /// A message.
    pub struct MessagePath {
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// Id of the message.
        pub message_id: MessageId,
    }

    /// A reaction to a message.
    pub struct ReactionPath {
        /// Id of the channel.
        pub channel_id: ChannelId,
        /// Id of the message.
        pub message_id: MessageId,
        /// The emoji or word: 1 to 64 bytes of UTF-8.
        pub emoji: String,
    }
}

impl From<()> for NoPath {
    fn from((): ()) -> Self {
        Self {}
    }
}

/// Implements the conversion from references to the ids.
macro_rules! from_ids {
    ($path:ident { $field:ident: $type:ty }) => {
        impl From<&$type> for $path {
            fn from($field: &$type) -> Self {
                Self { $field: $field.to_owned() }
            }
        }
    };
    ($path:ident { $($field:ident: $type:ty),+ }) => {
        impl From<($(&$type),+)> for $path {
            fn from(($($field),+): ($(&$type),+)) -> Self {
                Self { $($field: $field.to_owned()),+ }
            }
        }
    };
}

from_ids!(OrganizationPath {
    organization_id: OrganizationId
});
from_ids!(OrganizationKeyPath {
    organization_id: OrganizationId,
    key_id: KeyId
});
from_ids!(AppPath {
    organization_id: OrganizationId,
    app_id: AppId
});
from_ids!(AppKeyPath {
    organization_id: OrganizationId,
    app_id: AppId,
    key_id: KeyId
});
from_ids!(TokenKeyPath {
    organization_id: OrganizationId,
    app_id: AppId,
    key_id: TokenKeyId
});
from_ids!(UserPath { user_id: UserId });
from_ids!(ChannelPath {
    channel_id: ChannelId
});
from_ids!(ParticipantPath {
    channel_id: ChannelId,
    user_id: UserId
});
from_ids!(MessagePath {
    channel_id: ChannelId,
    message_id: MessageId
});
from_ids!(ReactionPath {
    channel_id: ChannelId,
    message_id: MessageId,
    emoji: str
});
