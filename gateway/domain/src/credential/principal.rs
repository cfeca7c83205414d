//! Whom a valid credential stands for.

use protocol::{KeyId, OrganizationId, TokenKeyId, UserId};

use crate::{
    error::{Error, Result},
    schema::Scope,
};

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

/// The actor of a request, within an app and environment.
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

impl Principal {
    /// That it is the operator.
    pub fn admin(&self) -> Result<()> {
        match self {
            Self::Admin => Ok(()),
            _ => Err(Error::forbidden("this takes the admin key")),
        }
    }

    /// That it reaches an organization. Another organization's id sounds like one that does not
    /// exist.
    pub fn organization(&self, wanted: &OrganizationId) -> Result<()> {
        match self {
            Self::Admin => Ok(()),
            Self::Organization { id, .. } if id == wanted => Ok(()),
            Self::Organization { .. } => Err(Error::not_found("organization")),
            Self::Actor(_) => Err(Error::forbidden(
                "this takes an organization key or the admin key",
            )),
        }
    }

    /// Names the caller among all of the deployment. Keys that reach the same are one caller, so
    /// that a rotation changes nothing.
    pub fn identity(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Organization { id, .. } => format!("o:{id}"),
            Self::Actor(actor) => actor.identity(),
        }
    }

    /// The one who acts within an app: its backend or a user.
    pub fn actor(&self) -> Result<&Actor> {
        match self {
            Self::Actor(actor) => Ok(actor),
            _ => Err(Error::forbidden("this takes an app key or a user token")),
        }
    }
}

impl Actor {
    /// The wall around it, if it is the app's backend.
    pub fn backend(&self) -> Result<&Scope> {
        match &self.who {
            Who::App { .. } => Ok(&self.scope),
            Who::User { .. } => Err(Error::forbidden("this takes an app key")),
        }
    }

    /// Names the caller among all of the deployment: the user, or the app's backend by whichever
    /// key.
    pub fn identity(&self) -> String {
        match &self.who {
            Who::App { .. } => format!("a:{}:{}", self.scope.app, self.scope.environment),
            Who::User { id, .. } => self.scope.user(id).name().to_owned(),
        }
    }

    /// The user, unless it is the app's backend.
    pub fn user(&self) -> Option<&UserId> {
        match &self.who {
            Who::App { .. } => None,
            Who::User { id, .. } => Some(id),
        }
    }
}
