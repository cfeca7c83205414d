//! `requests_total_bytes`: estimated memory that the requests of all clients hold together.

use protocol::operation::{HttpMethod, Operation, channel::ChannelSubscribe, user::UserGet};

/// Name of the limit of memory that the requests of all clients hold together.
pub const LIMIT: &str = "requests_total_bytes";
/// Retry hint for a request that finds no room, in milliseconds.
pub const RETRY_MS: u64 = 1000;

/// Maximum bytes of a decoded request for each byte of its frame. Free data becomes a tree.
const DECODED_BYTES_PER_BYTE: usize = 10;
/// Bytes of a reply that is a page, while it is made and encoded.
const PAGE_REPLY_BYTES: usize = 256 * 1024;

/// Returns the maximum bytes of a request's decoded parameters.
pub const fn decoded(frame_bytes: usize) -> usize {
    frame_bytes.saturating_mul(DECODED_BYTES_PER_BYTE)
}

/// Returns the bytes of an operation's reply, while it is made and encoded; 0 unless it is a page.
/// Pages are what lists and a `GET` of a collection return.
pub fn of_reply<O: Operation>() -> usize {
    let is_collection =
        O::HTTP.is_some_and(|http| http.method == HttpMethod::Get && !http.path.ends_with('}'));
    let is_list = O::NAME.ends_with(".list");
    if is_list || is_collection || [UserGet::NAME, ChannelSubscribe::NAME].contains(&O::NAME) {
        PAGE_REPLY_BYTES
    } else {
        0
    }
}

/// Returns the smallest `requests_total_bytes` with which every request finds room: a tenant alone
/// gets half of it. A request holds at most a frame of `frame_bytes`, its parameters and a page.
pub const fn min_total(frame_bytes: u64) -> u64 {
    let request = frame_bytes.saturating_mul(1 + DECODED_BYTES_PER_BYTE as u64);
    request
        .saturating_add(PAGE_REPLY_BYTES as u64)
        .saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use protocol::operation::{
        channel::{ChannelLeave, ChannelList, ChannelSearch},
        message::{MessageList, MessageSend},
        user::{UserChannels, UserUnread},
    };

    use super::*;
    use crate::limit::Room;

    #[test]
    fn smallest_total_has_room_for_the_largest_request() {
        let room = Room::new(min_total(65_536));
        let (mut frame, mut request) = (room.share(1), room.share(1));
        assert_eq!(frame.resize(65_536), Ok(()));
        assert_eq!(request.resize(decoded(65_536) + PAGE_REPLY_BYTES), Ok(()));
    }

    #[test]
    fn every_list_counts_as_a_page() {
        let lists = [
            of_reply::<ChannelList>(),
            of_reply::<ChannelSearch>(),
            of_reply::<MessageList>(),
            of_reply::<UserChannels>(),
            of_reply::<UserUnread>(),
            of_reply::<UserGet>(),
            of_reply::<ChannelSubscribe>(),
        ];
        assert_eq!(lists, [PAGE_REPLY_BYTES; 7]);
        let others = [of_reply::<ChannelLeave>(), of_reply::<MessageSend>()];
        assert_eq!(others, [0; 2]);
    }
}
