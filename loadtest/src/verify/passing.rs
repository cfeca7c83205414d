//! Whether the subscribers of a channel got every passing event. Those carry neither `seq` nor identity: each publisher
//! alternates `typing: true` and `typing: false`, with one event under way at a time, so that a lost or doubled one shows
//! as the same value twice.

use super::{Kind, Tally};

/// The passing events of one channel.
#[derive(Debug)]
pub struct Passing {
    name: String,
    publishers: Vec<Publisher>,
    /// By subscriber and publisher: how many came.
    seen: Vec<Vec<u32>>,
    tally: Tally,
}

#[derive(Debug, Default, Clone)]
struct Publisher {
    begun: u32,
    refused: u32,
}

impl Passing {
    /// A channel with so many subscribers and publishers.
    pub fn new(name: impl Into<String>, subscribers: usize, publishers: usize) -> Self {
        Self {
            name: name.into(),
            publishers: vec![Publisher::default(); publishers],
            seen: vec![vec![0; publishers]; subscribers],
            tally: Tally::default(),
        }
    }

    /// The value of a publisher's next event, which leaves now.
    pub fn sending(&mut self, publisher: usize) -> bool {
        self.tally.sent += 1;
        let begun = &mut self.publishers[publisher].begun;
        *begun += 1;
        *begun % 2 == 1
    }

    /// A publisher's event was taken.
    pub fn acknowledged(&mut self) {
        self.tally.acknowledged += 1;
    }

    /// A publisher's event was not taken: its value is used again.
    pub fn refused(&mut self, publisher: usize) {
        self.publishers[publisher].begun -= 1;
        self.publishers[publisher].refused += 1;
    }

    /// A subscriber got an event.
    pub fn saw(&mut self, who: usize, publisher: usize, value: bool) {
        let Some(sent) = self.publishers.get(publisher) else {
            return self.violates(
                Kind::Foreign,
                format!("subscriber {who} saw somebody type who is no publisher"),
            );
        };
        let seen = &mut self.seen[who][publisher];
        let expected = seen.is_multiple_of(2);
        *seen += 1;
        self.tally.delivered += 1;
        let (seen, begun) = (*seen, sent.begun);
        if value != expected {
            self.violates(
                Kind::Doubled,
                format!("subscriber {who} saw publisher {publisher} say {value} out of turn"),
            );
        } else if seen > begun {
            self.violates(
                Kind::Doubled,
                format!(
                    "subscriber {who} saw {seen} events of publisher {publisher}, who sent {begun}"
                ),
            );
        }
    }

    /// A subscriber got what belongs elsewhere.
    pub fn saw_foreign(&mut self, who: usize, what: &str) {
        self.violates(Kind::Foreign, format!("subscriber {who} saw {what}"));
    }

    /// What is to be said once nothing more comes. The wire lets a node drop passing events for a slow reader only; a
    /// subscriber with at most a window of them under way is none.
    pub fn finish(mut self) -> Tally {
        self.tally.unknown = self.tally.sent
            - self.tally.acknowledged
            - self
                .publishers
                .iter()
                .map(|p| u64::from(p.refused))
                .sum::<u64>();
        for who in 0..self.seen.len() {
            for publisher in 0..self.publishers.len() {
                let (seen, begun) = (self.seen[who][publisher], self.publishers[publisher].begun);
                for _ in seen..begun {
                    self.violates(
                        Kind::Lost,
                        format!(
                            "subscriber {who} saw {seen} of {begun} events of publisher {publisher}"
                        ),
                    );
                }
            }
        }
        self.tally
    }

    fn violates(&mut self, kind: Kind, evidence: String) {
        self.tally
            .violates(kind, format_args!("{}: {evidence}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Violations;

    #[test]
    fn events_that_all_come_break_nothing() {
        let mut passing = Passing::new("c", 2, 2);
        for publisher in [0, 1, 0, 1, 0] {
            let value = passing.sending(publisher);
            passing.acknowledged();
            (0..2).for_each(|who| passing.saw(who, publisher, value));
        }
        let tally = passing.finish();
        assert_eq!(
            (tally.sent, tally.delivered, tally.unknown, tally.violations),
            (5, 10, 0, Violations::default())
        );
    }

    #[test]
    fn a_lost_event_is_found_at_the_next_one_and_at_the_end() {
        let mut passing = Passing::new("c", 1, 1);
        passing.sending(0);
        let value = passing.sending(0);
        passing.saw(0, 0, value);
        let tally = passing.finish();
        assert_eq!(
            tally.violations,
            Violations {
                lost: 1,
                doubled: 1,
                ..Violations::default()
            }
        );
    }

    #[test]
    fn a_doubled_and_a_foreign_event_are_found() {
        let mut passing = Passing::new("c", 1, 1);
        let value = passing.sending(0);
        passing.saw(0, 0, value);
        passing.saw(0, 0, value);
        passing.saw(0, 7, value);
        assert_eq!(
            passing.finish().violations,
            Violations {
                doubled: 1,
                foreign: 1,
                ..Violations::default()
            }
        );
    }

    #[test]
    fn a_refused_event_is_not_awaited() {
        let mut passing = Passing::new("c", 1, 1);
        assert!(passing.sending(0));
        passing.refused(0);
        assert!(passing.sending(0));
        passing.acknowledged();
        passing.saw(0, 0, true);
        let tally = passing.finish();
        assert_eq!(
            (tally.unknown, tally.violations),
            (0, Violations::default())
        );
    }
}
