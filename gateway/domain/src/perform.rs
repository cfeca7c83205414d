//! The interface of the domain: [`Perform`], implemented by every operation, with its call and its
//! result.

use std::future::Future;

use protocol::operation::{Caller, Operation};

use crate::{
    Services,
    credential::{Actor, Principal},
    document::{IfMatch, Versioned},
    error::{Error, Result},
};

/// A request for an operation: decoded, authenticated, not yet permitted.
#[derive(Debug, Clone)]
pub struct Call<O: Operation> {
    /// The holder of the credential, of a kind that the operation is declared for.
    pub caller: Principal,
    /// The ids of the objects of the operation.
    pub path: O::Path,
    /// The other parameters.
    pub input: O::Input,
    /// The caller's precondition.
    pub if_match: IfMatch,
    /// The bits of the ids that the operation creates: random, but the same for a repeated
    /// `Idempotency-Key`.
    pub seed: u64,
}

impl<O: Operation> Call<O> {
    /// Returns the app's backend or user that acts.
    ///
    /// # Errors
    /// `forbidden` for the other kinds of credentials.
    pub fn actor(&self) -> Result<&Actor> {
        self.caller.actor()
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<T> {
    /// The output.
    pub value: T,
    /// Whether the operation created the output. The HTTP status is 201 then.
    pub is_new: bool,
    /// The entity's tag, if the output is an entity.
    pub tag: Option<Tag>,
}

/// The parts of an entity's `ETag`. Equal tags mean equal entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The version that `If-Match` is compared with.
    pub version: u64,
    /// A count in the entity that changes independently of its version.
    pub count: Option<u64>,
}

impl<T> Done<T> {
    /// Returns an output that is not an entity.
    pub fn plain(value: T) -> Self {
        Self {
            value,
            is_new: false,
            tag: None,
        }
    }

    /// Returns an output that was created and has no tag.
    pub fn created(value: T) -> Self {
        Self {
            value,
            is_new: true,
            tag: None,
        }
    }

    /// Returns an entity that was not created.
    pub fn entity(entity: Versioned<T>) -> Self {
        Self {
            value: entity.value,
            is_new: false,
            tag: Some(Tag {
                version: entity.version,
                count: None,
            }),
        }
    }

    /// Sets whether the output was created.
    pub fn new_if(self, is_new: bool) -> Self {
        Self { is_new, ..self }
    }

    /// Sets the count of the tag.
    pub fn with_count(self, count: Option<u64>) -> Self {
        Self {
            tag: self.tag.map(|tag| Tag { count, ..tag }),
            ..self
        }
    }
}

/// An operation of the domain, the same for both transports and both stores.
pub trait Perform: Operation {
    /// Whether it frees room or revokes rights, so that it is performed while the store is full.
    const FREES: bool = false;
    /// Whether [`repeat`](Self::repeat) answers a request with a repeated `Idempotency-Key`,
    /// instead of the first answer.
    const REPEATS_ANEW: bool = false;

    /// Checks the caller's permission and performs the operation.
    fn perform(
        services: &Services,
        call: Call<Self>,
    ) -> impl Future<Output = Result<Done<Self::Output>>> + Send;

    /// Answers a repeat of a request that was performed with the current state of the created
    /// object, if the caller may read it.
    fn repeat(
        services: &Services,
        call: Call<Self>,
    ) -> impl Future<Output = Result<Done<Self::Output>>> + Send {
        Self::perform(services, call)
    }
}

impl Principal {
    /// Returns the kind of the credential.
    pub fn kind(&self) -> Caller {
        match self {
            Self::Admin => Caller::Admin,
            Self::Organization { .. } => Caller::Organization,
            Self::Actor(actor) if actor.user().is_some() => Caller::User,
            Self::Actor(_) => Caller::App,
        }
    }

    /// Checks that the operation is declared for this kind of credential.
    ///
    /// # Errors
    /// `forbidden` if it is not.
    pub fn reaches<O: Operation>(&self) -> Result<()> {
        if O::CALLERS.contains(&self.kind()) {
            return Ok(());
        }
        let kinds: Vec<&str> = O::CALLERS
            .iter()
            .map(|caller| credential_name(*caller))
            .collect();
        Err(Error::forbidden(format!(
            "this takes {}",
            kinds.join(" or ")
        )))
    }
}

fn credential_name(caller: Caller) -> &'static str {
    match caller {
        Caller::Admin => "the admin key",
        Caller::Organization => "an organization key",
        Caller::App => "an app key",
        Caller::User => "a user token",
    }
}
