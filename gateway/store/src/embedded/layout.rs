//! The format of keys and records on the disk.
//!
//! All entries of a partition are in one tree, under the number that the first write of the
//! partition allocated:
//!
//! ```text
//! partition u64, 'd', table, 0, key      → document          of plain and listed tables
//! partition u64, 'n', number u64         → document          of the numbered table
//! partition u64, 'k', table, 0, key      → number u64        of the numbered table
//! partition u64, 'c', seq u64, number u64 →                  by last change, of the numbered table
//! partition u64, 'l', seq u64            → event
//! ```
//!
//! Numbers in keys are big-endian, so that they sort. Numbers in records are LEB128. Names contain
//! no zero byte.

use bytes::Bytes;

use crate::{Document, DocumentKey, Order, PartitionHead, Position, Stamps, Table};

/// Version of the format, stored in each store.
pub(super) const FORMAT: u64 = 3;

/// The format whose values have no checksums. Otherwise it is the same.
pub(super) const UNSEALED_FORMAT: u64 = 2;

/// Bytes that an event adds to the size of the log, besides its reference.
pub const EVENT_OVERHEAD: u64 = 16;

/// A kind of entry within a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// Documents of plain and listed tables.
    Documents = b'd' as isize,
    /// Numbered documents.
    Numbered = b'n' as isize,
    /// Numbers by key.
    Keys = b'k' as isize,
    /// Numbers by last change.
    Changes = b'c' as isize,
    /// The log.
    Log = b'l' as isize,
}

/// Returns the prefix of a space's keys.
pub(super) fn space(partition: u64, space: Space) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend(partition.to_be_bytes());
    key.push(space as u8);
    key
}

fn named(partition: u64, table: Table, name: &str) -> Vec<u8> {
    let mut key = self::table(partition, table);
    key.extend(name.as_bytes());
    key
}

/// Returns the prefix of a table's keys.
pub(super) fn table(partition: u64, table: Table) -> Vec<u8> {
    let mut key = space(
        partition,
        if table.order == Order::Numbers {
            Space::Keys
        } else {
            Space::Documents
        },
    );
    key.extend(table.name.as_bytes());
    key.push(0);
    key
}

/// Returns the key of a numbered document's number, for a table known by name.
pub(super) fn by_name(partition: u64, table: &str, name: &str) -> Vec<u8> {
    let mut key = space(partition, Space::Keys);
    key.extend(table.as_bytes());
    key.push(0);
    key.extend(name.as_bytes());
    key
}

/// Returns the key of a document; in a numbered table, of its number.
pub(super) fn by_key(partition: u64, table: Table, key: &str) -> Vec<u8> {
    named(partition, table, key)
}

/// Returns the key of a numbered document.
pub(super) fn by_number(partition: u64, number: u64) -> Vec<u8> {
    let mut key = space(partition, Space::Numbered);
    key.extend(number.to_be_bytes());
    key
}

/// Returns the key of a numbered document's last change.
pub(super) fn by_change(partition: u64, seq: u64, number: u64) -> Vec<u8> {
    let mut key = space(partition, Space::Changes);
    key.extend(seq.to_be_bytes());
    key.extend(number.to_be_bytes());
    key
}

/// Returns the key of an event.
pub(super) fn by_seq(partition: u64, seq: u64) -> Vec<u8> {
    let mut key = space(partition, Space::Log);
    key.extend(seq.to_be_bytes());
    key
}

/// Returns the key of a partition's expiry in the `expiries` tree.
pub(super) fn by_expiry(at: u64, partition: u64) -> [u8; 16] {
    (u128::from(at) << 64 | u128::from(partition)).to_be_bytes()
}

/// Decodes the last eight bytes of a key, or a number stored as a record.
pub(super) fn last_u64(bytes: &[u8]) -> Result<u64, Unreadable> {
    bytes
        .last_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or(Unreadable)
}

/// Decodes the first eight bytes of a part of a key; 0 if it is shorter.
pub(super) fn first_u64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A record that this version cannot decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is truncated or not UTF-8")]
pub(super) struct Unreadable;

/// The state of a partition, without its documents and events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LayoutState {
    /// Number of the partition, a prefix of its keys.
    pub(super) id: u64,
    pub(super) head: PartitionHead,
    /// Timestamp of the newest commit, also of one without events.
    pub(super) at: u64,
    /// Expiry; 0 for never.
    pub(super) expires: u64,
    /// Size of the log as [`Keep::bytes`](crate::Keep::bytes) counts it.
    pub(super) log_bytes: u64,
    /// The highest version of all removed documents; new documents start above it.
    pub(super) retired: u64,
    /// Counters that are not zero, in the byte order of their names.
    pub(super) counters: Vec<(String, u64)>,
}

impl LayoutState {
    pub(super) fn encode(&self) -> Vec<u8> {
        let PartitionHead {
            seq,
            at,
            number,
            floor,
        } = self.head;
        let mut out = Vec::with_capacity(64);
        for value in [
            self.id,
            seq,
            at,
            number,
            floor.seq,
            floor.at,
            self.at,
            self.expires,
            self.log_bytes,
            self.retired,
        ] {
            put_number(&mut out, value);
        }
        put_counts(&mut out, &self.counters);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader(bytes);
        let mut next = || reader.number();
        let id = next()?;
        let head = PartitionHead {
            seq: next()?,
            at: next()?,
            number: next()?,
            floor: Position {
                seq: next()?,
                at: next()?,
            },
        };
        let (at, expires, log_bytes, retired) = (next()?, next()?, next()?, next()?);
        Ok(Self {
            id,
            head,
            at,
            expires,
            log_bytes,
            retired,
            counters: reader.counts()?,
        })
    }
}

pub(super) fn encode_document(document: &Document) -> Vec<u8> {
    let Stamps {
        number,
        seq,
        created_at,
        edited_at,
        deleted_at,
    } = document.stamps;
    let mut out = Vec::with_capacity(48 + document.key.len() + document.value.len());
    for value in [
        document.version,
        number,
        seq,
        created_at,
        edited_at,
        deleted_at,
    ] {
        put_number(&mut out, value);
    }
    put_counts(&mut out, &document.counts);
    put_text(&mut out, &document.key);
    out.extend(&document.value);
    out
}

pub(super) fn decode_document(bytes: &[u8]) -> Result<Document, Unreadable> {
    let mut reader = Reader(bytes);
    let mut next = || reader.number();
    let version = next()?;
    let stamps = Stamps {
        number: next()?,
        seq: next()?,
        created_at: next()?,
        edited_at: next()?,
        deleted_at: next()?,
    };
    let counts = reader.counts()?;
    let key = DocumentKey::from(reader.text()?);
    Ok(Document {
        key,
        version,
        value: Bytes::copy_from_slice(reader.0),
        stamps,
        counts,
    })
}

pub(super) fn encode_event(at: u64, kind: u8, reference: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + reference.len());
    put_number(&mut out, at);
    out.push(kind);
    out.extend(reference);
    out
}

/// Returns `at`, kind and reference.
pub(super) fn decode_event(bytes: &[u8]) -> Result<(u64, u8, &[u8]), Unreadable> {
    let mut reader = Reader(bytes);
    let at = reader.number()?;
    let (kind, reference) = reader.0.split_first().ok_or(Unreadable)?;
    Ok((at, *kind, reference))
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn put_counts(out: &mut Vec<u8>, counts: &[(String, u64)]) {
    put_number(out, counts.len() as u64);
    for (name, count) in counts {
        put_text(out, name);
        put_number(out, *count);
    }
}

/// Reads a record from the front; holds the unread rest.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Unreadable)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        let length = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Unreadable)
    }

    fn counts(&mut self) -> Result<Vec<(String, u64)>, Unreadable> {
        (0..self.number()?)
            .map(|_| Ok((self.text()?.to_owned(), self.number()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn stamps() -> impl Strategy<Value = Stamps> {
        any::<[u64; 5]>().prop_map(|[number, seq, created_at, edited_at, deleted_at]| Stamps {
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
        })
    }

    fn document() -> impl Strategy<Value = Document> {
        let counts = vec((any::<String>(), any::<u64>()), 0..4);
        (
            any::<String>(),
            any::<u64>(),
            vec(any::<u8>(), 0..200),
            stamps(),
            counts,
        )
            .prop_map(|(key, version, value, stamps, counts)| Document {
                key: key.into(),
                version,
                value: value.into(),
                stamps,
                counts,
            })
    }

    fn state() -> impl Strategy<Value = LayoutState> {
        (
            any::<[u64; 10]>(),
            vec((any::<String>(), any::<u64>()), 0..4),
        )
            .prop_map(|(n, counters)| LayoutState {
                id: n[0],
                head: PartitionHead {
                    seq: n[1],
                    at: n[2],
                    number: n[3],
                    floor: Position {
                        seq: n[4],
                        at: n[5],
                    },
                },
                at: n[6],
                expires: n[7],
                log_bytes: n[8],
                retired: n[9],
                counters,
            })
    }

    proptest! {
        #[test]
        fn decoding_inverts_encoding(document in document(), state in state(), at: u64, kind: u8, reference: Vec<u8>) {
            prop_assert_eq!(decode_document(&encode_document(&document)), Ok(document));
            prop_assert_eq!(LayoutState::decode(&state.encode()), Ok(state));
            let event = encode_event(at, kind, &reference);
            prop_assert_eq!(decode_event(&event), Ok((at, kind, &reference[..])));
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = (decode_document(&bytes), LayoutState::decode(&bytes), decode_event(&bytes).is_ok());
        }

        #[test]
        fn keys_sort_by_their_numbers(a: u64, b: u64) {
            prop_assert_eq!(by_number(1, a).cmp(&by_number(1, b)), a.cmp(&b));
            prop_assert_eq!(by_seq(a, 0).cmp(&by_seq(b, 0)), a.cmp(&b));
            prop_assert_eq!(by_expiry(a, b).cmp(&by_expiry(b, a)), a.cmp(&b));
            prop_assert_eq!(last_u64(&by_change(7, a, b)), Ok(b));
        }
    }
}
