//! The holders of valid credentials.

use protocol::{KeyId, OrganizationId, TokenKeyId, UserId};

use crate::{
    error::{Error, Result},
    schema::Scope,
};

/// The holder of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The operator, by the admin key.
    Admin,
    /// An organization, by one of its keys.
    Organization {
        /// The organization.
        id: OrganizationId,
        /// The key.
        key: KeyId,
    },
    /// An app's backend or one of its users.
    Actor(Actor),
}

/// The actor of a request, within an app and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The tenant, to which all its requests are confined.
    pub scope: Scope,
    /// The backend or user.
    pub who: Who,
}

/// The kind of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The app's backend, by an app key or access key.
    App {
        /// The key.
        key: KeyId,
    },
    /// A user, by a token.
    User {
        /// The user.
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
    /// Checks that it is the operator.
    ///
    /// # Errors
    /// `forbidden` if it is not.
    pub fn admin(&self) -> Result<()> {
        match self {
            Self::Admin => Ok(()),
            _ => Err(Error::forbidden("this takes the admin key")),
        }
    }

    /// Checks that it may act in an organization.
    ///
    /// # Errors
    /// `not_found` for another organization's key, `forbidden` for an app key or user token.
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

    /// Returns a name of the caller that is unique in the deployment. All keys of an owner have the
    /// same name, so that a rotation changes nothing.
    pub fn identity(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::Organization { id, .. } => format!("o:{id}"),
            Self::Actor(actor) => actor.identity(),
        }
    }

    /// Returns the actor within an app.
    ///
    /// # Errors
    /// `forbidden` for the operator and organizations.
    pub fn actor(&self) -> Result<&Actor> {
        match self {
            Self::Actor(actor) => Ok(actor),
            _ => Err(Error::forbidden("this takes an app key or a user token")),
        }
    }
}

impl Actor {
    /// Returns the tenant if the actor is the app's backend.
    ///
    /// # Errors
    /// `forbidden` for a user.
    pub fn backend(&self) -> Result<&Scope> {
        match &self.who {
            Who::App { .. } => Ok(&self.scope),
            Who::User { .. } => Err(Error::forbidden("this takes an app key")),
        }
    }

    /// Checks that the actor is the app's backend.
    ///
    /// # Errors
    /// `forbidden` with the sentence `otherwise` for a user.
    pub fn require_backend(&self, otherwise: &str) -> Result<()> {
        match &self.who {
            Who::App { .. } => Ok(()),
            Who::User { .. } => Err(Error::forbidden(otherwise)),
        }
    }

    /// Returns the user in whose name a request acts: the user itself, or the one that the app's
    /// backend names in `field`.
    ///
    /// # Errors
    /// `forbidden` with the sentence `otherwise` for a user who names another one; `bad_request`
    /// for a backend that names none.
    pub fn acts_for<'a>(
        &'a self,
        named: Option<&'a UserId>,
        field: &str,
        otherwise: &str,
    ) -> Result<&'a UserId> {
        match (&self.who, named) {
            (Who::User { id, .. }, None) => Ok(id),
            (Who::User { id, .. }, Some(user)) if id == user => Ok(id),
            (Who::User { .. }, Some(_)) => Err(Error::forbidden(otherwise)),
            (Who::App { .. }, Some(user)) => Ok(user),
            (Who::App { .. }, None) => Err(Error::bad_request(format!(
                "`{field}` is required with an app key"
            ))),
        }
    }

    /// Returns a name of the actor that is unique in the deployment. All keys of an app's backend
    /// have the same name.
    pub fn identity(&self) -> String {
        match &self.who {
            Who::App { .. } => format!("a:{}:{}", self.scope.app, self.scope.environment),
            Who::User { id, .. } => self.scope.user(id).name().to_owned(),
        }
    }

    /// Returns the user, or `None` for the app's backend.
    pub fn user(&self) -> Option<&UserId> {
        match &self.who {
            Who::App { .. } => None,
            Who::User { id, .. } => Some(id),
        }
    }
}
