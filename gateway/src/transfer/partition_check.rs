//! Checks a partition of an export while it is read: whether its lines are a valid partition.
//!
//! It finds the same errors as `chaos check` finds in a data folder. Without it, a damaged export
//! would be imported, and only the restore of a later backup would fail.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

use store::{
    Document, LogEntry, Order, Position, Table,
    embedded::{EVENT_OVERHEAD, ValueCheck},
    transfer::Outline,
};

use crate::value_check::ChatCheck;

/// The check of a partition, fed with its lines in their order.
#[derive(Debug)]
pub(super) struct ExportedPartitionCheck {
    outline: Outline,
    /// The position of the newest event so far.
    event: Position,
    /// The size of the events so far.
    log_bytes: u64,
    /// The first and the last number so far.
    numbers: Option<(u64, u64)>,
    /// Hashes of the keys so far, to find duplicate keys.
    keys: HashSet<u64>,
    hasher: RandomState,
    values: ChatCheck,
}

/// Description of an error, as the end of a sentence about the line or the partition.
pub(super) type Problem = &'static str;

impl ExportedPartitionCheck {
    /// Begins the check of a partition.
    pub(super) fn new(outline: &Outline) -> Self {
        Self {
            event: outline.head.floor,
            outline: outline.clone(),
            log_bytes: 0,
            numbers: None,
            keys: HashSet::new(),
            hasher: RandomState::new(),
            values: ChatCheck::default(),
        }
    }

    /// Checks the next document.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(super) fn document(&mut self, table: Table, document: &Document) -> Result<(), Problem> {
        let (head, stamps) = (&self.outline.head, &document.stamps);
        let newest = stamps
            .created_at
            .max(stamps.edited_at)
            .max(stamps.deleted_at);
        if document.version == 0 || stamps.seq > head.seq || newest > self.outline.last_commit_at {
            return Err("a document is newer than its partition");
        }
        if !are_counts(&document.counts) {
            return Err("a document has counts that are zero, or out of their order");
        }
        let key = self.hasher.hash_one((table.name, &document.key));
        if !self.keys.insert(key) {
            return Err("a document stands twice");
        }
        if table.order == Order::Numbers {
            let number = stamps.number;
            let expected = self
                .numbers
                .map_or(self.outline.purged + 1, |(_, last)| last + 1);
            if number != expected || number > head.number || stamps.seq == 0 {
                return Err("a message has another number than follows");
            }
            let first = self.numbers.map_or(number, |(first, _)| first);
            self.numbers = Some((first, number));
        } else if !document.counts.is_empty() {
            return Err("a document has counts that only a message may have");
        }
        match self.values.document(table.name, document) {
            Some(_) => Err("a document has a value that is no MessagePack"),
            None => Ok(()),
        }
    }

    /// Checks the next event.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(super) fn event(&mut self, entry: &LogEntry) -> Result<(), Problem> {
        let Position { seq, at } = entry.position;
        if seq != self.event.seq + 1 || seq > self.outline.head.seq {
            return Err("an event has another number than follows");
        }
        if at < self.event.at {
            return Err("an event is older than the one before it");
        }
        self.log_bytes += EVENT_OVERHEAD + entry.reference.len() as u64;
        self.event = entry.position;
        Ok(())
    }

    /// Checks the partition after its last line.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(super) fn finish(mut self, name: &str) -> Result<(), Problem> {
        let Outline {
            head,
            counters,
            last_commit_at,
            purged,
            log_bytes,
            ..
        } = &self.outline;
        if head.floor.at > head.at || head.at > *last_commit_at || (head.seq == 0) != (head.at == 0)
        {
            return Err("its log goes from and to instants that do not follow each other");
        }
        if self.event != head.position() {
            return Err("its log lacks events");
        }
        if self.log_bytes != *log_bytes {
            return Err("the size of its log is another one");
        }
        if self.numbers.map_or(*purged, |(_, last)| last) != head.number {
            return Err("it lacks messages");
        }
        if !are_counts(counters) {
            return Err("it has counters that are zero, or out of their order");
        }
        match self.values.partition(name, counters) {
            Some(_) => Err("it counts its channels, participants or owners wrongly"),
            None => Ok(()),
        }
    }
}

/// Returns whether counters are sorted and not zero.
fn are_counts(counts: &[(String, u64)]) -> bool {
    counts.iter().all(|(_, count)| *count > 0)
        && counts.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use store::{PartitionHead, Stamps};

    use super::*;

    const MESSAGES: Table = Table::numbered("m");
    const NAMES: Table = Table::listed("n");
    const NOT_MESSAGEPACK: &[u8] = &[0xc1];

    fn outline() -> Outline {
        Outline {
            head: PartitionHead {
                seq: 3,
                at: 30,
                number: 3,
                floor: Position { seq: 1, at: 10 },
            },
            last_commit_at: 40,
            purged: 1,
            log_bytes: 2 * (EVENT_OVERHEAD + 1),
            ..Outline::default()
        }
    }

    fn document(number: u64) -> Document {
        Document {
            key: number.to_string().into(),
            version: 1,
            value: Bytes::from_static(&[0xc0]),
            stamps: Stamps {
                number,
                seq: number,
                created_at: 40,
                ..Stamps::default()
            },
            counts: Vec::new(),
        }
    }

    fn entry(seq: u64, at: u64) -> LogEntry {
        LogEntry {
            position: Position { seq, at },
            kind: 1,
            reference: Bytes::from_static(b"x"),
        }
    }

    fn check(
        outline: &Outline,
        documents: &[(Table, Document)],
        entries: &[LogEntry],
    ) -> Result<(), Problem> {
        let mut check = ExportedPartitionCheck::new(outline);
        for (table, document) in documents {
            check.document(*table, document)?;
        }
        for entry in entries {
            check.event(entry)?;
        }
        check.finish("app_1:live:anything")
    }

    #[test]
    fn partition_as_a_store_holds_it_passes() {
        let messages = [(MESSAGES, document(2)), (MESSAGES, document(3))];
        let log = [entry(2, 20), entry(3, 30)];
        assert_eq!(check(&outline(), &messages, &log), Ok(()));
        assert_eq!(check(&Outline::default(), &[], &[]), Ok(()));
    }

    #[test]
    fn what_no_store_holds_is_refused() {
        let (two, three) = ((MESSAGES, document(2)), (MESSAGES, document(3)));
        let log = [entry(2, 20), entry(3, 30)];
        let changed = |change: &dyn Fn(&mut Document)| {
            let mut document = document(3);
            change(&mut document);
            (MESSAGES, document)
        };
        let wrong: [(Table, Document); 8] = [
            changed(&|document| document.stamps.number = 4),
            changed(&|document| document.stamps.number = 2),
            changed(&|document| document.stamps.seq = 4),
            changed(&|document| document.stamps.seq = 0),
            changed(&|document| document.stamps.deleted_at = 41),
            changed(&|document| document.counts = vec![("a".to_owned(), 0)]),
            changed(&|document| document.key = "2".into()),
            changed(&|document| document.value = Bytes::from_static(NOT_MESSAGEPACK)),
        ];
        for document in wrong {
            let refused = check(&outline(), &[two.clone(), document.clone()], &log);
            assert!(refused.is_err(), "{document:?}");
        }
        let messages = [two.clone(), three.clone()];
        let name = |document: Document| (NAMES, document);
        let counted = Document {
            counts: vec![("a".to_owned(), 1)],
            ..document(0)
        };
        for more in [name(counted), three.clone()] {
            let documents = [&messages[..], std::slice::from_ref(&more)].concat();
            assert!(check(&outline(), &documents, &log).is_err(), "{more:?}");
        }
        assert!(check(&outline(), &messages[..1], &log).is_err());
        for log in [
            &log[..1],
            &[entry(2, 20), entry(4, 30)],
            &[entry(2, 20), entry(3, 31)],
            &[entry(2, 9), entry(3, 30)],
        ] {
            assert!(check(&outline(), &messages, log).is_err(), "{log:?}");
        }
        let mut outlines = vec![outline(); 4];
        outlines[0].log_bytes += 1;
        outlines[1].last_commit_at = 29;
        outlines[2].purged = 0;
        outlines[3].counters = vec![("b".to_owned(), 1), ("a".to_owned(), 1)];
        for outline in outlines {
            assert!(check(&outline, &messages, &log).is_err(), "{outline:?}");
        }
    }
}
