//! Event frames, made from stored values by splicing bytes: the values are not decoded.
//!
//! A stored value is a MessagePack map. The fields that the store assigned (number, seq, times,
//! counters) are written in front of its own fields under a new map header, and the event's frame
//! around that.

use rmp::encode;

use crate::{EventKind, codec::DecodeError, event::Shape};

/// The parts of an event's frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct SplicedParts<'a> {
    /// Channel of the event; `None` on a user's own stream.
    pub channel_id: Option<&'a str>,
    /// `seq` of the event; 0 for a passing event.
    pub seq: u64,
    /// `at` of the event.
    pub at: u64,
    /// Fields that the store assigned to the entity.
    pub stamps: EntityStamps<'a>,
    /// The stored value: a MessagePack map.
    pub body: &'a [u8],
}

/// Fields that the store assigned to an entity. Zero and `None` mean absent.
#[derive(Debug, Clone, Copy, Default)]
pub struct EntityStamps<'a> {
    /// `number`.
    pub number: u64,
    /// `seq`.
    pub seq: u64,
    /// `created_at`.
    pub created_at: u64,
    /// `edited_at`.
    pub edited_at: u64,
    /// `deleted_at`.
    pub deleted_at: u64,
    /// `count`.
    pub count: Option<u64>,
    /// `reactions` of a message: a MessagePack map.
    pub reactions: Option<&'a [u8]>,
}

const EMPTY_MAP: &[u8] = &[0x80];

/// Returns an event's frame in MessagePack. Fails if the body is not a map.
pub fn event(kind: EventKind, parts: &SplicedParts<'_>) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(160 + parts.body.len());
    if kind.shape() == Shape::Whole {
        let (fields, rest) = map(parts.body)?;
        map_header(&mut out, fields + 1);
        field(&mut out, "event", |out| text(out, kind.as_str()));
        out.extend_from_slice(rest);
        return Ok(out);
    }
    map_header(
        &mut out,
        2 + u32::from(parts.channel_id.is_some()) + if parts.seq == 0 { 0 } else { 2 },
    );
    field(&mut out, "event", |out| text(out, kind.as_str()));
    if let Some(channel_id) = parts.channel_id {
        field(&mut out, "channel_id", |out| text(out, channel_id));
    }
    if parts.seq != 0 {
        field(&mut out, "seq", |out| uint(out, parts.seq));
        field(&mut out, "at", |out| uint(out, parts.at));
    }
    text(&mut out, "data");
    let wrapper = match kind.shape() {
        Shape::Message => Some("message"),
        Shape::Participant => Some("participant"),
        Shape::Channel => Some("channel"),
        Shape::User => Some("user"),
        Shape::Data | Shape::Whole => None,
    };
    if let Some(wrapper) = wrapper {
        map_header(&mut out, 1);
        text(&mut out, wrapper);
    }
    entity(&mut out, parts, kind.shape() == Shape::Message)?;
    Ok(out)
}

fn entity(
    out: &mut Vec<u8>,
    parts: &SplicedParts<'_>,
    is_message: bool,
) -> Result<(), DecodeError> {
    let (fields, rest) = map(parts.body)?;
    let stamps = &parts.stamps;
    let assigned = [
        ("number", stamps.number),
        ("seq", stamps.seq),
        ("created_at", stamps.created_at),
        ("edited_at", stamps.edited_at),
        ("deleted_at", stamps.deleted_at),
    ];
    let present = assigned.iter().filter(|(_, value)| *value != 0);
    let added =
        present.clone().count() + usize::from(stamps.count.is_some()) + usize::from(is_message);
    map_header(out, fields + added as u32);
    for (name, value) in present {
        field(out, name, |out| uint(out, *value));
    }
    if let Some(count) = stamps.count {
        field(out, "count", |out| uint(out, count));
    }
    if is_message {
        text(out, "reactions");
        out.extend_from_slice(stamps.reactions.unwrap_or(EMPTY_MAP));
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn map(value: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let mut rest = value;
    let fields =
        rmp::decode::read_map_len(&mut rest).map_err(|_| DecodeError("a value is a map".into()))?;
    // A key and a value have at least one byte each, so that the added fields cannot overflow
    // either.
    if rest.len() / 2 < fields as usize {
        return Err(DecodeError("the value ends within its map".into()));
    }
    Ok((fields, rest))
}

fn field(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    text(out, name);
    value(out);
}

const INFALLIBLE: &str = "a Vec takes what it is given";

fn map_header(out: &mut Vec<u8>, fields: u32) {
    encode::write_map_len(out, fields).expect(INFALLIBLE);
}

fn text(out: &mut Vec<u8>, text: &str) {
    encode::write_str(out, text).expect(INFALLIBLE);
}

fn uint(out: &mut Vec<u8>, value: u64) {
    encode::write_uint(out, value).expect(INFALLIBLE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::{
        EventMessage,
        codec::{from_msgpack, to_msgpack},
    };

    #[test]
    fn a_spliced_event_reads_like_one_that_was_serialized() {
        let body = to_msgpack(&json!({ "id": "msg_0000000000000001", "text": "hi" }));
        let reactions = to_msgpack(&json!({ "👍": 2 }));
        let stamps = EntityStamps {
            number: 3,
            seq: 300,
            created_at: 1_700_000_000_000,
            reactions: Some(&reactions),
            ..Default::default()
        };
        let parts = SplicedParts {
            channel_id: Some("general"),
            seq: 300,
            at: 1_700_000_000_000,
            stamps,
            body: &body,
        };
        let event: EventMessage =
            from_msgpack(&event(EventKind::MessageCreated, &parts).unwrap()).unwrap();
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            json!({ "event": "message.created", "channel_id": "general", "seq": 300, "at": 1_700_000_000_000u64, "data": { "message": {
                "id": "msg_0000000000000001", "text": "hi", "number": 3, "seq": 300, "created_at": 1_700_000_000_000u64, "reactions": { "👍": 2 } } } })
        );
    }

    #[test]
    fn a_body_that_is_no_map_or_declares_more_than_it_holds_is_refused() {
        for body in [
            &b""[..],
            b"\x01",
            b"\x81\xa1",
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            for kind in EventKind::ALL {
                assert!(
                    event(
                        *kind,
                        &SplicedParts {
                            body,
                            ..Default::default()
                        }
                    )
                    .is_err(),
                    "{body:x?}"
                );
            }
        }
    }

    #[test]
    fn a_passing_event_is_its_body_with_a_name() {
        let body = to_msgpack(
            &json!({ "channel_id": "general", "data": { "user_id": "bob", "typing": true } }),
        );
        let event: EventMessage = from_msgpack(
            &event(
                EventKind::Typing,
                &SplicedParts {
                    body: &body,
                    ..Default::default()
                },
            )
            .unwrap(),
        )
        .unwrap();
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            json!({ "event": "typing", "channel_id": "general", "data": { "user_id": "bob", "typing": true } })
        );
    }
}
