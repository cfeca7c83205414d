//! The format of stored values, which the scripts share.

use bytes::{Buf, BufMut, Bytes};
use fanout::{Position, record::Stamps};

use crate::{
    Document, DocumentKey, LogEntry, Order, PartitionHead, StoreError, Table, transfer::Outline,
};

/// A partition's head.
#[derive(Debug, Default)]
pub(super) struct StoredHead {
    pub(super) head: PartitionHead,
    /// The number up to which the numbered table was purged.
    pub(super) purged: u64,
    /// The partition's counters, in the byte order of their names.
    pub(super) counters: Vec<(String, u64)>,
}

/// Bytes of an integer: enough for milliseconds until the year 10889.
const INTEGER: usize = 6;

const INFALLIBLE: &str = "writing to memory does not fail";

/// Decodes a head. An empty string stands for a partition that does not exist.
pub(super) fn head(bytes: Bytes) -> Result<StoredHead, StoreError> {
    if bytes.is_empty() {
        return Ok(StoredHead::default());
    }
    let Outline {
        head,
        purged,
        counters,
        ..
    } = outline(bytes)?;
    Ok(StoredHead {
        head,
        purged,
        counters,
    })
}

/// Decodes a head with all fields.
pub(super) fn outline(mut bytes: Bytes) -> Result<Outline, StoreError> {
    if bytes.len() < 10 * INTEGER + 4 {
        return Err(corrupt("a head is too short"));
    }
    let mut next = || bytes.get_uint(INTEGER);
    let [
        seq,
        at,
        number,
        floor_seq,
        floor_at,
        log_bytes,
        purged,
        retired,
        last_commit_at,
        expires,
    ] = std::array::from_fn(|_| next());
    let head = PartitionHead {
        seq,
        at,
        number,
        floor: Position {
            seq: floor_seq,
            at: floor_at,
        },
    };
    let length = bytes.get_u32() as usize;
    let counters = counts(
        bytes
            .get(..length)
            .ok_or_else(|| corrupt("a head is too short"))?,
    )?;
    Ok(Outline {
        head,
        counters,
        last_commit_at,
        retired,
        purged,
        log_bytes,
        expires: Some(expires).filter(|expires| *expires != 0),
    })
}

/// Encodes a head. `keys` are the other keys of the partition, stored only if it expires.
pub(super) fn put_head(outline: &Outline, keys: &[String]) -> Vec<u8> {
    let Outline {
        head,
        last_commit_at,
        retired,
        purged,
        log_bytes,
        expires,
        ref counters,
    } = *outline;
    let mut out = Vec::with_capacity(128);
    let integers = [
        head.seq,
        head.at,
        head.number,
        head.floor.seq,
        head.floor.at,
        log_bytes,
        purged,
        retired,
        last_commit_at,
    ];
    for integer in integers.into_iter().chain([expires.unwrap_or(0)]) {
        out.put_uint(integer, INTEGER);
    }
    let counters = put_counts(counters);
    out.put_u32(length(counters.len()));
    out.extend(counters);
    if expires.is_some() && !keys.is_empty() {
        rmp::encode::write_array_len(&mut out, length(keys.len())).expect(INFALLIBLE);
        for key in keys {
            rmp::encode::write_str(&mut out, key).expect(INFALLIBLE);
        }
    }
    out
}

pub(super) fn put_document(table: Table, document: &Document) -> Vec<u8> {
    let Document {
        key,
        version,
        value,
        stamps,
        counts,
    } = document;
    let key = if table.order == Order::Numbers {
        key.as_bytes()
    } else {
        &[]
    };
    let counts = put_counts(counts);
    let mut out = Vec::with_capacity(6 * INTEGER + 6 + key.len() + counts.len() + value.len());
    for integer in [
        *version,
        stamps.number,
        stamps.seq,
        stamps.created_at,
        stamps.edited_at,
        stamps.deleted_at,
    ] {
        out.put_uint(integer, INTEGER);
    }
    out.put_u16(u16::try_from(key.len()).expect("keys have at most 256 bytes"));
    out.put_u32(length(counts.len()));
    out.extend(key);
    out.extend(counts);
    out.extend(value);
    out
}

pub(super) fn put_entry(entry: &LogEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(INTEGER + 1 + entry.reference.len());
    out.put_uint(entry.position.at, INTEGER);
    out.put_u8(entry.kind);
    out.extend(&entry.reference);
    out
}

fn put_counts(counts: &[(String, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    if !counts.is_empty() {
        rmp::encode::write_map_len(&mut out, length(counts.len())).expect(INFALLIBLE);
        for (name, count) in counts {
            rmp::encode::write_str(&mut out, name).expect(INFALLIBLE);
            rmp::encode::write_uint(&mut out, *count).expect(INFALLIBLE);
        }
    }
    out
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("stored values are far below 4 GiB")
}

/// Decodes a document. A numbered document includes its key; for others it is `requested`.
pub(super) fn document(
    mut bytes: Bytes,
    requested: Option<&DocumentKey>,
) -> Result<Document, StoreError> {
    if bytes.len() < 6 * INTEGER + 6 {
        return Err(corrupt("a document is too short"));
    }
    let mut next = || bytes.get_uint(INTEGER);
    let [version, number, seq, created_at, edited_at, deleted_at] = std::array::from_fn(|_| next());
    let (key_length, counts_length) = (usize::from(bytes.get_u16()), bytes.get_u32() as usize);
    if bytes.len() < key_length + counts_length {
        return Err(corrupt("a document is too short"));
    }
    let included = bytes.split_to(key_length);
    let key = match requested {
        Some(key) => key.clone(),
        None => DocumentKey::from(
            std::str::from_utf8(&included).map_err(|_| corrupt("a key is not UTF-8"))?,
        ),
    };
    let counts = counts(&bytes.split_to(counts_length))?;
    Ok(Document {
        key,
        version,
        value: bytes,
        stamps: Stamps {
            number,
            seq,
            created_at,
            edited_at,
            deleted_at,
        },
        counts,
    })
}

/// Decodes an entry of the log.
pub(super) fn entry(mut bytes: Bytes, seq: u64) -> Result<LogEntry, StoreError> {
    if bytes.len() <= INTEGER {
        return Err(corrupt("an entry of the log is too short"));
    }
    let at = bytes.get_uint(INTEGER);
    let kind = bytes.get_u8();
    Ok(LogEntry {
        position: Position { seq, at },
        kind,
        reference: bytes,
    })
}

fn counts(mut bytes: &[u8]) -> Result<Vec<(String, u64)>, StoreError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |_| corrupt("counters are not a map of integers");
    let len =
        rmp::decode::read_map_len(&mut bytes).map_err(|_| corrupt("counters are not a map"))?;
    let mut counts = Vec::with_capacity(len.min(1024) as usize);
    for _ in 0..len {
        let (name, rest) = rmp::decode::read_str_from_slice(bytes)
            .map_err(|_| corrupt("a counter's name is not a string"))?;
        bytes = rest;
        counts.push((
            name.to_owned(),
            rmp::decode::read_int(&mut bytes).map_err(bad)?,
        ));
    }
    Ok(counts)
}

fn corrupt(sentence: &str) -> StoreError {
    StoreError::Corrupt(sentence.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn document_is_decoded() {
        let mut raw = Vec::new();
        for integer in [3u64, 7, 9, 1_700_000_000_000, 0, (1 << 48) - 1] {
            raw.extend_from_slice(&integer.to_be_bytes()[2..]);
        }
        raw.extend_from_slice(b"\0\x02\0\0\0\x04m1\x81\xa1+\x05value");
        let document = document(raw.into(), None).unwrap();
        assert_eq!(
            (&*document.key, document.version, &document.value[..]),
            ("m1", 3, &b"value"[..])
        );
        assert_eq!(document.counts, [("+".to_owned(), 5)]);
        assert_eq!(
            (
                document.stamps.number,
                document.stamps.seq,
                document.stamps.deleted_at
            ),
            (7, 9, (1 << 48) - 1)
        );
    }

    proptest! {
        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let bytes = Bytes::from(bytes);
            let _ = (head(bytes.clone()), document(bytes.clone(), None), entry(bytes, 1));
        }
    }
}
