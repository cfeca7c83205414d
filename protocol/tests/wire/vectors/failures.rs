//! Errors, close codes, and frames that are not requests.

use protocol::{
    CloseCode, Encoding, ErrorBody, ErrorCode,
    frame::{encode_error, encode_request},
    operation::empty::Empty,
};
use serde_json::json;

use super::{Close, Direction, Refused, Vector, hex};

pub(super) fn error(code: ErrorCode) -> ErrorBody {
    let body = |message: &str| ErrorBody::new(code, message);
    match code {
        ErrorCode::BadRequest => ErrorBody {
            details: Some(json!({ "field": "text" })),
            ..body("a message has a text or an attachment")
        },
        ErrorCode::Unauthenticated => body("the token is not valid"),
        ErrorCode::Forbidden => body("an observer does not send"),
        ErrorCode::NotFound => body("there is no such channel"),
        ErrorCode::MethodNotAllowed => body("this path has no PUT"),
        ErrorCode::Conflict => body("the id is in use"),
        ErrorCode::PreconditionFailed => body("it has changed since the version in If-Match"),
        ErrorCode::TooLarge => body("the text is longer than 16384 bytes"),
        ErrorCode::Unsupported => body("there is no such method"),
        ErrorCode::LimitReached => body("the channel is full"),
        ErrorCode::RateLimited => ErrorBody {
            retry_after_ms: Some(20),
            ..body("too many requests")
        },
        ErrorCode::Internal => body("something went wrong"),
        ErrorCode::Unavailable => ErrorBody {
            retry_after_ms: Some(1000),
            ..body("the store cannot be reached")
        },
    }
}

pub(super) fn errors() -> Vec<Vector> {
    let all = ErrorCode::ALL.iter().zip(1..);
    all.map(|(code, id)| {
        let body = error(*code);
        let description = format!("HTTP {}.", code.status());
        Vector::new(
            code.as_str(),
            &description,
            Direction::ServerToClient,
            |encoding| encode_error(encoding, id, &body),
        )
    })
    .collect()
}

pub(super) fn close() -> Vec<Close> {
    let close = |code: &CloseCode| {
        let (description, reconnect) = match code {
            CloseCode::GoingAway => (
                "the node is going away",
                "at once, spread over reconnect_after_ms",
            ),
            CloseCode::BadFrame => ("a frame that cannot be decoded, or is no request", "no"),
            CloseCode::ConnectTimeout => ("no connect in time", "yes"),
            CloseCode::TokenRefused => ("the token was refused", "no"),
            CloseCode::TokenExpired => ("the token has expired", "with a new token"),
            CloseCode::SessionEnded => (
                "the session was ended: revoked, or the user, app or organization deleted",
                "no",
            ),
            CloseCode::HeartbeatLost => ("two pings were not answered", "yes"),
            CloseCode::TooSlow => ("the reader did not keep up", "yes, with resume"),
            CloseCode::FrameTooLarge => ("a frame beyond frame_bytes", "no"),
            CloseCode::TooManyRequests => (
                "requests went on in spite of rate_limited",
                "after back-off",
            ),
            CloseCode::TooManyConnections => (
                "too many connections, or not admitted now",
                "after back-off",
            ),
            CloseCode::Internal => ("a defect of the server", "after back-off"),
        };
        Close {
            code: code.code(),
            reason: code.reason().into(),
            description: description.into(),
            reconnect: reconnect.into(),
        }
    };
    CloseCode::ALL.iter().map(close).collect()
}

pub(super) fn refused() -> Vec<Refused> {
    let refused = |encoding: Encoding, name: &str, description: &str, bytes: &[u8]| Refused {
        name: name.into(),
        description: description.into(),
        encoding: if encoding == Encoding::Json {
            "json"
        } else {
            "msgpack"
        }
        .into(),
        bytes: hex(bytes),
    };
    let msgpack = |name: &str, description: &str, bytes: &[u8]| {
        refused(Encoding::MessagePack, name, description, bytes)
    };
    let json = |name: &str, description: &str, text: &str| {
        refused(Encoding::Json, name, description, text.as_bytes())
    };
    let ping = encode_request(Encoding::MessagePack, 1, "ping", &Empty {});
    vec![
        msgpack("empty", "No bytes at all.", b""),
        msgpack("no map", "A request is a map.", b"\x01"),
        msgpack(
            "cut",
            "The frame ends within a value.",
            &ping[..ping.len() - 1],
        ),
        msgpack(
            "trailing",
            "A byte follows the request.",
            &[&ping[..], b"\xc0"].concat(),
        ),
        msgpack(
            "id 0",
            "Ids begin at 1.",
            b"\x82\xa2id\x00\xa6method\xa4ping",
        ),
        msgpack(
            "id 2^32",
            "Ids end at 2^32-1.",
            b"\x82\xa2id\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa6method\xa4ping",
        ),
        msgpack("no id", "A request has an id.", b"\x81\xa6method\xa4ping"),
        msgpack("no method", "A request has a method.", b"\x81\xa2id\x01"),
        msgpack(
            "method as bytes",
            "A method is a string.",
            b"\x82\xa2id\x01\xa6method\xc4\x04ping",
        ),
        msgpack(
            "invalid UTF-8",
            "Strings are UTF-8.",
            b"\x82\xa2id\x01\xa6method\xa4pi\xff\xfe",
        ),
        msgpack(
            "params as a list",
            "params is a map.",
            b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\x90",
        ),
        msgpack(
            "huge list",
            "A length that the frame does not hold.",
            b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\x81\xa1a\xdd\xff\xff\xff\xff",
        ),
        msgpack(
            "too deep",
            "Values are nested deeper than 64.",
            &[
                &b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\x81\xa1a"[..],
                &[0x91; 100],
                b"\xc0",
            ]
            .concat(),
        ),
        msgpack(
            "extension type",
            "Extension types are not used.",
            b"\x83\xa2id\x01\xa6method\xa4ping\xa6params\x81\xa1a\xd4\x01\x00",
        ),
        json("empty", "No text at all.", ""),
        json("no object", "A request is an object.", "[]"),
        json(
            "trailing",
            "Text follows the request.",
            r#"{"id":1,"method":"ping"}x"#,
        ),
        json("id 0", "Ids begin at 1.", r#"{"id":0,"method":"ping"}"#),
        json(
            "id with a fraction",
            "Ids are integers.",
            r#"{"id":1.5,"method":"ping"}"#,
        ),
        json(
            "id 2^32",
            "Ids end at 2^32-1.",
            r#"{"id":4294967296,"method":"ping"}"#,
        ),
        json(
            "params as a number",
            "params is a map.",
            r#"{"id":1,"method":"ping","params":3}"#,
        ),
        json(
            "too deep",
            "Values are nested deeper than 64.",
            &format!(
                r#"{{"id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
                "[".repeat(100),
                "]".repeat(100)
            ),
        ),
    ]
}
