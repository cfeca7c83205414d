//! A spliced event is the event that serialization would have made.

use proptest::{collection::btree_map, option, prelude::*, sample::select};
use protocol::{
    ChannelId, EventKind, EventMessage,
    codec::{from_msgpack, to_msgpack, transcode},
    splice::{EntityStamps, SplicedParts, event},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::strategies::{
    channel_id, map, reaction, stamps, stored_channel, stored_message, stored_participant,
    stored_user, text, uint,
};

/// Returns an entity as stored: without the fields that the store assigns.
fn stored(entity: &impl Serialize, assigned: &[&str]) -> Vec<u8> {
    let mut value = serde_json::to_value(entity).unwrap();
    for field in assigned {
        value.as_object_mut().unwrap().remove(*field);
    }
    to_msgpack(&value)
}

fn expected(
    kind: EventKind,
    channel_id: Option<&ChannelId>,
    (seq, at): (u64, u64),
    data: Value,
) -> EventMessage {
    EventMessage {
        event: kind.as_str().into(),
        channel_id: channel_id.cloned(),
        seq: Some(seq),
        at: Some(at),
        data,
    }
}

/// Splices an event and decodes it in both encodings. Duplicate fields would be refused.
fn spliced(kind: EventKind, parts: &SplicedParts<'_>) -> EventMessage {
    let bytes = event(kind, parts).unwrap();
    let message: EventMessage = from_msgpack(&bytes).unwrap();
    let json = transcode(&bytes).unwrap();
    assert_eq!(
        serde_json::from_slice::<EventMessage>(&json).unwrap(),
        message
    );
    message.read().unwrap();
    message
}

proptest! {
    #[test]
    fn spliced_message_equals_serialized_message(
        entity in stored_message(),
        channel in channel_id(),
        position in stamps(),
        kind in select(vec![EventKind::MessageCreated, EventKind::MessageUpdated, EventKind::MessageDeleted]),
    ) {
        let body = stored(&entity, &["number", "seq", "created_at", "edited_at", "deleted_at", "reactions"]);
        let reactions = to_msgpack(&entity.reactions);
        let stamps = EntityStamps {
            number: entity.number,
            seq: entity.seq,
            created_at: entity.created_at,
            edited_at: entity.edited_at.unwrap_or_default(),
            deleted_at: entity.deleted_at.unwrap_or_default(),
            count: None,
            reactions: (!entity.reactions.is_empty()).then_some(&reactions),
        };
        let parts = SplicedParts { channel_id: Some(channel.as_str()), seq: position.0, at: position.1, stamps, body: &body };
        prop_assert_eq!(spliced(kind, &parts), expected(kind, Some(&channel), position, json!({ "message": entity })));
    }

    #[test]
    fn spliced_participant_equals_serialized_participant(entity in stored_participant(), channel in channel_id(), position in stamps()) {
        let body = stored(&entity, &["created_at"]);
        let stamps = EntityStamps { created_at: entity.created_at, ..EntityStamps::default() };
        let parts = SplicedParts { channel_id: Some(channel.as_str()), seq: position.0, at: position.1, stamps, body: &body };
        for kind in [EventKind::ParticipantAdded, EventKind::ParticipantUpdated, EventKind::ParticipantRemoved] {
            prop_assert_eq!(spliced(kind, &parts), expected(kind, Some(&channel), position, json!({ "participant": entity })));
        }
    }

    #[test]
    fn spliced_channel_and_user_equal_serialized_ones(channel in stored_channel(), user in stored_user(), position in stamps()) {
        let body = stored(&channel, &["created_at"]);
        let stamps = EntityStamps { created_at: channel.created_at, ..EntityStamps::default() };
        let parts = SplicedParts { channel_id: Some(channel.id.as_str()), seq: position.0, at: position.1, stamps, body: &body };
        let kind = EventKind::ChannelUpdated;
        prop_assert_eq!(spliced(kind, &parts), expected(kind, Some(&channel.id), position, json!({ "channel": channel })));

        let body = stored(&user, &["created_at"]);
        let stamps = EntityStamps { created_at: user.created_at, ..EntityStamps::default() };
        let parts = SplicedParts { channel_id: None, seq: position.0, at: position.1, stamps, body: &body };
        prop_assert_eq!(spliced(EventKind::UserUpdated, &parts), expected(EventKind::UserUpdated, None, position, json!({ "user": user })));
    }

    #[test]
    fn spliced_reaction_equals_serialized_reaction(entity in reaction(), channel in channel_id(), position in stamps()) {
        let body = stored(&entity, &["count"]);
        let stamps = EntityStamps { count: Some(entity.count), ..EntityStamps::default() };
        let parts = SplicedParts { channel_id: Some(channel.as_str()), seq: position.0, at: position.1, stamps, body: &body };
        let kind = EventKind::ReactionAdded;
        prop_assert_eq!(spliced(kind, &parts), expected(kind, Some(&channel), position, serde_json::to_value(entity).unwrap()));
    }

    #[test]
    fn spliced_passing_event_equals_serialized_event(channel in option::of(channel_id()), data in btree_map(text(), uint(), 0..20)) {
        let mut fields = Map::new();
        if let Some(channel) = &channel {
            fields.insert("channel_id".into(), channel.as_str().into());
        }
        fields.insert("data".into(), json!(data));
        let bytes = event(EventKind::Typing, &SplicedParts { body: &to_msgpack(&fields), ..SplicedParts::default() }).unwrap();
        let message = EventMessage { event: "typing".into(), channel_id: channel, seq: None, at: None, data: json!(data) };
        prop_assert_eq!(from_msgpack::<EventMessage>(&bytes).unwrap(), message);
    }

    #[test]
    fn splicing_any_body_does_not_panic(body in prop::collection::vec(any::<u8>(), 0..64), kind in select(EventKind::ALL), free in map()) {
        let _ = event(kind, &SplicedParts { body: &body, ..SplicedParts::default() });
        let framed = event(kind, &SplicedParts { body: &to_msgpack(&free), seq: 1, at: 1, ..SplicedParts::default() });
        prop_assert!(framed.is_ok());
    }
}
