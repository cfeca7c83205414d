//! Verifies passing events. They have neither `seq` nor id, so each publisher alternates between
//! `typing: true` and `typing: false` with one event in flight: after a lost or duplicated event a
//! subscriber receives the same value twice.

use super::{Tally, ViolationKind};

/// Checks the passing events of one channel. Subscribers and publishers are given by index.
#[derive(Debug)]
pub struct PassingChecker {
    name: String,
    publishers: Vec<PublisherState>,
    /// Events received, by subscriber and publisher.
    received: Vec<Vec<u32>>,
    tally: Tally,
}

#[derive(Debug, Default, Clone)]
struct PublisherState {
    sent: u32,
    refused: u32,
}

impl PassingChecker {
    /// Creates the checker of a channel with this number of subscribers and publishers.
    pub fn new(name: impl Into<String>, subscribers: usize, publishers: usize) -> Self {
        Self {
            name: name.into(),
            publishers: vec![PublisherState::default(); publishers],
            received: vec![vec![0; publishers]; subscribers],
            tally: Tally::default(),
        }
    }

    /// A publisher is about to send an event. Returns its value.
    pub fn sending(&mut self, publisher: usize) -> bool {
        self.tally.sent += 1;
        let sent = &mut self.publishers[publisher].sent;
        *sent += 1;
        *sent % 2 == 1
    }

    /// Whether a publisher's next event is `typing: true`.
    pub fn next_is_start(&self, publisher: usize) -> bool {
        self.publishers[publisher].sent.is_multiple_of(2)
    }

    /// An event was acknowledged.
    pub fn acknowledged(&mut self) {
        self.tally.acknowledged += 1;
    }

    /// A publisher's event was refused. Its value is used again.
    pub fn refused(&mut self, publisher: usize) {
        self.publishers[publisher].sent -= 1;
        self.publishers[publisher].refused += 1;
    }

    /// A subscriber received an event, of a publisher or of somebody else.
    pub fn event_received(&mut self, subscriber: usize, publisher: Option<usize>, value: bool) {
        let Some(publisher) = publisher else {
            return self.add_violation(
                ViolationKind::Foreign,
                format!("subscriber {subscriber} received an event of a user that is no publisher"),
            );
        };
        let received = &mut self.received[subscriber][publisher];
        let expected = received.is_multiple_of(2);
        *received += 1;
        self.tally.delivered += 1;
        let (received, sent) = (*received, self.publishers[publisher].sent);
        if value != expected {
            let evidence = format!(
                "subscriber {subscriber} received {value} of publisher {publisher} out of turn"
            );
            self.add_violation(ViolationKind::Doubled, evidence);
        } else if received > sent {
            let evidence = format!(
                "subscriber {subscriber} received {received} events of publisher {publisher}, which sent {sent}"
            );
            self.add_violation(ViolationKind::Doubled, evidence);
        }
    }

    /// A subscriber received something of another channel.
    pub fn foreign_received(&mut self, subscriber: usize, what: &str) {
        self.add_violation(
            ViolationKind::Foreign,
            format!("subscriber {subscriber} received {what}"),
        );
    }

    /// Makes the final checks, when no more events come. A node may drop passing events for a slow
    /// reader, but a subscriber that lacks at most one window of events is not slow: every event
    /// must have been delivered.
    pub fn finish(mut self) -> Tally {
        let refused: u64 = self
            .publishers
            .iter()
            .map(|publisher| u64::from(publisher.refused))
            .sum();
        self.tally.unknown = self.tally.sent - self.tally.acknowledged - refused;
        for subscriber in 0..self.received.len() {
            for publisher in 0..self.publishers.len() {
                let (received, sent) = (
                    self.received[subscriber][publisher],
                    self.publishers[publisher].sent,
                );
                for _ in received..sent {
                    let evidence = format!(
                        "subscriber {subscriber} received {received} of {sent} events of publisher {publisher}"
                    );
                    self.add_violation(ViolationKind::Lost, evidence);
                }
            }
        }
        self.tally
    }

    fn add_violation(&mut self, kind: ViolationKind, evidence: String) {
        self.tally
            .add_violation(kind, format_args!("{}: {evidence}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Violations;

    #[test]
    fn complete_delivery_has_no_violations() {
        let mut checker = PassingChecker::new("c", 2, 2);
        for publisher in [0, 1, 0, 1, 0] {
            let value = checker.sending(publisher);
            checker.acknowledged();
            (0..2)
                .for_each(|subscriber| checker.event_received(subscriber, Some(publisher), value));
        }
        let tally = checker.finish();
        assert_eq!(
            (tally.sent, tally.delivered, tally.unknown, tally.violations),
            (5, 10, 0, Violations::default())
        );
    }

    #[test]
    fn lost_event_is_found_at_the_next_event_and_at_the_end() {
        let mut checker = PassingChecker::new("c", 1, 1);
        checker.sending(0);
        let value = checker.sending(0);
        checker.event_received(0, Some(0), value);
        let tally = checker.finish();
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
    fn duplicate_and_foreign_events_are_found() {
        let mut checker = PassingChecker::new("c", 1, 1);
        let value = checker.sending(0);
        checker.event_received(0, Some(0), value);
        checker.event_received(0, Some(0), value);
        checker.event_received(0, None, value);
        assert_eq!(
            checker.finish().violations,
            Violations {
                doubled: 1,
                foreign: 1,
                ..Violations::default()
            }
        );
    }

    #[test]
    fn refused_event_is_not_expected() {
        let mut checker = PassingChecker::new("c", 1, 1);
        assert!(checker.sending(0));
        checker.refused(0);
        assert!(checker.sending(0));
        checker.acknowledged();
        checker.event_received(0, Some(0), true);
        let tally = checker.finish();
        assert_eq!(
            (tally.unknown, tally.violations),
            (0, Violations::default())
        );
    }
}
