//! Parameters of operations on users.

use crate::{Metadata, Patch, UserId, wire::wire};

wire! {
    /// `PUT /v1/users/{user}`; with `id`, `POST /v1/users`.
    #[derive(Default)]
    pub struct PutUser {
        /// Id chosen by the app; only where the path does not name it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub id: Option<UserId>,
        /// Single line, like the other names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub username: Option<String>,
        /// First name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub first_name: Option<String>,
        /// Last name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub last_name: Option<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub avatar: Option<String>,
        /// Text of one or more lines.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bio: Option<String>,
        /// Whether the user is a bot or an agent.
        #[serde(default)]
        pub bot: bool,
        /// Free data.
        #[serde(default, skip_serializing_if = "Metadata::is_empty")]
        pub metadata: Metadata,
    }

    /// `user.update`, `PATCH /v1/users/{user}`: a merge patch.
    #[derive(Default)]
    pub struct UpdateUser {
        /// Single line, like the other names.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub username: Patch<String>,
        /// First name.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub first_name: Patch<String>,
        /// Last name.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub last_name: Patch<String>,
        /// http or https URL of a picture.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub avatar: Patch<String>,
        /// Text of one or more lines.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
        pub bio: Patch<String>,
        /// Whether the user is a bot or an agent; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub bot: Option<bool>,
        /// Merge patch of the free data.
        #[serde(default, skip_serializing_if = "Patch::is_keep")]
        #[cfg_attr(feature = "schema", schema(value_type = Option<Object>))]
        pub metadata: Patch<Metadata>,
    }

    /// `presence.watch`, `user.get`.
    pub struct UserIds {
        /// Ids of the users.
        pub user_ids: Vec<UserId>,
    }

    /// `POST /v1/users/{user}/tokens`.
    #[derive(Default)]
    pub struct MintToken {
        /// Validity in seconds; default 3600, at most `limits.token_seconds`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_in: Option<u64>,
    }

    /// `POST /v1/users/{user}/disconnect`.
    #[derive(Default)]
    pub struct Disconnect {
        /// Whether to refuse all tokens issued so far.
        #[serde(default)]
        pub revoke: bool,
    }
}
