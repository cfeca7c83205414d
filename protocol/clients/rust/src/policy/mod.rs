//! What every client does alike, as pure values: how long it waits, when it comes back, what it asks again, and where it
//! stands. A client in another language takes these first.

mod backoff;
mod position;
mod reconnect;
mod refusal;

pub use backoff::Backoff;
pub use position::{Position, Step};
pub use reconnect::Reconnect;
pub use refusal::Refusal;
