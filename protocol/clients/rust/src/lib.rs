//! Client for CHAOS: WebSocket for users and bots, HTTP for an application's backend.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Backend, Client, Connector, TokenUnavailable, Settings, Update};
//! use protocol::{Encoding, UserId, event::Event, operation::{user::{MintToken, UserMintToken}, message::SendMessage}};
//!
//! let backend = Backend::new("http://127.0.0.1:7400", "sk_live_…")?;
//! let alice: UserId = "alice".parse()?;
//! let token = move || {
//!     let (backend, alice) = (backend.clone(), alice.clone());
//!     async move {
//!         let minted = backend.call::<UserMintToken>(&alice, MintToken::default()).await;
//!         minted.map(|minted| minted.token).map_err(|error| TokenUnavailable::Later(error.to_string()))
//!     }
//! };
//! let nodes = ["ws://10.0.0.1:7400", "ws://10.0.0.2:7400"].map(|node| Connector::new(node, Encoding::MessagePack));
//! let (client, mut updates) = Client::start(nodes.into_iter().collect::<Result<_, _>>()?, Settings::default(), token);
//! client.send(&"general".parse()?, SendMessage { text: Some("hi".into()), ..SendMessage::default() })?;
//! while let Some(update) = updates.next().await {
//!     match update {
//!         Update::Event(event) => match event.read()? {
//!             Event::MessageCreated(message) => println!("{:?}: {}", message.sender_id, message.text),
//!             other => println!("{other:?}"),
//!         },
//!         Update::Acknowledged(message) => println!("stored as number {}", message.number),
//!         Update::Away { why, wait } => println!("{why}; reconnecting in {wait:?}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There are two layers for WebSocket:
//!
//! - **[`Client`]** for applications and bots. It connects and reconnects by the rules of the
//!   protocol, resumes every stream from its position, sends messages until they are acknowledged,
//!   renews its token, and reads what a gap left out. It reports all of that as one stream of
//!   [`Update`]s, which a [`MessageCache`] merges into messages. Its logic is a state machine
//!   without I/O, [`machine::Machine`]; it and the rules in [`policy`] are the model for a client
//!   in another language.
//! - **[`Session`]** is one connection, opened by a [`Connector`]: replies are matched to requests,
//!   [`Events`] are in order, and [`Closed`] says how it ended. A client [shares its
//!   session](Client::session) for other requests.
//!
//! Not included: TLS, a store on disk (an application that stores positions passes them in
//! [`Settings`]), and restoring the state of a session other than its subscriptions: call
//! `presence.watch` again after each [`Update::Connected`].
//!
//! **Limits.** Events wait in a queue of [`Connector::event_queue`] frames, updates of a client in
//! a queue of 64. When a queue is full the client stops reading its socket, and replies wait as
//! well: while awaiting replies, read the [`Events`], or drop them. Sending a request waits while
//! 64 are not written yet, [`Settings::outbox`] limits the messages that are not acknowledged, and
//! [`CacheBounds`] limit a cache.

mod backend;
mod backend_call;
mod cache;
mod client;
mod client_shared;
mod client_task;
mod closed;
mod connect_error;
mod connector;
mod driver;
mod events;
mod frame;
pub mod machine;
pub mod policy;
mod session;
mod socket;

pub use backend::{Backend, BackendError, HttpAnswer, RequestBuilder, segment};
pub use cache::{CacheBounds, MessageCache};
pub use client::{Client, Updates};
pub use closed::Closed;
pub use connect_error::ConnectError;
pub use connector::{Connector, connect};
pub use events::Events;
pub use frame::Frame;
pub use machine::{
    Anomaly, DisconnectCause, SendError, SendFailure, Settings, TokenUnavailable, Update,
};
pub use policy::{Backoff, Position, Reconnect, Retryability};
pub use session::{PendingReply, RequestError, Session};
pub use socket::Socket;

/// Compiles the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeTests;
