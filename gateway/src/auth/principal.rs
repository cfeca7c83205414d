//! Whom a valid credential stands for.

use protocol::{KeyId, OrganizationId, TokenKeyId, UserId};

use crate::service::scope::Scope;

/// Whom a credential stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The operator, by the admin key.
    Admin,
    /// An organization, by one of its keys.
    Organization {
        /// Which.
        id: OrganizationId,
        /// By which key.
        key: KeyId,
    },
    /// An app's backend or one of its users.
    Actor(Actor),
}

/// Who acts within an app and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The wall around everything that it can name.
    pub scope: Scope,
    /// Who it is.
    pub who: Who,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The app's backend, by an app key or access key.
    App {
        /// Which key.
        key: KeyId,
    },
    /// A user, by a token.
    User {
        /// Which user.
        id: UserId,
        /// The key that verified the token.
        token_key: TokenKeyId,
        /// The token's `iat`, in seconds since the Unix epoch.
        issued_at: u64,
        /// The token's `exp`, in seconds since the Unix epoch.
        expires_at: u64,
    },
}

impl Actor {
    /// The user, unless it is the app's backend.
    pub fn user(&self) -> Option<&UserId> {
        match &self.who {
            Who::App { .. } => None,
            Who::User { id, .. } => Some(id),
        }
    }
}
