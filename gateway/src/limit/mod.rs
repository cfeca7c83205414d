//! Limits of rates and of concurrency: token buckets, single and by key, counts by key,
//! the admission of `connect`s, and shared bytes. No lock outlives a call.

mod address;
mod bucket;
mod concurrent;
mod gate;
mod keyed;
pub mod request_bytes;
mod room;

pub use address::AddressGroup;
pub use bucket::{Bucket, Rate};
pub use concurrent::{Concurrent, Counted};
pub use gate::{Full, Gate, GateCounts, Pass};
pub use keyed::Keyed;
pub use room::{NoRoom, Room, STRANGERS, Share};
