//! The rules that every client follows, without I/O: backoff, when to reconnect, what to retry, and
//! positions in streams. A client in another language starts with these.

mod backoff;
mod position;
mod reconnect;
mod retryability;

pub use backoff::Backoff;
pub use position::{EventOrder, Position};
pub use reconnect::Reconnect;
pub use retryability::Retryability;
