//! Limits on how often and how many at once: token buckets, one by one and by key, and a gate. No lock outlives a call.

mod bucket;
mod gate;
mod keyed;

pub use bucket::{Bucket, Rate};
pub use gate::{Counts, Full, Gate, Pass};
pub use keyed::Keyed;
