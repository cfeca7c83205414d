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
    /// Whom the credential stands for. Of a kind that the operation is declared for.
    pub caller: Principal,
    /// The ids of what the operation is about.
    pub path: O::Path,
    /// The other parameters.
    pub input: O::Input,
    /// The state that the caller insists on.
    pub if_match: IfMatch,
    /// The bits of the ids that the operation makes: random, and the same again for a repeated
    /// `Idempotency-Key`.
    pub seed: u64,
}

impl<O: Operation> Call<O> {
    /// The app's backend or user that acts.
    pub fn actor(&self) -> Result<&Actor> {
        self.caller.actor()
    }
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<T> {
    /// The output.
    pub value: T,
    /// Whether the operation made what it answers. HTTP answers 201 then.
    pub is_new: bool,
    /// The entity's tag, if the output is an entity.
    pub tag: Option<Tag>,
}

/// The parts of an entity's `ETag`. Equal tags mean equal entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The version that `If-Match` is held against.
    pub version: u64,
    /// A count that shows in the entity and changes without its version.
    pub count: Option<u64>,
}

impl<T> Done<T> {
    /// An output that is no entity.
    pub fn plain(value: T) -> Self {
        Self {
            value,
            is_new: false,
            tag: None,
        }
    }

    /// An output that was made now, and has no tag.
    pub fn created(value: T) -> Self {
        Self {
            value,
            is_new: true,
            tag: None,
        }
    }

    /// An entity that was there before.
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

    /// The same, made now or not.
    pub fn new_if(self, is_new: bool) -> Self {
        Self { is_new, ..self }
    }

    /// The same with a count in its tag.
    pub fn with_count(self, count: Option<u64>) -> Self {
        Self {
            tag: self.tag.map(|tag| Tag { count, ..tag }),
            ..self
        }
    }
}

/// An operation of the domain: what it does, the same for both transports and both stores.
pub trait Perform: Operation {
    /// Whether it frees room or revokes: it is done even where the store is full.
    const FREES: bool = false;
    /// Whether a repeat under the same `Idempotency-Key` is answered anew, by
    /// [`repeat`](Self::repeat), and not as the first request was.
    const REPEATS_ANEW: bool = false;

    /// Checks whether the caller may, and does it.
    fn perform(
        services: &Services,
        call: Call<Self>,
    ) -> impl Future<Output = Result<Done<Self::Output>>> + Send;

    /// Answers a request that was done before with what it made as it is now, to a caller who may
    /// still read it.
    fn repeat(
        services: &Services,
        call: Call<Self>,
    ) -> impl Future<Output = Result<Done<Self::Output>>> + Send {
        Self::perform(services, call)
    }
}

impl Principal {
    /// The kind of the credential.
    pub fn kind(&self) -> Caller {
        match self {
            Self::Admin => Caller::Admin,
            Self::Organization { .. } => Caller::Organization,
            Self::Actor(actor) if actor.user().is_some() => Caller::User,
            Self::Actor(_) => Caller::App,
        }
    }

    /// Fails with `forbidden` where the operation is not declared for this kind of credential.
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
