//! The most recent records of a topic, kept only while somebody catches up with it.

use std::collections::VecDeque;

use crate::Position;
use crate::record::Record;

const RECORDS: usize = 256;
const BYTES: usize = 256 * 1024;

/// Records without a hole, the newest at the topic's position.
#[derive(Debug)]
pub(super) struct Ring {
    /// The position before the oldest.
    base: Position,
    records: VecDeque<Record>,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(base: Position) -> Self {
        Self {
            base,
            records: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, record: Record) {
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.records.len() > RECORDS || self.bytes > BYTES {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= size(&oldest);
            self.base = oldest.position;
        }
    }

    /// What stands after a position, if the position is among what is kept and anything does.
    pub(super) fn after(&self, cursor: Position) -> Option<Vec<Record>> {
        let skip = usize::try_from(cursor.seq.checked_sub(self.base.seq)?).ok()?;
        let at = if skip == 0 {
            self.base
        } else {
            self.records.get(skip - 1)?.position
        };
        (at == cursor && skip < self.records.len())
            .then(|| self.records.range(skip..).cloned().collect())
    }
}

fn size(record: &Record) -> usize {
    record.body.len() + record.counts.as_ref().map_or(0, |counts| counts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64) -> Record {
        Record {
            position: Position { seq, at: seq * 10 },
            ..Record::default()
        }
    }

    #[test]
    fn a_ring_continues_only_positions_that_it_holds() {
        let mut ring = Ring::new(Position { seq: 5, at: 50 });
        assert!(ring.after(Position { seq: 5, at: 50 }).is_none());
        ring.push(record(6));
        ring.push(record(7));
        let seqs = |seq, at| {
            ring.after(Position { seq, at })
                .map(|r| r.iter().map(|r| r.position.seq).collect::<Vec<_>>())
        };
        assert_eq!(seqs(5, 50), Some(vec![6, 7]));
        assert_eq!(seqs(6, 60), Some(vec![7]));
        assert_eq!(seqs(7, 70), None);
        assert_eq!(seqs(6, 61), None);
        assert_eq!(seqs(4, 40), None);
        assert_eq!(seqs(9, 90), None);
    }

    #[test]
    fn a_ring_forgets_the_oldest() {
        let mut ring = Ring::new(Position::default());
        (1..=RECORDS as u64 + 10).for_each(|seq| ring.push(record(seq)));
        assert!(ring.after(Position { seq: 9, at: 90 }).is_none());
        assert_eq!(
            ring.after(Position { seq: 10, at: 100 }).map(|r| r.len()),
            Some(RECORDS)
        );
    }
}
