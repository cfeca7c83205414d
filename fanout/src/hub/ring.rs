//! The most recent records of a topic, kept while a subscriber catches up.

use std::collections::VecDeque;

use super::budget::Account;
use crate::Position;
use crate::record::Record;

const MAX_RECORDS: usize = 256;
const MAX_BYTES: usize = 256 * 1024;

/// Contiguous records, the newest at the topic's position.
#[derive(Debug)]
pub(super) struct Ring {
    /// The position before the oldest record.
    base: Position,
    records: VecDeque<Record>,
    account: Account,
}

impl Ring {
    pub(super) fn new(base: Position, account: Account) -> Self {
        Self {
            base,
            records: VecDeque::new(),
            account,
        }
    }

    pub(super) fn push(&mut self, record: Record) {
        self.account.add(size(&record));
        self.records.push_back(record);
        while self.records.len() > MAX_RECORDS
            || self.account.bytes() > MAX_BYTES
            || self.account.is_overdrawn()
        {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.account.subtract(size(&oldest));
            self.base = oldest.position;
        }
    }

    /// Returns the records after `cursor`; `None` if the ring does not contain that position or
    /// nothing follows it.
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
    use crate::hub::budget::Budget;

    fn ring(base: Position) -> Ring {
        Ring::new(base, Budget::new(usize::MAX).open())
    }

    fn record(seq: u64) -> Record {
        Record {
            position: Position { seq, at: seq * 10 },
            ..Record::default()
        }
    }

    #[test]
    fn ring_continues_only_positions_that_it_contains() {
        let mut ring = ring(Position { seq: 5, at: 50 });
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
    fn ring_drops_the_oldest_records() {
        let mut ring = ring(Position::default());
        (1..=MAX_RECORDS as u64 + 10).for_each(|seq| ring.push(record(seq)));
        assert!(ring.after(Position { seq: 9, at: 90 }).is_none());
        assert_eq!(
            ring.after(Position { seq: 10, at: 100 }).map(|r| r.len()),
            Some(MAX_RECORDS)
        );
    }

    #[test]
    fn ring_is_bounded_by_the_budget_of_all_topics() {
        let budget = Budget::new(10);
        let mut others = budget.open();
        let mut ring = Ring::new(Position::default(), budget.open());
        let sized = |seq| Record {
            body: "12345".into(),
            ..record(seq)
        };
        ring.push(sized(1));
        ring.push(sized(2));
        others.add(6);
        ring.push(sized(3));
        assert!(ring.after(Position { seq: 2, at: 20 }).is_none());
        assert_eq!(budget.used(), 6);
    }
}
