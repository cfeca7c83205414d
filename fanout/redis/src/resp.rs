//! RESP2 for pub/sub connections: writes commands and parses replies.
//! Every server supports RESP2. A subscribed connection receives only the kinds of [`RespReply`].

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// A reply or a published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RespReply {
    /// A published message.
    Message {
        /// The channel.
        channel: Bytes,
        /// The payload.
        payload: Bytes,
    },
    /// The server confirmed a subscription to this channel.
    Subscribed(Bytes),
    /// A subscription ended, on request or because the slot moved.
    Unsubscribed(Bytes),
    /// The answer to PING or AUTH.
    Ok,
    /// The role in the answer to ROLE.
    Role(Bytes),
    /// A command was refused.
    Error(String),
}

/// The server sent bytes that cannot be parsed. The connection is no longer usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot parse the server's reply: {0}")]
pub struct ProtocolError(&'static str);

/// Maximum length of a reply. Larger than the 32 MiB of pending output at which Redis disconnects a
/// subscriber by default.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Maximum length of a number, status or error line.
const MAX_LINE_BYTES: usize = 64 << 10;

const MAX_ARRAY_DEPTH: u8 = 4;

/// Maximum number of items in an array. A master's answer to ROLE lists its replicas; all other
/// arrays have at most three items.
const MAX_ARRAY_ITEMS: usize = 1_024;

/// Appends a command as an array of bulk strings.
pub(crate) fn write_command(out: &mut BytesMut, words: &[&str]) {
    out.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.put_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// Removes the next complete reply from the buffer.
///
/// Payloads are copied, because a slice would keep the whole read buffer alive. Channels are
/// slices: drop them before the next read.
pub(crate) fn read_reply(buffer: &mut BytesMut) -> Result<Option<RespReply>, ProtocolError> {
    let mut parser = Parser {
        bytes: buffer,
        at: 0,
    };
    let Some(value) = parser.value(0)? else {
        return if buffer.len() > MAX_REPLY_BYTES {
            Err(ProtocolError("the reply is too long"))
        } else {
            Ok(None)
        };
    };
    let end = parser.at;
    let frame = buffer.split_to(end).freeze();
    let reply = match &value {
        Value::Status => RespReply::Ok,
        Value::Error(text) => {
            RespReply::Error(String::from_utf8_lossy(&frame[text.clone()]).into_owned())
        }
        Value::Array(items) => match &items[..] {
            [Value::Bulk(kind), rest @ ..] => match (&frame[kind.clone()], rest) {
                (b"message" | b"smessage", [Value::Bulk(channel), Value::Bulk(payload)]) => {
                    RespReply::Message {
                        channel: frame.slice(channel.clone()),
                        payload: Bytes::copy_from_slice(&frame[payload.clone()]),
                    }
                }
                (b"subscribe" | b"ssubscribe", [Value::Bulk(channel), Value::Other]) => {
                    RespReply::Subscribed(frame.slice(channel.clone()))
                }
                (b"unsubscribe" | b"sunsubscribe", [Value::Bulk(channel), Value::Other]) => {
                    RespReply::Unsubscribed(frame.slice(channel.clone()))
                }
                (b"pong", [Value::Bulk(_)]) => RespReply::Ok,
                (b"master" | b"slave" | b"replica" | b"sentinel", _) => {
                    RespReply::Role(frame.slice(kind.clone()))
                }
                _ => return Err(ProtocolError("unknown kind of push")),
            },
            _ => return Err(ProtocolError("an array does not begin with a string")),
        },
        Value::Bulk(_) | Value::Other => return Err(ProtocolError("a reply without a command")),
    };
    Ok(Some(reply))
}

/// A parsed value. Strings are ranges of the buffer.
enum Value {
    Status,
    Error(Range<usize>),
    Bulk(Range<usize>),
    Array(Vec<Value>),
    /// A number or nil.
    Other,
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: u8) -> Result<Option<Value>, ProtocolError> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let (Some(kind), text) = (self.bytes.get(line.start), line.start + 1..line.end) else {
            return Err(ProtocolError("an empty line"));
        };
        match kind {
            b'+' => Ok(Some(Value::Status)),
            b'-' => Ok(Some(Value::Error(text))),
            b':' => self.number(text).map(|_| Some(Value::Other)),
            b'$' => match self.number(text)? {
                -1 => Ok(Some(Value::Other)),
                length => self.bulk(length),
            },
            b'*' => match self.number(text)? {
                -1 => Ok(Some(Value::Other)),
                length if depth < MAX_ARRAY_DEPTH => self.array(length, depth),
                _ => Err(ProtocolError("arrays are nested too deeply")),
            },
            _ => Err(ProtocolError("unknown type of value")),
        }
    }

    fn bulk(&mut self, length: i64) -> Result<Option<Value>, ProtocolError> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_REPLY_BYTES)
            .ok_or(ProtocolError("a string is too long"))?;
        let body = self.at..self.at + length;
        match self.bytes.get(body.end..body.end + 2) {
            None => Ok(None),
            Some(b"\r\n") => {
                self.at = body.end + 2;
                Ok(Some(Value::Bulk(body)))
            }
            Some(_) => Err(ProtocolError("a string is longer than its length")),
        }
    }

    fn array(&mut self, length: i64, depth: u8) -> Result<Option<Value>, ProtocolError> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_ARRAY_ITEMS)
            .ok_or(ProtocolError("an array is too long"))?;
        let mut items = Vec::with_capacity(length.min(4));
        for _ in 0..length {
            match self.value(depth + 1)? {
                Some(item) => items.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(Value::Array(items)))
    }

    fn line(&mut self) -> Result<Option<Range<usize>>, ProtocolError> {
        let rest = &self.bytes[self.at..];
        match rest
            .iter()
            .take(MAX_LINE_BYTES)
            .position(|byte| *byte == b'\n')
        {
            Some(end) if end > 0 && rest[end - 1] == b'\r' => {
                let line = self.at..self.at + end - 1;
                self.at += end + 1;
                Ok(Some(line))
            }
            Some(_) => Err(ProtocolError("a line lacks its carriage return")),
            None if rest.len() >= MAX_LINE_BYTES => Err(ProtocolError("a line is too long")),
            None => Ok(None),
        }
    }

    fn number(&self, text: Range<usize>) -> Result<i64, ProtocolError> {
        let text = self
            .bytes
            .get(text)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(|text| text.parse().ok())
            .ok_or(ProtocolError("not a number"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn parse_all(bytes: &[u8]) -> Result<Vec<RespReply>, ProtocolError> {
        let mut buffer = BytesMut::from(bytes);
        std::iter::from_fn(|| read_reply(&mut buffer).transpose()).collect()
    }

    const CONVERSATION: &[u8] =
        b"+OK\r\n*3\r\n$10\r\nssubscribe\r\n$9\r\nchaos:{t}\r\n:1\r\n*3\r\n$8\r\nsmessage\r\n$9\r\nchaos:{t}\r\n$4\r\n\r\n$1\r\n\
        *2\r\n$4\r\npong\r\n$0\r\n\r\n-MOVED 12 127.0.0.1:7000\r\n*3\r\n$12\r\nsunsubscribe\r\n$9\r\nchaos:{t}\r\n:0\r\n\
        *3\r\n$6\r\nmaster\r\n:100\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$3\r\n100\r\n";

    #[test]
    fn replies_of_a_conversation_are_parsed() {
        let channel = || Bytes::from_static(b"chaos:{t}");
        let replies = parse_all(CONVERSATION).unwrap();
        assert_eq!(
            replies,
            [
                RespReply::Ok,
                RespReply::Subscribed(channel()),
                RespReply::Message {
                    channel: channel(),
                    payload: Bytes::from_static(b"\r\n$1")
                },
                RespReply::Ok,
                RespReply::Error("MOVED 12 127.0.0.1:7000".into()),
                RespReply::Unsubscribed(channel()),
                RespReply::Role(Bytes::from_static(b"master")),
            ]
        );
    }

    #[test]
    fn replies_are_parsed_wherever_reads_split_them() {
        for cut in 0..CONVERSATION.len() {
            let mut buffer = BytesMut::from(&CONVERSATION[..cut]);
            let mut replies = Vec::new();
            while let Some(one) = read_reply(&mut buffer).unwrap() {
                replies.push(one);
            }
            buffer.extend_from_slice(&CONVERSATION[cut..]);
            while let Some(one) = read_reply(&mut buffer).unwrap() {
                replies.push(one);
            }
            assert_eq!(replies, parse_all(CONVERSATION).unwrap(), "cut at {cut}");
        }
    }

    #[test]
    fn malformed_replies_are_errors() {
        for malformed in [
            &b"!x\r\n"[..],
            b"*2\r\n:1\r\n:2\r\n",
            b"$99999999999\r\n",
            b"$2\r\nabc\r\n",
            b"\n",
            b"*9999999\r\n",
            b"*x\r\n",
            b"$3\r\nabc\r\n",
        ] {
            assert!(parse_all(malformed).is_err(), "{malformed:?}");
        }
        assert!(parse_all(&vec![b'+'; MAX_LINE_BYTES]).is_err());
        assert!(parse_all(&b"*1\r\n".repeat(100)).is_err());
    }

    #[test]
    fn command_is_written_as_array_of_strings() {
        let mut out = BytesMut::new();
        write_command(&mut out, &["SUBSCRIBE", "chaos:{é}"]);
        assert_eq!(
            &out[..],
            "*2\r\n$9\r\nSUBSCRIBE\r\n$10\r\nchaos:{é}\r\n".as_bytes()
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"*$:+-\r\n0123".to_vec())], 0..200)) {
            let _ = parse_all(&bytes);
        }
    }
}
