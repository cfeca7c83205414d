//! Counts a client's frames before tungstenite reads them, since tungstenite hides the fragments of
//! a message.

/// Number of fragments that a message of any size may have.
const MIN_FRAGMENTS: u64 = 64;
/// A message may have another fragment for each of these bytes.
const BYTES_PER_FRAGMENT: u64 = 512;
/// Maximum length of a header: two bytes, eight of length, four of mask.
const MAX_HEADER_BYTES: usize = 14;

/// A message has too many fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message has too many fragments")]
pub(super) struct TooManyFragments;

/// Parses frame headers (RFC 6455, 5.2) in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct FrameMeter {
    header: [u8; MAX_HEADER_BYTES],
    /// Bytes of the current header so far.
    have: usize,
    /// Bytes of the current payload that are missing.
    payload: u64,
    /// Fragments and bytes of the unfinished message.
    fragments: u64,
    bytes: u64,
    /// Whether the current frame is the last one of its message.
    is_last: bool,
    largest_payload: u64,
}

impl FrameMeter {
    /// Parses the next bytes.
    ///
    /// # Errors
    /// Fails if a message has too many fragments. Close the connection then, without reading these
    /// bytes.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> Result<(), TooManyFragments> {
        while !bytes.is_empty() {
            let passed = usize::try_from(self.payload)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            self.payload -= passed as u64;
            bytes = &bytes[passed..];
            if passed > 0 {
                self.end_if_whole();
            }
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            self.header[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if let Some(length) = payload_length(&self.header[..self.have]) {
                self.have = 0;
                self.payload = length;
                self.largest_payload = self.largest_payload.max(length);
                self.frame(self.header[0], length)?;
            }
        }
        Ok(())
    }

    /// Returns whether all frames and messages are complete.
    pub(super) fn is_between_messages(&self) -> bool {
        self.have == 0 && self.payload == 0 && self.fragments == 0
    }

    /// Returns the bytes that tungstenite needs for the fragments of the unfinished message besides
    /// its buffer: it collects them in a vector of at most twice their length.
    pub(super) fn fragment_bytes(&self) -> u64 {
        if self.is_last && self.fragments == 1 {
            return 0;
        }
        self.bytes.saturating_mul(2)
    }

    /// Returns the length of the largest payload that a header announced.
    pub(super) fn largest_payload(&self) -> u64 {
        self.largest_payload
    }

    #[cfg(test)]
    pub(super) fn missing_payload(&self) -> u64 {
        self.payload
    }

    fn frame(&mut self, first: u8, length: u64) -> Result<(), TooManyFragments> {
        let (is_last, is_control) = (first & 0x80 != 0, first & 0x08 != 0);
        if is_control {
            return Ok(());
        }
        self.fragments += 1;
        self.bytes = self.bytes.saturating_add(length);
        if self.fragments > MIN_FRAGMENTS + self.bytes / BYTES_PER_FRAGMENT {
            return Err(TooManyFragments);
        }
        self.is_last = is_last;
        self.end_if_whole();
        Ok(())
    }

    fn end_if_whole(&mut self) {
        if self.is_last && self.payload == 0 {
            (self.fragments, self.bytes, self.is_last) = (0, 0, false);
        }
    }
}

/// Returns the payload's length if the header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    if header.len() < 2 + extended + mask {
        return None;
    }
    Some(match extended {
        0 => u64::from(second & 0x7f),
        _ => header[2..2 + extended]
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a masked frame. Opcode 0 continues a message, 2 begins one.
    fn frame(is_last: bool, opcode: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(is_last) << 7 | opcode];
        match payload {
            0..126 => bytes.push(0x80 | payload as u8),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![0xff; 4 + payload]);
        bytes
    }

    #[test]
    fn number_of_empty_fragments_is_bounded() {
        let mut meter = FrameMeter::default();
        assert_eq!(meter.advance(&frame(false, 2, 0)), Ok(()));
        for _ in 1..MIN_FRAGMENTS {
            assert_eq!(meter.advance(&frame(false, 0, 0)), Ok(()));
        }
        assert_eq!(meter.advance(&frame(false, 0, 0)), Err(TooManyFragments));
    }

    #[test]
    fn number_of_large_fragments_grows_with_the_message() {
        let mut meter = FrameMeter::default();
        for index in 0..1000u64 {
            assert_eq!(
                meter.advance(&frame(index == 999, u8::from(index == 0) * 2, 1024)),
                Ok(())
            );
        }
        assert_eq!((meter.fragments, meter.bytes), (0, 0));
    }

    #[test]
    fn fragments_are_counted_until_the_message_is_complete() {
        let mut meter = FrameMeter::default();
        let whole = frame(true, 2, 1000);
        assert_eq!(meter.advance(&whole[..500]), Ok(()));
        assert_eq!(
            meter.fragment_bytes(),
            0,
            "an unfragmented message stays in the buffer"
        );
        assert_eq!(meter.advance(&whole[500..]), Ok(()));
        assert_eq!(meter.advance(&frame(false, 2, 1000)), Ok(()));
        assert_eq!(meter.advance(&frame(true, 9, 100)), Ok(()));
        assert_eq!(meter.fragment_bytes(), 2000);
        let last = frame(true, 0, 500);
        assert_eq!(meter.advance(&last[..100]), Ok(()));
        assert_eq!(meter.fragment_bytes(), 3000);
        assert!(!meter.is_between_messages());
        assert_eq!(meter.advance(&last[100..]), Ok(()));
        assert_eq!(meter.fragment_bytes(), 0);
        assert!(meter.is_between_messages());
    }

    #[test]
    fn control_frames_and_unfragmented_messages_are_not_counted() {
        let mut meter = FrameMeter::default();
        assert_eq!(meter.advance(&frame(false, 2, 0)), Ok(()));
        for _ in 0..1000 {
            assert_eq!(meter.advance(&frame(true, 9, 3)), Ok(()));
        }
        assert_eq!(meter.fragments, 1);
        assert_eq!(meter.advance(&frame(true, 0, 0)), Ok(()));
        for _ in 0..1000 {
            assert_eq!(meter.advance(&frame(true, 2, 70_000)), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_counts(
            frames in proptest::collection::vec((any::<bool>(), prop_oneof![Just(0u8), Just(2), Just(9)], 0..300usize), 0..100),
            cuts in proptest::collection::vec(1..50usize, 1..20),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(last, opcode, length)| frame(*last || *opcode == 9, *opcode, *length)).collect();
            let mut whole = FrameMeter::default();
            let expected = whole.advance(&bytes);
            let mut cut = FrameMeter::default();
            let (mut rest, mut cuts, mut found) = (bytes.as_slice(), cuts.iter().cycle(), Ok(()));
            while !rest.is_empty() && found.is_ok() {
                let (head, tail) = rest.split_at((*cuts.next().expect("a cycle")).min(rest.len()));
                found = cut.advance(head);
                rest = tail;
            }
            prop_assert_eq!(found, expected);
            if found.is_ok() {
                prop_assert_eq!((cut.fragments, cut.bytes, cut.payload, cut.have), (whole.fragments, whole.bytes, 0, 0));
            }
        }

        #[test]
        fn any_bytes_can_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _: Result<(), _> = FrameMeter::default().advance(&bytes);
        }
    }
}
