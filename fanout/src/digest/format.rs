//! The layout of a digest on the bus, integers big-endian:
//!
//! ```text
//! u8  version (1)   u8  flags (1 last round, 2 incomplete)
//! u64 publisher     u64 round     u16 part     u16 number of parts
//! then for each line: u64 hash of the topic, u64 seq (0 if uncertain), u64 at
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Position;

const VERSION: u8 = 1;
const IS_LAST: u8 = 1;
const IS_INCOMPLETE: u8 = 2;
const HEADER_BYTES: usize = 22;
const LINE_BYTES: usize = 24;

/// A part of one round of a node's digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Identifies one start of a node.
    pub publisher: u64,
    /// 1, 2, 3 …
    pub round: u64,
    /// Index of this part within its round.
    pub part: u16,
    /// Number of parts of the round.
    pub parts: u16,
    /// Whether the node has ended.
    pub is_last: bool,
    /// Whether the node committed to more topics than it could record.
    pub is_incomplete: bool,
    /// The topics to which the node committed.
    pub lines: Vec<DigestLine>,
}

/// A topic to which a node committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestLine {
    /// The topic's [hash](super::topic_hash).
    pub topic: u64,
    /// The position of the last event; `None` if it is not known whether a commit was done.
    pub position: Option<Position>,
}

/// Why bytes are not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest of a version that this node reads")]
pub struct MalformedDigest;

impl Digest {
    /// Encodes the digest for the bus.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + LINE_BYTES * self.lines.len());
        let mut flags = 0;
        if self.is_last {
            flags |= IS_LAST;
        }
        if self.is_incomplete {
            flags |= IS_INCOMPLETE;
        }
        out.put_u8(VERSION);
        out.put_u8(flags);
        out.put_u64(self.publisher);
        out.put_u64(self.round);
        out.put_u16(self.part);
        out.put_u16(self.parts);
        for line in &self.lines {
            let position = line.position.unwrap_or_default();
            out.put_u64(line.topic);
            out.put_u64(position.seq);
            out.put_u64(position.at);
        }
        out.freeze()
    }

    /// Decodes a digest that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Fails if the bytes are not a complete digest of a known version.
    pub fn decode(mut bytes: Bytes) -> Result<Self, MalformedDigest> {
        if bytes.len() < HEADER_BYTES
            || !(bytes.len() - HEADER_BYTES).is_multiple_of(LINE_BYTES)
            || bytes.get_u8() != VERSION
        {
            return Err(MalformedDigest);
        }
        let flags = bytes.get_u8();
        let [publisher, round] = [bytes.get_u64(), bytes.get_u64()];
        let [part, parts] = [bytes.get_u16(), bytes.get_u16()];
        if flags & !(IS_LAST | IS_INCOMPLETE) != 0 || round == 0 || part >= parts {
            return Err(MalformedDigest);
        }
        let mut lines = Vec::with_capacity(bytes.len() / LINE_BYTES);
        while bytes.has_remaining() {
            let topic = bytes.get_u64();
            let position = Position {
                seq: bytes.get_u64(),
                at: bytes.get_u64(),
            };
            lines.push(DigestLine {
                topic,
                position: (position.seq > 0).then_some(position),
            });
        }
        Ok(Self {
            publisher,
            round,
            part,
            parts,
            is_last: flags & IS_LAST != 0,
            is_incomplete: flags & IS_INCOMPLETE != 0,
            lines,
        })
    }
}
