//! A client of CHAOS: sessions over WebSocket for users and bots, and HTTP for a team's backend.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use client::{Backend, Connector};
//! use protocol::{Encoding, params::{Connect, SendMessage}, results::Token};
//!
//! let backend = Backend::new("http://127.0.0.1:7400", "sk_live_…")?;
//! let Token { token, .. } = backend.post("/v1/users/alice/tokens", &serde_json::json!({})).await?;
//! let connector = Connector::new("ws://127.0.0.1:7400", Encoding::MessagePack)?;
//! let (session, mut events) = connector.connect(&Connect { token, ..Connect::default() }).await?;
//! session.send(&"general".parse()?, &SendMessage { text: Some("hi".into()), ..SendMessage::default() }).await?;
//! while let Some(event) = events.next().await {
//!     println!("{event:?}");
//! }
//! println!("{}", events.closed());
//! # Ok(())
//! # }
//! ```
//!
//! Owned here: one connection from its upgrade to its end, replies matched to requests, events in order. Left out, and to
//! be built above this: reconnecting and resuming (a [`Connector`] can be used again, and [`Closed`] tells what to do),
//! the merging of pages and events, and TLS.
//!
//! **What is bounded.** Events wait in a queue of [`Connector::event_queue`] frames. When it is full the client stops
//! reading its socket, and the server feels it: replies wait behind the events then, so that who awaits replies has to
//! read events meanwhile, or drop its [`Events`]. Requests wait when 64 are not written yet.

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
