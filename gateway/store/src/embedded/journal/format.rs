//! The content of a segment: a header, groups one after the other, zeros. A copied segment has a
//! magic of its own, and a trailer instead of the zeros.
//!
//! ```text
//! segment  magic u64, generation u64, number of its first group u64, checksum u32, zero u32
//! group    magic u32, length u32, number u64, checksum u32, zero u32, content, zeros up to 8 bytes
//! trailer  magic u32, whether a segment follows u32, number of the next group u64, checksum u32, zero u32
//! ```
//!
//! Numbers are little-endian. The checksum of a group covers the generation, its number, its length
//! and its content. The generation is random: what a user writes into a message can never pass for a
//! group.

use std::ops::Range;

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"CHAOSJ01");
const COPIED_SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"CHAOSC01");
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"GRP1");
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"END1");

pub(super) const SEGMENT_HEADER_BYTES: u64 = 32;
pub(super) const GROUP_HEADER_BYTES: usize = 24;
pub(super) const TRAILER_BYTES: usize = 24;

/// Groups begin at multiples of it.
pub(super) const ALIGNMENT: usize = 8;

/// Who wrote a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum SegmentKind {
    /// A node. The file never becomes shorter than it was filled.
    Live,
    /// A copy. It ends with a [`Trailer`].
    Copied,
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct SegmentHeader {
    pub(super) kind: SegmentKind,
    /// A random number.
    pub(super) generation: u64,
    /// Number of the first group.
    pub(super) first: u64,
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let magic = match self.kind {
            SegmentKind::Live => SEGMENT_MAGIC,
            SegmentKind::Copied => COPIED_SEGMENT_MAGIC,
        };
        bytes[..8].copy_from_slice(&magic.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..28].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let kind = match u64_at(bytes, 0)? {
            COPIED_SEGMENT_MAGIC => SegmentKind::Copied,
            _ => SegmentKind::Live,
        };
        let header = Self {
            kind,
            generation: u64_at(bytes, 8)?,
            first: u64_at(bytes, 16)?,
        };
        bytes.starts_with(&header.encode()).then_some(header)
    }
}

/// The end of a copied segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailer {
    /// The copy has another segment after this one.
    Continued,
    /// The copy ends here.
    Last,
}

impl Trailer {
    /// `next` is the number of the group after those of the segment.
    pub(super) fn encode(self, generation: u64, next: u64) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        let is_continued = u32::from(self == Self::Continued);
        bytes[..4].copy_from_slice(&TRAILER_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&is_continued.to_le_bytes());
        bytes[8..16].copy_from_slice(&next.to_le_bytes());
        let sum = checksum(generation, next, &bytes[..8]);
        bytes[16..20].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Decodes all bytes after the last group of a segment.
    pub(super) fn decode(bytes: &[u8], generation: u64, next: u64) -> Option<Self> {
        [Self::Continued, Self::Last]
            .into_iter()
            .find(|trailer| trailer.encode(generation, next) == bytes)
    }
}

/// A group that is being written.
#[derive(Debug)]
pub(in super::super) struct GroupBuffer(Vec<u8>);

impl GroupBuffer {
    pub(in super::super) fn new() -> Self {
        Self(vec![0; GROUP_HEADER_BYTES])
    }

    /// The buffer to append the content to.
    pub(in super::super) fn content(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.len() == GROUP_HEADER_BYTES
    }

    /// Bytes of the content.
    pub(in super::super) fn length(&self) -> usize {
        self.0.len() - GROUP_HEADER_BYTES
    }

    /// Bytes that the group takes in a segment.
    pub(super) fn padded_length(&self) -> u64 {
        self.0.len().next_multiple_of(ALIGNMENT) as u64
    }

    /// Fills in the header and the padding, and returns all bytes.
    pub(super) fn seal(&mut self, generation: u64, number: u64) -> &[u8] {
        let length = u32::try_from(self.length()).expect("the writer bounds a group far below");
        let sum = checksum(generation, number, &self.0[GROUP_HEADER_BYTES..]);
        self.0[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
        self.0[4..8].copy_from_slice(&length.to_le_bytes());
        self.0[8..16].copy_from_slice(&number.to_le_bytes());
        self.0[16..20].copy_from_slice(&sum.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        &self.0
    }
}

/// Returns the number of the group at an offset of a segment, the place of its content, and the
/// offset of the next group; `None` if no whole group is there.
pub(super) fn group_at(
    segment: &[u8],
    generation: u64,
    offset: usize,
) -> Option<(u64, Range<usize>, usize)> {
    let header = segment.get(offset..offset.checked_add(GROUP_HEADER_BYTES)?)?;
    if u32_at(header, 0)? != GROUP_MAGIC || u32_at(header, 20)? != 0 {
        return None;
    }
    let (length, number) = (u32_at(header, 4)? as usize, u64_at(header, 8)?);
    let start = offset + GROUP_HEADER_BYTES;
    let content = start..start.checked_add(length)?;
    let sum = checksum(generation, number, segment.get(content.clone())?);
    let next = content.end.next_multiple_of(ALIGNMENT);
    let padding = segment.get(content.end..next)?;
    (sum == u32_at(header, 16)? && padding.iter().all(|byte| *byte == 0))
        .then_some((number, content, next))
}

/// Returns whether the header of a group tells more bytes than the segment has. A node never writes
/// such a group, so the segment was cut.
pub(super) fn is_cut_at(segment: &[u8], offset: usize) -> bool {
    let header = segment.get(offset..).unwrap_or_default();
    match (u32_at(header, 0), u32_at(header, 4)) {
        (Some(GROUP_MAGIC), Some(length)) => {
            let length = GROUP_HEADER_BYTES as u64 + u64::from(length);
            length.next_multiple_of(ALIGNMENT as u64) > header.len() as u64
        }
        _ => false,
    }
}

fn checksum(generation: u64, number: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&(content.len() as u64).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
