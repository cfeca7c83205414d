#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use serde_json::json;

use super::*;
use crate::{
    MAX_INTEGER,
    operation::{message::SendMessage, path::ChannelPath},
};

#[test]
fn a_request_is_read_in_both_encodings() {
    let params = json!({ "channel_id": "general", "text": "hi", "later": { "a": [1, 2.5, null, true, "x"] } });
    for encoding in Encoding::ALL {
        let bytes = encode_request(encoding, 7, "message.send", &params);
        let request = Request::decode(encoding, &bytes).unwrap();
        assert_eq!((request.id, request.method), (7, "message.send"));
        assert_eq!(
            request.params::<ChannelPath>().unwrap().channel_id.as_str(),
            "general"
        );
        assert_eq!(
            request.params::<SendMessage>().unwrap().text.as_deref(),
            Some("hi")
        );
    }
}

/// A request with these parameters, of which each number is written as a float64, as JavaScript
/// may do.
fn with_floats(id: f64, method: &str, params: &serde_json::Value) -> Vec<u8> {
    fn write(out: &mut Vec<u8>, value: &serde_json::Value) {
        use rmp::encode::{write_array_len, write_f64, write_map_len, write_str};
        match value {
            serde_json::Value::Number(number) => write_f64(out, number.as_f64().unwrap()).unwrap(),
            serde_json::Value::String(text) => write_str(out, text).unwrap(),
            serde_json::Value::Array(items) => {
                write_array_len(out, u32::try_from(items.len()).unwrap()).unwrap();
                items.iter().for_each(|item| write(out, item));
            }
            serde_json::Value::Object(map) => {
                write_map_len(out, u32::try_from(map.len()).unwrap()).unwrap();
                for (key, value) in map {
                    write_str(out, key).unwrap();
                    write(out, value);
                }
            }
            other => out.extend(crate::codec::to_msgpack(other)),
        }
    }
    let mut out = Vec::new();
    write(
        &mut out,
        &json!({ "id": id, "method": method, "params": params }),
    );
    out
}

#[test]
fn integers_may_be_written_as_floats_with_an_integral_value() {
    use crate::{
        Cursor,
        operation::{channel::Subscribe, message::ListMessages, read::MarkRead, session::Connect},
    };
    let params = json!({ "token": "t", "resume": { "general": [3, 1_790_000_000_000u64] }, "user_position": [0, 0] });
    let frame = with_floats(4_294_967_295.0, "connect", &params);
    let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
    assert_eq!(request.id, u32::MAX);
    let connect: Connect = request.params().unwrap();
    assert_eq!(
        connect.resume.values().next(),
        Some(&Cursor::After(3, 1_790_000_000_000))
    );
    assert_eq!(connect.user_position, Some(Cursor::After(0, 0)));

    let read = |params: serde_json::Value| with_floats(1.0, "x", &params);
    let frame = read(
        json!({ "channels": { "general": [9_007_199_254_740_992u64, 1] }, "number": 5, "before": 7, "limit": 50 }),
    );
    let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
    assert_eq!(
        request
            .params::<Subscribe>()
            .unwrap()
            .channels
            .values()
            .next(),
        Some(&Cursor::After(1 << 53, 1))
    );
    assert_eq!(request.params::<MarkRead>().unwrap().number, 5);
    assert_eq!(
        request.params::<ListMessages>().unwrap(),
        ListMessages {
            before: Some(7),
            limit: Some(50),
            ..Default::default()
        }
    );

    for wrong in [1.5, -1.0, 1e16, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut frame = b"\x83\xa2id\x01\xa6method\xa1x\xa6params\x81\xa6number".to_vec();
        rmp::encode::write_f64(&mut frame, wrong).unwrap();
        let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
        assert!(request.params::<MarkRead>().is_err(), "{wrong}");
    }
    let json = br#"{"id":1,"method":"read.mark","params":{"number":1.79e12}}"#;
    assert_eq!(
        Request::decode(Encoding::Json, json)
            .unwrap()
            .params::<MarkRead>()
            .unwrap()
            .number,
        1_790_000_000_000
    );
}

/// Parameters, and whether they are those of the type, in both encodings.
fn fits<T: DeserializeOwned>(json: &str) -> [bool; 2] {
    let value: Ordered = serde_json::from_str(json).unwrap();
    let [mut frame, params] = [
        b"\x83\xa2id\x01\xa6method\xa1x\xa6params".to_vec(),
        crate::codec::to_msgpack(&value),
    ];
    frame.extend(params);
    let text = format!(r#"{{"id":1,"method":"x","params":{json}}}"#);
    [
        (Encoding::MessagePack, frame.as_slice()),
        (Encoding::Json, text.as_bytes()),
    ]
    .map(|(encoding, frame)| {
        Request::decode(encoding, frame)
            .unwrap()
            .params::<T>()
            .is_ok()
    })
}

/// A JSON value whose maps keep keys that stand twice.
enum Ordered {
    Map(Vec<(String, Ordered)>),
    List(Vec<Ordered>),
    Other(serde_json::Value),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> serde::de::Visitor<'de> for Any {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered::Map(entries))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::List(items))
            }
            fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
                Ok(Ordered::Other(text.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Ordered, E> {
                Ok(Ordered::Other(number.into()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Ordered, E> {
                Ok(Ordered::Other(number.into()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Ordered, E> {
                Ok(Ordered::Other(number.into()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Other(value.into()))
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Other(serde_json::Value::Null))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
            Self::List(items) => serializer.collect_seq(items),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

#[test]
fn both_encodings_accept_the_same_params() {
    use crate::operation::{
        channel::{CreateChannel, Subscribe},
        participant::AddParticipant,
    };
    for (good, params) in [
        (
            true,
            r#"{"type": "group", "metadata": {"a": [1, -2, 5.0, 1e300, null]}}"#,
        ),
        (
            true,
            r#"{"type": "group", "later": {"a": 1, "a": 2}, "later": [3]}"#,
        ),
        (false, r#"{"type": {"group": null}}"#),
        (false, r#"{"type": 1}"#),
        (false, r#"{"type": "group", "type": "group"}"#),
        (false, r#"{"type": "group", "metadata": {"a": 1, "a": 1}}"#),
        (
            false,
            r#"{"type": "group", "metadata": {"b": [{"a": 1, "a": 1}]}}"#,
        ),
    ] {
        assert_eq!(fits::<CreateChannel>(params), [good; 2], "{params}");
    }
    for (good, params) in [
        (true, r#"{"attachments": [{"type": "file", "size": 3.0}]}"#),
        (false, r#"{"attachments": [{"type": "file", "size": 3.5}]}"#),
        (false, r#"{"attachments": [["file"]]}"#),
        (
            false,
            r#"{"attachments": [{"type": "file", "type": "file"}]}"#,
        ),
        (false, r#"{"attachments": ["file"]}"#),
    ] {
        assert_eq!(fits::<SendMessage>(params), [good; 2], "{params}");
    }
    for (good, params) in [
        (true, r#"{"channels": {"a": [1.0, 1.79e12], "b": []}}"#),
        (false, r#"{"channels": {"a": [], "a": [1, 1]}}"#),
    ] {
        assert_eq!(fits::<Subscribe>(params), [good; 2], "{params}");
    }
    assert_eq!(
        fits::<AddParticipant>(r#"{"user_id": "a", "role": {"owner": null}}"#),
        [false; 2]
    );
}

#[test]
fn params_that_only_messagepack_can_write_are_refused() {
    let read = |params: &[u8]| {
        let frame = [b"\x83\xa2id\x01\xa6method\xa1x\xa6params", params].concat();
        let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
        request.params::<SendMessage>()
    };
    assert!(read(b"\x81\xa4text\xa2hi").is_ok());
    assert!(read(b"\x81\xa4text\xc4\x02hi").is_err(), "binary as text");
    assert!(read(b"\x81\xc4\x04text\xa2hi").is_err(), "binary as a key");
    assert!(read(b"\x81\x00\xa2hi").is_err(), "an index as a key");
    assert!(
        read(b"\x81\xa8metadata\x81\x01\x01").is_err(),
        "an integer as a key"
    );
    assert!(
        read(b"\x81\xa8metadata\x81\xa1a\xc4\x00").is_err(),
        "binary as free data"
    );
}

#[test]
fn integers_of_free_data_are_kept_exactly_or_refused() {
    let read = |number: &str| {
        let frame = format!(
            r#"{{"id":1,"method":"x","params":{{"text":"\\\"9{number}","metadata":{{"a":[{number},0]}}}}}}"#
        );
        let request = Request::decode(Encoding::Json, frame.as_bytes()).unwrap();
        let params = request
            .params::<SendMessage>()
            .map_err(|misfit| misfit.field);
        params.map(|params| params.metadata.check().is_ok())
    };
    for kept in [
        "9007199254740992",
        "-9007199254740992",
        "1e20",
        "1.5e300",
        "0.1",
        "-0",
        "5.0",
    ] {
        assert_eq!(read(kept), Ok(true), "{kept}");
    }
    for integer in [
        "9007199254740993",
        "-9007199254740993",
        "18446744073709551615",
    ] {
        assert_eq!(read(integer), Ok(false), "{integer}");
    }
    for rounded in [
        "18446744073709551616",
        "-9223372036854775809",
        "100000000000000000000000",
    ] {
        assert_eq!(read(rounded), Err(Some("metadata".into())), "{rounded}");
    }
}

#[test]
fn integers_beyond_2_to_the_53_are_refused_by_the_name_of_their_field() {
    for encoding in Encoding::ALL {
        let read = |size: u64| {
            let params = json!({ "attachments": [{ "type": "file", "size": size }] });
            let frame = encode_request(encoding, 1, "message.send", &params);
            let request = Request::decode(encoding, &frame).unwrap();
            request.params::<SendMessage>().map_err(|error| error.field)
        };
        assert!(read(MAX_INTEGER).is_ok());
        for integer in [MAX_INTEGER + 1, u64::MAX] {
            let field = read(integer).unwrap_err();
            assert_eq!(field.as_deref(), Some("attachments[0].size"), "{integer}");
        }
    }
}

#[test]
fn params_that_do_not_fit_name_their_field() {
    for encoding in Encoding::ALL {
        let field = |params: serde_json::Value| {
            let frame = encode_request(encoding, 1, "message.send", &params);
            let request = Request::decode(encoding, &frame).unwrap();
            request.params::<SendMessage>().unwrap_err().field
        };
        assert_eq!(field(json!({ "text": 7 })).as_deref(), Some("text"));
        let attachments = json!([{ "type": "file" }, { "size": 1 }]);
        assert_eq!(
            field(json!({ "attachments": attachments })).as_deref(),
            Some("attachments[1].type")
        );
    }
}

#[test]
fn free_data_keeps_its_floats_and_has_no_nan() {
    let metadata = json!({ "price": 5.0, "deep": [{ "ratio": 0.5 }] });
    let frame = with_floats(1.0, "message.send", &json!({ "metadata": metadata }));
    let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
    assert_eq!(
        serde_json::Value::Object(request.params::<SendMessage>().unwrap().metadata.0),
        metadata
    );
    for number in [f64::NAN, f64::INFINITY] {
        let mut frame =
            b"\x83\xa2id\x01\xa6method\xa1x\xa6params\x81\xa8metadata\x81\xa1a\x91".to_vec();
        rmp::encode::write_f64(&mut frame, number).unwrap();
        let request = Request::decode(Encoding::MessagePack, &frame).unwrap();
        assert!(request.params::<SendMessage>().is_err());
    }
}

#[test]
fn a_frames_head_is_told_without_its_body() {
    for encoding in Encoding::ALL {
        let reply = encode_result(encoding, 9, &json!({ "event": "no" }));
        assert_eq!(ServerFrame::head(encoding, &reply), Ok(Head::Reply(9)));
        let event = encoding.encode(&json!({ "at": 1, "data": { "id": 3 }, "event": "typing" }));
        assert_eq!(ServerFrame::head(encoding, &event), Ok(Head::Event));
        assert!(ServerFrame::head(encoding, &encoding.encode(&json!({ "ids": 1 }))).is_err());
        assert!(ServerFrame::head(encoding, &[]).is_err());
    }
}

#[test]
fn a_method_behind_escapes_and_params_that_are_null_are_a_request() {
    let read = |frame| Request::decode(Encoding::Json, frame).map(|request| request.method);
    assert_eq!(
        read(br#"{"id":1,"method":"p\u0069ng","params":null}"#),
        Ok("ping")
    );
    assert!(
        read(br#"{"id":1,"method":"p\u00efng"}"#)
            .is_ok_and(|word| methods().all(|method| method != word))
    );
    assert!(read(br#"{"id":1,"method":["ping"]}"#).is_err());
    let frame = Encoding::MessagePack.encode(&json!({ "id": 1, "method": "ping", "params": null }));
    assert!(
        Request::decode(Encoding::MessagePack, &frame)
            .is_ok_and(|request| request.params::<crate::operation::empty::Empty>().is_ok())
    );
}

#[test]
fn both_encodings_refuse_the_same_depth() {
    for (levels, good) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        for field in ["params", "later"] {
            let value = (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
            for encoding in Encoding::ALL {
                let frame = encoding.encode(&json!({ "id": 1, "method": "ping", field: value }));
                assert_eq!(
                    Request::decode(encoding, &frame).is_ok(),
                    good,
                    "{levels} in {field} as {encoding:?}"
                );
            }
        }
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let good = encode_request(Encoding::MessagePack, 1, "ping", &json!({}));
    for end in 0..good.len() {
        assert!(
            Request::decode(Encoding::MessagePack, &good[..end]).is_err(),
            "cut at {end}"
        );
    }
    let trailing = [good.as_slice(), &[0xc0]].concat();
    assert!(Request::decode(Encoding::MessagePack, &trailing).is_err());
    let mut deep = b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\x81\xa1a".to_vec();
    deep.extend(std::iter::repeat_n(0x91, 10_000));
    deep.push(0xc0);
    assert!(Request::decode(Encoding::MessagePack, &deep).is_err());
    let huge = b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\xdf\xff\xff\xff\xff";
    assert!(Request::decode(Encoding::MessagePack, huge).is_err());
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"id":0,"method":"ping"}"#,
        r#"{"id":4294967296,"method":"ping"}"#,
        r#"{"id":1,"method":"ping","params":3}"#,
        r#"{"id":1.5,"method":"ping"}"#,
        r#"{"id":"1","method":"ping"}"#,
        r#"{"id":1,"id":1,"method":"ping"}"#,
        r#"{"id":1,"method":"ping","method":"ping"}"#,
        r#"{"id":1,"method":"ping","params":{},"params":{}}"#,
    ] {
        assert!(
            Request::decode(Encoding::Json, bad.as_bytes()).is_err(),
            "{bad}"
        );
    }
    for bad in [
        b"\x83\xa2id\x01\xa2id\x01\xa6method\xa4ping".as_slice(),
        b"\x83\xa2id\x01\xa6method\xa4ping\xa6method\xa4ping",
        b"\x84\xa2id\x01\xa6method\xa4ping\xa6params\x80\xa6params\x80",
        b"\x84\xa2id\x01\xa6method\xa4ping\xa6params\xc0\xa6params\x80",
    ] {
        assert!(
            Request::decode(Encoding::MessagePack, bad).is_err(),
            "{bad:?}"
        );
    }
    let id = |id| {
        let frame = format!(r#"{{"id":{id},"method":"ping"}}"#);
        Request::decode(Encoding::Json, frame.as_bytes()).map(|request| request.id)
    };
    assert_eq!((id("3.0"), id("4.294967295e9")), (Ok(3), Ok(u32::MAX)));
    let deep = format!(
        r#"{{"id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert!(Request::decode(Encoding::Json, deep.as_bytes()).is_err());
}
