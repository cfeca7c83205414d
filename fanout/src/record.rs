//! Records on the bus: a small header that nodes read, and a body that they only deliver.
//!
//! Layout, integers big-endian; [`Record`] describes the fields. Both store engines write it: the
//! embedded one through [`Record::encode`], the Redis one in its commit script with `struct.pack`.
//! A conformance test compares them.
//!
//! ```text
//! u8  version (1)       u8  kind             u8  control (0 none, 1 evict, 2 close, 3 except)
//! u8  stamp mask        u64 seq              u64 at               u64 before
//! u64 for each stamp in the mask, in the order of the bits
//! u16 length, subject   (only when control is 1 or 3)
//! u32 length, counts    (only when bit 6 of the mask is set)
//! body
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Position;

/// The layout version that this build writes and reads.
pub const VERSION: u8 = 1;

/// What the hub does in addition to delivering the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Control {
    /// Nothing.
    #[default]
    None,
    /// Ends every subscription of this subject at an earlier position, before the record is
    /// delivered.
    Evict(Bytes),
    /// Ends every subscription at an earlier position, after the record was delivered.
    Close,
    /// Delivers the record to all subscribers except this subject.
    Except(Bytes),
}

/// Fields that the store assigned, spliced in front of an entity's own fields. Zero means absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Bit 0: the number of a numbered document.
    pub number: u64,
    /// Bit 1: the `seq` of the event that last changed the document.
    pub seq: u64,
    /// Bit 2: time of creation.
    pub created_at: u64,
    /// Bit 3: time of the last edit.
    pub edited_at: u64,
    /// Bit 4: time of deletion.
    pub deleted_at: u64,
}

const COUNT: u8 = 1 << 5;
const COUNTS: u8 = 1 << 6;

/// A record. `seq` 0 marks a passing record, which is not in the log and advances no position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Kind of the event, in the numbering of the [`Source`](crate::Source).
    pub kind: u8,
    /// Effect on subscriptions.
    pub control: Control,
    /// Position in the log; [`Position::default`] for a passing record.
    pub position: Position,
    /// `at` of the previous event.
    pub before: u64,
    /// Fields that the store assigned to the entity in the body.
    pub stamps: Stamps,
    /// Bit 5: the counter that the commit changed, after the change.
    pub count: Option<u64>,
    /// Bit 6: the entity's counters, as a MessagePack map from name to integer, header included.
    pub counts: Option<Bytes>,
    /// Opaque to this crate.
    pub body: Bytes,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within the header.
    #[error("the record ends before its header does")]
    Short,
    /// The version is unknown.
    #[error("the record has version {0}, this node reads {VERSION}")]
    Version(u8),
    /// A control or stamp is unknown.
    #[error("the record's header holds what this node does not know")]
    Unknown,
}

impl Record {
    /// Returns a passing record.
    pub fn passing(kind: u8, control: Control, body: Bytes) -> Self {
        Self {
            kind,
            control,
            body,
            ..Self::default()
        }
    }

    /// Returns whether the record is in the log.
    pub fn is_durable(&self) -> bool {
        self.position.seq != 0
    }

    /// Encodes the record for the bus.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(96 + self.body.len());
        let stamps = self.stamps.as_array();
        let mut mask = 0u8;
        for (bit, value) in stamps.iter().enumerate() {
            mask |= u8::from(*value != 0) << bit;
        }
        mask |= if self.count.is_some() { COUNT } else { 0 };
        mask |= if self.counts.is_some() { COUNTS } else { 0 };
        out.put_u8(VERSION);
        out.put_u8(self.kind);
        out.put_u8(match self.control {
            Control::None => 0,
            Control::Evict(_) => 1,
            Control::Close => 2,
            Control::Except(_) => 3,
        });
        out.put_u8(mask);
        out.put_u64(self.position.seq);
        out.put_u64(self.position.at);
        out.put_u64(self.before);
        for value in stamps.into_iter().filter(|v| *v != 0) {
            out.put_u64(value);
        }
        if let Some(count) = self.count {
            out.put_u64(count);
        }
        if let Control::Evict(subject) | Control::Except(subject) = &self.control {
            out.put_u16(
                u16::try_from(subject.len()).expect("a subject is a user's id, at most 64 bytes"),
            );
            out.put_slice(subject);
        }
        if let Some(counts) = &self.counts {
            out.put_u32(
                u32::try_from(counts.len()).expect("counts are bounded by the limit on reactions"),
            );
            out.put_slice(counts);
        }
        out.put_slice(&self.body);
        out.freeze()
    }

    /// Decodes a record that [`encode`](Self::encode) wrote. The body and the subject share the
    /// given bytes.
    ///
    /// # Errors
    /// Fails if the bytes are not a complete record of a known version.
    pub fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        if bytes.len() < 28 {
            return Err(Malformed::Short);
        }
        let version = bytes.get_u8();
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let kind = bytes.get_u8();
        let control = bytes.get_u8();
        let mask = bytes.get_u8();
        if mask & 0x80 != 0 || control > 3 {
            return Err(Malformed::Unknown);
        }
        let position = Position {
            seq: bytes.get_u64(),
            at: bytes.get_u64(),
        };
        let before = bytes.get_u64();
        let mut stamps = [0u64; 5];
        for (bit, slot) in stamps.iter_mut().enumerate() {
            if mask & (1 << bit) != 0 {
                *slot = bytes.try_get_u64().map_err(|_| Malformed::Short)?;
            }
        }
        let count = match mask & COUNT {
            0 => None,
            _ => Some(bytes.try_get_u64().map_err(|_| Malformed::Short)?),
        };
        let control = match control {
            1 | 3 => {
                let length = usize::from(bytes.try_get_u16().map_err(|_| Malformed::Short)?);
                let subject = take(&mut bytes, length)?;
                if control == 1 {
                    Control::Evict(subject)
                } else {
                    Control::Except(subject)
                }
            }
            2 => Control::Close,
            _ => Control::None,
        };
        let counts = match mask & COUNTS {
            0 => None,
            _ => {
                let length = bytes.try_get_u32().map_err(|_| Malformed::Short)?;
                Some(take(&mut bytes, length as usize)?)
            }
        };
        Ok(Self {
            kind,
            control,
            position,
            before,
            stamps: Stamps::from_array(stamps),
            count,
            counts,
            body: bytes,
        })
    }
}

impl Stamps {
    fn as_array(self) -> [u64; 5] {
        [
            self.number,
            self.seq,
            self.created_at,
            self.edited_at,
            self.deleted_at,
        ]
    }
    fn from_array([number, seq, created_at, edited_at, deleted_at]: [u64; 5]) -> Self {
        Self {
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
        }
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if bytes.len() < length {
        Err(Malformed::Short)
    } else {
        Ok(bytes.split_to(length))
    }
}
