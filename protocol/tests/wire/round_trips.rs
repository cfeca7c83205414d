//! Values survive encoding and decoding, and both encodings carry the same values.

use std::fmt::Debug;

use proptest::{
    prelude::*,
    test_runner::{TestCaseResult, TestRunner},
};
use protocol::{
    ChannelId, Encoding, ErrorBody, ErrorCode, EventKind, EventMessage, Metadata,
    codec::{from_msgpack, to_msgpack, transcode},
    entity::{Channel, Entry, Message, Participant, User},
    error::ErrorAnswer,
    event::{
        DrainingData, Event, ExpiringData, GapData, PresenceData, Reaction, ReadData, TypingData,
    },
    frame::{Head, Request, ServerFrame, encode_error, encode_request, encode_result},
    operation::Operation,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    anything,
    strategies::{self, event_message, is_merge_patch, request},
};

/// Checks one value of one type.
pub(crate) fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    value: &T,
) -> TestCaseResult {
    for encoding in Encoding::ALL {
        let bytes = encoding.encode(value);
        prop_assert_eq!(
            &encoding
                .decode::<T>(&bytes)
                .map_err(|e| TestCaseError::fail(e.to_string()))?,
            value
        );
        prop_assert!(
            encoding
                .decode::<T>(&[&bytes[..], &[0xc0]].concat())
                .is_err(),
            "trailing bytes are refused"
        );
    }
    let msgpack = to_msgpack(value);
    let json: Value = serde_json::from_slice(&Encoding::Json.encode(value)).unwrap();
    prop_assert_eq!(
        &from_msgpack::<Value>(&msgpack).unwrap(),
        &json,
        "both encodings carry the same values"
    );
    let transcoded: Value = serde_json::from_slice(&transcode(&msgpack).unwrap()).unwrap();
    prop_assert_eq!(
        &transcoded,
        &json,
        "and so does the way from one to the other"
    );
    prop_assert!(
        !has_null_field(value, &json),
        "an absent field is left out, never null: {}",
        json
    );
    Ok(())
}

/// Returns whether a field is null outside of free data and merge patches.
fn has_null_field<T>(_: &T, json: &Value) -> bool {
    let path = std::any::type_name::<T>();
    let name = path
        .split('<')
        .next()
        .and_then(|path| path.rsplit("::").next());
    let may_hold_nulls = name.is_some_and(is_merge_patch);
    fn nulls(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(nulls),
            Value::Object(map) => map.iter().any(|(key, value)| {
                !["metadata", "details"].contains(&key.as_str()) && nulls(value)
            }),
            _ => false,
        }
    }
    !may_hold_nulls && nulls(json)
}

/// Checks arbitrary values of a type.
fn check_type<T>()
where
    T: ToSchema + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    };
    TestRunner::new(config)
        .run(&strategies::of::<T>(), |value| check(&value))
        .unwrap_or_else(|error| panic!("{}: {error}", std::any::type_name::<T>()));
}

macro_rules! operations_round_trip {
    (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
        #[test]
        fn parameters_and_results_of_every_operation_round_trip() {
            fn check_operation<O: Operation>() {
                check_type::<O::Path>();
                check_type::<O::Input>();
                check_type::<O::Output>();
            }
            $(check_operation::<protocol::operation::$session::$of_session>();)*
            $(check_operation::<protocol::operation::$resource::$operation>();)*
        }
    };
}
protocol::operations!(operations_round_trip);

macro_rules! events_round_trip {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
        #[test]
        fn data_of_every_event_round_trips() {
            $(check_type::<$data>();)*
        }
    };
}
protocol::events!(events_round_trip);

#[test]
fn bodies_of_http_errors_round_trip() {
    check_type::<ErrorAnswer>();
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_sent((method, params) in request(), id in 1..=u32::MAX) {
        for encoding in Encoding::ALL {
            let bytes = encode_request(encoding, id, method, &params);
            let request = Request::decode(encoding, &bytes).unwrap();
            prop_assert_eq!((request.id, request.method), (id, method));
            prop_assert_eq!(&request.params::<Value>().unwrap(), &params);
            anything::read_params(method, &request).unwrap();
        }
    }

    #[test]
    fn replies_are_read_as_they_were_sent(id in 1..=u32::MAX, result in strategies::map(), error in strategies::of::<ErrorBody>()) {
        for encoding in Encoding::ALL {
            let bytes = encode_result(encoding, id, &result);
            prop_assert_eq!(ServerFrame::head(encoding, &bytes), Ok(Head::Reply(id)));
            let outcome = Ok(Value::Object(result.clone()));
            prop_assert_eq!(ServerFrame::decode(encoding, &bytes).unwrap(), ServerFrame::Reply { id, outcome });
            let bytes = encode_error(encoding, id, &error);
            prop_assert_eq!(ServerFrame::head(encoding, &bytes), Ok(Head::Reply(id)));
            let outcome = Err(error.clone());
            prop_assert_eq!(ServerFrame::decode(encoding, &bytes).unwrap(), ServerFrame::Reply { id, outcome });
        }
    }

    #[test]
    fn events_are_read_as_they_were_sent(event in event_message()) {
        for encoding in Encoding::ALL {
            let bytes = encoding.encode(&event);
            prop_assert_eq!(ServerFrame::head(encoding, &bytes), Ok(Head::Event));
            prop_assert_eq!(ServerFrame::decode(encoding, &bytes).unwrap(), ServerFrame::Event(event.clone()));
        }
    }

    #[test]
    fn unknown_fields_are_ignored(message in strategies::of::<Message>(), extra in strategies::json()) {
        let mut value = serde_json::to_value(&message).unwrap();
        value["of_a_later_version"] = extra;
        for encoding in Encoding::ALL {
            prop_assert_eq!(&encoding.decode::<Message>(&encoding.encode(&value)).unwrap(), &message);
        }
    }

    #[test]
    fn free_data_within_its_bounds_stays_so_in_both_encodings(metadata in strategies::metadata()) {
        for encoding in Encoding::ALL {
            let back: Metadata = encoding.decode(&encoding.encode(&metadata)).unwrap();
            prop_assert_eq!(back.check(), metadata.check());
        }
    }

    #[test]
    fn an_id_is_its_text(id in strategies::channel_id()) {
        prop_assert_eq!(id.as_str().parse::<ChannelId>(), Ok(id));
    }
}

#[test]
fn an_unknown_event_is_read_as_unknown_and_an_unknown_error_as_internal() {
    let event = EventMessage {
        event: "message.pinned".into(),
        channel_id: None,
        seq: Some(3),
        at: Some(4),
        data: json!({}),
    };
    assert_eq!(event.read().unwrap(), Event::Unknown);
    assert_eq!(ErrorCode::of("teapot"), ErrorCode::Internal);
    for kind in EventKind::ALL {
        assert_eq!(EventKind::of(*kind as u8), Some(*kind));
    }
}

#[test]
fn secrets_are_not_printed() {
    use protocol::{
        entity::{Key, TokenKey},
        operation::{
            session::{Connect, RefreshToken},
            user::Token,
        },
    };
    const SECRET: &str = "sk_live_0123456789abcdef";
    fn printed<T: serde::de::DeserializeOwned + std::fmt::Debug>(
        value: serde_json::Value,
    ) -> String {
        format!("{:?}", serde_json::from_value::<T>(value).unwrap())
    }
    let key = serde_json::json!({ "id": "key_0123456789abcdef", "environment": "live", "secret": SECRET, "created_at": 1 });
    let mut token_key = key.clone();
    token_key["id"] = "tk_0123456789abcdef".into();
    token_key["algorithm"] = "HS256".into();
    let token = serde_json::json!({ "token": SECRET, "expires_at": 2, "client": "tests/1" });
    let all = [
        printed::<Key>(key),
        printed::<TokenKey>(token_key),
        printed::<Token>(token.clone()),
        printed::<Connect>(token.clone()),
        printed::<RefreshToken>(token),
    ];
    for text in &all {
        assert!(!text.contains(SECRET) && text.contains("***"), "{text}");
    }
    assert!(
        all[0].contains("key_0123456789abcdef") && all[3].contains("tests/1"),
        "the rest is printed: {all:?}"
    );
}
