//! Operations: what callers can request, each declared once.
//!
//! A declaration is a unit struct that implements [`Operation`]; its doc comment is the description
//! of the operation wherever one is shown. Dispatch of WebSocket requests, HTTP routes, the OpenAPI
//! document, the tables of methods and routes in the specification, and the test inputs follow from
//! it. The server implements what an operation *does*.
//!
//! One file per resource; [`operations!`](crate::operations) is the list of them all.

pub mod app;
pub mod batch;
pub mod channel;
pub mod credential;
pub mod empty;
pub mod message;
pub mod organization;
pub mod page;
pub mod participant;
pub mod path;
pub mod presence;
pub mod reaction;
pub mod read;
#[cfg(feature = "schema")]
pub mod reference;
mod registry;
pub mod session;
pub mod typing;
pub mod user;
mod websocket;

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

pub use registry::{Description, descriptions, methods};
pub use websocket::{CallResult, encode_call, encode_output};

use crate::UserId;

/// An operation that callers can request over WebSocket, HTTP or both.
pub trait Operation: Described + Debug + Clone + Copy + Send + Sync + 'static {
    /// Unique name: the method of WebSocket requests and the `operationId` of the OpenAPI document.
    const NAME: &'static str;
    /// Kinds of credentials that may call it. The permission table decides what each may do.
    const CALLERS: &'static [Caller];
    /// WebSocket form, if it has one.
    const WEBSOCKET: Option<WebSocket> = None;
    /// HTTP route, if it has one.
    const HTTP: Option<Http> = None;
    /// Ids of its object. In HTTP they are part of the path; [`path_field`] maps placeholders to
    /// fields.
    type Path: Parameters;
    /// Other parameters: the body of a `POST`, `PUT` or `PATCH`, the query of a `GET` or
    /// `DELETE`. Over WebSocket, one map holds them and the ids of the path.
    type Input: Parameters;
    /// Result of a success.
    type Output: Clone
        + Debug
        + PartialEq
        + Serialize
        + DeserializeOwned
        + Schema
        + Send
        + Sync
        + 'static;

    /// Returns an input that is accepted unchanged, for documentation and tests.
    fn example() -> Self::Input;

    /// Returns the path of an operation that is always about the caller over WebSocket. `None`
    /// means that the parameters contain the path.
    fn own_path(_caller: &UserId) -> Option<Self::Path> {
        None
    }
}

/// The doc comment of an operation as a constant.
pub trait Described {
    /// The text of the doc comment: the first paragraph is a summary without a full stop.
    const DOC: &'static str;
}

/// Parameters of an operation.
pub trait Parameters:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Schema + Send + Sync + 'static
{
}

impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Schema + Send + Sync + 'static>
    Parameters for T
{
}

/// A type with a JSON schema, if the feature `schema` is enabled.
#[cfg(feature = "schema")]
pub trait Schema: utoipa::ToSchema {}
#[cfg(feature = "schema")]
impl<T: utoipa::ToSchema> Schema for T {}

/// A type with a JSON schema, if the feature `schema` is enabled.
#[cfg(not(feature = "schema"))]
pub trait Schema {}
#[cfg(not(feature = "schema"))]
impl<T> Schema for T {}

/// A kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The operator, by the admin key.
    Admin,
    /// An organization, by one of its keys.
    Organization,
    /// An app's backend, by an app key or access key.
    App,
    /// A user, by a token.
    User,
}

/// The WebSocket form of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocket {
    /// Form of the result.
    pub reply: Reply,
    /// Part of the server that handles it.
    pub handler: Handler,
}

/// The form of a reply's `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The output itself, which is a map.
    Output,
    /// A map with the output under this name.
    Field(&'static str),
}

/// The part of a server that handles a WebSocket request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// The domain: the same function as over HTTP.
    Domain,
    /// The session, whose own state it reads or changes.
    Session,
}

/// The HTTP route of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http {
    /// Method.
    pub method: HttpMethod,
    /// Path with a `{placeholder}` for each field of [`Operation::Path`].
    pub path: &'static str,
    /// Status codes of a success with their descriptions, the usual one first.
    pub success: &'static [(u16, &'static str)],
    /// Whether there is a body, and whether it is optional.
    pub body: Body,
    /// Conditional headers that are evaluated.
    pub conditions: Conditions,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// Reads.
    Get,
    /// Creates an object, or does something that no other method fits. Accepts an
    /// `Idempotency-Key`.
    Post,
    /// Creates or replaces the object of the path.
    Put,
    /// Changes the object of the path by a JSON Merge Patch.
    Patch,
    /// Deletes the object of the path.
    Delete,
}

/// Whether a request has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// Required.
    Required,
    /// Optional; no body means an empty object.
    Optional,
}

/// The conditional headers of an operation on an entity that carries an `ETag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// None.
    None,
    /// `If-None-Match`: the response is 304 if the caller has the current state.
    Read,
    /// `If-Match`, and `If-None-Match: *`.
    Write,
}

impl WebSocket {
    /// Handled by the domain; the result is the output.
    pub const OUTPUT: Self = Self {
        reply: Reply::Output,
        handler: Handler::Domain,
    };
    /// Handled by the session; the result is the output.
    pub const SESSION: Self = Self {
        reply: Reply::Output,
        handler: Handler::Session,
    };

    /// Handled by the domain; the result has the output in the field `name`.
    pub const fn field(name: &'static str) -> Self {
        Self {
            reply: Reply::Field(name),
            handler: Handler::Domain,
        }
    }
}

impl Http {
    const fn new(
        method: HttpMethod,
        path: &'static str,
        success: &'static [(u16, &'static str)],
        body: Body,
    ) -> Self {
        Self {
            method,
            path,
            success,
            body,
            conditions: Conditions::None,
        }
    }
    const fn get(path: &'static str, success: &'static [(u16, &'static str)]) -> Self {
        Self::new(HttpMethod::Get, path, success, Body::None)
    }
    const fn post(path: &'static str, success: &'static [(u16, &'static str)]) -> Self {
        Self::new(HttpMethod::Post, path, success, Body::Required)
    }
    const fn put(path: &'static str, success: &'static [(u16, &'static str)]) -> Self {
        Self::new(HttpMethod::Put, path, success, Body::Required)
    }
    const fn patch(path: &'static str, success: &'static [(u16, &'static str)]) -> Self {
        Self::new(HttpMethod::Patch, path, success, Body::Required)
    }
    const fn delete(path: &'static str, success: &'static [(u16, &'static str)]) -> Self {
        Self::new(HttpMethod::Delete, path, success, Body::None)
    }
    /// Sets the presence of a body.
    const fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }
    /// Sets the conditional headers.
    const fn conditions(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }
}

/// Returns the field of [`Operation::Path`] for a placeholder of an HTTP path.
pub fn path_field(placeholder: &str) -> String {
    match placeholder {
        "org" => "organization_id".to_owned(),
        "emoji" => "emoji".to_owned(),
        other => format!("{other}_id"),
    }
}

impl HttpMethod {
    /// Returns the method name in the request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Caller {
    /// The operator and the organization itself.
    const OWNERS: &'static [Self] = &[Self::Organization, Self::Admin];
    /// The app's backend and its users.
    const ACTORS: &'static [Self] = &[Self::App, Self::User];
}

/// Declares unit structs whose doc comments are the descriptions of operations.
macro_rules! described {
    ($($(#[doc = $doc:literal])+ pub struct $name:ident;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name;

            impl $crate::operation::Described for $name {
                const DOC: &'static str = concat!($($doc, "\n"),+);
            }
        )+
    };
}
use described;
