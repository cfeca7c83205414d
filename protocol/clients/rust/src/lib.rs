//! A client of CHAOS: for users and bots over WebSocket, and HTTP for a team's backend.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Backend, Client, Connector, NoToken, Settings, Update};
//! use protocol::{Encoding, event::Event, params::SendMessage, results::Token};
//!
//! let backend = Backend::new("http://127.0.0.1:7400", "sk_live_…")?;
//! let token = move || {
//!     let backend = backend.clone();
//!     async move {
//!         let minted = backend.post("/v1/users/alice/tokens", &serde_json::json!({})).await;
//!         minted.map(|Token { token, .. }| token).map_err(|error| NoToken::Later(error.to_string()))
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
//!         Update::Away { why, wait } => println!("{why}; again in {wait:?}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There are two layers:
//!
//! - **A [`Client`]** lives as long as its application. It connects and comes back by the rules of the wire, resumes every
//!   stream where it was, sends again what was not acknowledged, replaces its token, reads what a gap left out, and tells all
//!   of that as one stream of [`Update`]s, from which a [`Cache`] of messages is kept. All its logic is a state machine
//!   without I/O, [`machine::Machine`]; a client in another language can be written after it, and after the values in
//!   [`policy`].
//! - **A [`Session`]** is one connection, from a [`Connector`]: replies matched to requests, [`Events`] in order, and
//!   [`Closed`] at the end. A client [lends its own](Client::session) for every other request.
//!
//! Left out: TLS, a store on disk (an application that keeps positions gives them back in [`Settings`]), and what a session
//! holds beside its subscriptions: `presence.watch` is to be asked for again after each [`Update::Connected`].
//!
//! **What is bounded.** Events wait in a queue of [`Connector::event_queue`] frames, and a client's updates in one of 64. When
//! it is full the client stops reading its socket, and the server feels it: replies wait behind the events then, so that who
//! awaits replies has to read events meanwhile, or drop its [`Events`]. Requests wait when 64 are not written yet, messages
//! when [`Settings::outbox`] are not acknowledged, and a cache has its [`Bounds`].

mod backend;
mod cache;
mod client;
mod closed;
mod connector;
mod driver;
mod events;
pub mod machine;
mod methods;
pub mod policy;
mod session;
mod shell;
mod socket;

pub use backend::{Answer, Backend, BackendError, Call, segment};
pub use cache::{Bounds, Cache};
pub use client::{Client, Updates};
pub use closed::Closed;
pub use connector::{ConnectError, Connector, connect};
pub use events::Events;
pub use machine::{Anomaly, Failure, NoToken, SendError, Settings, Update, Why};
pub use policy::{Backoff, Position, Reconnect, Refusal};
pub use session::{PendingReply, RequestError, Session};
pub use socket::{Frame, Socket};
