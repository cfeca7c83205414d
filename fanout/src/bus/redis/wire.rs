//! What a subscribed connection says and hears: the few commands, and a reader of the server's side.
//!
//! It is RESP2, which every server speaks and in which a subscribed connection carries nothing but what is named here.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// A published record.
    Record { channel: Bytes, record: Bytes },
    /// A subscription stands.
    Joined(Bytes),
    /// A subscription has ended, asked for or not.
    Left(Bytes),
    /// Whatever answers a PING or an AUTH.
    Okay,
    /// The role that ROLE tells.
    Role(Bytes),
    /// A command was refused.
    Refused(String),
}

/// The server says what this reader does not understand: the connection is no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server said what is not understood: {0}")]
pub(super) struct Garbled(&'static str);

/// No reply is longer: Redis itself cuts a subscriber with 32 MiB pending.
const LONGEST: usize = 64 << 20;

/// Lines (of numbers, statuses and errors) are short.
const LONGEST_LINE: usize = 64 << 10;

/// Writes a command.
pub(super) fn say(out: &mut BytesMut, words: &[&str]) {
    out.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.put_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// Takes the next reply off the buffer; `None` until it is there as a whole.
///
/// Records are copied out: a slice would hold the whole read buffer for as long as a single record waits somewhere. Channels
/// are slices, to be dropped before the next read.
pub(super) fn hear(buffer: &mut BytesMut) -> Result<Option<Heard>, Garbled> {
    let mut reader = Reader {
        bytes: buffer,
        at: 0,
    };
    let Some(reply) = reader.reply(0)? else {
        return if buffer.len() > LONGEST {
            Err(Garbled("a reply without end"))
        } else {
            Ok(None)
        };
    };
    let end = reader.at;
    let frame = buffer.split_to(end).freeze();
    let heard = match &reply {
        Reply::Status(_) => Heard::Okay,
        Reply::Error(text) => {
            Heard::Refused(String::from_utf8_lossy(&frame[text.clone()]).into_owned())
        }
        Reply::Array(items) => match &items[..] {
            [Reply::Bulk(kind), rest @ ..] => match (&frame[kind.clone()], rest) {
                (b"message" | b"smessage", [Reply::Bulk(channel), Reply::Bulk(record)]) => {
                    Heard::Record {
                        channel: frame.slice(channel.clone()),
                        record: Bytes::copy_from_slice(&frame[record.clone()]),
                    }
                }
                (b"subscribe" | b"ssubscribe", [Reply::Bulk(channel), Reply::Other]) => {
                    Heard::Joined(frame.slice(channel.clone()))
                }
                (b"unsubscribe" | b"sunsubscribe", [Reply::Bulk(channel), Reply::Other]) => {
                    Heard::Left(frame.slice(channel.clone()))
                }
                (b"pong", [Reply::Bulk(_)]) => Heard::Okay,
                (b"master" | b"slave" | b"replica" | b"sentinel", _) => {
                    Heard::Role(frame.slice(kind.clone()))
                }
                _ => return Err(Garbled("an unknown push")),
            },
            _ => return Err(Garbled("an array that does not begin with a word")),
        },
        Reply::Bulk(_) | Reply::Other => return Err(Garbled("a reply to nothing")),
    };
    Ok(Some(heard))
}

/// A reply, by where its parts lie in the buffer.
enum Reply {
    Status(#[expect(dead_code, reason = "what a status says does not matter")] Range<usize>),
    Error(Range<usize>),
    Bulk(Range<usize>),
    Array(Vec<Reply>),
    /// A number, or nil.
    Other,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn reply(&mut self, depth: u8) -> Result<Option<Reply>, Garbled> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let (Some(kind), text) = (self.bytes.get(line.start), line.start + 1..line.end) else {
            return Err(Garbled("an empty line"));
        };
        match kind {
            b'+' => Ok(Some(Reply::Status(text))),
            b'-' => Ok(Some(Reply::Error(text))),
            b':' => self.number(text).map(|_| Some(Reply::Other)),
            b'$' => match self.number(text)? {
                -1 => Ok(Some(Reply::Other)),
                length => self.bulk(length),
            },
            b'*' => match self.number(text)? {
                -1 => Ok(Some(Reply::Other)),
                length if depth < 4 => self.array(length, depth),
                _ => Err(Garbled("arrays too deep")),
            },
            _ => Err(Garbled("an unknown type")),
        }
    }

    fn bulk(&mut self, length: i64) -> Result<Option<Reply>, Garbled> {
        let length = usize::try_from(length)
            .ok()
            .filter(|l| *l <= LONGEST)
            .ok_or(Garbled("a length beyond all measure"))?;
        let body = self.at..self.at + length;
        match self.bytes.get(body.end..body.end + 2) {
            None => Ok(None),
            Some(b"\r\n") => {
                self.at = body.end + 2;
                Ok(Some(Reply::Bulk(body)))
            }
            Some(_) => Err(Garbled("a string longer than it said")),
        }
    }

    fn array(&mut self, length: i64, depth: u8) -> Result<Option<Reply>, Garbled> {
        // ROLE on a master lists its replicas; nothing else here has more than three items.
        let length = usize::try_from(length)
            .ok()
            .filter(|l| *l <= 1_024)
            .ok_or(Garbled("an array beyond all measure"))?;
        let mut items = Vec::with_capacity(length.min(4));
        for _ in 0..length {
            match self.reply(depth + 1)? {
                Some(item) => items.push(item),
                None => return Ok(None),
            }
        }
        Ok(Some(Reply::Array(items)))
    }

    fn line(&mut self) -> Result<Option<Range<usize>>, Garbled> {
        let rest = &self.bytes[self.at..];
        match rest
            .iter()
            .take(LONGEST_LINE)
            .position(|byte| *byte == b'\n')
        {
            Some(end) if end > 0 && rest[end - 1] == b'\r' => {
                let line = self.at..self.at + end - 1;
                self.at += end + 1;
                Ok(Some(line))
            }
            Some(_) => Err(Garbled("a line without its carriage return")),
            None if rest.len() >= LONGEST_LINE => Err(Garbled("a line without end")),
            None => Ok(None),
        }
    }

    fn number(&self, text: Range<usize>) -> Result<i64, Garbled> {
        let text = self
            .bytes
            .get(text)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(|text| text.parse().ok())
            .ok_or(Garbled("not a number"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Heard>, Garbled> {
        let mut buffer = BytesMut::from(bytes);
        std::iter::from_fn(|| hear(&mut buffer).transpose()).collect()
    }

    const TALK: &[u8] =
        b"+OK\r\n*3\r\n$10\r\nssubscribe\r\n$9\r\nchaos:{t}\r\n:1\r\n*3\r\n$8\r\nsmessage\r\n$9\r\nchaos:{t}\r\n$4\r\n\r\n$1\r\n\
        *2\r\n$4\r\npong\r\n$0\r\n\r\n-MOVED 12 127.0.0.1:7000\r\n*3\r\n$12\r\nsunsubscribe\r\n$9\r\nchaos:{t}\r\n:0\r\n\
        *3\r\n$6\r\nmaster\r\n:100\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$3\r\n100\r\n";

    #[test]
    fn a_talk_is_understood() {
        let channel = || Bytes::from_static(b"chaos:{t}");
        let heard = all(TALK).unwrap();
        assert_eq!(
            heard,
            [
                Heard::Okay,
                Heard::Joined(channel()),
                Heard::Record {
                    channel: channel(),
                    record: Bytes::from_static(b"\r\n$1")
                },
                Heard::Okay,
                Heard::Refused("MOVED 12 127.0.0.1:7000".into()),
                Heard::Left(channel()),
                Heard::Role(Bytes::from_static(b"master")),
            ]
        );
    }

    #[test]
    fn it_does_not_matter_where_the_reads_cut() {
        for cut in 0..TALK.len() {
            let mut buffer = BytesMut::from(&TALK[..cut]);
            let mut heard = Vec::new();
            while let Some(one) = hear(&mut buffer).unwrap() {
                heard.push(one);
            }
            buffer.extend_from_slice(&TALK[cut..]);
            while let Some(one) = hear(&mut buffer).unwrap() {
                heard.push(one);
            }
            assert_eq!(heard, all(TALK).unwrap(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_understood_ends_the_connection() {
        for garbage in [
            &b"!x\r\n"[..],
            b"*2\r\n:1\r\n:2\r\n",
            b"$99999999999\r\n",
            b"$2\r\nabc\r\n",
            b"\n",
            b"*9999999\r\n",
            b"*x\r\n",
            b"$3\r\nabc\r\n",
        ] {
            assert!(all(garbage).is_err(), "{garbage:?}");
        }
        assert!(all(&vec![b'+'; LONGEST_LINE]).is_err());
        assert!(all(&b"*1\r\n".repeat(100)).is_err());
    }

    #[test]
    fn a_command_is_said_as_strings() {
        let mut out = BytesMut::new();
        say(&mut out, &["SUBSCRIBE", "chaos:{é}"]);
        assert_eq!(
            &out[..],
            "*2\r\n$9\r\nSUBSCRIBE\r\n$10\r\nchaos:{é}\r\n".as_bytes()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"*$:+-\r\n0123".to_vec())], 0..200)) {
            let _ = all(&bytes);
        }
    }
}
