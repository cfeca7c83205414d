//! Any bytes through every reader of the wire: the body of the fuzz target, and of the tests that run everywhere.

use protocol::{
    Encoding, Method,
    codec::{from_msgpack, transcode},
    event::EventKind,
    frame::{Request, ServerFrame},
    params::*,
    splice::{self, Parts},
};

/// Reads the bytes as whatever a server or a client could take them for. It returns; that is the promise.
pub(crate) fn read(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        if let Ok(request) = Request::decode(encoding, bytes) {
            assert!(request.id > 0, "ids start at 1");
            for method in Method::ALL {
                read_params(*method, &request);
            }
        }
        let _ = ServerFrame::head(encoding, bytes);
        if let Ok(ServerFrame::Event(event)) = ServerFrame::decode(encoding, bytes) {
            let _ = event.read();
        }
    }
    if let Ok(json) = transcode(bytes) {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok(), "what is transcoded is JSON");
    }
    for kind in EventKind::ALL {
        if let Ok(frame) = splice::event(*kind, &Parts { body: bytes, seq: 1, at: 1, ..Parts::default() }) {
            let _ = from_msgpack::<serde_json::Value>(&frame);
        }
    }
}

/// Reads a request's parameters as a method's.
fn read_params(method: Method, request: &Request<'_>) {
    match method {
        Method::Connect => drop(request.params::<Connect>()),
        Method::TokenRefresh => drop(request.params::<RefreshToken>()),
        Method::Ping => drop(request.params::<protocol::results::Empty>()),
        Method::ChannelSubscribe => drop(request.params::<Subscribe>()),
        Method::ChannelUnsubscribe => drop(request.params::<Unsubscribe>()),
        Method::ChannelList => drop(request.params::<ListPage>()),
        Method::ChannelCreate => drop(request.params::<CreateChannel>()),
        Method::ChannelUpdate => drop((request.params::<ChannelRef>(), request.params::<UpdateChannel>())),
        Method::ChannelDelete | Method::ChannelJoin | Method::ChannelLeave => drop(request.params::<ChannelRef>()),
        Method::ParticipantAdd => drop((request.params::<ChannelRef>(), request.params::<AddParticipant>())),
        Method::ParticipantUpdate => drop((request.params::<ParticipantRef>(), request.params::<UpdateParticipant>())),
        Method::ParticipantRemove => drop(request.params::<ParticipantRef>()),
        Method::ParticipantList => drop((request.params::<ChannelRef>(), request.params::<ListPage>())),
        Method::MessageSend => drop((request.params::<ChannelRef>(), request.params::<SendMessage>())),
        Method::MessageEdit => drop((request.params::<MessageRef>(), request.params::<EditMessage>())),
        Method::MessageDelete => drop(request.params::<MessageRef>()),
        Method::MessageList => drop((request.params::<ChannelRef>(), request.params::<ListMessages>())),
        Method::ReactionAdd | Method::ReactionRemove => drop((request.params::<MessageRef>(), request.params::<React>())),
        Method::ReadMark => drop((request.params::<ChannelRef>(), request.params::<MarkRead>())),
        Method::Typing => drop((request.params::<ChannelRef>(), request.params::<Typing>())),
        Method::PresenceWatch | Method::UserGet => drop(request.params::<UserIds>()),
        Method::UserUpdate => drop(request.params::<UpdateUser>()),
    }
}
