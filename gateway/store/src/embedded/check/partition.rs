//! The check of one partition: its log, its numbered documents with their two indexes, its other
//! documents.

use super::{
    super::{
        fault::Fault,
        layout::{self, EVENT_OVERHEAD, LayoutState, Space},
    },
    context::{Check, NamedPartition, range, table_and_key},
};
use crate::{Document, PartitionHead, Position};

/// The check of a partition, fed with its entries in the order of their keys.
pub(super) struct PartitionCheck {
    name: String,
    state: LayoutState,
    /// The newest event so far.
    event: Position,
    /// The size of the events so far.
    log_bytes: u64,
    /// The first and the last number so far.
    numbers: Option<(u64, u64)>,
    /// The table of the numbered documents, known from the index by key.
    table: Option<String>,
}

impl PartitionCheck {
    pub(super) fn new(NamedPartition { name, state }: NamedPartition) -> Self {
        Self {
            name,
            event: state.head.floor,
            state,
            log_bytes: 0,
            numbers: None,
            table: None,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.state.id
    }

    /// Checks an entry. `key` is the part after the partition's number.
    pub(super) fn entry(
        &mut self,
        check: &mut Check<'_>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Fault> {
        let (space, rest) = key
            .split_first()
            .map_or((0, key), |(space, rest)| (*space, rest));
        match space {
            space if space == Space::Changes as u8 && rest.len() == 16 => {
                self.change(check, rest)?
            }
            space if space == Space::Documents as u8 => self.document(check, rest, value),
            space if space == Space::Keys as u8 => self.key(check, rest, value)?,
            space if space == Space::Log as u8 && rest.len() == 8 => self.event(check, rest, value),
            space if space == Space::Numbered as u8 && rest.len() == 8 => {
                self.numbered(check, rest, value)?
            }
            _ => check.report(
                format!(
                    "the partition {} holds an entry of an unknown kind",
                    self.name
                ),
                "would remove the entry",
            ),
        }
        Ok(())
    }

    fn numbered_at(&self, check: &Check<'_>, number: u64) -> Result<Option<Document>, Fault> {
        let found = check.entry(&layout::by_number(self.state.id, number))?;
        Ok(found.and_then(|bytes| layout::decode_document(bytes).ok()))
    }

    fn change(&mut self, check: &mut Check<'_>, rest: &[u8]) -> Result<(), Fault> {
        let (seq, number) = (layout::first_u64(rest), layout::last_u64(rest).unwrap_or(0));
        if self
            .numbered_at(check, number)?
            .is_none_or(|document| document.stamps.seq != seq)
        {
            let what = format!(
                "in {} the index by change has number {number} at event {seq}, where it did not change last",
                self.name
            );
            check.report(what, "would remove the entry from the index");
        }
        Ok(())
    }

    fn document(&mut self, check: &mut Check<'_>, rest: &[u8], value: &[u8]) {
        check.summary.documents += 1;
        let Self { name, state, .. } = self;
        let Some(((table, key), document)) =
            table_and_key(rest).zip(layout::decode_document(value).ok())
        else {
            check.report(
                format!("a document of {name} cannot be read"),
                "would remove the document",
            );
            return;
        };
        let stamps = &document.stamps;
        if *document.key != *key || stamps.number != 0 || !document.counts.is_empty() {
            check.report(
                format!("the document {key:?} in table {table} of {name} is another one"),
                "would remove the document",
            );
        } else if !is_within(&document, state) {
            let what = format!(
                "the document {key:?} in table {table} of {name} is newer than the partition"
            );
            check.report(what, "would raise the partition's event and instant to it");
        } else if let Some(finding) = check.values.document(table, &document) {
            check.report(
                format!(
                    "the document {key:?} in table {table} of {name} {}",
                    finding.what
                ),
                finding.repair,
            );
        }
    }

    fn key(&mut self, check: &mut Check<'_>, rest: &[u8], value: &[u8]) -> Result<(), Fault> {
        let Self { name, .. } = self;
        let Some((table, key)) = table_and_key(rest).filter(|_| value.len() == 8) else {
            check.report(
                format!("an entry of the index by key of {name} cannot be read"),
                "would remove the entry",
            );
            return Ok(());
        };
        if self.table.get_or_insert_with(|| table.to_owned()) != table {
            check.report(
                format!("{name} has a second numbered table, {table}"),
                "would remove its entries from the index by key",
            );
        }
        let number = layout::last_u64(value).unwrap_or(0);
        if self
            .numbered_at(check, number)?
            .is_none_or(|document| *document.key != *key)
        {
            let what = format!(
                "in {} the index by key says that {key:?} has number {number}, which it has not",
                self.name
            );
            check.report(what, "would remove the entry from the index");
        }
        Ok(())
    }

    fn event(&mut self, check: &mut Check<'_>, rest: &[u8], value: &[u8]) {
        check.summary.events += 1;
        let Self {
            name,
            state: LayoutState { head, .. },
            event:
                Position {
                    seq: before,
                    at: not_before,
                },
            ..
        } = &*self;
        let seq = layout::last_u64(rest).unwrap_or(0);
        let mut at = *not_before;
        if seq <= head.floor.seq {
            check.report(
                format!(
                    "the log of {name} holds event {seq}, and begins above {}",
                    head.floor.seq
                ),
                "would remove the event",
            );
            return;
        }
        if seq > head.seq {
            check.report(
                format!(
                    "the log of {name} holds event {seq}, and its head is {}",
                    head.seq
                ),
                "would remove the event",
            );
            return;
        }
        if seq != before + 1 {
            missing(check, name, before + 1, seq - 1);
        }
        match layout::decode_event(value) {
            Ok((found, _, reference)) => {
                if found < at {
                    let what = format!(
                        "event {seq} of {name} is of {found}, before the one before it, of {at}"
                    );
                    check.report(what, "would begin the log above it: clients that resume from before would receive \"trimmed\"");
                }
                at = found;
                self.log_bytes += EVENT_OVERHEAD + reference.len() as u64;
            }
            Err(_) => check.report(
                format!("event {seq} of {name} cannot be read"),
                "would begin the log above it: clients that resume from before would receive \"trimmed\"",
            ),
        }
        self.event = Position { seq, at };
    }

    fn numbered(&mut self, check: &mut Check<'_>, rest: &[u8], value: &[u8]) -> Result<(), Fault> {
        check.summary.documents += 1;
        let number = layout::last_u64(rest).unwrap_or(0);
        let before = self.numbers.map(|(_, last)| last);
        let first = self.numbers.map_or(number, |(first, _)| first);
        self.numbers = Some((first, number));
        let Self {
            name, state, table, ..
        } = &*self;
        if let Some(before) = before.filter(|before| number != before + 1) {
            let what = format!("{name} lacks the numbers {}", range(before + 1, number - 1));
            check.report(what, "could not tell what they were: would bring back a backup, or put deleted messages in their places");
        }
        let Ok(document) = layout::decode_document(value) else {
            check.report(
                format!("number {number} of {name} cannot be read"),
                "would put a deleted message in its place",
            );
            return Ok(());
        };
        if document.stamps.number != number || number > state.head.number {
            check.report(
                format!("number {number} of {name} is another one, or above the highest"),
                "would set its number, or the highest, right",
            );
        } else if !is_within(&document, state)
            || document.stamps.seq == 0
            || !are_counts(&document.counts)
        {
            check.report(
                format!("number {number} of {name} is newer than the partition, or counts what cannot be"),
                "would raise the partition's event and instant to it, and leave out such counts",
            );
        } else if let Some(finding) = table
            .as_ref()
            .and_then(|table| check.values.document(table, &document))
        {
            check.report(
                format!("number {number} of {name} {}", finding.what),
                finding.repair,
            );
        }
        let seq = document.stamps.seq;
        if check
            .entry(&layout::by_change(state.id, seq, number))?
            .is_none()
        {
            let what = format!(
                "number {number} of {name} changed last at event {seq}, and the index by change has it not there"
            );
            check.report(what, "would put it into the index");
        }
        let by_key = table
            .as_ref()
            .map(|table| layout::by_name(state.id, table, &document.key));
        let found = by_key
            .map(|by_key| check.entry(&by_key))
            .transpose()?
            .flatten();
        if found != Some(&number.to_be_bytes()[..]) {
            let what = format!(
                "number {number} of {name} has the key {:?}, and the index by key has it not there",
                document.key
            );
            check.report(what, "would put it into the index");
        }
        Ok(())
    }

    /// Checks the state of the partition after its last entry.
    pub(super) fn finish(self, check: &mut Check<'_>) {
        let Self {
            name,
            state,
            event,
            log_bytes,
            numbers,
            ..
        } = self;
        let PartitionHead {
            seq,
            at,
            number,
            floor,
        } = state.head;
        if floor.seq > seq || floor.at > at || at > state.at || (seq == 0) != (at == 0) {
            let what = format!(
                "the state of {name} says that its log goes from {} to {seq}, at instants that do not",
                floor.seq
            );
            check.report(
                what,
                "would set its head and its beginning by the events that are there",
            );
        } else if event.seq < seq {
            missing(check, &name, event.seq + 1, seq);
        } else if event.at != at {
            check.report(
                format!(
                    "the head of {name} is of {at}, and its newest event of {}",
                    event.at
                ),
                "would set the head to the event's",
            );
        } else if log_bytes != state.log_bytes {
            let what = format!(
                "the log of {name} has {log_bytes} bytes, and its state says {}",
                state.log_bytes
            );
            check.report(
                what,
                "would set it right; until then too much or too little of it is trimmed",
            );
        }
        match numbers {
            Some((_, last)) if last < number => {
                let what = format!("{name} lacks the numbers {}", range(last + 1, number));
                check.report(what, "could not tell what they were: would bring back a backup, or put deleted messages in their places");
            }
            // Only a purge removes numbers: the lowest ones, and it raises `retired`.
            None if number == 0 || state.retired > 0 => {}
            Some((1, _)) => {}
            Some(_) if state.retired > 0 => {}
            first => {
                let what = format!(
                    "{name} lacks the numbers {}",
                    range(1, first.map_or(number, |(first, _)| first - 1))
                );
                check.report(what, "could not tell what they were: would bring back a backup, or put deleted messages in their places");
            }
        }
        if !are_counts(&state.counters) {
            check.report(
                format!("{name} has counters that are zero, or out of their order"),
                "would leave out or sort them",
            );
        }
        if let Some(finding) = check.values.partition(&name, &state.counters) {
            check.report(format!("{name} {}", finding.what), finding.repair);
        }
    }
}

fn missing(check: &mut Check<'_>, name: &str, first: u64, last: u64) {
    check.report(
        format!("the log of {name} lacks the events {}", range(first, last)),
        "would begin the log above them: clients that resume from before would receive \"trimmed\"",
    );
}

/// Returns whether the `seq` and timestamps of a document do not exceed those of its partition.
fn is_within(document: &Document, state: &LayoutState) -> bool {
    let stamps = &document.stamps;
    let newest = stamps
        .created_at
        .max(stamps.edited_at)
        .max(stamps.deleted_at);
    document.version > 0 && stamps.seq <= state.head.seq && newest <= state.at
}

/// Returns whether counters are sorted and not zero.
fn are_counts(counts: &[(String, u64)]) -> bool {
    counts.iter().all(|(_, count)| *count > 0)
        && counts.windows(2).all(|pair| pair[0].0 < pair[1].0)
}
