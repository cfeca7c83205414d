//! Limits on how often: token buckets, one by one and by key. Time is given, and no lock outlives a call.

mod bucket;
mod keyed;

pub use bucket::{Bucket, Rate};
pub use keyed::Keyed;
