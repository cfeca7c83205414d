//! `requests_total_bytes`: what the requests of all clients hold together, by estimate.

use protocol::operation::{Operation, channel::ChannelSubscribe, user::UserGet};

/// Name of the limit of what the requests of all clients hold together.
pub const LIMIT: &str = "requests_total_bytes";
/// When a client whose request finds no room tries again, in milliseconds.
pub const RETRY_MS: u64 = 1000;

/// Bytes that a decoded request takes at most for each byte of its frame: free data becomes a tree.
const DECODED_BYTES_PER_BYTE: usize = 10;
/// Bytes of a reply that is a page, while it is made and encoded.
const PAGE_REPLY_BYTES: usize = 256 * 1024;

/// Returns the bytes that a request of an operation holds, with its reply.
pub fn of_request(operation: &str, frame_bytes: usize) -> usize {
    decoded(frame_bytes).saturating_add(of_reply(operation))
}

/// Returns the bytes that become of a request's parameters.
pub fn decoded(frame_bytes: usize) -> usize {
    frame_bytes.saturating_mul(DECODED_BYTES_PER_BYTE)
}

/// Returns the bytes of an operation's reply; 0 unless it is a page.
pub fn of_reply(operation: &str) -> usize {
    let is_page = operation.ends_with(".list")
        || [UserGet::NAME, ChannelSubscribe::NAME].contains(&operation);
    if is_page { PAGE_REPLY_BYTES } else { 0 }
}
