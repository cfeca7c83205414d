//! Requests and replies: the frames of a session that are not events.

use rmp::{Marker, decode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    ErrorBody,
    codec::{DecodeError, Encoding, from_client},
    input::{Misfit, integral},
    operation::methods,
};

/// Maximum depth of the values of a request. Free data has a lower maximum.
const MAX_DEPTH: usize = 64;

/// A request whose parameters are not decoded yet.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Chosen by the client: 1 to 2³²−1.
    pub id: u32,
    /// The method, known or not.
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
    /// Decodes a frame. After an error the connection closes with 4000.
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

    /// Decodes the parameters. Absent ones are an empty map.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, Misfit> {
        match self.params {
            RawParams::Absent => from_client(Encoding::MessagePack, &[0x80]),
            RawParams::MessagePack(bytes) => from_client(Encoding::MessagePack, bytes),
            RawParams::Json(raw) => from_client(Encoding::Json, raw.get().as_bytes()),
        }
    }

    fn decode_json(frame: &'a [u8]) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Frame<'a> {
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            method: Option<&'a RawValue>,
            #[serde(borrow, default)]
            params: Option<&'a RawValue>,
        }
        if frame
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|byte| matches!(byte, b'[' | b'"'))
        {
            return Err(DecodeError("a request is a map".into()));
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
        let (Some(id), Some(method)) = (fields.id, fields.method) else {
            return Err(incomplete());
        };
        let id = serde_json::from_str::<f64>(id.get())
            .ok()
            .and_then(integral)
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| DecodeError("a request's id is 1 to 2^32-1".into()))?;
        Ok(Self {
            id,
            method: json_word(method)?,
            params,
        })
    }

    fn decode_msgpack(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = frame;
        let fields = decode::read_map_len(&mut rest)
            .map_err(|_| DecodeError("a request is a map".into()))?;
        let (mut id, mut method, mut params) = (None, None, None);
        for _ in 0..fields {
            match text(&mut rest)? {
                "id" if id.is_some() => return Err(twice("id")),
                "method" if method.is_some() => return Err(twice("method")),
                "params" if params.is_some() => return Err(twice("params")),
                "id" => {
                    let value = integer(&mut rest)
                        .ok_or_else(|| DecodeError("id is not an integer".into()))?;
                    id = Some(
                        u32::try_from(value)
                            .map_err(|_| DecodeError("a request's id is 1 to 2^32-1".into()))?,
                    );
                }
                "method" => method = Some(text(&mut rest)?),
                "params" => {
                    let start = rest;
                    skip(&mut rest)?;
                    let value = &start[..start.len() - rest.len()];
                    params = Some(match Marker::from_u8(value[0]) {
                        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
                            RawParams::MessagePack(value)
                        }
                        // JavaScript's encoders write undefined fields this way.
                        Marker::Null => RawParams::Absent,
                        _ => return Err(DecodeError("params is not a map".into())),
                    });
                }
                _ => skip(&mut rest)?,
            }
        }
        if !rest.is_empty() {
            return Err(DecodeError("bytes follow the request".into()));
        }
        let params = params.unwrap_or(RawParams::Absent);
        match (id, method) {
            (Some(id), Some(method)) => Ok(Self { id, method, params }),
            _ => Err(incomplete()),
        }
    }
}

fn incomplete() -> DecodeError {
    DecodeError("a request has an id and a method".into())
}

fn twice(field: &str) -> DecodeError {
    DecodeError(format!("{field} stands twice"))
}

fn too_deep() -> DecodeError {
    DecodeError(format!("values are nested deeper than {MAX_DEPTH}"))
}

/// Returns the method. A known one may be written with escapes; an unknown one with escapes is
/// returned as it is written.
fn json_word(raw: &RawValue) -> Result<&str, DecodeError> {
    serde_json::from_str::<&str>(raw.get()).or_else(|_| {
        let word: String = serde_json::from_str(raw.get())
            .map_err(|_| DecodeError("method is not a string".into()))?;
        Ok(methods()
            .find(|method| *method == word)
            .unwrap_or(raw.get()))
    })
}

/// Returns whether a valid JSON map is nested too deep. serde_json skips ignored values of any
/// depth.
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

/// An integer, encoded as any number with an integral value.
fn integer(rest: &mut &[u8]) -> Option<i64> {
    match Marker::from_u8(*rest.first()?) {
        Marker::F32 => integral(f64::from(decode::read_f32(rest).ok()?)),
        Marker::F64 => integral(decode::read_f64(rest).ok()?),
        _ => decode::read_int(rest).ok(),
    }
}

/// Skips one value without recursion, so that neither depth nor a declared length costs memory.
fn skip(rest: &mut &[u8]) -> Result<(), DecodeError> {
    let short = || DecodeError("the frame ends within a value".into());
    // Number of values left at each depth.
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

/// Encodes a request.
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

/// Encodes a reply with a result.
pub fn encode_result<R: Serialize>(encoding: Encoding, id: u32, result: &R) -> Vec<u8> {
    encoding.encode(&ResultFrame { id, result })
}

/// Encodes a reply with an error.
pub fn encode_error(encoding: Encoding, id: u32, error: &ErrorBody) -> Vec<u8> {
    encoding.encode(&ErrorFrame { id, error })
}

/// A frame that a client receives.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerFrame {
    /// An answer to one of its requests.
    Reply {
        /// The request's id.
        id: u32,
        /// The result, or the error.
        outcome: Result<serde_json::Value, ErrorBody>,
    },
    /// An event.
    Event(crate::EventMessage),
}

/// The kind of a frame that a client receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The reply to the request with this id.
    Reply(u32),
    /// An event.
    Event,
}

impl ServerFrame {
    /// Returns the kind of a frame without decoding its result or data.
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

    /// Decodes a frame that a client receives.
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
mod tests;
