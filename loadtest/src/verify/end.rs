//! What can only be judged once nothing more comes.

use std::collections::{BTreeSet, HashMap};

use super::{Channel, Index, Kind, Member, Outcome};

impl Channel {
    /// Where tellers disagree, one of them was wrong; unless the store went back to an earlier state and said so. Then what
    /// is listed counts, and whoever has something else must have been told.
    pub(super) fn settle_conflicts(&mut self) {
        let conflicts = std::mem::take(&mut self.conflicts);
        if !self.diverged {
            return conflicts
                .into_iter()
                .for_each(|(kind, evidence)| self.violates(kind, format_args!("{evidence}")));
        }
        let mut stale = Vec::new();
        for member in &self.members {
            let seen = self.order.iter().map(|(seq, first)| {
                (
                    *seq,
                    member.differing.get(seq).copied().unwrap_or(Some(*first)),
                )
            });
            let elsewhere = member
                .differing
                .iter()
                .filter(|(seq, _)| !self.order.contains_key(seq))
                .map(|(seq, what)| (*seq, *what));
            for (seq, message) in seen
                .chain(elsewhere)
                .filter(|(seq, _)| member.reached(*seq))
            {
                if let Some(message) = message.filter(|message| !self.is_at(*message, seq)) {
                    let name = &member.name;
                    stale.push(format!(
                        "{name} has message {message} at seq {seq}, where it does not stand, and was not told that the store diverged"
                    ));
                }
            }
        }
        for evidence in stale {
            self.violates(Kind::Reordered, format_args!("{evidence}"));
        }
    }

    /// Whether a message stands at this `seq` as the list has it.
    fn is_at(&self, message: Index, seq: u64) -> bool {
        let number = self.numbers.get(&message);
        number.is_some_and(|number| {
            self.sent
                .get(&message)
                .is_some_and(|sent| sent.stood_at(seq, *number))
        })
    }

    /// What was to be read after a trimmed gap is complete.
    pub(super) fn check_changes(&mut self) {
        let mut lacking = Vec::new();
        for member in &self.members {
            for (range, read) in member
                .changes
                .iter()
                .filter(|(range, _)| range.start <= range.end)
            {
                let absent = self.order.range(range.clone()).filter(|(seq, message)| {
                    let acknowledged = self
                        .sent
                        .get(message)
                        .is_some_and(|s| s.outcome == Outcome::Acknowledged);
                    acknowledged
                        && !read.contains(message)
                        && (!self.diverged || self.is_at(**message, **seq))
                });
                lacking.extend(absent.map(|(seq, message)| {
                    format!(
                        "{} was told a gap, and what changed after seq {} lacks message {message} of seq {seq}",
                        member.name,
                        range.start - 1
                    )
                }));
            }
        }
        for evidence in lacking {
            self.violates(Kind::Lost, format_args!("{evidence}"));
        }
    }

    /// Nobody saw an event behind its removal, unless it had come back before.
    pub(super) fn check_removals(&mut self) {
        if self.diverged {
            return;
        }
        let mut after = Vec::new();
        for (who, removal) in &self.removals {
            let Member { name, grants, .. } = &self.members[*who];
            let seen = grants
                .iter()
                .filter(|(granted, last)| granted < removal && removal <= last);
            after.extend(seen.map(|(_, last)| {
                format!("{name} was removed at seq {removal}, and saw events until seq {last}")
            }));
        }
        for (who, seq) in &self.strays {
            let last = |of: &BTreeSet<(usize, u64)>| {
                of.range((*who, 0)..=(*who, *seq))
                    .next_back()
                    .map(|(_, seq)| *seq)
            };
            if let Some(removal) = last(&self.removals)
                .filter(|removal| last(&self.additions).is_none_or(|addition| addition < *removal))
            {
                after.push(format!(
                    "{} was removed at seq {removal}, and was told seq {seq}",
                    self.members[*who].name
                ));
            }
        }
        for evidence in after {
            self.violates(Kind::AfterRemoval, format_args!("{evidence}"));
        }
    }

    pub(super) fn count_lost(&mut self) {
        let mut lost = Vec::new();
        for member in &self.members {
            let missing = member
                .missing
                .iter()
                .chain(member.is_in.then_some(member.seq + 1..u64::MAX));
            let absent =
                missing
                    .flat_map(|range| self.order.range(range))
                    .filter(|(seq, message)| {
                        let acknowledged = self
                            .sent
                            .get(message)
                            .is_some_and(|s| s.outcome == Outcome::Acknowledged);
                        acknowledged
                            && !member.excused.iter().any(|range| range.contains(seq))
                            && (!self.diverged || self.is_at(**message, **seq))
                    });
            lost.extend(absent.map(|(seq, message)| {
                format!(
                    "{} never saw message {message}, acknowledged at seq {seq}",
                    member.name
                )
            }));
        }
        for evidence in lost {
            self.violates(Kind::Lost, format_args!("{evidence}"));
        }
    }

    /// The messages of one sender are numbered in the order sent.
    pub(super) fn check_senders(&mut self) {
        let mut last: HashMap<usize, (Index, u64)> = HashMap::new();
        let mut swapped = Vec::new();
        for (&seq, &message) in &self.order {
            let Some(sent) = self.sent.get(&message).filter(|s| !s.retried) else {
                continue;
            };
            if let Some((before, at)) = last
                .insert(sent.by, (message, seq))
                .filter(|(before, _)| *before > message)
            {
                swapped.push(format!(
                    "message {message} was sent before message {before} by the same session, and stands behind it: seq {seq}, {at}"
                ));
            }
        }
        for evidence in swapped {
            self.violates(Kind::Reordered, format_args!("{evidence}"));
        }
    }

    /// In the end everything was answered, and everybody is in.
    pub(super) fn check_answers(&mut self) {
        let mut open: Vec<Index> = self
            .sent
            .iter()
            .filter(|(_, sent)| sent.outcome == Outcome::Unknown)
            .map(|(message, _)| *message)
            .collect();
        open.sort_unstable();
        for message in open {
            self.violates(
                Kind::Denied,
                format_args!("message {message} was never answered"),
            );
        }
        let out: Vec<String> = self
            .members
            .iter()
            .filter(|member| !member.is_in)
            .map(|member| member.name.clone())
            .collect();
        for name in out {
            self.violates(
                Kind::Denied,
                format_args!("{name} is in the channel and was not told so"),
            );
        }
    }
}
