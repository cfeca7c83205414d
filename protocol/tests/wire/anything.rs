//! Any bytes through every reader of the wire: the body of the fuzz target, and of the tests that run everywhere.

use protocol::{
    Encoding, Method,
    codec::{DecodeError, from_msgpack, transcode},
    event::EventKind,
    frame::{Request, ServerFrame},
    params::*,
    splice::{self, Parts},
};
use serde::de::DeserializeOwned;

/// Reads the bytes as whatever a server or a client could take them for. It returns; that is the promise.
pub(crate) fn read(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        if let Ok(request) = Request::decode(encoding, bytes) {
            assert!(request.id > 0, "ids start at 1");
            for method in Method::ALL {
                let _ = read_params(*method, &request);
            }
        }
        let _ = ServerFrame::head(encoding, bytes);
        if let Ok(ServerFrame::Event(event)) = ServerFrame::decode(encoding, bytes) {
            let _ = event.read();
        }
    }
    if let Ok(json) = transcode(bytes) {
        assert!(
            serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok(),
            "what is transcoded is JSON"
        );
    }
    for kind in EventKind::ALL {
        if let Ok(frame) = splice::event(
            *kind,
            &Parts {
                body: bytes,
                seq: 1,
                at: 1,
                ..Parts::default()
            },
        ) {
            let _ = from_msgpack::<serde_json::Value>(&frame);
        }
    }
}

/// Reads a request's parameters as a method's: the ids of what it is about, and its own fields.
pub(crate) fn read_params(method: Method, request: &Request<'_>) -> Result<(), DecodeError> {
    match method {
        Method::Connect => request.params::<Connect>().map(drop),
        Method::TokenRefresh => request.params::<RefreshToken>().map(drop),
        Method::Ping => request.params::<protocol::results::Empty>().map(drop),
        Method::ChannelSubscribe => request.params::<Subscribe>().map(drop),
        Method::ChannelUnsubscribe => request.params::<Unsubscribe>().map(drop),
        Method::ChannelList => request.params::<ListPage>().map(drop),
        Method::ChannelCreate => request.params::<CreateChannel>().map(drop),
        Method::ChannelUpdate => both::<ChannelRef, UpdateChannel>(request),
        Method::ChannelDelete | Method::ChannelJoin | Method::ChannelLeave => {
            request.params::<ChannelRef>().map(drop)
        }
        Method::ParticipantAdd => both::<ChannelRef, AddParticipant>(request),
        Method::ParticipantUpdate => both::<ParticipantRef, UpdateParticipant>(request),
        Method::ParticipantRemove => request.params::<ParticipantRef>().map(drop),
        Method::ParticipantList => both::<ChannelRef, ListPage>(request),
        Method::MessageSend => both::<ChannelRef, SendMessage>(request),
        Method::MessageEdit => both::<MessageRef, EditMessage>(request),
        Method::MessageDelete => request.params::<MessageRef>().map(drop),
        Method::MessageList => both::<ChannelRef, ListMessages>(request),
        Method::ReactionAdd | Method::ReactionRemove => both::<MessageRef, React>(request),
        Method::ReadMark => both::<ChannelRef, MarkRead>(request),
        Method::Typing => both::<ChannelRef, Typing>(request),
        Method::PresenceWatch | Method::UserGet => request.params::<UserIds>().map(drop),
        Method::UserUpdate => request.params::<UpdateUser>().map(drop),
    }
}

fn both<I: DeserializeOwned, P: DeserializeOwned>(
    request: &Request<'_>,
) -> Result<(), DecodeError> {
    let (ids, fields) = (request.params::<I>(), request.params::<P>());
    ids.and(fields).map(drop)
}
