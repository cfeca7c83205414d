//! Requests and replies: the frames of a session that are not events.

use rmp::{Marker, decode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    ErrorBody,
    codec::{DecodeError, Encoding, from_msgpack},
};

/// How deep the values of a request may be nested. Free data is bounded more tightly.
const MAX_DEPTH: usize = 64;

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $word:literal,)*) => {
        /// What a request asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Method { $($(#[$doc])* $name,)* }

        impl Method {
            /// Every method.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
            /// The method of a word.
            pub fn of(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)* _ => None }
            }
        }
    };
}

methods! {
    /// Opens the session.
    Connect "connect",
    /// Replaces the credential.
    TokenRefresh "token.refresh",
    /// Tells the server's clock.
    Ping "ping",
    /// Subscribes to channels.
    ChannelSubscribe "channel.subscribe",
    /// Ends subscriptions.
    ChannelUnsubscribe "channel.unsubscribe",
    /// Lists the user's channels.
    ChannelList "channel.list",
    /// Makes a channel.
    ChannelCreate "channel.create",
    /// Changes a channel's fields.
    ChannelUpdate "channel.update",
    /// Deletes a channel.
    ChannelDelete "channel.delete",
    /// Comes into a channel.
    ChannelJoin "channel.join",
    /// Leaves a channel.
    ChannelLeave "channel.leave",
    /// Brings a user into a channel.
    ParticipantAdd "participant.add",
    /// Gives a role.
    ParticipantUpdate "participant.update",
    /// Removes a user from a channel.
    ParticipantRemove "participant.remove",
    /// Lists a channel's participants.
    ParticipantList "participant.list",
    /// Sends a message.
    MessageSend "message.send",
    /// Edits a message.
    MessageEdit "message.edit",
    /// Deletes a message.
    MessageDelete "message.delete",
    /// Lists messages.
    MessageList "message.list",
    /// Gives a reaction.
    ReactionAdd "reaction.add",
    /// Takes a reaction back.
    ReactionRemove "reaction.remove",
    /// Moves the read position forwards.
    ReadMark "read.mark",
    /// Tells that the user types.
    Typing "typing",
    /// Watches users come and go.
    PresenceWatch "presence.watch",
    /// Reads profiles.
    UserGet "user.get",
    /// Changes the own profile.
    UserUpdate "user.update",
}

/// A request whose parameters are not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The client's choice, 1 to 2³²−1.
    pub id: u32,
    /// The method's word, known or not.
    pub method: &'a str,
    params: RawParams<'a>,
}

#[derive(Debug, Clone, Copy)]
enum RawParams<'a> {
    Absent,
    MessagePack(&'a [u8]),
    Json(&'a RawValue),
}

impl<'a> Request<'a> {
    /// Reads a frame. An error means that it is no request: the connection closes with 4000.
    pub fn decode(encoding: Encoding, frame: &'a [u8]) -> Result<Self, DecodeError> {
        let request = match encoding {
            Encoding::MessagePack => Self::decode_msgpack(frame)?,
            Encoding::Json => Self::decode_json(frame)?,
        };
        if request.id == 0 {
            return Err(DecodeError("a request's id is 1 to 2^32-1".into()));
        }
        Ok(request)
    }

    /// The parameters as `T`; absent ones are an empty map.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        match self.params {
            RawParams::Absent => from_msgpack(&[0x80]),
            RawParams::MessagePack(bytes) => from_msgpack(bytes),
            RawParams::Json(raw) => {
                serde_json::from_str(raw.get()).map_err(|e| DecodeError(e.to_string()))
            }
        }
    }

    fn decode_json(frame: &'a [u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            id: u32,
            #[serde(borrow)]
            method: &'a RawValue,
            #[serde(borrow, default)]
            params: Option<&'a RawValue>,
        }
        let fields: Frame<'a> =
            serde_json::from_slice(frame).map_err(|e| DecodeError(e.to_string()))?;
        if is_too_deep(frame) {
            return Err(too_deep());
        }
        let params = match fields.params {
            None => RawParams::Absent,
            Some(raw) if raw.get().starts_with('{') => RawParams::Json(raw),
            Some(_) => return Err(DecodeError("params is not a map".into())),
        };
        Ok(Self {
            id: fields.id,
            method: json_word(fields.method)?,
            params,
        })
    }

    fn decode_msgpack(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = frame;
        let fields = decode::read_map_len(&mut rest)
            .map_err(|_| DecodeError("a request is a map".into()))?;
        let (mut id, mut method, mut params) = (None, None, RawParams::Absent);
        for _ in 0..fields {
            match text(&mut rest)? {
                "id" => {
                    let value: u64 = decode::read_int(&mut rest)
                        .map_err(|_| DecodeError("id is not an integer".into()))?;
                    id = Some(
                        u32::try_from(value)
                            .map_err(|_| DecodeError("id is 1 to 2^32-1".into()))?,
                    );
                }
                "method" => method = Some(text(&mut rest)?),
                "params" => {
                    let start = rest;
                    skip(&mut rest)?;
                    let value = &start[..start.len() - rest.len()];
                    params = match Marker::from_u8(value[0]) {
                        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                            RawParams::MessagePack(value)
                        }
                        // How JavaScript's encoders write a field that is undefined.
                        Marker::Null => RawParams::Absent,
                        _ => return Err(DecodeError("params is not a map".into())),
                    };
                }
                _ => skip(&mut rest)?,
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError("bytes follow the request".into()));
        }
        match (id, method) {
            (Some(id), Some(method)) => Ok(Self { id, method, params }),
            _ => Err(DecodeError("a request has an id and a method".into())),
        }
    }
}

fn too_deep() -> DecodeError {
    DecodeError(format!("values are nested deeper than {MAX_DEPTH}"))
}

/// A method's word. One of ours is found behind escapes too; one that is not may stay as it is written.
fn json_word(raw: &RawValue) -> Result<&str, DecodeError> {
    serde_json::from_str::<&str>(raw.get()).or_else(|_| {
        let word: String = serde_json::from_str(raw.get())
            .map_err(|_| DecodeError("method is not a string".into()))?;
        Ok(Method::of(&word).map_or(raw.get(), |method| method.as_str()))
    })
}

/// Whether a valid JSON map is nested too deep: serde_json steps over what it ignores at any depth.
fn is_too_deep(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                // The frame's own map does not count.
                if depth > MAX_DEPTH + 1 {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    false
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    let (text, tail) = decode::read_str_from_slice(*rest)
        .map_err(|_| DecodeError("a string was expected".into()))?;
    *rest = tail;
    Ok(text)
}

/// Steps over one value without recursion, so that neither depth nor a declared length costs memory.
fn skip(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let short = || DecodeError("the frame ends within a value".into());
    // How many values are still to come at each depth.
    let mut open = [0u64; MAX_DEPTH + 1];
    let mut depth = 0;
    open[0] = 1;
    loop {
        while open[depth] == 0 {
            if depth == 0 {
                return Ok(());
            }
            depth -= 1;
        }
        open[depth] -= 1;
        let marker = decode::read_marker(rest).map_err(|_| short())?;
        let mut take = |n: usize| -> Result<u64, DecodeError> {
            let (head, tail) = rest.split_at_checked(n).ok_or_else(short)?;
            *rest = tail;
            Ok(head
                .iter()
                .take(8)
                .fold(0, |value, byte| (value << 8) | u64::from(*byte)))
        };
        let length = |n: u64| usize::try_from(n).map_err(|_| short());
        let mut children = None;
        match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
            }
            Marker::U8 | Marker::I8 => drop(take(1)?),
            Marker::U16 | Marker::I16 => drop(take(2)?),
            Marker::U32 | Marker::I32 | Marker::F32 => drop(take(4)?),
            Marker::U64 | Marker::I64 | Marker::F64 => drop(take(8)?),
            Marker::FixStr(n) => drop(take(usize::from(n))?),
            Marker::Str8 | Marker::Bin8 => {
                let n = take(1)?;
                take(length(n)?)?;
            }
            Marker::Str16 | Marker::Bin16 => {
                let n = take(2)?;
                take(length(n)?)?;
            }
            Marker::Str32 | Marker::Bin32 => {
                let n = take(4)?;
                take(length(n)?)?;
            }
            Marker::FixArray(n) => children = Some(u64::from(n)),
            Marker::Array16 => children = Some(take(2)?),
            Marker::Array32 => children = Some(take(4)?),
            Marker::FixMap(n) => children = Some(2 * u64::from(n)),
            Marker::Map16 => children = Some(2 * take(2)?),
            Marker::Map32 => children = Some(2 * take(4)?),
            _ => return Err(DecodeError("extension types are not used here".into())),
        }
        if let Some(children) = children {
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(too_deep());
            }
            open[depth] = children;
        }
    }
}

#[derive(Serialize)]
struct RequestFrame<'a, P> {
    id: u32,
    method: &'a str,
    params: &'a P,
}

/// A client's request.
pub fn encode_request<P: Serialize>(
    encoding: Encoding,
    id: u32,
    method: &str,
    params: &P,
) -> Vec<u8> {
    encoding.encode(&RequestFrame { id, method, params })
}

#[derive(Serialize)]
struct ResultFrame<'a, R> {
    id: u32,
    result: &'a R,
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    id: u32,
    error: &'a ErrorBody,
}

/// A server's reply that tells a result.
pub fn encode_result<R: Serialize>(encoding: Encoding, id: u32, result: &R) -> Vec<u8> {
    encoding.encode(&ResultFrame { id, result })
}

/// A server's reply that tells an error.
pub fn encode_error(encoding: Encoding, id: u32, error: &ErrorBody) -> Vec<u8> {
    encoding.encode(&ErrorFrame { id, error })
}

/// What a client receives.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// An answer to one of its requests.
    Reply {
        /// The request's id.
        id: u32,
        /// The result as it stands, or the error.
        outcome: Result<serde_json::Value, ErrorBody>,
    },
    /// An event.
    Event(crate::EventMessage),
}

/// What a frame of the server is, before the whole of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The reply to the request with this id.
    Reply(u32),
    /// An event.
    Event,
}

impl ServerFrame {
    /// Tells a reply from an event without reading results and data: a client with many connections hands the bytes on to
    /// whoever knows their type.
    pub fn head(encoding: Encoding, frame: &[u8]) -> Result<Head, DecodeError> {
        let neither = || DecodeError("neither a reply nor an event".into());
        match encoding {
            Encoding::MessagePack => {
                let mut rest = frame;
                for _ in 0..decode::read_map_len(&mut rest).map_err(|_| neither())? {
                    match text(&mut rest)? {
                        "id" => {
                            return decode::read_int(&mut rest)
                                .map(Head::Reply)
                                .map_err(|_| neither());
                        }
                        "event" => return Ok(Head::Event),
                        _ => skip(&mut rest)?,
                    }
                }
                Err(neither())
            }
            Encoding::Json => {
                #[derive(Deserialize)]
                struct Keys {
                    id: Option<u32>,
                    event: Option<serde::de::IgnoredAny>,
                }
                match encoding.decode(frame)? {
                    Keys { id: Some(id), .. } => Ok(Head::Reply(id)),
                    Keys { event: Some(_), .. } => Ok(Head::Event),
                    _ => Err(neither()),
                }
            }
        }
    }

    /// Reads a frame of the server.
    pub fn decode(encoding: Encoding, frame: &[u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Any {
            id: Option<u32>,
            result: Option<serde_json::Value>,
            error: Option<ErrorBody>,
            event: Option<String>,
            channel_id: Option<crate::ChannelId>,
            seq: Option<u64>,
            at: Option<u64>,
            data: Option<serde_json::Value>,
        }
        let any: Any = encoding.decode(frame)?;
        match any {
            Any {
                id: Some(id),
                error: Some(error),
                ..
            } => Ok(Self::Reply {
                id,
                outcome: Err(error),
            }),
            Any {
                id: Some(id),
                result: Some(result),
                ..
            } => Ok(Self::Reply {
                id,
                outcome: Ok(result),
            }),
            Any {
                event: Some(event),
                channel_id,
                seq,
                at,
                data,
                ..
            } => Ok(Self::Event(crate::EventMessage {
                event,
                channel_id,
                seq,
                at,
                data: data.unwrap_or_default(),
            })),
            _ => Err(DecodeError("neither a reply nor an event".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::params::{ChannelRef, SendMessage};

    #[test]
    fn a_request_is_read_in_both_encodings() {
        let params = json!({ "channel_id": "general", "text": "hi", "later": { "a": [1, 2.5, null, true, "x"] } });
        for encoding in Encoding::ALL {
            let bytes = encode_request(encoding, 7, "message.send", &params);
            let request = Request::decode(encoding, &bytes).unwrap();
            assert_eq!((request.id, request.method), (7, "message.send"));
            assert_eq!(
                request.params::<ChannelRef>().unwrap().channel_id.as_str(),
                "general"
            );
            assert_eq!(
                request.params::<SendMessage>().unwrap().text.as_deref(),
                Some("hi")
            );
        }
    }

    #[test]
    fn a_frames_head_is_told_without_its_body() {
        for encoding in Encoding::ALL {
            let reply = encode_result(encoding, 9, &json!({ "event": "no" }));
            assert_eq!(ServerFrame::head(encoding, &reply), Ok(Head::Reply(9)));
            let event =
                encoding.encode(&json!({ "at": 1, "data": { "id": 3 }, "event": "typing" }));
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
            read(br#"{"id":1,"method":"p\u00efng"}"#).is_ok_and(|word| Method::of(word).is_none())
        );
        assert!(read(br#"{"id":1,"method":["ping"]}"#).is_err());
        let frame =
            Encoding::MessagePack.encode(&json!({ "id": 1, "method": "ping", "params": null }));
        assert!(
            Request::decode(Encoding::MessagePack, &frame)
                .is_ok_and(|request| request.params::<crate::results::Empty>().is_ok())
        );
    }

    #[test]
    fn both_encodings_refuse_the_same_depth() {
        for (levels, good) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
            for field in ["params", "later"] {
                let value = (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
                for encoding in Encoding::ALL {
                    let frame =
                        encoding.encode(&json!({ "id": 1, "method": "ping", field: value }));
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
        ] {
            assert!(
                Request::decode(Encoding::Json, bad.as_bytes()).is_err(),
                "{bad}"
            );
        }
        let deep = format!(
            r#"{{"id":1,"method":"ping","params":{{"a":{}{}}}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert!(Request::decode(Encoding::Json, deep.as_bytes()).is_err());
    }
}
