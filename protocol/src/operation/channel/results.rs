//! Results of operations on channels, other than entities.

use crate::{
    entity::{Entry, EntryResult},
    wire::wire,
};

wire! {
    /// Result of `channel.subscribe`.
    pub struct Subscribed {
        /// One for each requested channel.
        pub channels: Vec<EntryResult>,
    }

    /// A page of a user's channels.
    pub struct EntryList {
        /// Last active first.
        pub items: Vec<Entry>,
        /// Cursor of the next page; absent on the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cursor: Option<String>,
    }
}
